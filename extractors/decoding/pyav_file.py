"""Opening a video file with PyAV, and choosing what is read of it.

A file is only data: it may hold what FFmpeg can decode, and may not lead to other files.
"""

import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import av
from av.container import InputContainer
from av.error import FFmpegError as FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from extractors.decoding.containers import DEMUXERS
from extractors.errors import LookaroundError
from extractors.frame_dims import MAX_PIXELS

# FFmpeg compares its limit with frames that are padded to multiples of up to 64 pixels.
MAX_PADDED_PIXELS = MAX_PIXELS * 21 // 20

# A file may not lead FFmpeg to other files or to the network.
OPEN_OPTIONS = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}

OTHER_FILES = {
    "directory": stat.S_ISDIR,
    "named pipe": stat.S_ISFIFO,
    "socket": stat.S_ISSOCK,
}

# Streams beside the picture: covers, chapters' thumbnails, enhancement layers and tiles.
AUXILIARY = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.dependent


class VideoError(LookaroundError, OSError):
    """A video cannot be read."""

    @classmethod
    def about(cls, path: Path, problem: str) -> Self:
        """The error whose one line is the file's name and its problem."""
        # A name may hold line breaks, or bytes that no terminal prints.
        name = "".join(letter if letter.isprintable() else "?" for letter in str(path))
        return cls(f"{name} {problem}")


def open_video(path: Path) -> InputContainer:
    """Open a regular file whose container is in `DEMUXERS`.

    Raises:
        VideoError: If it is none, or is not as it must be.
    """
    _check_is_file(path)
    # Absolute, so that a name such as "pipe:1.mp4" is not taken for a protocol.
    name = str(path.absolute())
    try:
        try:
            return av.open(name, options=OPEN_OPTIONS)
        except UnicodeDecodeError:  # tags in another encoding, which PyAV >= 19 accepts
            return av.open(name, options=OPEN_OPTIONS, metadata_errors="replace")
    except av.ArgumentError as error:  # the container is not on the list
        problem = "has no video stream that is read; playlists, image sequences and text are not"
        raise VideoError.about(path, problem) from error
    except FFmpegError as error:
        raise VideoError.about(path, f"cannot be opened as a video: {error.strerror}") from error


def _check_is_file(path: Path) -> None:
    """Refuse what may not be read to its end, before it is opened, and what is empty."""
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


def select_stream(container: InputContainer, path: Path) -> VideoStream:
    """The stream that players take: of those that begin enabled and move, the largest picture."""
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
    """What a player prefers; FFmpeg's own choice takes a depth map of a higher bit rate."""
    is_default = bool(stream.disposition & Disposition.default)
    is_moving = stream.frames != 1
    return is_default, is_moving, stream.codec_context.width * stream.codec_context.height


def read_packets(
    container: InputContainer, stream: VideoStream
) -> Iterator["av.Packet[VideoStream]"]:
    """The stream's packets up to its end, or to where the file cannot be read further.

    Empty ones are left out: PyAV ends a stream with one, AVI repeats a frame so.
    """
    with suppress(FFmpegError):
        for packet in container.demux(stream):
            if packet.size:
                yield packet
