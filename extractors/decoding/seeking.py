"""Random access to a video: frames at given times without decoding all that lies before them."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from extractors.decoding import frame_folder, pyav_reader
from extractors.decoding.frame_folder import FrameFolder, VideoSource
from extractors.decoding.pyav_file import (
    FFmpegError,
    InputContainer,
    VideoFrame,
    VideoStream,
    decode_stream,
    display_turn,
    open_video,
    select_stream,
    to_rgb,
    turned,
)

Image = NDArray[np.uint8]
FrameT = TypeVar("FrameT")

# Containers with an index of keyframes and a time on each frame. Others are decoded from the start.
SEEKABLE = ("mov", "matroska")

# Times are compared within this: they come from fractions, by way of float64.
TOLERANCE_SECONDS = 1e-4


@dataclass(frozen=True, slots=True)
class StreamKind:
    """How a file's video stream is stored, in FFmpeg's names.

    Attributes:
        container: As "mov,mp4,m4a,3gp,3g2,mj2" or "matroska,webm".
        codec: As "h264".
        pixel_format: As "yuv420p"; "" where the header does not say.
    """

    container: str
    codec: str
    pixel_format: str


def stream_kind(path: Path) -> StreamKind:
    """Read from a file's headers how its video is stored; nothing is decoded.

    Raises:
        VideoError: If the file cannot be opened or holds no video.
    """
    with open_video(path) as container:
        context = select_stream(container, path).codec_context
        return StreamKind(container.format.name, context.name, context.pix_fmt or "")


def frames_at(source: VideoSource, seconds: Sequence[float]) -> Iterator[Image | None]:
    """Decode the frame that is shown at each time.

    Args:
        source: The video.
        seconds: In ascending order. A time before the first frame stands for the first frame.

    Yields:
        For each time (H, W, 3) uint8 RGB, turned as shown, or None where no frame from it on can
        be decoded.

    Raises:
        VideoError: If the file cannot be opened or holds no video that can be decoded.
    """
    if isinstance(source, FrameFolder):
        yield from _frames_of_folder_at(source, seconds)
        return
    with open_video(source) as container:
        if not _is_seekable(container):
            yield from _frames_in_one_pass(source, seconds)
            return
        stream = select_stream(container, source)
        for time in seconds:
            shown = next(_seek(container, stream, time), None)
            yield None if shown is None else shown[0]


def frames_between(source: VideoSource, start: float, stop: float) -> Iterator[tuple[Image, float]]:
    """Decode the frames that are shown from one time to another.

    Args:
        source: The video.
        start: Seconds; the first frame is the one that is shown then.
        stop: Seconds; frames from then on are left out.

    Yields:
        (H, W, 3) uint8 RGB, turned as shown, and its time in seconds.

    Raises:
        VideoError: If the file cannot be opened or holds no video that can be decoded.
    """
    if isinstance(source, FrameFolder):
        yield from _frames_of_folder_between(source, start, stop)
        return
    with open_video(source) as container:
        if _is_seekable(container):
            frames = _seek(container, select_stream(container, source), start)
        else:
            frames = _shown_from(_read_all(source), start)
        for image, time in frames:
            if time >= stop - TOLERANCE_SECONDS:
                return
            yield image, time


def _frames_of_folder_at(folder: FrameFolder, seconds: Sequence[float]) -> Iterator[Image]:
    index = frame_folder.read_index(folder)
    shown = [_frame_shown_at(index.timestamps, time) for time in seconds]
    for image, _ in frame_folder.read_frames(folder, index, shown):
        yield image


def _frames_of_folder_between(
    folder: FrameFolder, start: float, stop: float
) -> Iterator[tuple[Image, float]]:
    index = frame_folder.read_index(folder)
    first = _frame_shown_at(index.timestamps, start)
    last = int(np.searchsorted(index.timestamps, stop - TOLERANCE_SECONDS))
    return frame_folder.read_frames(folder, index, range(first, last))


def _frame_shown_at(timestamps: NDArray[np.float64], seconds: float) -> int:
    """The number of the frame that is shown at a time; 0 before the first one."""
    n_begun = np.searchsorted(timestamps, seconds + TOLERANCE_SECONDS, side="right")
    return max(int(n_begun) - 1, 0)


def _is_seekable(container: InputContainer) -> bool:
    return any(name in container.format.name for name in SEEKABLE)


def _seek(
    container: InputContainer, stream: VideoStream, seconds: float
) -> Iterator[tuple[Image, float]]:
    """The frames from the one that is shown at `seconds` on."""
    frames = _decode_from(container, stream, seconds)
    first = next(frames, None)
    if first is None or first[1] > seconds:  # before the first frame, or no keyframe before it
        frames = _decode_from(container, stream, None)
    else:
        frames = chain([first], frames)
    size = None
    for frame, time in _shown_from(frames, seconds):
        size = size or (frame.width, frame.height)
        turn = display_turn(frame)
        yield turned(to_rgb(frame, *size), turn), time


def _decode_from(
    container: InputContainer, stream: VideoStream, seconds: float | None
) -> Iterator[tuple[VideoFrame, float]]:
    """All frames from the last keyframe before a time on; None is the start of the file."""
    base = stream.time_base
    assert base is not None  # a stream that is read has one
    offset = stream.start_time or 0
    if seconds is not None:
        offset = int((seconds + TOLERANCE_SECONDS) / base)
    with suppress(FFmpegError):  # a seek that fails leaves the file where it is
        container.seek(offset, stream=stream)
    for frame in decode_stream(container, stream):
        if frame is not None and frame.pts is not None:
            yield frame, float(frame.pts * base)


def _frames_in_one_pass(path: Path, seconds: Sequence[float]) -> Iterator[Image | None]:
    frames = _read_all(path)
    shown, following = next(frames, None), next(frames, None)
    for time in seconds:
        while following is not None and following[1] <= time + TOLERANCE_SECONDS:
            shown, following = following, next(frames, None)
        yield None if shown is None else shown[0]


def _read_all(path: Path) -> Iterator[tuple[Image, float]]:
    frames = pyav_reader.read_frames(path, pyav_reader.read_index(path))
    return (frame for frame in frames if frame is not None)


def _shown_from(
    frames: Iterator[tuple[FrameT, float]], seconds: float
) -> Iterator[tuple[FrameT, float]]:
    """Leave out the frames before the one that is shown at a time."""
    shown = None
    for frame, time in frames:
        if shown is not None and time > seconds + TOLERANCE_SECONDS:
            yield shown
            shown = None
            yield frame, time
            break
        shown = frame, time
    if shown is not None:
        yield shown
    yield from frames
