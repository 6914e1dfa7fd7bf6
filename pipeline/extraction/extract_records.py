"""The progress of `stream_features`, until scoring reports its progress as the other stages do."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FramesDone:
    """Some frames of a video are through; `share` is how much of it, in [0, 1]."""

    video_id: str
    n_frames: int
    share: float
