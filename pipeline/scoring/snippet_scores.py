"""From features to snippet scores: the only module that scores features with a model.

`frame_scores.py` goes on from here to frames. Scoring, evaluation and the AUCs of ablations take
this path; the selection of an epoch scores bags of one length (`batch_scores`).

The models relate snippets to the other snippets of their sequence, near and far. How many those are
is the model's `window_len`: as many as the longest training video has, for of surroundings farther
away the model has learned nothing. Up to so many snippets a video is scored as a whole. A longer
one is scored in windows of that length, each a quarter of it after the one before, and a snippet's
score is the weighted mean over its windows; a window weighs most at its center
(`score_windows.py`). So a score depends on what happens around it and not on how long the file is:
nothing reaches it from farther away than a window.

Scored as a whole instead, hours would have other scores, since a model that was trained on clips of
half a minute then puts the mean of hours in the place of the mean of half a minute:
`pipeline/experiments/RESULTS.md` has the figures.

For each snippet of a window memory holds the features of all K crops, 4 K D bytes, and while the
window is scored 12 to 60 KiB more, for one crop after the other (measured with default models at
widths of 1024 and 2048). With five crops of width 2048 that is 100 KiB together, and 1.6 GiB for
the longest window, of `MAX_WINDOW_LEN` snippets. With a stride, each pass has its own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extractors.errors import LookaroundError
from extractors.features import Features
from models.interface import AnomalyModel, BagBatch, Output
from pipeline.extraction.feature_file import FeatureFileError
from pipeline.scoring.score_windows import WindowBlender, hop_len, windows

Streams = Mapping[str, NDArray[np.float32]]  # by stream (n_snippets, K, D)
Snippet = Mapping[str, NDArray[np.float32]]  # by stream (K, D)

# The most snippets that a model is given at once, whatever it says of itself: 2.9 hours of video at
# 25 frames per second.
MAX_WINDOW_LEN = 16384


class ScoreValueError(LookaroundError, ValueError):
    """A model gives scores that are not numbers."""


def window_len(model: AnomalyModel) -> int:
    """How many snippets of a video a model is given at once."""
    return min(model.config.window_len or MAX_WINDOW_LEN, MAX_WINDOW_LEN)


def snippet_scores(
    model: AnomalyModel,
    features: Features,
    *,
    device: torch.device,
    context: Streams | None = None,
) -> NDArray[np.float32]:
    """Score one video's snippets; in windows if there are more than the model's `window_len`.

    Args:
        model: In evaluation mode, on `device`.
        features: One video's.
        device: Where the model is.
        context: As in `crop_outputs`.

    Returns:
        (n_snippets,) in [0, 1].
    """
    blender = WindowBlender(window_len(model))
    for start, stop in windows(features.n_snippets, window_len(model)):
        bags = _bags(_part(features.streams, start, stop), device)
        contexts = None if context is None else _bags(_part(context, start, stop), device)
        blender.add(_mean_scores(model, bags, contexts))
    return blender.scores()


def snippet_scores_without(
    model: AnomalyModel,
    features: Features,
    *,
    device: torch.device,
) -> dict[str, NDArray[np.float32]]:
    """Score one video's snippets without each part of a model that says what parts it has.

    Args:
        model: In evaluation mode, on `device`.
        features: One video's.
        device: Where the model is.

    Returns:
        By the name of the part (n_snippets,) in [0, 1]; empty where the model has none.
    """
    blenders: dict[str, WindowBlender] = {}
    for start, stop in windows(features.n_snippets, window_len(model)):
        bags = _bags(_part(features.streams, start, stop), device)
        for name, scores in _scores_without(model, bags).items():
            blenders.setdefault(name, WindowBlender(window_len(model))).add(scores)
    return {name: blender.scores() for name, blender in blenders.items()}


class StreamScorer:
    """Scores a sequence of snippets as they come, holding the features of one window only.

    The scores are those of `snippet_scores` for the same features.

    Args:
        model: In evaluation mode, on `device`.
        device: Where the model is.
        explain: Also score without each part of the model, for two or three times its computing
            time.
    """

    def __init__(
        self,
        model: AnomalyModel,
        device: torch.device,
        *,
        explain: bool = False,
    ) -> None:
        self._model, self._device, self._explain = model, device, explain
        self._window_len = window_len(model)
        self._blender = WindowBlender(self._window_len)
        self._without: dict[str, WindowBlender] = {}
        self._window: list[Snippet] = []
        self._n_dropped = 0  # snippets before the window

    def add(self, snippet: Snippet) -> None:
        """Take the features of the next snippet, by stream (K, D)."""
        # Not before one more snippet comes: the last window must reach the end of the video. One
        # more still, because the tail policy may drop the last snippet.
        if len(self._window) == self._window_len + 1:
            self._add_window(self._window[: self._window_len])
            hop = hop_len(self._window_len)
            del self._window[:hop]
            self._n_dropped += hop
        self._window.append(snippet)

    def finish(self, n_snippets: int) -> NDArray[np.float32]:
        """(n_snippets,) the scores of the snippets up to a number of them, at most one fewer."""
        del self._window[n_snippets - self._n_dropped :]
        if len(self._window) > self._window_len:
            self._add_window(self._window[: self._window_len])
            del self._window[: hop_len(self._window_len)]
        self._add_window(self._window)
        return self._blender.scores()

    def without(self) -> dict[str, NDArray[np.float32]]:
        """After `finish`: by part of the model (n_snippets,) the scores without it."""
        return {name: blender.scores() for name, blender in self._without.items()}

    def _add_window(self, window: Sequence[Snippet]) -> None:
        self._blender.add(window_scores(self._model, window, self._device))
        if self._explain:
            bags = _bags_of_snippets(window, self._device)
            for name, scores in _scores_without(self._model, bags).items():
                self._without.setdefault(name, WindowBlender(self._window_len)).add(scores)


def window_scores(
    model: AnomalyModel, window: Sequence[Snippet], device: torch.device
) -> NDArray[np.float32]:
    """Score snippets that follow each other, at once.

    Args:
        model: In evaluation mode, on `device`.
        window: The features of each snippet, by stream (K, D); at least one.
        device: Where the model is.

    Returns:
        (n_snippets,) in [0, 1].
    """
    return _mean_scores(model, _bags_of_snippets(window, device))


@torch.inference_mode()
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
    contexts = None if context is None else _bags(context, device)
    return list(_outputs(model, _bags(features.streams, device), contexts))


@torch.inference_mode()
def _mean_scores(
    model: AnomalyModel, bags: Iterable[Tensor], contexts: Iterable[Tensor] | None = None
) -> NDArray[np.float32]:
    """(n_snippets,) the mean scores over crops."""
    # Not in a loop, whose variable would hold the output of a crop while the next is computed.
    return mean_over_crops(list(map(attrgetter("scores"), _outputs(model, bags, contexts))))


def _outputs(
    model: AnomalyModel, bags: Iterable[Tensor], contexts: Iterable[Tensor] | None
) -> Iterator[Output]:
    """The output for each crop; nothing of one is held here when the next one is computed."""
    if contexts is None:
        for bag in bags:
            yield model(bag, _all_real(bag))
    else:
        for bag, context in zip(bags, contexts, strict=True):
            yield model(bag, _all_real(bag), context=context)


@torch.inference_mode()
def _scores_without(model: AnomalyModel, bags: Iterable[Tensor]) -> dict[str, NDArray[np.float32]]:
    """By part of the model (n_snippets,) the mean scores over crops without it."""
    per_crop = [model.scores_without(bag, _all_real(bag)) for bag in bags]
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


def _bags(streams: Streams, device: torch.device) -> Iterator[Tensor]:
    """For each crop (1, n_snippets, D) the streams side by side, in their order."""
    for crop in range(next(iter(streams.values())).shape[1]):
        side_by_side = np.concatenate([values[:, crop] for values in streams.values()], axis=1)
        yield torch.from_numpy(side_by_side).to(device)[None]


def _bags_of_snippets(window: Sequence[Snippet], device: torch.device) -> Iterator[Tensor]:
    """As `_bags`, for snippets that follow each other; copies one crop of them at a time."""
    for crop in range(len(next(iter(window[0].values())))):
        side_by_side = [np.concatenate([part[crop] for part in each.values()]) for each in window]
        yield torch.from_numpy(np.stack(side_by_side)).to(device)[None]


def _all_real(bag: Tensor) -> Tensor:
    """(1, n_snippets) the mask of a bag without padding."""
    return torch.ones(bag.shape[:2], dtype=torch.bool, device=bag.device)
