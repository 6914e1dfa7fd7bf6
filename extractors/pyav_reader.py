"""Reading video with PyAV: which frames a file shows and when, and decoding them.

A frame is what a viewer sees. Colours are converted by the matrix and range that the frame names,
BT.601 limited where it names none. Pixels that are not square stay as they are stored. Damage
inside of a picture that its decoder conceals is shown as players show it, and is not reported.

Decoding is on one thread: with several, the concealed pixels of a damaged file, and the number of
frames before an error, were seen to change from run to run.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type
from av.stream import Disposition, Stream
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

# 8192 x 8192, twice 8K: one RGB frame of it takes 200 MB. A forged header asks for more.
MAX_PIXELS = 1 << 26

# A header's duration is wrong by less than this where nothing is cut off.
CUT_OFF_SECONDS = 0.5

VERSION = f"pyav {av.__version__}"


class VideoError(OSError):
    """A video cannot be read."""

    @classmethod
    def about(cls, path: Path, problem: str) -> Self:
        """The error whose one line is the file's name and its problem."""
        # A name may hold line breaks, or bytes that no terminal prints.
        name = "".join(letter if letter.isprintable() else "?" for letter in str(path))
        return cls(f"{name} {problem}")


@dataclass(frozen=True, slots=True, eq=False)
class StreamIndex:
    """What a file's video stream announces, from one pass over its packets.

    Attributes:
        timestamps: (n,) float64 seconds, when the frames whose packets were found are shown,
            sorted. Packets without a time are not among them.
        n_frames: Frames that the container says are shown, found or not.
        fps: Average frames per second.
        first_frame: (H, W, 3) uint8 RGB, turned as shown.
        turn: Signs (a, b, c, d) of the display matrix: x' = ax + cy, y' = bx + dy.
        codec: The decoder's name, as "h264".
        pixel_format: FFmpeg's name, as "yuv420p".
        is_plain: Every announced frame was found, whole, shown, with a time of its own; no other
            video stream is beside it.
    """

    timestamps: NDArray[np.float64]
    n_frames: int
    fps: float
    first_frame: NDArray[np.uint8]
    turn: tuple[int, int, int, int]
    codec: str
    pixel_format: str
    is_plain: bool


def read_index(path: Path) -> StreamIndex:
    """List a file's frames without decoding more than the first.

    Raises:
        VideoError: If the file cannot be read or holds no video that can be decoded.
    """
    first: av.VideoFrame | None = None
    times: list[int] = []
    n_packets = n_shown = n_damaged = 0
    with _open(path) as container:
        stream = _select_stream(container, path)
        decoder = _Decoder(stream)
        for packet in _packets(container, stream):
            if first is None:
                first = next(iter(decoder.decode(packet)), None)
            n_packets += packet.size > 0
            n_damaged += packet.is_corrupt
            if packet.size and not packet.is_discard:
                n_shown += 1
                if packet.pts is not None:
                    times.append(packet.pts)
        if first is None:
            raise VideoError.about(path, "has no frame that can be decoded; convert or remove it")
        turn = _display_turn(first)
        timestamps = np.array([_seconds(pts, stream) for pts in sorted(times)])
        fps = _average_fps(stream, timestamps)
        n_frames = max(n_shown, _n_listed(container, stream))
        if "matroska" in container.format.name and len(timestamps):
            n_frames = max(n_frames, round(_cut_off_seconds(path, timestamps[0]) * fps))
        is_complete = n_packets == n_frames == len(set(times)) and not n_damaged
        return StreamIndex(
            timestamps=timestamps,
            n_frames=n_frames,
            fps=fps,
            first_frame=_turned(_rgb(first, first.width, first.height), turn),
            turn=turn,
            codec=stream.codec_context.name,
            pixel_format=first.format.name,
            is_plain=is_complete and len(container.streams.video) == 1,
        )


def read_duration(path: Path) -> float:
    """Return the seconds that the container's header says; 0 where it says nothing.

    Reads the header alone: an estimate to share out work by.
    """
    try:
        with _open(path) as container:
            return (container.duration or 0) / av.time_base
    except VideoError:
        return 0.0


def read_frames(path: Path, index: StreamIndex) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """Yield every frame that PyAV can decode, with its time.

    A packet that cannot be decoded ends the frames up to the next keyframe: those between refer
    to what is lost.

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
    with _open(path) as container:
        stream = _select_stream(container, path)
        # AVI times the order of decoding, which B-frames change.
        is_timed = "avi" not in container.format.name or not stream.codec_context.has_b_frames
        decoder = _Decoder(stream)
        for packet in _packets(container, stream):
            for frame in decoder.decode(packet):
                image = _rgb(frame, width, height, reformatter)
                pts = frame.pts if is_timed else None
                seconds = None if pts is None else _seconds(pts, stream)
                yield _turned(image, index.turn), clock.tick(seconds)


class _Decoder:
    """Decodes packets of one stream; after an error it waits for the next keyframe."""

    def __init__(self, stream: VideoStream) -> None:
        stream.codec_context.thread_count = 1
        self._context = stream.codec_context
        self._is_lost = False

    def decode(self, packet: "av.Packet[VideoStream]") -> list[av.VideoFrame]:
        if self._is_lost and packet.size and not packet.is_keyframe:
            return []
        try:
            frames = self._context.decode(packet if packet.size else None)
        except av.FFmpegError:
            self._is_lost = True
            # Frames that wait here for their turn are given up with the broken one.
            self._context.flush_buffers()
            return []
        self._is_lost = False
        return frames


class _Clock:
    """Turns a decoder's times into times that only go forward."""

    def __init__(self, index: StreamIndex) -> None:
        self._listed = index.timestamps
        self._step = 1 / index.fps
        self._last: float | None = None

    def tick(self, seconds: float | None) -> float:
        """The frame's own time; where it has none or goes back, the next that is listed."""
        if seconds is None or (self._last is not None and seconds <= self._last):
            after = -np.inf if self._last is None else self._last
            i = int(np.searchsorted(self._listed, after, side="right"))
            if i < len(self._listed):
                seconds = float(self._listed[i])
            else:
                seconds = 0.0 if self._last is None else self._last + self._step
        self._last = seconds
        return seconds


