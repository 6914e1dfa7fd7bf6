"""Reading video with PyAV: an index of the frames that a file shows, and the frames themselves.

A frame is what a viewer sees. Pixels that are not square stay as they are stored. Damage inside a
frame that its decoder conceals is shown as players show it, and is not reported.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extractors.decoding.containers import is_cut_off
from extractors.decoding.pyav_file import (
    TIME_BASE,
    Decoder,
    FFmpegError,
    InputContainer,
    Stream,
    VideoError,
    VideoFrame,
    VideoReformatter,
    VideoStream,
    decode_stream,
    display_turn,
    open_video,
    read_packets,
    select_stream,
    to_rgb,
    turned,
)
from extractors.decoding.pyav_file import VERSION as VERSION


@dataclass(frozen=True, slots=True, eq=False)
class StreamIndex:
    """The frames that a file's video stream announces, from one pass over its packets.

    Attributes:
        timestamps: (n,) float64 seconds at which the frames of the packets are shown, sorted.
            Packets without a time have none.
        n_frames: Packets that show a frame, and `n_cut_off`.
        n_cut_off: Frames that the container lists after the end of the file.
        fps: Average frames per second.
        first_frame: (H, W, 3) uint8 RGB, turned as shown.
        turn: Signs (a, b, c, d) of the display matrix: x' = ax + cy, y' = bx + dy.
        container: FFmpeg's name, as "matroska,webm".
        codec: The decoder's name, as "h264".
        pixel_format: FFmpeg's name, as "yuv420p".
        is_plain: Every announced frame was found, undamaged, shown, with a time of its own, and
            there is no other video stream.
    """

    timestamps: NDArray[np.float64]
    n_frames: int
    n_cut_off: int
    fps: float
    first_frame: NDArray[np.uint8]
    turn: tuple[int, int, int, int]
    container: str
    codec: str
    pixel_format: str
    is_plain: bool


def read_index(path: Path) -> StreamIndex:
    """Index a file's frames; only the first one is decoded.

    Raises:
        VideoError: If the file cannot be read or has no video that can be decoded.
    """
    first: VideoFrame | None = None
    times: list[int] = []
    n_packets = n_found = n_shown = n_damaged = 0
    with open_video(path) as container:
        stream = select_stream(container, path)
        decoder = Decoder(stream)
        for packet in read_packets(container, stream):
            if first is None:
                first = next(filter(None, decoder.decode(packet)), None)
            n_packets += 1
            n_damaged += packet.is_corrupt
            if not packet.is_discard:
                n_found += 1
                n_shown += decoder.shows_frame(packet)
                if packet.pts is not None:
                    times.append(packet.pts)
        first = first or next(iter(decoder.drain()), None)
        if first is None:
            raise VideoError.about(path, "has no frame that can be decoded; convert or remove it")
        turn = display_turn(first)
        timestamps = np.array([_seconds(pts, stream) for pts in sorted(times)])
        fps = _average_fps(stream, timestamps)
        n_cut_off = max(0, _n_listed(path, container, stream, timestamps, fps) - n_found)
        is_complete = n_packets == n_shown == len(set(times)) and not n_damaged and not n_cut_off
        return StreamIndex(
            timestamps=timestamps,
            n_frames=n_shown + n_cut_off,
            n_cut_off=n_cut_off,
            fps=fps,
            first_frame=turned(to_rgb(first, first.width, first.height), turn),
            turn=turn,
            container=container.format.name,
            codec=stream.codec_context.name,
            pixel_format=first.format.name,
            is_plain=is_complete and len(container.streams.video) == 1,
        )


def read_frames(path: Path, index: StreamIndex) -> Iterator[tuple[NDArray[np.uint8], float] | None]:
    """Yield every frame that PyAV can decode, with its time, and None for each broken packet.

    After a packet that cannot be decoded, frames are skipped up to the next keyframe, because they
    are predicted from lost ones. A frame of another size is scaled to that of the first one.

    Yields:
        (H, W, 3) uint8 RGB, turned as shown, and seconds, each later than the one before.

    Raises:
        VideoError: If the file cannot be opened.
    """
    height, width = index.first_frame.shape[:2]
    if index.turn[0] == 0:
        height, width = width, height
    clock = _Clock(index)
    reformatter = VideoReformatter()
    with open_video(path) as container:
        stream = select_stream(container, path)
        # AVI has times in decoding order, which B-frames change.
        is_timed = "avi" not in container.format.name or not stream.codec_context.has_b_frames
        for frame in decode_stream(container, stream):
            if frame is None:
                yield None
                continue
            image = to_rgb(frame, width, height, reformatter)
            pts = frame.pts if is_timed else None
            seconds = None if pts is None else _seconds(pts, stream)
            yield turned(image, index.turn), clock.tick(seconds)


class _Clock:
    """Turns a decoder's times into strictly increasing ones."""

    def __init__(self, index: StreamIndex) -> None:
        self._listed = index.timestamps
        self._step = 1 / index.fps
        self._last: float | None = None

    def tick(self, seconds: float | None) -> float:
        """Return the frame's own time; if it has none or goes back, the next time in the index."""
        if seconds is None or (self._last is not None and seconds <= self._last):
            after = -np.inf if self._last is None else self._last
            i = int(np.searchsorted(self._listed, after, side="right"))
            if i < len(self._listed):
                seconds = float(self._listed[i])
            else:
                seconds = 0.0 if self._last is None else self._last + self._step
        self._last = seconds
        return seconds


def _n_listed(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    timestamps: NDArray[np.float64],
    fps: float,
) -> int:
    """Return how many frames a header or an index lists, if the file ends before; else 0."""
    name = container.format.name
    if "mov" in name:  # its header counts frames that an edit list hides
        return sum(entry.size > 0 and not entry.is_discard for entry in stream.index_entries)
    if not is_cut_off(path, name):
        return 0
    if name == "avi":
        return stream.frames
    # Matroska has no list of frames. Its duration includes sound, which can be longer.
    announced_end = (container.duration or 0) / TIME_BASE
    is_short = (announced_end - _read_end_seconds(path)) * fps > 0.5
    return round((announced_end - timestamps[0]) * fps) if is_short and len(timestamps) else 0


def _read_end_seconds(path: Path) -> float:
    """Return when the last packet of all streams ends, in seconds."""
    last_end = 0.0
    with open_video(path) as container, suppress(FFmpegError):
        for packet in container.demux():
            if packet.pts is not None:
                end = _seconds(packet.pts + (packet.duration or 0), packet.stream)
                last_end = max(last_end, end)
    return last_end


def _seconds(pts: int, stream: Stream) -> float:
    base = stream.time_base
    assert base is not None  # a stream that is read has one
    return pts * base.numerator / base.denominator


def _average_fps(stream: VideoStream, timestamps: NDArray[np.float64]) -> float:
    if stream.average_rate:
        return float(stream.average_rate)
    if len(timestamps) > 1 and timestamps[-1] > timestamps[0]:
        return float((len(timestamps) - 1) / (timestamps[-1] - timestamps[0]))
    return 25.0  # FFmpeg's default for streams without any times
