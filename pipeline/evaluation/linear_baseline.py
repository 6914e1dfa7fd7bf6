"""A linear MIL scorer: the learned baseline that a model has to beat on the same features.

The fit of `models.linear_mil` on features standardized over the training snippets; the scores of
its seeds are averaged. It reads no test video.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extractors.features import Features
from models.interface import stream_columns
from models.layers import Standardize
from models.linear_mil import fit_linear_mil
from pipeline.datasets.catalog import Dataset, DatasetError
from pipeline.evaluation.baselines import ControlError
from pipeline.extraction.available_features import entries_with_features
from pipeline.extraction.feature_file import (
    FeatureFileError,
    Provenance,
    feature_path,
    read_features,
)
from pipeline.runs.compatibility import compare_with_run

MAX_SNIPPETS = 64  # per training bag; a longer bag is sampled at even distances

StreamDims = Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True, eq=False)
class LabeledBag:
    """Snippets of one training video.

    Attributes:
        features: (n_snippets, D), the streams side by side.
        label: 0 for a normal video, 1 for an anomalous one.
    """

    features: NDArray[np.float32]
    label: int


@dataclass(frozen=True, slots=True, eq=False)
class LinearScorer:
    """A fitted scorer of some columns of the features.

    Attributes:
        columns: Which columns of D it reads.
        norm: Standardization of these columns.
        weights: (N_SEEDS, n_columns), one row per seed.
        biases: (N_SEEDS,).
    """

    columns: slice
    norm: Standardize
    weights: Tensor
    biases: Tensor

    @torch.no_grad()
    def score(self, features: Features) -> NDArray[np.float32]:
        """(n_snippets,) scores in [0, 1] of one video, the mean over crops and seeds."""
        side_by_side = np.concatenate(list(features.streams.values()), axis=2)
        standard = self.norm(torch.from_numpy(side_by_side[:, :, self.columns]).float())
        logits = standard @ self.weights.T + self.biases  # (n_snippets, K, N_SEEDS)
        scores: NDArray[np.float32] = logits.sigmoid().mean(dim=(1, 2)).numpy()
        return scores


def fit_linear_scorers(
    bags: Sequence[LabeledBag], stream_dims: StreamDims
) -> dict[str, LinearScorer]:
    """Fit a scorer on each stream and, where there are several, one on all of them side by side.

    Args:
        bags: Of the training videos, normal and anomalous ones.
        stream_dims: Name and width of each stream, in the order in which they lie in D.

    Returns:
        By the names of `scored_columns`.
    """
    block, mask = _padded(bags)
    labels = torch.tensor([bag.label for bag in bags])
    return {
        name: _fit(block, mask, labels, chosen)
        for name, chosen in scored_columns(stream_dims).items()
    }


def scored_columns(stream_dims: StreamDims) -> dict[str, slice]:
    """Which columns of D each linear scorer reads, by name: those of each stream, then all.

    >>> scored_columns([("rgb", 4), ("flow", 2)])["linear MIL, flow"]
    slice(4, 6, None)
    """
    of_streams = stream_columns(stream_dims)
    columns = {f"linear MIL, {name}": of_stream for name, of_stream in of_streams.items()}
    if len(of_streams) > 1:
        together = slice(0, sum(dim for _, dim in stream_dims))
        columns[f"linear MIL, {' + '.join(of_streams)}"] = together
    return columns


def _padded(bags: Sequence[LabeledBag]) -> tuple[Tensor, Tensor]:
    """(n_bags, T, D) float16, zero beyond a bag's end, and (n_bags, T) bool."""
    chosen = [_evenly(bag.features) for bag in bags]
    longest = max(map(len, chosen))
    block = torch.zeros(len(bags), longest, chosen[0].shape[1], dtype=torch.float16)
    mask = torch.zeros(len(bags), longest, dtype=torch.bool)
    for index, features in enumerate(chosen):
        block[index, : len(features)] = torch.from_numpy(features)
        mask[index, : len(features)] = True
    return block, mask


def _evenly(features: NDArray[np.float32]) -> NDArray[np.float32]:
    n = min(len(features), MAX_SNIPPETS)
    return features[np.arange(n) * len(features) // n]


def _fit(block: Tensor, mask: Tensor, labels: Tensor, columns: slice) -> LinearScorer:
    chosen = block[:, :, columns]
    norm = Standardize(columns.stop - columns.start)
    norm.fit(chosen[mask].float())
    weights, biases = fit_linear_mil(chosen, mask, labels, norm)
    return LinearScorer(columns, norm, weights, biases)


def load_labeled_bags(
    dataset: Dataset, features_folder: Path, provenance: Provenance
) -> list[LabeledBag]:
    """Read the training split's features: of each video its first crop, which is the center.

    Args:
        dataset: What a model was trained on.
        features_folder: Holds `<dataset>/<video_id>.h5`.
        provenance: How the model's features were made.

    Raises:
        ControlError: If features are missing, damaged or extracted with different settings, or all
            videos are of one class.
    """
    bags = []
    try:
        for entry in entries_with_features(dataset, "train", features_folder):
            path = feature_path(features_folder / dataset.name, entry.video_id)
            stored = read_features(path, video_id=entry.video_id)
            differences, _ = compare_with_run(provenance, stored.provenance)
            if differences:
                raise ControlError(f"{path}: differs from the run in {'; '.join(differences)}")
            streams = [values[:, 0] for values in stored.features.streams.values()]
            # No more than is used: all snippets of a large dataset would not fit into memory.
            bags.append(LabeledBag(_evenly(np.concatenate(streams, axis=1)), entry.label))
    except (DatasetError, FeatureFileError) as error:
        raise ControlError(str(error)) from error
    if len({bag.label for bag in bags}) < 2:
        raise ControlError(f"{dataset.name}: has not both normal and anomalous training videos")
    return bags
