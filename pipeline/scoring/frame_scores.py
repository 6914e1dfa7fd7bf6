"""Scores of one video: from snippets to frames, and as CSV."""

import csv
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extractors.features import Features
from extractors.snippets import REPEAT_LAST_FRAME, n_snippets, per_frame

CSV_HEADER = ("frame", "time_seconds", "score")


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Anomaly scores of one video.

    A frame has the score of its snippet; nothing is interpolated. Where the tail policy leaves
    frames out of the snippets, they have the score of the last one.

    Attributes:
        per_snippet: (n_snippets,) float32 in [0, 1]; higher is more anomalous.
        snippet_len: Frames per snippet. The last snippet may cover fewer.
        timestamps: (n_frames,) float64 seconds, the time at which each frame is shown.
        tail_policy: One of `snippets.TAIL_POLICIES`: how many snippets the frames make.

    >>> Scores(np.array([0, 1], "float32"), 2, np.array([0.0, 0.1, 0.2])).per_frame
    array([0., 0., 1.], dtype=float32)
    """

    per_snippet: NDArray[np.float32]
    snippet_len: int
    timestamps: NDArray[np.float64]
    tail_policy: str = REPEAT_LAST_FRAME

    def __post_init__(self) -> None:
        """Refuse what cannot be a video's scores."""
        if self.per_snippet.ndim != 1 or self.timestamps.ndim != 1:
            raise ValueError(
                "per_snippet and timestamps must be one-dimensional, instead got "
                f"{self.per_snippet.shape} and {self.timestamps.shape}"
            )
        n_scores = n_snippets(self.n_frames, self.snippet_len, self.tail_policy)
        if n_scores != len(self.per_snippet) or n_scores == 0:
            raise ValueError(
                f"{self.n_frames} frames in snippets of {self.snippet_len} need {n_scores} "
                f"scores, at least one; instead got {len(self.per_snippet)}"
            )
        if not ((self.per_snippet >= 0) & (self.per_snippet <= 1)).all():
            raise ValueError("scores must be in [0, 1], instead got values outside or NaN")

    @property
    def n_frames(self) -> int:
        """Frames of the video that are shown."""
        return len(self.timestamps)

    @property
    def per_frame(self) -> NDArray[np.float32]:
        """(n_frames,) the score of each frame."""
        return per_frame(self.per_snippet, self.snippet_len, self.n_frames)


def scores_of_video(per_snippet: NDArray[np.float32], features: Features) -> Scores:
    """Give a video's snippet scores to its frames.

    Args:
        per_snippet: (n_snippets,) in [0, 1], as from `snippet_scores`.
        features: The video's.

    Raises:
        ValueError: If there are not as many scores as snippets, or one is not in [0, 1].
    """
    return Scores(per_snippet, features.snippet_len, features.timestamps, features.tail_policy)


def csv_bytes(scores: Scores) -> bytes:
    """The CSV `frame,time_seconds,score`, one row per frame, frames counted from 0.

    Times have three decimals (milliseconds), scores six.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for frame, (seconds, score) in enumerate(
        zip(scores.timestamps.tolist(), scores.per_frame.tolist(), strict=True)
    ):
        writer.writerow((frame, f"{seconds:.3f}", f"{score:.6f}"))
    return out.getvalue().encode("ascii")
