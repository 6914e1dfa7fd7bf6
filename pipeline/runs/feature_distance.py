"""How far a video's features lie from those that a run was trained on, and from where on it is far.

The distance of a snippet is the mean over its features of |x - mean| / std, each at most
`MAX_DEVIATIONS`, where mean and std are those of the training snippets. The distance of a video is
the mean over its snippets and crops. Training stores the limit in `training.json`: the distance
that 1 % of further videos like the training videos would exceed. The distances of videos vary much
less than those of snippets do.

For the limit each training video is compared with the others alone, as a video that is scored is
compared with videos that it is not one of. Their distances are taken as normally distributed, so
that few videos are enough for a limit; the fewer they are the higher it is.

A calibration extends the limit to the farthest of its videos, which the user knows to be normal:
the threshold holds for videos like them. `calibrate` says which of them are beyond the limit of the
training. A video within the limit need not be like the training videos: each feature is looked at
by itself.
"""

import json
import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t
from torch import Tensor

from models.layers import Standardize
from pipeline.printable import describe_error
from pipeline.runs.checkpoints import CheckpointError
from pipeline.runs.run_folder import Run

MAX_DEVIATIONS = 5.0  # a feature that hardly varied in training must not decide alone
LIMIT_QUANTILE = 0.99
N_FOLDS = 10
LIMIT_KEY = "max_video_distance"
# In runs from before it: the distance that 1 % of the training snippets exceed, which is farther.
OLD_LIMIT_KEY = "max_feature_distance"


def snippet_distance(norm: Standardize, snippet: Mapping[str, NDArray[np.float32]]) -> float:
    """The distance of one snippet from the training snippets, the mean over its crops.

    Args:
        norm: The model's, on any device.
        snippet: By stream (K, D of the stream), in the model's order.
    """
    side_by_side = np.concatenate(list(snippet.values()), axis=1)
    return float(_distances(norm, torch.from_numpy(side_by_side)).mean())


def video_distance(norm: Standardize, streams: Mapping[str, NDArray[np.float32]]) -> float:
    """The distance of a video from the training snippets: the mean over its snippets and crops.

    Args:
        norm: The model's, on any device.
        streams: By stream (n_snippets, K, D of the stream), in the model's order; at least one
            snippet.
    """
    side_by_side = torch.from_numpy(np.concatenate(list(streams.values()), axis=2))
    return float(_distances(norm, side_by_side.flatten(0, 1)).mean(dtype=torch.float64))


def distance_limit(snippets: Tensor, videos: NDArray[np.int64]) -> float:
    """The distance that 1 % of further videos like the training videos would exceed.

    Args:
        snippets: (n, D) training snippets, all or a fair sample. The mean of few snippets varies
            more, which makes the limit a little higher.
        videos: (n,) which video each is of; at least two.

    Returns:
        At most `MAX_DEVIATIONS`, which no video exceeds: two videos say nothing of a third.

    Raises:
        ValueError: If there are less than two videos.
    """
    numbers = np.unique(videos)
    if len(numbers) < 2:
        raise ValueError(f"videos must be at least 2, instead got {len(numbers)}")
    distances = np.concatenate(
        [
            _video_distances(snippets, videos, numbers[fold::N_FOLDS])
            for fold in range(min(N_FOLDS, len(numbers)))
        ]
    )
    n = len(distances)
    # One more value of a normal distribution of which n values are known.
    deviations = float(t.ppf(LIMIT_QUANTILE, n - 1)) * math.sqrt(1 + 1 / n)
    limit = float(distances.mean() + deviations * distances.std(ddof=1))
    return min(limit, MAX_DEVIATIONS)


def _video_distances(
    snippets: Tensor, videos: NDArray[np.int64], chosen: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(n_chosen,) the mean distance of each chosen video from all others."""
    is_chosen = np.isin(videos, chosen)
    norm = Standardize(snippets.shape[1])
    norm.fit(snippets[torch.from_numpy(~is_chosen)])
    each = _distances(norm, snippets[torch.from_numpy(is_chosen)]).numpy()
    return np.array([each[videos[is_chosen] == video].mean(dtype=np.float64) for video in chosen])


def _distances(norm: Standardize, features: Tensor) -> Tensor:
    """(n,) the distances of features (n, D), on the CPU."""
    mean, std = norm.mean.cpu(), norm.std.cpu()
    deviations = ((features.float() - mean) / std).abs()
    return deviations.clamp(max=MAX_DEVIATIONS).mean(dim=1)


def read_distance_limit(run: Run) -> float | None:
    """The limit that training stored; None for a run that has none.

    Raises:
        CheckpointError: If the file cannot be understood.
    """
    if not run.training_path.is_file():
        return None
    try:
        values = json.loads(run.training_path.read_text(encoding="utf-8"))
        limit = values.get(LIMIT_KEY, values.get(OLD_LIMIT_KEY))
        if limit is not None and not (isinstance(limit, int | float) and math.isfinite(limit)):
            raise ValueError(f"{LIMIT_KEY} must be a number, instead got {limit!r:.40}")
    except (ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{run.training_path}: is damaged ({describe_error(error)}); remove it"
        ) from error
    return limit


def describe_distance(distance: float | None, limits: Iterable[float | None]) -> str:
    """That a video's features are far from all that the run knows; "" where they are not.

    Args:
        distance: Of the video; None if it is not known.
        limits: Of the training, then of the calibration; None where there is none.
    """
    kinds = ("trained", "calibrated")
    known = {kind: limit for kind, limit in zip(kinds, limits, strict=False) if limit is not None}
    if distance is None or not known or distance <= max(known.values()):
        return ""
    return (
        f"its features are unlike those that the run was {' and '.join(known)} on "
        f"(distance {distance:.2f}, limit {max(known.values()):.2f}): its scores may mean nothing"
    )
