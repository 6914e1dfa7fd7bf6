"""Live snippet scores: each snippet is scored when it comes, from itself and those before it.

A score of `pipeline score` sees the whole video, what comes later too; a live score cannot. It is
the score that `snippet_scores` gives to the last snippet of the stretch so far, or of as many
snippets as the model scores together, at most `LIVE_WINDOW_LEN`: the last snippet of a short video
has the same score both ways, the earlier ones have not. A snippet that was dropped is not part of
the sequence.
"""

from collections import deque
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from extractors.engine import MAX_FEATURE
from extractors.features import Extractor
from models.interface import AnomalyModel
from pipeline.runs.feature_distance import snippet_distance
from pipeline.scoring.snippet_scores import window_len, window_scores

# The most snippets that a live score sees: nearly three minutes at 25 frames per second.
LIVE_WINDOW_LEN = 256
WARM_UP_SHAPE = (256, 320)  # (H, W)


class FeatureValueError(ValueError):
    """Features of a snippet are not finite, or too large."""


class LiveScorer:
    """Scores the snippets of a live source as they come.

    Args:
        extractor: Computes the features that the model was trained on.
        model: In evaluation mode, on `device`.
        device: Where the model is.
        max_window_len: The most snippets that a score sees, its own included, and as many as
            `feature_distance` sees.
    """

    def __init__(
        self,
        extractor: Extractor,
        model: AnomalyModel,
        device: torch.device,
        max_window_len: int = LIVE_WINDOW_LEN,
    ) -> None:
        self._extractor, self._model, self._device = extractor, model, device
        self._window: deque[Mapping[str, NDArray[np.float32]]] = deque(
            maxlen=min(max_window_len, window_len(model))
        )
        self._distances: deque[float] = deque(maxlen=max_window_len)

    @property
    def feature_distance(self) -> float | None:
        """The mean distance of the last snippets from the training, as that of a video.

        Those before `forget` count too, as they are of the same source. None before there are
        `max_window_len`: the mean of fewer varies more than that of whole videos.
        """
        if len(self._distances) < (self._distances.maxlen or 0):
            return None
        return float(np.mean(self._distances))

    def warm_up(self) -> None:
        """Score a black snippet and forget it: the first one takes longer."""
        self.score(np.zeros((self._extractor.snippet_len + 1, *WARM_UP_SHAPE, 3), np.uint8))
        self.forget()
        self._distances.clear()

    def forget(self) -> None:
        """Begin a new sequence: the next snippet is scored as the first one of a video."""
        self._window.clear()

    def score(self, frames: NDArray[np.uint8]) -> float:
        """Score the next snippet.

        Args:
            frames: (snippet_len + 1, H, W, 3), as an extractor takes them; not kept.

        Returns:
            In [0, 1].

        Raises:
            FeatureValueError: If its features are not finite; the snippet is then left out.
        """
        prepared = self._extractor.prepare(torch.from_numpy(frames))
        features = self._extractor.embed([prepared])
        snippet = {stream: values[0].cpu().numpy() for stream, values in features.items()}
        if not all((np.abs(values) <= MAX_FEATURE).all() for values in snippet.values()):
            raise FeatureValueError(
                f"features must be finite and at most {MAX_FEATURE:g} in size, instead some are not"
            )
        self._window.append(snippet)
        self._distances.append(snippet_distance(self._model.input_norm, snippet))
        return float(window_scores(self._model, self._window, self._device)[-1])
