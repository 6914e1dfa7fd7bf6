"""How far a video's features lie from those that a run was trained on, and from where on it is far.

The distance of a snippet is the mean over its features of |x - mean| / std, each at most
`MAX_DEVIATIONS`, where mean and std are those of the training snippets. The distance of a video is
the mean over its snippets and crops. Training stores the limit in `training.json`: the distance
that 1 % of the training snippets exceed. A whole video whose mean is beyond it is unlike them.

A video within the limit need not be like the training videos: each feature is looked at by itself.
"""

import json
import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.layers import Standardize
from pipeline.printable import describe_error
from pipeline.runs.checkpoints import CheckpointError
from pipeline.runs.run_folder import Run

MAX_DEVIATIONS = 5.0  # a feature that hardly varied in training must not decide alone
LIMIT_QUANTILE = 0.99
LIMIT_KEY = "max_feature_distance"
CHUNK_LEN = 4096


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
    n_snippets = len(next(iter(streams.values())))
    total = 0.0
    for index in range(n_snippets):
        total += snippet_distance(norm, {name: values[index] for name, values in streams.items()})
    return total / n_snippets


def distance_limit(norm: Standardize, snippets: Tensor) -> float:
    """The distance that 1 % of the training snippets exceed.

    Args:
        norm: Fitted to the training snippets.
        snippets: (n, D) training snippets, all or a fair sample.
    """
    starts = range(0, len(snippets), CHUNK_LEN)
    parts = [_distances(norm, snippets[start : start + CHUNK_LEN]) for start in starts]
    return float(np.quantile(torch.cat(parts).numpy(), LIMIT_QUANTILE))


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
        limit = json.loads(run.training_path.read_text(encoding="utf-8")).get(LIMIT_KEY)
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
        limits: Of the training and of the calibration; None where there is none.
    """
    known = [limit for limit in limits if limit is not None]
    if distance is None or not known or distance <= max(known):
        return ""
    return (
        "its features are unlike those that the run was trained and calibrated on "
        f"(distance {distance:.2f}, limit {max(known):.2f}): its scores may mean nothing"
    )