def _open(path: Path) -> InputContainer:
    try:
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except OSError as error:
        raise VideoError.about(path, f"cannot be read: {error.strerror}") from error
    if is_empty:
        raise VideoError.about(path, "is empty (0 bytes); copy it again")
    # Absolute, so that a name such as "pipe:1.mp4" is not taken for a protocol.
    name = str(path.absolute())
    try:
        try:
            return av.open(name)
        except UnicodeDecodeError:  # tags in another encoding, which PyAV >= 19 accepts
            return av.open(name, metadata_errors="replace")
    except av.FFmpegError as error:
        raise VideoError.about(path, f"cannot be opened as a video: {error.strerror}") from error


def _select_stream(container: InputContainer, path: Path) -> VideoStream:
    """The stream that players take; the cover picture of a song is none."""
    moving = [
        stream
        for stream in container.streams.video
        if Disposition.attached_pic not in stream.disposition
    ]
    # FFmpeg draws a text file as pictures of a terminal.
    if not moving or container.format.name == "tty":
        raise VideoError.about(path, "has no video stream; a video file is expected")
    best = container.streams.best("video")
    stream = next((stream for stream in moving if stream is best), moving[0])
    if stream.codec_context is None:
        raise VideoError.about(path, "has a video stream of an unknown codec; convert it to H.264")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        problem = f"announces frames of {width}x{height}; at most {MAX_PIXELS} pixels are expected"
        raise VideoError.about(path, problem)
    # The decoder's own limit, for sizes that come with a frame.
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def _packets(container: InputContainer, stream: VideoStream) -> Iterator["av.Packet[VideoStream]"]:
    """The stream's packets and an empty one, or those before the file cannot be read further."""
    with suppress(av.FFmpegError):
        yield from container.demux(stream)


def _n_listed(container: InputContainer, stream: VideoStream) -> int:
    """Frames that the file's header or index promises, packets that are cut off included."""
    if "mov" in container.format.name:  # its header counts frames that an edit list hides
        return sum(entry.size > 0 and not entry.is_discard for entry in stream.index_entries)
    return stream.frames


def _cut_off_seconds(path: Path, start_seconds: float) -> float:
    """How long a Matroska file should be if it was cut off, else 0; it has no list of frames."""
    last_end = 0.0
    with _open(path) as container:
        announced_end = (container.duration or 0) / av.time_base
        with suppress(av.FFmpegError):
            for packet in container.demux():
                if packet.pts is not None:
                    end = _seconds(packet.pts + (packet.duration or 0), packet.stream)
                    last_end = max(last_end, end)
    # Sound may last longer than pictures. A file is cut off where nothing reaches the end.
    is_cut_off = announced_end - last_end > CUT_OFF_SECONDS
    return announced_end - start_seconds if is_cut_off else 0.0


def _seconds(pts: int, stream: Stream) -> float:
    base = stream.time_base
    assert base is not None  # a stream that is read has one
    return pts * base.numerator / base.denominator


def _average_fps(stream: VideoStream, timestamps: NDArray[np.float64]) -> float:
    if stream.average_rate:
        return float(stream.average_rate)
    if len(timestamps) > 1 and timestamps[-1] > timestamps[0]:
        return float((len(timestamps) - 1) / (timestamps[-1] - timestamps[0]))
    return 25.0  # what FFmpeg takes for streams without any times


def _display_turn(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    side_data: Any = frame.side_data  # PyAV types it as a mapping by str alone
    matrix = side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.sign(np.frombuffer(bytes(matrix), np.int32)[:5]).tolist()
    is_right_angle = (a and d and not b and not c) or (b and c and not a and not d)
    return (a, b, c, d) if is_right_angle else (1, 0, 0, 1)


def _turned(image: NDArray[np.uint8], turn: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    a, b, c, d = turn
    if a == 0:
        image = image.transpose(1, 0, 2)  # (H, W, 3) -> (W, H, 3)
    return image[:: b + d, :: a + c]


def _rgb(
    frame: av.VideoFrame, width: int, height: int, reformatter: VideoReformatter | None = None
) -> NDArray[np.uint8]:
    # A stream that changes its size is scaled to the first frame, as a player's window does.
    reformatter = reformatter or VideoReformatter()
    rgb = reformatter.reformat(frame, width=width, height=height, format="rgb24")
    return np.asarray(rgb.to_ndarray(), np.uint8)
