"""Datasets: videos with their split, label and anomalous frames. `registry.py` lists them."""

from pipeline.datasets.registry import DATASETS, load_dataset

__all__ = ["DATASETS", "load_dataset"]
