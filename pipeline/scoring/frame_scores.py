"""Scores of one video: from snippets to frames and events, written as CSV or plotted."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extractors.decoding.frame_folder import VideoSource
from extractors.features import Features
from extractors.snippets import REPEAT_LAST_FRAME, n_snippets, per_frame
from pipeline.outputs import write_output
from pipeline.scoring.events import (
    Event,
    EventRule,
    Interval,
    describe_events,
)

CSV_HEADER = ("frame", "time_seconds", "score")


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Anomaly scores of one video.

    Snippet i begins at frame `i * stride`. With the default stride, `snippet_len`, snippets do not
    overlap and a frame has the score of its snippet. With a smaller one a frame has the mean score
    of the snippets that cover it. Frames that no snippet covers, which some tail policies leave
    out at the end, have the score of the last snippet.

    Attributes:
        per_snippet: (n_snippets,) float32 in [0, 1]; higher is more anomalous.
        snippet_len: Frames per snippet. The last snippets may cover fewer.
        timestamps: (n_frames,) float64 seconds, the time at which each frame is shown.
        tail_policy: One of `snippets.TAIL_POLICIES`: how many snippets the frames make.
        stride: Frames from the beginning of one snippet to that of the next, a divisor of
            `snippet_len`; 0 stands for `snippet_len`.
        without: By part of the model, such as "context", (n_snippets,) what the scores would be
            without this part; empty where that was not computed.
        feature_distance: How far the video's features lie from those that the run was trained on,
            as in `pipeline/runs/feature_distance.py`; None where that was not computed.
        rule: When a score is an event: the rule that the run is calibrated for, or that the user
            gave, else the default.

    Raises:
        ValueError: If the shapes, the number of scores or their range are not as above.

    >>> Scores(np.array([0, 1], "float32"), 2, np.array([0.0, 0.1, 0.2])).per_frame
    array([0., 0., 1.], dtype=float32)
    >>> Scores(np.array([0, 1, 1], "float32"), 2, np.array([0.0, 0.1, 0.2]), stride=1).per_frame
    array([0. , 0.5, 1. ], dtype=float32)
    """

    per_snippet: NDArray[np.float32]
    snippet_len: int
    timestamps: NDArray[np.float64]
    tail_policy: str = REPEAT_LAST_FRAME
    stride: int = 0
    without: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    feature_distance: float | None = None
    rule: EventRule = field(default_factory=EventRule)

    def __post_init__(self) -> None:
        """Refuse what cannot be a video's scores."""
        if self.per_snippet.ndim != 1 or self.timestamps.ndim != 1:
            raise ValueError(
                "per_snippet and timestamps must be one-dimensional, instead got "
                f"{self.per_snippet.shape} and {self.timestamps.shape}"
            )
        if self.stride == 0:
            object.__setattr__(self, "stride", self.snippet_len)
        n_scores = n_strided_snippets(
            self.n_frames, self.snippet_len, self.stride, self.tail_policy
        )
        if n_scores != len(self.per_snippet) or n_scores == 0:
            raise ValueError(
                f"{self.n_frames} frames in snippets of {self.snippet_len} need {n_scores} "
                f"scores, at least one; instead got {len(self.per_snippet)}"
            )
        if not ((self.per_snippet >= 0) & (self.per_snippet <= 1)).all():
            raise ValueError("scores must be in [0, 1], instead got values outside or NaN")
        for name, values in self.without.items():
            if values.shape != self.per_snippet.shape:
                raise ValueError(
                    f"without {name} must be {self.per_snippet.shape}, instead got {values.shape}"
                )

    @property
    def n_frames(self) -> int:
        """Frames of the video that are shown."""
        return len(self.timestamps)

    @property
    def per_frame(self) -> NDArray[np.float32]:
        """(n_frames,) the score of each frame."""
        if self.stride == self.snippet_len:
            return per_frame(self.per_snippet, self.snippet_len, self.n_frames)
        return _mean_of_covering(self.per_snippet, self.snippet_len, self.stride, self.n_frames)

    @property
    def per_frame_without(self) -> dict[str, NDArray[np.float32]]:
        """By part of the model (n_frames,) the score of each frame without this part."""
        return {
            name: replace(self, per_snippet=values, without={}).per_frame
            for name, values in self.without.items()
        }

    def events(
        self,
        threshold: float | None = None,
        *,
        merge_seconds: float | None = None,
        min_seconds: float | None = None,
    ) -> tuple[Event, ...]:
        """Find the events, in the order of time; without arguments those of `pipeline score`.

        Args:
            threshold: As in `EventRule`; None for that of `rule`. One that is given stands for the
                whole of `rule`, as --threshold does: the other values are then the default ones.
            merge_seconds: As in `EventRule`; None likewise.
            min_seconds: As in `EventRule`; None likewise.

        Raises:
            ValueError: If an argument is out of its range.
        """
        rule = (self.rule if threshold is None else EventRule()).with_values(
            threshold=threshold, merge_seconds=merge_seconds, min_seconds=min_seconds
        )
        return describe_events(self.per_frame, self.timestamps, rule)

    def to_csv(self, path: str | Path) -> None:
        """Write `frame,time_seconds,score`, one row per frame; `-` is stdout.

        Raises:
            OSError: If the file cannot be written. It appears whole or not at all.
        """
        write_output(Path(path), csv_bytes(self))

    def plot(
        self,
        path: str | Path,
        *,
        title: str = "",
        note: str = "",
        video: str | VideoSource | None = None,
        truth: Sequence[Interval] = (),
    ) -> None:
        """Plot the score over time as a PNG file; `-` is stdout.

        Args:
            path: The file.
            title: Above the curve.
            note: A warning at the right of the title.
            video: The file or `FrameFolder` that was scored: thumbnails of it are shown along the
                time axis.
            truth: Labeled anomalies as (start, stop) in frames, stop excluded, shown as bands.

        Raises:
            VideoError: If the video cannot be read.
            OSError: If the file cannot be written. It appears whole or not at all.
        """
        # matplotlib takes a second to load, which is not needed for the numbers.
        from pipeline.scoring.score_plot import plot_scores  # noqa: PLC0415

        plot_scores(
            self.timestamps,
            self.per_frame,
            Path(path),
            title=title,
            note=note,
            video=Path(video) if isinstance(video, str) else video,
            truth=truth,
        )


