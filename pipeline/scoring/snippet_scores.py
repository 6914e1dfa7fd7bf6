"""From features to snippet scores: the only module that scores features with a model.

`frame_scores.py` goes on from here to frames. Scoring, evaluation, ablations and the selection of
an epoch all take this path.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extractors.features import Features
from models.interface import AnomalyModel, BagBatch, Output
from pipeline.extraction.feature_file import FeatureFileError


def snippet_scores(
    model: AnomalyModel,
    features: Features,
    *,
    device: torch.device,
    context: Mapping[str, NDArray[np.float32]] | None = None,
) -> NDArray[np.float32]:
    """Score one video's whole sequence of snippets.

    Args:
        model: In evaluation mode, on `device`.
        features: One video's.
        device: Where the model is.
        context: As in `crop_outputs`.

    Returns:
        (n_snippets,) in [0, 1].
    """
    outputs = crop_outputs(model, features, device=device, context=context)
    return mean_over_crops([output.scores for output in outputs])


@torch.inference_mode()
def crop_outputs(
    model: AnomalyModel,
    features: Features,
    *,
    device: torch.device,
    context: Mapping[str, NDArray[np.float32]] | None = None,
) -> list[Output]:
    """Apply a model to each crop of a video, one at a time: all at once might not fit.

    Args:
        model: In evaluation mode, on `device`.
        features: One video's.
        device: Where the model is.
        context: For a model that takes another context: what its context path reads instead, each
            stream (n_snippets, K, D).

    Returns:
        For each crop the model's output for one bag of n_snippets snippets, on `device`.
    """
    mask = torch.ones(1, features.n_snippets, dtype=torch.bool, device=device)
    outputs = []
    for crop in range(features.n_crops):
        bag = _bag_of_crop(features.streams, crop, device)
        if context is None:
            outputs.append(model(bag, mask))
        else:
            outputs.append(model(bag, mask, context=_bag_of_crop(context, crop, device)))
    return outputs


@torch.inference_mode()
def batch_scores(model: AnomalyModel, batch: BagBatch) -> Tensor:
    """Score bags that have been brought to one length.

    Args:
        model: In evaluation mode.
        batch: On the model's device.

    Returns:
        (B, T) float32 in [0, 1], 0 at padding.
    """
    scores: Tensor = model(batch.features, batch.mask).scores.float() * batch.mask
    return scores


def mean_over_crops(per_crop: Sequence[Tensor]) -> NDArray[np.float32]:
    """Average scores over a video's crops, in score space as the field does.

    Args:
        per_crop: For each crop (1, n_snippets) in [0, 1].

    Returns:
        (n_snippets,) in [0, 1].
    """
    total = np.zeros(per_crop[0].shape[1], dtype=np.float64)
    for scores in per_crop:
        total += scores[0].double().cpu().numpy()
    return np.clip(total / len(per_crop), 0, 1).astype(np.float32)


def check_streams(model: AnomalyModel, features: Features, source: Path) -> None:
    """Refuse features whose streams are not those that a model was built for.

    Args:
        model: Any.
        features: One video's.
        source: Where they are from, for the message.

    Raises:
        FeatureFileError: If names, widths or order differ.
    """
    found = tuple((name, values.shape[2]) for name, values in features.streams.items())
    if found != model.config.stream_dims:
        raise FeatureFileError(
            f"{source}: the model needs streams {_describe(model.config.stream_dims)}, "
            f"instead got {_describe(found)}; extract with the run's options, or name another run"
        )


def _describe(stream_dims: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{name} ({dim}-d)" for name, dim in stream_dims)


def _bag_of_crop(
    streams: Mapping[str, NDArray[np.float32]], crop: int, device: torch.device
) -> Tensor:
    """(1, n_snippets, D) the streams side by side, in their order."""
    side_by_side = np.concatenate([values[:, crop] for values in streams.values()], axis=1)
    return torch.from_numpy(side_by_side).to(device)[None]
