"""From features to snippet scores: the only module that scores features with a model.

`frame_scores.py` goes on from here to frames. Scoring, evaluation, ablations and the selection of
an epoch all take this path.

A video of more than `MAX_WINDOW_LEN` snippets is scored in windows that overlap by half: the models
relate snippets to all others of their sequence, which for a whole day needs more memory than there
is. Where two windows overlap, their scores are blended linearly in the middle half of the overlap,
so that a model of limited context has the scores of the whole video.

Windows change the scores of the models with attention, the less the longer the windows are. No
overlap can undo that, for attention reaches all snippets of a sequence. In LA-Net a snippet's place
adds at most 1 to an attention logit, so the farthest snippet has at least 1 / e of the weight of an
equal one nearby, and a window averages over other snippets than the video. Measured on 6144 random
snippets with untrained models, the largest difference to scoring the whole video was, with windows
of 4096 (512): LA-Net 1.2e-3 (6.2e-3), CLAV-CoMo 2.6e-4 (2.0e-3), CBCG 3e-8 (3e-8). Up to
`MAX_WINDOW_LEN` snippets there is no difference.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extractors.errors import LookaroundError
from extractors.features import Features
from models.interface import AnomalyModel, BagBatch, Output
from pipeline.extraction.feature_file import FeatureFileError

Streams = Mapping[str, NDArray[np.float32]]  # by stream (n_snippets, K, D)

# Snippets that a model is given at once: an hour and a half of video at 25 frames per second.
MAX_WINDOW_LEN = 8192


class ScoreValueError(LookaroundError, ValueError):
    """A model gives scores that are not numbers."""


def snippet_scores(
    model: AnomalyModel,
    features: Features,
    *,
    device: torch.device,
    context: Streams | None = None,
    max_window_len: int = MAX_WINDOW_LEN,
) -> NDArray[np.float32]:
    """Score one video's snippets; in windows if there are more than `max_window_len`.

    Args:
        model: In evaluation mode, on `device`.
        features: One video's.
        device: Where the model is.
        context: As in `crop_outputs`.
        max_window_len: Snippets that are scored at once; even.

    Returns:
        (n_snippets,) in [0, 1].
    """
    blender = WindowBlender(max_window_len)
    for start, stop in windows(features.n_snippets, max_window_len):
        outputs = _outputs(
            model,
            _part(features.streams, start, stop),
            device,
            None if context is None else _part(context, start, stop),
        )
        blender.add(mean_over_crops([output.scores for output in outputs]))
    return blender.scores()


def snippet_scores_without(
    model: AnomalyModel,
    features: Features,
    *,
    device: torch.device,
    max_window_len: int = MAX_WINDOW_LEN,
) -> dict[str, NDArray[np.float32]]:
    """Score one video's snippets without each part of a model that says what parts it has.

    Args:
        model: In evaluation mode, on `device`.
        features: One video's.
        device: Where the model is.
        max_window_len: As in `snippet_scores`.

    Returns:
        By the name of the part (n_snippets,) in [0, 1]; empty where the model has none.
    """
    blenders: dict[str, WindowBlender] = {}
    for start, stop in windows(features.n_snippets, max_window_len):
        for name, scores in _scores_without(
            model, _part(features.streams, start, stop), device
        ).items():
            blenders.setdefault(name, WindowBlender(max_window_len)).add(scores)
    return {name: blender.scores() for name, blender in blenders.items()}


def windows(n_snippets: int, max_window_len: int) -> list[tuple[int, int]]:
    """Where the windows of a video begin and end: each begins half a window after the one before.

    >>> windows(10, 4), windows(3, 4)
    ([(0, 4), (2, 6), (4, 8), (6, 10)], [(0, 3)])
    """
    if max_window_len < 2 or max_window_len % 2:
        raise ValueError(f"max_window_len must be even, instead got {max_window_len}")
    hop = max_window_len // 2
    last = max(0, -(-(n_snippets - max_window_len) // hop))
    return [(i * hop, min(i * hop + max_window_len, n_snippets)) for i in range(last + 1)]


class WindowBlender:
    """Puts the scores of overlapping windows together.

    Args:
        max_window_len: As in `windows`: a window begins half of it after the one before.
    """

    def __init__(self, max_window_len: int) -> None:
        self._hop = max_window_len // 2
        self._parts: list[NDArray[np.float32]] = []  # the last one is to be blended

    def add(self, scores: NDArray[np.float32]) -> None:
        """Take the scores (n,) of the next window, which has more than `hop` snippets."""
        if self._parts:
            before = self._parts[-1]
            # Neither window counts in the quarter next to its end, where it lacks surroundings.
            place = (np.arange(self._hop) + 0.5) / self._hop
            weights = np.clip(2 * place - 0.5, 0, 1).astype(np.float32)
            self._parts[-1] = (1 - weights) * before + weights * scores[: self._hop]
            self._parts.append(scores[self._hop :])
        else:
            self._parts += [scores[: self._hop], scores[self._hop :]]

    def scores(self) -> NDArray[np.float32]:
        """(n_snippets,) the scores of the whole video, after its last window."""
        return np.clip(np.concatenate(self._parts), 0, 1)


class StreamScorer:
    """Scores a sequence of snippets as they come, holding the features of one window only.

    The scores are those of `snippet_scores` for the same features.

    Args:
        model: In evaluation mode, on `device`.
        device: Where the model is.
        max_window_len: Snippets that are scored at once; even.
        explain: Also score without each part of the model, for two or three times its computing
            time.
    """

    def __init__(
        self,
        model: AnomalyModel,
        device: torch.device,
        max_window_len: int = MAX_WINDOW_LEN,
        *,
        explain: bool = False,
    ) -> None:
        self._model, self._device, self._max_window_len = model, device, max_window_len
        self._explain = explain
        self._blender = WindowBlender(max_window_len)
        self._without: dict[str, WindowBlender] = {}
        self._window: list[Mapping[str, NDArray[np.float32]]] = []
        self._n_dropped = 0  # snippets before the window

    def add(self, snippet: Mapping[str, NDArray[np.float32]]) -> None:
        """Take the features of the next snippet, by stream (K, D)."""
        # Not before one more snippet comes: the last window must reach the end of the video. One
        # more still, because the tail policy may drop the last snippet.
        if len(self._window) == self._max_window_len + 1:
            self._add_window(self._window[: self._max_window_len])
            hop = self._max_window_len // 2
            del self._window[:hop]
            self._n_dropped += hop
        self._window.append(snippet)

    def finish(self, n_snippets: int) -> NDArray[np.float32]:
        """(n_snippets,) the scores of the snippets up to a number of them, at most one fewer."""
        del self._window[n_snippets - self._n_dropped :]
        if len(self._window) > self._max_window_len:
            self._add_window(self._window[: self._max_window_len])
            del self._window[: self._max_window_len // 2]
        self._add_window(self._window)
        return self._blender.scores()

    def without(self) -> dict[str, NDArray[np.float32]]:
        """After `finish`: by part of the model (n_snippets,) the scores without it."""
        return {name: blender.scores() for name, blender in self._without.items()}

    def _add_window(self, window: Sequence[Mapping[str, NDArray[np.float32]]]) -> None:
        self._blender.add(window_scores(self._model, window, self._device))
        if self._explain:
            without = _scores_without(self._model, _stacked(window), self._device)
            for name, scores in without.items():
                self._without.setdefault(name, WindowBlender(self._max_window_len)).add(scores)


def window_scores(
    model: AnomalyModel, window: Sequence[Mapping[str, NDArray[np.float32]]], device: torch.device
) -> NDArray[np.float32]:
    """Score snippets that follow each other, at once.

    Args:
        model: In evaluation mode, on `device`.
        window: The features of each snippet, by stream (K, D); at least one.
        device: Where the model is.

    Returns:
        (n_snippets,) in [0, 1].
    """
    outputs = _outputs(model, _stacked(window), device, None)
    return mean_over_crops([output.scores for output in outputs])


def _stacked(window: Sequence[Mapping[str, NDArray[np.float32]]]) -> Streams:
    return {name: np.stack([snippet[name] for snippet in window]) for name in window[0]}


def crop_outputs(
    model: AnomalyModel,
    features: Features,
    *,
    device: torch.device,
    context: Streams | None = None,
) -> list[Output]:
    """Apply a model to each crop of a video, one at a time: all at once might not fit.

    Args:
        model: In evaluation mode, on `device`.
        features: One video's.
        device: Where the model is.
        context: For a model that accepts another context: what its context path reads instead,
            each stream (n_snippets, K, D).

    Returns:
        For each crop the model's output for one bag of n_snippets snippets, on `device`.
    """
    return _outputs(model, features.streams, device, context)


@torch.inference_mode()
def _outputs(
    model: AnomalyModel, streams: Streams, device: torch.device, context: Streams | None
) -> list[Output]:
    n_snippets, n_crops = next(iter(streams.values())).shape[:2]
    mask = torch.ones(1, n_snippets, dtype=torch.bool, device=device)
    outputs = []
    for crop in range(n_crops):
        bag = _bag_of_crop(streams, crop, device)
        if context is None:
            outputs.append(model(bag, mask))
        else:
            outputs.append(model(bag, mask, context=_bag_of_crop(context, crop, device)))
    return outputs


@torch.inference_mode()
def _scores_without(
    model: AnomalyModel, streams: Streams, device: torch.device
) -> dict[str, NDArray[np.float32]]:
    """By part of the model (n_snippets,) the mean scores over crops without it."""
    n_snippets, n_crops = next(iter(streams.values())).shape[:2]
    mask = torch.ones(1, n_snippets, dtype=torch.bool, device=device)
    per_crop = [
        model.scores_without(_bag_of_crop(streams, crop, device), mask) for crop in range(n_crops)
    ]
    return {name: mean_over_crops([crop[name] for crop in per_crop]) for name in per_crop[0]}


@torch.inference_mode()
def batch_scores(model: AnomalyModel, batch: BagBatch) -> Tensor:
    """Score bags that have been padded or sampled to one length.

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

    Raises:
        ScoreValueError: If a score is not a number.
    """
    total = np.zeros(per_crop[0].shape[1], dtype=np.float64)
    for scores in per_crop:
        total += scores[0].double().cpu().numpy()
    if np.isnan(total).any():
        raise ScoreValueError(
            "the model gives scores that are not numbers: its weights are damaged or too large; "
            "train again, or score with another run"
        )
    return np.clip(total / len(per_crop), 0, 1).astype(np.float32)


def check_streams(
    model: AnomalyModel, stream_dims: Sequence[tuple[str, int]], source: Path
) -> None:
    """Refuse features whose streams are not those that a model was built for.

    Args:
        model: Any.
        stream_dims: Name and width of each stream, in their order.
        source: Where the features are from, for the message.

    Raises:
        FeatureFileError: If names, widths or order differ.
    """
    if tuple(stream_dims) != model.config.stream_dims:
        raise FeatureFileError(
            f"{source}: the model needs streams {_describe(model.config.stream_dims)}, "
            f"instead got {_describe(stream_dims)}; extract with the run's options, "
            "or name another run"
        )


def stream_dims_of(features: Features) -> tuple[tuple[str, int], ...]:
    """Name and width of each stream of features, in their order."""
    return tuple((name, values.shape[2]) for name, values in features.streams.items())


def _describe(stream_dims: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{name} ({dim}-d)" for name, dim in stream_dims)


def _part(streams: Streams, start: int, stop: int) -> Streams:
    return {name: values[start:stop] for name, values in streams.items()}


def _bag_of_crop(streams: Streams, crop: int, device: torch.device) -> Tensor:
    """(1, n_snippets, D) the streams side by side, in their order."""
    side_by_side = np.concatenate([values[:, crop] for values in streams.values()], axis=1)
    return torch.from_numpy(side_by_side).to(device)[None]