def _mean_of_covering(
    per_snippet: NDArray[np.float32], snippet_len: int, stride: int, n_frames: int
) -> NDArray[np.float32]:
    """(n_frames,) the mean score of the snippets that cover each frame; of the last where none."""
    latest = np.arange(n_frames) // stride  # the last snippet that begins by the frame
    totals = np.zeros(n_frames)
    counts = np.zeros(n_frames, dtype=np.int64)
    for n_back in range(snippet_len // stride):
        snippets = latest - n_back
        covered = np.flatnonzero((snippets >= 0) & (snippets < len(per_snippet)))
        totals[covered] += per_snippet[snippets[covered]]
        counts[covered] += 1
    means = totals / np.maximum(counts, 1)
    return np.where(counts > 0, means, per_snippet[-1]).astype(np.float32)


def n_strided_snippets(n_frames: int, snippet_len: int, stride: int, tail_policy: str) -> int:
    """The number of snippets that begin `stride` frames apart and that a tail policy keeps.

    They are those of `snippet_len // stride` passes, each of which begins `stride` frames after
    the one before and has snippets that do not overlap.

    Raises:
        ValueError: If stride is not a divisor of snippet_len, or as `n_snippets`.

    >>> n_strided_snippets(40, 16, 16, REPEAT_LAST_FRAME), n_strided_snippets(
    ...     40, 16, 8, REPEAT_LAST_FRAME
    ... )
    (3, 5)
    """
    if stride < 1 or snippet_len % stride:
        raise ValueError(f"stride must be a divisor of {snippet_len}, instead got {stride}")
    return sum(
        n_snippets(max(n_frames - first, 0), snippet_len, tail_policy)
        for first in range(0, snippet_len, stride)
    )


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
