"""PyAV: opening a video file, selecting its stream, decoding packets, converting frames to RGB.

The only module of `extractors` that imports av, beside `pyav_live.py`. A file is only data: FFmpeg
opens no other file that its content names.

Decoding is on one thread: with several, the concealed pixels of a damaged file, and the number of
frames before an error, were seen to change from run to run.
"""

import stat
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
from av.container import InputContainer as InputContainer
from av.error import FFmpegError as FFmpegError
from av.filter import Graph
from av.packet import Packet as Packet
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.stream import Stream as Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame as VideoFrame
from av.video.reformatter import VideoReformatter as VideoReformatter
from av.video.stream import VideoStream as VideoStream
from numpy.typing import NDArray

from extractors.decoding.containers import DEMUXERS
from extractors.decoding.packets import has_frame_data, shows_frame
from extractors.errors import LookaroundError
from extractors.frame_dims import MAX_PIXELS

VERSION = f"pyav {av.__version__}"
TIME_BASE = int(av.time_base)  # units per second of a container's duration

# FFmpeg compares its limit with frames that are padded to multiples of up to 64 pixels.
MAX_PADDED_PIXELS = MAX_PIXELS * 21 // 20

# FFmpeg may not open other files or the network.
OPEN_OPTIONS = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}

OTHER_FILES = {
    "directory": stat.S_ISDIR,
    "named pipe": stat.S_ISFIFO,
    "socket": stat.S_ISSOCK,
}

# Streams beside the main one: covers, chapters' thumbnails, enhancement layers and tiles.
AUXILIARY = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.dependent

# FFmpeg's numbers of side data that PyAV does not know; FFmpeg has 32 of them now.
UNKNOWN_SIDE_DATA = sorted(set(range(64)) - {kind.value for kind in Type})


class VideoError(LookaroundError, OSError):
    """A video cannot be read."""

    @classmethod
    def about(cls, path: Path | str, problem: str) -> Self:
        """Build the error with a one-line message: the source's name, then its problem."""
        # A name can contain line breaks, or bytes that no terminal prints.
        name = "".join(letter if letter.isprintable() else "?" for letter in str(path))
        return cls(f"{name} {problem}")


def open_video(path: Path) -> InputContainer:
    """Open a regular file whose container is in `DEMUXERS`.

    Raises:
        VideoError: If it is not a regular file, is empty, or is not such a container.
    """
    check_is_file(path)
    # Absolute, so that a name such as "pipe:1.mp4" is not taken for a protocol.
    name = str(path.absolute())
    try:
        try:
            return av.open(name, options=OPEN_OPTIONS)
        except UnicodeDecodeError:  # tags in another encoding, which PyAV >= 19 accepts
            return av.open(name, options=OPEN_OPTIONS, metadata_errors="replace")
    except av.ArgumentError as error:  # the container is not in the list
        problem = "has no video stream that is read; playlists, image sequences and text are not"
        raise VideoError.about(path, problem) from error
    except FFmpegError as error:
        raise VideoError.about(path, f"cannot be opened as a video: {error.strerror}") from error


