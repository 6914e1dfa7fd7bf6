"""Which videos of a split have features."""

import logging
from pathlib import Path

from pipeline.datasets import DATASETS
from pipeline.datasets.catalog import Dataset, DatasetError, Split, VideoEntry
from pipeline.extraction.feature_paths import FeatureFileError, feature_path
from pipeline.printable import printable

logger = logging.getLogger(__name__)


def count_with_features(dataset: Dataset, split: Split, features_folder: Path) -> int:
    """How many videos of a split have features."""
    folder = features_folder / dataset.name
    return sum(feature_path(folder, each.video_id).exists() for each in dataset.split(split))


def entries_with_features(
    dataset: Dataset, split: Split, features_folder: Path
) -> tuple[VideoEntry, ...]:
    """The videos of a split that have features; a warning in the log counts the others.

    Published datasets have videos that cannot be read: one of them must not stop the rest, nor go
    unnoticed.

    Raises:
        DatasetError: If the dataset has no video in the split.
        FeatureFileError: If none of its videos has features.
    """
    folder = features_folder / dataset.name
    entries = dataset.split(split)
    if not entries:
        raise DatasetError(f"{dataset.name}: has no videos in the split '{split}'")
    there: list[VideoEntry] = []
    absent: list[str] = []
    for entry in entries:
        if feature_path(folder, entry.video_id).exists():
            there.append(entry)
        else:
            absent.append(entry.video_id)
    command = (
        f"pipeline extract {dataset.name if dataset.name in DATASETS else dataset.name + '.csv'}"
    )
    if not there:
        raise FeatureFileError(
            f"{folder}: holds no features of the {len(entries)} {split} videos of {dataset.name}; "
            f"name another folder with --features, or make them with: {command}"
        )
    if absent:
        logger.warning(
            "%s: %d of %d %s videos have no features and are left out, first %s; see: %s",
            *(folder, len(absent), len(entries), split, printable(absent[0]), command),
        )
    return tuple(there)
