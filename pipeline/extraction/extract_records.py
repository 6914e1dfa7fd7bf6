"""What an extraction reports while it runs: small records, which the caller shows."""

from dataclasses import dataclass

from pipeline.extraction.status import Failure


@dataclass(frozen=True, slots=True)
class FramesDone:
    """Some frames of a video are through; `share` is how much of it, in [0, 1]."""

    video_id: str
    n_frames: int
    share: float


@dataclass(frozen=True, slots=True)
class VideoDone:
    """A video's features are on disk; `n_missing` of its frames could not be decoded."""

    video_id: str
    n_frames: int
    n_missing: int


@dataclass(frozen=True, slots=True)
class VideoKept:
    """A video's features were there already, made in the same way."""

    video_id: str


@dataclass(frozen=True, slots=True)
class VideoRedone:
    """A video has features that cannot be kept, for a reason in one line: they are made anew."""

    video_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class VideoTaken:
    """Another process that shares the folder is extracting the video."""

    video_id: str


@dataclass(frozen=True, slots=True)
class VideoFailed:
    """A video gave no features, and why; `is_earlier` if it was not even tried again."""

    failure: Failure
    is_earlier: bool = False


ExtractRecord = FramesDone | VideoDone | VideoKept | VideoRedone | VideoTaken | VideoFailed
