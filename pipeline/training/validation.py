"""The split of training videos into those to learn from and held-out ones to select by.

Test videos are never among them.
"""

from pathlib import Path

import numpy as np
import torch

from models.interface import AnomalyModel
from pipeline.config import TrainConfig
from pipeline.datasets.catalog import Dataset, DatasetError
from pipeline.evaluation.metrics import ranking_auc
from pipeline.scoring.snippet_scores import batch_scores
from pipeline.training.bag_loading import load_bags
from pipeline.training.batches import BagSet

# One for all seeds of a run: they are compared, and learn from the same videos.
HELD_OUT_SEED = 0
VIDEOS_PER_BATCH = 64


def training_bags(
    dataset: Dataset, features_folder: Path, config: TrainConfig
) -> tuple[BagSet, BagSet | None]:
    """Read what a training run needs: the videos it learns from, and those it is selected by.

    Args:
        dataset: Its `train` split is learned from; its `val` split selects, where there is one.
        features_folder: Holds `<dataset>/<video_id>.h5`.
        config: The settings.

    Returns:
        The second is None with a fixed budget of steps.

    Raises:
        DatasetError: If there are not both normal and anomalous videos in each.
        FeatureFileError: As `load_bags`.
    """
    bags = load_bags(dataset, features_folder, sampler=config.sampler, bag_len=config.bag_len)
    if config.selection == "budget":
        return bags, None
    if dataset.split("val"):
        held_out = load_bags(
            dataset, features_folder, sampler=config.sampler, bag_len=config.bag_len, split="val"
        )
        return bags, held_out
    return hold_out(bags, config.held_out_fraction)


def hold_out(bags: BagSet, fraction: float) -> tuple[BagSet, BagSet]:
    """Split training videos in two at random, with a fixed seed.

    Args:
        bags: All training videos.
        fraction: Of the normal and of the anomalous videos; at least one of each is held out.

    Returns:
        Those to learn from, and those held out.

    Raises:
        DatasetError: If a class has fewer than two videos.
    """
    is_held_out = np.zeros(len(bags.video_ids), dtype=bool)
    for label in (0, 1):
        of_class = np.flatnonzero(bags.labels.numpy() == label)
        if len(of_class) < 2:
            raise DatasetError(
                "selection=held_out needs two normal and two anomalous training videos, "
                f"instead got {len(of_class)} with label {label}; use selection=budget"
            )
        order = np.random.default_rng((HELD_OUT_SEED, label)).permutation(of_class)
        is_held_out[order[: max(1, round(fraction * len(of_class)))]] = True
    return bags.subset(np.flatnonzero(~is_held_out)), bags.subset(np.flatnonzero(is_held_out))


def video_auc(model: AnomalyModel, bags: BagSet, device: torch.device) -> float:
    """How well a model ranks whole videos: the AUC of their labels, for frames have none here.

    A video's score is that of its most anomalous snippet, averaged over crops.

    Args:
        model: In evaluation mode, on `device`.
        bags: Normal and anomalous videos.
        device: Where the model is.
    """
    scores = []
    for start in range(0, len(bags.video_ids), VIDEOS_PER_BATCH):
        videos = np.arange(start, min(start + VIDEOS_PER_BATCH, len(bags.video_ids)))
        of_crops = []
        n_crops = int(bags.n_crops[videos].max())
        for crop in range(n_crops):
            batch = bags.batch(videos, np.full(len(videos), (crop + 0.5) / n_crops)).to(device)
            of_crops.append(batch_scores(model, batch))
        scores.append(torch.stack(of_crops).mean(dim=0).amax(dim=1))
    return ranking_auc(torch.cat(scores).double().cpu().numpy(), bags.labels.numpy() == 1)
