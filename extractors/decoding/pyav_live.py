"""PyAV: opening a live source, and its packets as they come.

The only module beside `pyav_file.py` that imports av. What is received is only data: no file is
opened that it names, and of the network only what a playlist or a redirection leads to.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from extractors.decoding.containers import DEMUXERS
from extractors.decoding.live_source import LiveSource, LiveSourceError

GROWING_FORMATS = (
    "a file must be MPEG-TS, Matroska or fragmented MP4, which can be read as they grow; "
    "`pipeline score` reads finished ones of any kind"
)
POLL_SECONDS = 0.05  # how often a file is looked at for new data

# What a stream is made of is guessed from its first second. By default FFmpeg takes five, and all
# frames of that time would be late.
_PROBE = {"analyzeduration": "1000000"}
_OPTIONS = {
    "camera": {},
    "rtsp": {
        "format_whitelist": f"rtsp,{DEMUXERS}",
        "protocol_whitelist": "rtp,srtp,tcp,udp,tls,crypto",
        "rtsp_flags": "prefer_tcp",  # UDP loses packets
        **_PROBE,
    },
    "http": {
        # hls is a playlist of pieces, mpjpeg what simple cameras send.
        "format_whitelist": f"hls,mpjpeg,{DEMUXERS}",
        "protocol_whitelist": "http,https,httpproxy,tcp,tls,crypto",
        **_PROBE,
    },
    "file": {"format_whitelist": DEMUXERS, **_PROBE},
}


class GrowingFile:
    """A file as PyAV reads it: from its start, waiting at its end for more.

    It ends when nothing was added for some time. It cannot be searched: FFmpeg would else read its
    end first, which is not written yet.

    Args:
        path: The file.
        stall_seconds: How long to wait for more.

    Attributes:
        n_bytes: Bytes that were read.

    Raises:
        LiveSourceError: If it cannot be opened.
    """

    def __init__(self, path: Path, stall_seconds: float) -> None:
        self.name = path.name  # FFmpeg's guess of the container looks at its suffix
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise LiveSourceError(f"cannot be opened: {error.strerror}") from error
        self._stall_seconds = stall_seconds
        self._has_ended = False
        self.n_bytes = 0

    def read(self, n_bytes: int) -> bytes:
        """Read the next bytes, at most as many; none at the end, however often it is asked."""
        deadline = time.monotonic() + self._stall_seconds
        while not self._has_ended:
            if data := self._file.read(n_bytes):
                self.n_bytes += len(data)
                return data
            self._has_ended = time.monotonic() > deadline
            time.sleep(POLL_SECONDS)
        return b""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_source(
    source: LiveSource, stall_seconds: float, file: GrowingFile | None
) -> InputContainer:
    """Open a source.

    Args:
        source: What to open.
        stall_seconds: How long to wait for what a network sends.
        file: Of a source that is a file.

    Raises:
        LiveSourceError: If it cannot be opened. The message does not contain the address.
    """
    options = _OPTIONS[source.kind]
    began = time.monotonic()
    try:
        if file is not None:
            return av.open(file, "r", options=options, metadata_errors="replace")
        return av.open(
            source.address,
            "r",
            format="v4l2" if source.kind == "camera" else None,
            options=options,
            metadata_errors="replace",
            timeout=stall_seconds,
        )
    except FFmpegError as error:
        reason = _describe(error, began, stall_seconds)
        if file is not None:
            reason += f"; {GROWING_FORMATS}"
        raise LiveSourceError(f"cannot be opened: {reason}") from error


def read_live_packets(
    container: InputContainer, stream: VideoStream, stall_seconds: float
) -> Iterator["Packet[VideoStream]"]:
    """Yield the stream's packets until it ends.

    Raises:
        LiveSourceError: If it ends by an error, or sends nothing for `stall_seconds`.
    """
    asked = time.monotonic()
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
            asked = time.monotonic()
    except FFmpegError as error:
        raise LiveSourceError(_describe(error, asked, stall_seconds)) from error


def _describe(error: FFmpegError, began: float, stall_seconds: float) -> str:
    # Where PyAV's timeout interrupts FFmpeg, some protocols report another error.
    if isinstance(error, av.error.ExitError) or time.monotonic() >= began + stall_seconds:
        return f"it sends nothing for {stall_seconds:g} s"
    if isinstance(error, av.error.ArgumentError):
        return "Invalid argument; its format may not be one that is read"
    return error.strerror or type(error).__name__
