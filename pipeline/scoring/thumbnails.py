"""Thumbnails of a video: small JPEG images at regular times and at the peaks of its score."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from extractors.decoding.frame_folder import VideoSource
from extractors.decoding.seeking import Image, frames_at
from pipeline.images import resize_to_width, save_jpeg
from pipeline.scoring.events import describe_events
from pipeline.scoring.frame_scores import Scores

WIDTH = 256
JPEG_QUALITY = 72

# Thresholds whose events' peaks get a thumbnail, so that there is one for most events that a reader
# of the report can make by moving the threshold.
PEAK_THRESHOLDS = tuple(np.linspace(0.05, 0.95, 19).round(2).tolist())


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small image of one frame.

    Attributes:
        frame: Counted from 0.
        seconds: When it is shown.
        jpeg: The image, `WIDTH` pixels wide.
    """

    frame: int
    seconds: float
    jpeg: bytes

    @property
    def data_uri(self) -> str:
        """The image as an address that needs no file."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode('ascii')}"


def choose_frames(scores: Scores, *, n_regular: int = 24, n_peaks: int = 40) -> list[int]:
    """Choose the frames of a video that say most about it.

    Args:
        scores: The video's.
        n_regular: Frames at equal distances, at most.
        n_peaks: Peaks of events, at most: those at the threshold of the scores' rule, the
            highest first, then those at other thresholds.

    Returns:
        Frame numbers, ascending.
    """
    per_frame = scores.per_frame
    n_parts = min(n_regular, scores.n_frames)
    regular = [(2 * i + 1) * scores.n_frames // (2 * n_parts) for i in range(n_parts)]
    peaks: dict[int, None] = {}  # in order, each once
    for threshold in (scores.rule.threshold, *PEAK_THRESHOLDS):
        at_threshold = scores.rule.with_values(threshold=threshold)
        events = describe_events(per_frame, scores.timestamps, at_threshold)
        for event in sorted(events, key=lambda event: -event.peak)[:n_peaks]:
            peaks[event.peak_frame] = None
    return sorted({*regular, *list(peaks)[:n_peaks]})


def make_thumbnails(video: VideoSource, scores: Scores, frames: Sequence[int]) -> list[Thumbnail]:
    """Decode frames of a video and make them small; those that cannot be decoded are left out.

    Args:
        video: The file or folder of frames.
        scores: The video's, for the times of its frames.
        frames: Frame numbers, ascending.

    Raises:
        VideoError: If the video cannot be read.
    """
    seconds = scores.timestamps[list(frames)].tolist()
    images = frames_at(video, seconds)
    return [
        Thumbnail(frame, time, encode_thumbnail(image))
        for frame, time, image in zip(frames, seconds, images, strict=True)
        if image is not None
    ]


def encode_thumbnail(image: Image) -> bytes:
    """Make an image (H, W, 3) uint8 RGB a JPEG file that is `WIDTH` pixels wide."""
    buffer = io.BytesIO()
    save_jpeg(resize_to_width(image, WIDTH), buffer, quality=JPEG_QUALITY)
    return buffer.getvalue()
