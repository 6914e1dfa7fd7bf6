"""The score curve of one video as runs of equal scores, short enough for a browser to draw."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.events import frame_ends
from pipeline.scoring.frame_scores import Scores

# About 20 bytes each in a report. A day of video at 25 fps in snippets of 16 has 135,000 runs.
MAX_RUNS = 50_000


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A score per frame, stored once for each run of consecutive frames with the same score.

    Attributes:
        frames: (n_runs,) int64, the first frame of each run; the first run begins at 0.
        starts: (n_runs,) float64 seconds, when the first frame of each run is shown.
        lasts: (n_runs,) float64 seconds, when the last frame of each run is shown.
        scores: (n_runs,) float32 in [0, 1].
        n_frames: Frames of the video.
        end_seconds: When the last frame ends.
        is_reduced: Whether runs were left out. The curve then has the highest and the lowest score
            of every stretch of `2 * n_frames / MAX_RUNS` frames or so, at the frames that have
            them.
        without: By part of the model (n_runs,) float32, what the score of the first frame of each
            run would be without this part; empty where that was not computed.
    """

    frames: NDArray[np.int64]
    starts: NDArray[np.float64]
    lasts: NDArray[np.float64]
    scores: NDArray[np.float32]
    n_frames: int
    end_seconds: float
    is_reduced: bool
    without: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The arrays as base64 of their little-endian bytes, the numbers as they are."""
        return {
            "frames": _base64(self.frames.astype("<u4")),
            "starts": _base64(self.starts.astype("<f8")),
            "lasts": _base64(self.lasts.astype("<f8")),
            "scores": _base64(self.scores.astype("<f4")),
            "nFrames": self.n_frames,
            "endSeconds": self.end_seconds,
            "isReduced": self.is_reduced,
            "without": {name: _base64(v.astype("<f4")) for name, v in self.without.items()},
        }


def make_curve(scores: Scores, *, max_runs: int = MAX_RUNS) -> Curve:
    """Collect the frames of equal scores in runs, and leave out runs where there are too many.

    Args:
        scores: One video's.
        max_runs: At least 2. Of more runs than this the highest and the lowest of each stretch are
            kept, so that no peak is lost.

    Raises:
        ValueError: If max_runs is less than 2.
    """
    if max_runs < 2:
        raise ValueError(f"max_runs must be at least 2, instead got {max_runs}")
    per_frame = scores.per_frame
    first = np.append(0, np.flatnonzero(np.diff(per_frame)) + 1)
    kept = first
    if len(first) > max_runs:
        extremes = first[_extremes(per_frame[first], n_stretches=max_runs // 2)]
        kept = np.union1d([0], extremes)
    last = np.append(kept[1:], scores.n_frames) - 1
    return Curve(
        frames=kept,
        starts=scores.timestamps[kept],
        lasts=scores.timestamps[last],
        scores=per_frame[kept],
        n_frames=scores.n_frames,
        end_seconds=float(frame_ends(scores.timestamps)[-1]),
        is_reduced=len(kept) < len(first),
        without={name: values[kept] for name, values in scores.per_frame_without.items()},
    )


def _extremes(values: NDArray[np.float32], n_stretches: int) -> NDArray[np.intp]:
    """Indices of the first highest and the first lowest value of each stretch, ascending."""
    stretch_len = -(-len(values) // n_stretches)
    indices = np.arange(-(-len(values) // stretch_len) * stretch_len).reshape(-1, stretch_len)
    padded = values[np.minimum(indices, len(values) - 1)]
    rows = np.arange(len(padded))
    found = [indices[rows, padded.argmax(1)], indices[rows, padded.argmin(1)]]
    return np.unique(np.concatenate(found))


def _base64(array: NDArray[np.generic]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")