def check_is_file(path: Path) -> None:
    """Refuse, before it is opened, what is not a regular file, and a file that is empty.

    Raises:
        VideoError: If it is one of these, or is not there.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = next((kind for kind, is_kind in OTHER_FILES.items() if is_kind(mode)), "device")
            raise VideoError.about(path, f"is a {kind}; a regular file is expected")
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except VideoError:
        raise
    except OSError as error:
        raise VideoError.about(path, f"cannot be read: {error.strerror}") from error
    if is_empty:
        raise VideoError.about(path, "is empty (0 bytes); copy it again")


def select_stream(container: InputContainer, path: Path | str) -> VideoStream:
    """Select the stream that players select: prefer enabled ones, then moving, then the largest.

    Args:
        container: Open.
        path: Its name in messages.

    Raises:
        VideoError: If there is no video stream of a known codec, or its frames are too large.
    """
    streams = [stream for stream in container.streams.video if not stream.disposition & AUXILIARY]
    if not streams:
        raise VideoError.about(path, "has no video stream; a video file is expected")
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise VideoError.about(path, "has a video stream of an unknown codec; convert it to H.264")
    stream = max(known, key=_rank)
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        problem = (
            f"has frames of {width}x{height}, expected at most {MAX_PIXELS} pixels; "
            "scale the video down"
        )
        raise VideoError.about(path, problem)
    # The decoder's own limit, for frames that are larger than the container says.
    stream.codec_context.options = {"max_pixels": str(MAX_PADDED_PIXELS)}
    return stream


def _rank(stream: VideoStream) -> tuple[bool, bool, int]:
    """Sort key of players' preference; FFmpeg's own selects a depth map of a higher bit rate."""
    is_default = bool(stream.disposition & Disposition.default)
    is_moving = stream.frames != 1
    return is_default, is_moving, stream.codec_context.width * stream.codec_context.height


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator["Packet[VideoStream]"]:
    """Yield the stream's packets up to its end, or up to where the file cannot be read further.

    Empty packets are skipped: PyAV ends a stream with one, AVI repeats a frame with one.
    """
    with suppress(FFmpegError):
        for packet in container.demux(stream):
            if packet.size:
                yield packet


class Decoder:
    """Decodes the packets of one stream; after an error it skips to the next keyframe."""

    def __init__(self, stream: VideoStream) -> None:
        if not stream.codec_context.is_open:  # it stays open when the stream is read again
            stream.codec_context.thread_count = 1
        self._context = stream.codec_context
        self._codec = stream.codec_context.name
        self._extradata = stream.codec_context.extradata or b""
        self._is_lost = False

    def decode(self, packet: "Packet[VideoStream]") -> list[VideoFrame | None]:
        """Return the frames that can be shown now, and None if this packet cannot be decoded."""
        if self._is_lost and not packet.is_keyframe:
            return []
        try:
            frames = self._context.decode(packet)
        except FFmpegError:
            if not has_frame_data(self._codec, bytes(packet), self._extradata):
                return []
            self._is_lost = True
            return [*self.drain(), None]
        self._is_lost = False
        return [*frames]

    def drain(self) -> list[VideoFrame]:
        """Return the frames that are still buffered, and reset the decoder."""
        frames = []
        with suppress(FFmpegError):
            frames = self._context.decode(None)
        self._context.flush_buffers()
        return frames

    def shows_frame(self, packet: "Packet[VideoStream]") -> bool:
        """Whether the packet has a frame that is shown."""
        return shows_frame(self._codec, bytes(packet), self._extradata)


def decode_stream(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame | None]:
    """Yield all frames in presentation order, and None for each packet that cannot be decoded."""
    decoder = Decoder(stream)
    for packet in read_packets(container, stream):
        yield from decoder.decode(packet)
    yield from decoder.drain()


class ImageDecoder:
    """Decodes images of one codec, each of them the whole content of a file.

    Args:
        codec: FFmpeg's name, such as "mjpeg" for JPEG.
    """

    def __init__(self, codec: str) -> None:
        self._context: Any = VideoCodecContext.create(codec, "r")  # typed as a context of any kind
        self._context.thread_count = 1
        self._context.options = {"max_pixels": str(MAX_PADDED_PIXELS)}

    def decode(self, content: bytes) -> VideoFrame | None:
        """Return the image; None if it cannot be decoded or has too many pixels."""
        packet = Packet(content)
        packet.is_keyframe = True  # else FFmpeg adds a PNG image to the one before
        with suppress(FFmpegError):
            return next(iter(self._context.decode(packet)), None)
        return None


def display_turn(frame: VideoFrame) -> tuple[int, int, int, int]:
    """Return the rotation and mirroring that a frame's display matrix asks for.

    Returns:
        Signs (a, b, c, d): x' = ax + cy, y' = bx + dy. (1, 0, 0, 1), which changes nothing, if
        there is no matrix or its angle is not a multiple of 90 degrees.
    """
    side_data: Any  # PyAV types its keys as str only
    try:
        side_data = frame.side_data
    except ValueError:  # PyAV 18 cannot list side data of a type that it does not know
        side_data = _without_unknown_side_data(frame).side_data
    matrix = side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.sign(np.frombuffer(bytes(matrix), np.int32)[:5]).tolist()
    is_right_angle = (a and d and not b and not c) or (b and c and not a and not d)
    return (a, b, c, d) if is_right_angle else (1, 0, 0, 1)


def _without_unknown_side_data(frame: VideoFrame) -> VideoFrame:
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
    """Return a view of a frame (H, W, 3), rotated and mirrored by the signs of `display_turn`."""
    a, b, c, d = turn
    if a == 0:
        image = image.transpose(1, 0, 2)  # (H, W, 3) -> (W, H, 3)
    return image[:: b + d, :: a + c]


def to_rgb(
    frame: VideoFrame, width: int, height: int, reformatter: VideoReformatter | None = None
) -> NDArray[np.uint8]:
    """Convert a frame to (height, width, 3) uint8 RGB, scaled if it has another size.

    The matrix and range are those that the frame names, BT.601 limited where it names none.
    """
    reformatter = reformatter or VideoReformatter()
    rgb = reformatter.reformat(frame, width=width, height=height, format="rgb24")
    return np.asarray(rgb.to_ndarray(), np.uint8)
