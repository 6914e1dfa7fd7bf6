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
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.stream import Stream
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from extractors.decoding.containers import is_cut_off
from extractors.decoding.packets import has_picture, shows_frame
from extractors.decoding.pyav_file import VideoError, open_video, read_packets, select_stream

# FFmpeg's numbers of side data that PyAV does not know; it has 32 of them now.
UNKNOWN_SIDE_DATA = sorted(set(range(64)) - {kind.value for kind in Type})

VERSION = f"pyav {av.__version__}"


@dataclass(frozen=True, slots=True, eq=False)
class StreamIndex:
    """What a file's video stream announces, from one pass over its packets.

    Attributes:
        timestamps: (n,) float64 seconds, when the frames whose packets were found are shown,
            sorted. Packets without a time are not among them.
        n_frames: Packets that show a frame, and `n_cut_off`.
        n_cut_off: Frames that the container lists and that the file ends before.
        fps: Average frames per second.
        first_frame: (H, W, 3) uint8 RGB, turned as shown.
        turn: Signs (a, b, c, d) of the display matrix: x' = ax + cy, y' = bx + dy.
        container: FFmpeg's name, as "matroska,webm".
        codec: The decoder's name, as "h264".
        pixel_format: FFmpeg's name, as "yuv420p".
        is_plain: Every announced frame was found, whole, shown, with a time of its own; no other
            video stream is beside it.
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
    """List a file's frames without decoding more than the first.

    Raises:
        VideoError: If the file cannot be read or holds no video that can be decoded.
    """
    first: av.VideoFrame | None = None
    times: list[int] = []
    n_packets = n_found = n_shown = n_damaged = 0
    with open_video(path) as container:
        stream = select_stream(container, path)
        decoder = _Decoder(stream)
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
    """Yield every frame that PyAV can decode, with its time, and None where a packet is broken.

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
    with open_video(path) as container:
        stream = select_stream(container, path)
        # AVI times the order of decoding, which B-frames change.
        is_timed = "avi" not in container.format.name or not stream.codec_context.has_b_frames
        for frame in decode_stream(container, stream):
            if frame is None:
                yield None
                continue
            image = to_rgb(frame, width, height, reformatter)
            pts = frame.pts if is_timed else None
            seconds = None if pts is None else _seconds(pts, stream)
            yield turned(image, index.turn), clock.tick(seconds)


class _Decoder:
    """Decodes packets of one stream; after an error it waits for the next keyframe."""

    def __init__(self, stream: VideoStream) -> None:
        if not stream.codec_context.is_open:  # it stays open when a file is read from another time
            stream.codec_context.thread_count = 1
        self._context = stream.codec_context
        self._codec = stream.codec_context.name
        self._extradata = stream.codec_context.extradata or b""
        self._is_lost = False

    def decode(self, packet: "av.Packet[VideoStream]") -> list[av.VideoFrame | None]:
        """The frames whose turn it is now, and None if this packet cannot be decoded."""
        if self._is_lost and not packet.is_keyframe:
            return []
        try:
            frames = self._context.decode(packet)
        except av.FFmpegError:
            if not has_picture(self._codec, bytes(packet), self._extradata):
                return []
            self._is_lost = True
            return [*self.drain(), None]
        self._is_lost = False
        return [*frames]

    def drain(self) -> list[av.VideoFrame]:
        """The frames that wait for their turn. The decoder begins anew after it."""
        frames = []
        with suppress(av.FFmpegError):
            frames = self._context.decode(None)
        self._context.flush_buffers()
        return frames

    def shows_frame(self, packet: "av.Packet[VideoStream]") -> bool:
        return shows_frame(self._codec, bytes(packet), self._extradata)


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


def decode_stream(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame | None]:
    """All frames in the order in which they are shown, and None where a packet is broken."""
    decoder = _Decoder(stream)
    for packet in read_packets(container, stream):
        yield from decoder.decode(packet)
    yield from decoder.drain()


def _n_listed(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    timestamps: NDArray[np.float64],
    fps: float,
) -> int:
    """Frames that a header or an index promises, if the file ends before; else 0."""
    name = container.format.name
    if "mov" in name:  # its header counts frames that an edit list hides
        return sum(entry.size > 0 and not entry.is_discard for entry in stream.index_entries)
    if not is_cut_off(path, name):
        return 0
    if name == "avi":
        return stream.frames
    # Matroska has no list of frames. Its duration counts sound, which may last longer.
    announced_end = (container.duration or 0) / av.time_base
    is_short = (announced_end - _read_end_seconds(path)) * fps > 0.5
    return round((announced_end - timestamps[0]) * fps) if is_short and len(timestamps) else 0


def _read_end_seconds(path: Path) -> float:
    """When the last packet of all streams ends."""
    last_end = 0.0
    with open_video(path) as container, suppress(av.FFmpegError):
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
    return 25.0  # what FFmpeg takes for streams without any times


def display_turn(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """The signs (a, b, c, d) of a frame's display matrix, as in `StreamIndex.turn`."""
    side_data: Any  # PyAV types it as a mapping by str alone
    try:
        side_data = frame.side_data
    except ValueError:  # PyAV 18 cannot list data of a kind that it does not know
        side_data = _without_unknown_side_data(frame).side_data
    matrix = side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.sign(np.frombuffer(bytes(matrix), np.int32)[:5]).tolist()
    is_right_angle = (a and d and not b and not c) or (b and c and not a and not d)
    return (a, b, c, d) if is_right_angle else (1, 0, 0, 1)


def _without_unknown_side_data(frame: av.VideoFrame) -> av.VideoFrame:
    graph = Graph()
    nodes = [
        graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25)
        ),
        *(graph.add("sidedata", f"mode=delete:type={number}") for number in UNKNOWN_SIDE_DATA),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*nodes).configure()
    graph.push(frame)
    return graph.vpull()


def turned(image: NDArray[np.uint8], turn: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """An image (H, W, 3) as it is shown; a view."""
    a, b, c, d = turn
    if a == 0:
        image = image.transpose(1, 0, 2)  # (H, W, 3) -> (W, H, 3)
    return image[:: b + d, :: a + c]


def to_rgb(
    frame: av.VideoFrame, width: int, height: int, reformatter: VideoReformatter | None = None
) -> NDArray[np.uint8]:
    """A frame as (height, width, 3) uint8 RGB in [0, 255], as it is stored."""
    # A stream that changes its size is scaled to the first frame, as a player's window does.
    reformatter = reformatter or VideoReformatter()
    rgb = reformatter.reformat(frame, width=width, height=height, format="rgb24")
    return np.asarray(rgb.to_ndarray(), np.uint8)
