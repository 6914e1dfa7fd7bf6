"""Decoding of a live source: its frames with their times, in parts whose times do not jump."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extractors.decoding.live_source import LiveSource, LiveSourceError
from extractors.decoding.pyav_file import (
    Decoder,
    Packet,
    VideoError,
    VideoFrame,
    VideoReformatter,
    VideoStream,
    display_turn,
    select_stream,
    to_rgb,
    turned,
)
from extractors.decoding.pyav_live import (
    GROWING_FORMATS,
    GrowingFile,
    open_source,
    read_live_packets,
)
from extractors.frame_dims import resized_dims

DEFAULT_FPS = 25.0  # FFmpeg's, for streams that do not say
# A time that is no later than the last one by less than this is an error of the source's.
REPEATED_SECONDS = 0.25
LEAST_STEP_SECONDS = 0.001
# Containers without times, for which FFmpeg counts frames. Over a network a frame has the time at
# which it is received.
TIMELESS = ("mpjpeg", "mjpeg", "h264", "hevc", "m4v")


@dataclass(frozen=True, slots=True, eq=False)
class LiveFrame:
    """A decoded frame, which is converted to RGB only if somebody reads it.

    Attributes:
        seconds: When it is shown, by the source's clock; later than the frame before.
        part: As in `SnippetTimes`.
        codec: FFmpeg's name, as "h264".
        height: Pixels, after rotation; the same for all frames of a connection.
        width: Pixels, after rotation.
    """

    seconds: float
    part: int
    codec: str
    height: int
    width: int
    _convert: Callable[[], NDArray[np.uint8]]

    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, rotated as shown."""
        return self._convert()


class LiveReader:
    """Reads one connection to a source.

    Args:
        source: What to open.
        stall_seconds: A source that sends nothing for longer is lost. Times that jump forward by
            more, or backward, begin a new part.
        n_packets_read: Of a file: packets that were read before, whose frames are left out.

    Attributes:
        n_packets: Packets that have been read, `n_packets_read` included.
        file: What a file is read from, once it is open.
    """

    def __init__(self, source: LiveSource, stall_seconds: float, n_packets_read: int = 0) -> None:
        self._source, self._stall_seconds = source, stall_seconds
        self._n_packets_read = n_packets_read
        self.n_packets = 0
        self.file: GrowingFile | None = None

    def frames(self, on_packet: Callable[[], None]) -> Iterator[LiveFrame]:
        """Decode the frames as they come, until the source ends.

        Args:
            on_packet: Called for each packet.

        Raises:
            LiveSourceError: If the source cannot be opened, ends by an error or stalls. The frames
                that the decoder had buffered are yielded before.
        """
        if self._source.kind == "file":
            self.file = GrowingFile(Path(self._source.address), self._stall_seconds)
        with open_source(self._source, self._stall_seconds, self.file) as container:
            try:
                stream = select_stream(container, self._source.name)
            except VideoError as error:
                raise LiveSourceError(str(error).removeprefix(self._source.name).strip()) from error
            decoder = Decoder(stream)
            is_timeless = self._source.kind == "http" and container.format.name in TIMELESS
            view = _View(stream, self._stall_seconds, is_timeless=is_timeless)
            lost: LiveSourceError | None = None
            try:
                packets = read_live_packets(container, stream, self._stall_seconds)
                for packet in self._new_packets(packets, view, on_packet):
                    yield from view.show(decoder.decode(packet))
            except LiveSourceError as error:
                # The index of an ordinary MP4 is at its end, which is found only after opening.
                is_unreadable = self.file is not None and not self.n_packets
                lost = LiveSourceError(f"{error}; {GROWING_FORMATS}") if is_unreadable else error
            yield from view.show(decoder.drain())
            if lost is not None:
                raise lost

    def _new_packets(
        self,
        packets: Iterator["Packet[VideoStream]"],
        view: "_View",
        on_packet: Callable[[], None],
    ) -> Iterator["Packet[VideoStream]"]:
        """Leave out packets that were read before, except those that new ones are decoded from."""
        since_keyframe: list[Packet[VideoStream]] = []
        for packet in packets:
            self.n_packets += 1
            on_packet()
            if self.n_packets <= self._n_packets_read:
                since_keyframe = [packet] if packet.is_keyframe else [*since_keyframe, packet]
                continue
            if since_keyframe:
                view.hide({each.pts for each in since_keyframe})
                yield from since_keyframe
                since_keyframe = []
            yield packet


class _View:
    """Gives frames the size and the rotation of the first one, and times that increase."""

    def __init__(self, stream: VideoStream, max_jump_seconds: float, *, is_timeless: bool) -> None:
        self._stream, self._max_jump_seconds = stream, max_jump_seconds
        self._is_timeless, self._opened = is_timeless, time.monotonic()
        self._step = 1 / float(stream.average_rate or DEFAULT_FPS)
        self._hidden: set[int | None] = set()
        self._last: float | None = None
        self._part = 0
        self._turn: tuple[int, int, int, int] | None = None
        self._size = 0, 0
        self._reformatter = VideoReformatter()

    def hide(self, times: set[int | None]) -> None:
        """Leave out the frames of these times, which were shown before."""
        self._hidden = times

    def show(self, frames: Sequence[VideoFrame | None]) -> Iterator[LiveFrame]:
        for frame in frames:
            # A frame that cannot be decoded is left out, as in a file.
            if frame is not None and (frame.pts is None or frame.pts not in self._hidden):
                yield self._frame(frame)

    def _frame(self, frame: VideoFrame) -> LiveFrame:
        if self._turn is None:
            self._turn = display_turn(frame)
            self._size = frame.width, frame.height
        width, height = self._size
        turn = self._turn
        shown_height, shown_width = (width, height) if turn[0] == 0 else (height, width)
        if self._last is None:
            try:
                resized_dims(shown_height, shown_width)
            except ValueError as error:
                raise LiveSourceError(str(error)) from error
        return LiveFrame(
            seconds=self._tick(frame),
            part=self._part,
            codec=self._stream.codec_context.name,
            height=shown_height,
            width=shown_width,
            _convert=lambda: turned(to_rgb(frame, width, height, self._reformatter), turn),
        )

    def _tick(self, frame: VideoFrame) -> float:
        """The frame's time. One that goes back or jumps forward begins a new part."""
        last = self._last
        seconds = self._own_time(frame)
        if seconds is None:
            seconds = 0.0 if last is None else last + self._step
        elif last is not None:
            if not last - REPEATED_SECONDS < seconds <= last + self._max_jump_seconds:
                self._part += 1
            elif seconds <= last:
                seconds = last + LEAST_STEP_SECONDS
        self._last = seconds
        return seconds

    def _own_time(self, frame: VideoFrame) -> float | None:
        if self._is_timeless:
            return time.monotonic() - self._opened
        base = self._stream.time_base
        if frame.pts is None or base is None:
            return None
        return frame.pts * base.numerator / base.denominator
