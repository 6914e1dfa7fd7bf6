"""Bags of snippets for training: read, brought to a fixed length, drawn in balanced batches.

A video's crops are bags of their own, drawn at random: models never see crops. Both samplers are
fixed functions of a bag, so they run once, while the files are read, and only their results stay
in memory: a fraction of the features where videos are long.

A draw depends on the seed and its place in the sequence of all draws alone, never on a generator
that would have to be carried along. So a training that was stopped goes on as if it had not been.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from models.interface import BagBatch
from pipeline.datasets import DATASETS
from pipeline.datasets.catalog import Dataset, DatasetError, Split, VideoEntry
from pipeline.feature_file import (
    Contract,
    FeatureFileError,
    StoredFeatures,
    contract_differences,
    feature_path,
    read_features,
)
from pipeline.samplers import SAMPLERS, Sampler, SnippetSample

StreamDims = tuple[tuple[str, int], ...]

N_SAMPLE_SNIPPETS = 2**15

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Bag:
    """The snippets of one crop of one video.

    Attributes:
        video_id: The video's name within its dataset.
        features: (n_snippets, D) float32, finite, the streams side by side.
        label: 0 for a normal video, 1 for an anomalous one.

    Raises:
        ValueError: If something is not as above; the text names the video.
    """

    video_id: str
    features: NDArray[np.float32]
    label: int

    def __post_init__(self) -> None:
        shape = self.features.shape
        if len(shape) != 2 or 0 in shape or self.features.dtype != np.float32:
            raise ValueError(
                f"features of {self.video_id} must be (n_snippets, D) float32, "
                f"instead got {shape} {self.features.dtype}"
            )
        if not np.isfinite(self.features).all():
            raise ValueError(
                f"features of {self.video_id} must be finite, instead got NaN or infinity"
            )
        if self.label not in (0, 1):
            raise ValueError(f"label of {self.video_id} must be 0 or 1, instead got {self.label}")


def crop_bags(stored: StoredFeatures, label: int) -> list[Bag]:
    """The bags of one video, one per crop, with the streams in the order of the file."""
    side_by_side = np.concatenate(list(stored.features.streams.values()), axis=2)  # (n, K, D)
    return [
        Bag(stored.video_id, np.ascontiguousarray(side_by_side[:, crop]), label)
        for crop in range(side_by_side.shape[1])
    ]


@dataclass(frozen=True, slots=True, eq=False)
class BagSet:
    """The training videos, ready to be drawn.

    Attributes:
        video_ids: One per video.
        labels: (n_videos,) int64, 0 normal, 1 anomalous.
        crops: Per video the bags of its crops, each (1 to bag_len, D) float32.
        bag_len: T, the most snippets of a bag; a batch is padded to its longest.
        sampler: How the bags came to their length.
        stream_dims: Name and width of each stream, in the order in which they lie in D.
        contract: How the features were made.
        snippets: (n, D) real snippets, evenly taken from all bags as they were before sampling.

    Raises:
        DatasetError: If the videos are all normal or all anomalous.
    """

    video_ids: tuple[str, ...]
    labels: Tensor
    crops: tuple[tuple[Tensor, ...], ...]
    bag_len: int
    sampler: Sampler
    stream_dims: StreamDims
    contract: Contract
    snippets: Tensor

    def __post_init__(self) -> None:
        if self.n_anomalous in (0, len(self.video_ids)):
            raise DatasetError(
                "training needs normal and anomalous videos, instead got "
                f"{len(self.video_ids) - self.n_anomalous} normal and {self.n_anomalous} anomalous"
            )

    @property
    def n_anomalous(self) -> int:
        """How many videos are anomalous."""
        return int(self.labels.sum())

    def batch(self, videos: NDArray[np.int64], crop_draws: NDArray[np.float64]) -> BagBatch:
        """Put bags together.

        Args:
            videos: (B,) indices of videos.
            crop_draws: (B,) in [0, 1): which of a video's crops, as a share of their number.
        """
        chosen = [
            self.crops[video][int(draw * len(self.crops[video]))]
            for video, draw in zip(videos, crop_draws, strict=True)
        ]
        features = pad_sequence(chosen, batch_first=True)  # (B, T, D)
        # Lengths are counted and not read off rows of zeros: a real snippet may be all zero.
        lengths = torch.tensor([len(rows) for rows in chosen])
        mask = torch.arange(features.shape[1]) < lengths[:, None]  # (T,) < (B, 1) -> (B, T)
        return BagBatch(features=features, mask=mask, labels=self.labels[torch.from_numpy(videos)])


def collect_bags(
    bags: Iterable[Bag],
    *,
    sampler: Sampler,
    bag_len: int,
    stream_dims: StreamDims,
    contract: Contract,
) -> BagSet:
    """Bring bags to their length, one at a time.

    Args:
        bags: Bags with the same video id follow each other and are crops of one video.
        sampler: `bins` or `sequence`.
        bag_len: T.
        stream_dims: Name and width of each stream, in the order in which they lie in D.
        contract: How the features were made.

    Raises:
        DatasetError: If the videos are all normal or all anomalous.
        ValueError: If a bag's width is not that of the streams.
    """
    sample = SnippetSample(N_SAMPLE_SNIPPETS)
    feature_dim = sum(dim for _, dim in stream_dims)
    video_ids, labels, crops = [], [], []
    for video_id, group in groupby(bags, key=lambda bag: bag.video_id):
        of_video = list(group)
        for bag in of_video:
            if bag.features.shape[1] != feature_dim:
                raise ValueError(
                    f"features of {video_id} must have D = {feature_dim}, "
                    f"instead got {bag.features.shape[1]}"
                )
            sample.add(bag.features)
        video_ids.append(video_id)
        labels.append(of_video[0].label)
        crops.append(
            tuple(torch.from_numpy(SAMPLERS[sampler](bag.features, bag_len)) for bag in of_video)
        )
    return BagSet(
        video_ids=tuple(video_ids),
        labels=torch.tensor(labels, dtype=torch.int64),
        crops=tuple(crops),
        bag_len=bag_len,
        sampler=sampler,
        stream_dims=stream_dims,
        contract=contract,
        snippets=sample.rows(),
    )


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
    there = tuple(e for e in entries if feature_path(folder, e.video_id).exists())
    absent = [entry.video_id for entry in entries if entry not in there]
    command = (
        f"pipeline extract {dataset.name if dataset.name in DATASETS else dataset.name + '.csv'}"
    )
    if not there:
        raise FeatureFileError(
            f"{folder}: holds no features of the {len(entries)} {split} videos of {dataset.name}; "
            f"make them with: {command}"
        )
    if absent:
        logger.warning(
            "%s: %d of %d %s videos have no features and are left out, first %s; see: %s",
            *(folder, len(absent), len(entries), split, absent[0], command),
        )
    return there


def load_bags(dataset: Dataset, features_folder: Path, *, sampler: Sampler, bag_len: int) -> BagSet:
    """Read the training split of a dataset.

    Args:
        dataset: Its `train` split is read.
        features_folder: Holds `<dataset>/<video_id>.h5`.
        sampler: `bins` (T means) or `sequence` (up to T snippets, padded).
        bag_len: T.

    Raises:
        DatasetError: If there are not both normal and anomalous videos to train on.
        FeatureFileError: If there are no features, they cannot be read, or they were not all made
            in the same way.
    """
    entries = entries_with_features(dataset, "train", features_folder)
    if len({entry.label for entry in entries}) < 2:
        n_anomalous = sum(entry.label for entry in entries)
        raise DatasetError(
            f"{dataset.name}: training needs normal and anomalous videos in the split 'train', "
            f"instead got {len(entries) - n_anomalous} normal and {n_anomalous} anomalous"
        )
    folder = features_folder / dataset.name
    paths = [feature_path(folder, entry.video_id) for entry in entries]
    first = read_features(paths[0])
    return collect_bags(
        _read_bags(entries, paths, first.contract),
        sampler=sampler,
        bag_len=bag_len,
        stream_dims=tuple((name, v.shape[2]) for name, v in first.features.streams.items()),
        contract=first.contract,
    )


def _read_bags(
    entries: Iterable[VideoEntry], paths: list[Path], contract: Contract
) -> Iterator[Bag]:
    for entry, path in zip(entries, paths, strict=True):
        stored = read_features(path)
        differences = contract_differences(contract, stored.contract)
        if differences:
            raise FeatureFileError(
                f"{path}: was made in another way than {paths[0].name} "
                f"({'; '.join(differences)}); extract all videos with the same options"
            )
        yield from crop_bags(stored, entry.label)


def draw_batches(
    bags: BagSet, *, seed: int, first_step: int, n_steps: int, bags_per_class: int
) -> Iterator[BagBatch]:
    """Balanced batches: as many normal as anomalous bags, normal ones first.

    Within a class every video is drawn once before any is drawn again, in a new order each time.

    Args:
        bags: Drawn from.
        seed: Of the run.
        first_step: The place of the first batch in the sequence of all batches of the run.
        n_steps: How many batches.
        bags_per_class: Half of a batch.
    """
    start, n_draws = first_step * bags_per_class, n_steps * bags_per_class
    drawn = [
        np.flatnonzero(bags.labels.numpy() == label)[
            _permuted(int((bags.labels == label).sum()), (seed, label), start, n_draws)
        ].reshape(n_steps, bags_per_class)
        for label in (0, 1)
    ]
    videos = np.concatenate(drawn, axis=1)  # (n_steps, 2 bags_per_class)
    for step, row in enumerate(videos, start=first_step):
        crop_draws = np.random.default_rng((seed, 2, step)).random(len(row))
        yield bags.batch(row, crop_draws)


def _permuted(n: int, key: tuple[int, int], start: int, n_draws: int) -> NDArray[np.int64]:
    """A slice of the endless sequence of permutations of n that the key names."""
    rounds = range(start // n, (start + n_draws - 1) // n + 1)
    sequence = np.concatenate([np.random.default_rng((*key, i)).permutation(n) for i in rounds])
    return sequence[start - rounds.start * n :][:n_draws]
