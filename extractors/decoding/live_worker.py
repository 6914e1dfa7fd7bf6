"""The decoding worker of a live source: a child process that reads one connection to its end.

FFmpeg may hang or crash on what a network sends; then only this process does. The frames of each
snippet are written to a slot of memory that is shared with the parent. The slots are a queue of
limited length: where none is free in time, a whole snippet is left out. The parent's side is
`live_decoder.py`, the messages between them are in `live_messages.py`.
"""

import os
import sys
import time
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from extractors.decoding.live_frames import LiveFrame, LiveReader
from extractors.decoding.live_messages import (
    LiveSlotFilled,
    LiveSlotFree,
    LiveTask,
    PacketsRead,
    SnippetDropped,
    SnippetTimes,
    SourceLost,
    SourceOpened,
    map_live_slots,
)
from extractors.decoding.live_source import LiveSourceError

# One slot is being filled and one is being read; the others wait, within MAX_BYTES.
MAX_SLOTS = 8
MIN_SLOTS = 3
MAX_BYTES = 256 << 20
ALIVE_SECONDS = 1.0  # from one `PacketsRead` to the next
# How far a source is ahead counts half as much after this time: what is received evenly after a
# burst, or after the old part of a file, is due when it is received.
AHEAD_HALF_LIFE_SECONDS = 10.0


def main() -> None:
    """Serve the parent. Command-line arguments: the descriptors of the pipe and of the memory."""
    serve(Connection(int(sys.argv[1])), int(sys.argv[2]))


def serve(connection: Connection, memory_fd: int) -> None:
    """Read one connection to its end, or until the parent has ended.

    Args:
        connection: Receives a `LiveTask`, then a `LiveSlotFree` for each `LiveSlotFilled`; sends
            `LiveMessage`s.
        memory_fd: The anonymous file with the slots.
    """
    try:
        task: LiveTask = connection.recv()
        reader = LiveReader(task.source, task.stall_seconds, task.n_packets_read)
        reason = "has ended"
        try:
            _read(reader, task, connection, memory_fd)
        except ConnectionError:
            raise
        except (OSError, MemoryError) as error:
            reason = str(error) or type(error).__name__
        n_packets = max(reader.n_packets, task.n_packets_read)
        n_bytes = 0 if reader.file is None else reader.file.n_bytes
        connection.send(SourceLost(" ".join(reason.split()), n_packets, n_bytes))
    except (EOFError, ConnectionError):
        return  # the parent has ended


def _read(reader: LiveReader, task: LiveTask, connection: Connection, memory_fd: int) -> None:
    told = 0.0

    def tell() -> None:
        nonlocal told
        if time.monotonic() - told >= ALIVE_SECONDS:
            told = time.monotonic()
            connection.send(PacketsRead(reader.n_packets))

    writer: SnippetWriter | None = None
    try:
        for frame in reader.frames(tell):
            if writer is None:
                opened = _open_slots(frame, task, memory_fd)
                connection.send(opened)
                slots = map_live_slots(memory_fd, opened)
                writer = SnippetWriter(slots, connection, task.max_lag_seconds)
            writer.add(frame)
    except LiveSourceError:
        if writer is not None:
            writer.finish()
        raise
    if writer is not None:
        writer.finish()


def _open_slots(frame: LiveFrame, task: LiveTask, memory_fd: int) -> SourceOpened:
    slot_len = task.snippet_len + 1  # T flows need T + 1 frames
    slot_bytes = slot_len * frame.height * frame.width * 3
    n_slots = min(max(MAX_BYTES // slot_bytes, MIN_SLOTS), MAX_SLOTS)
    os.ftruncate(memory_fd, n_slots * slot_bytes)
    # If memory is short this is an error; writing to pages that are not allocated would crash.
    os.posix_fallocate(memory_fd, 0, n_slots * slot_bytes)
    return SourceOpened(frame.height, frame.width, frame.codec, slot_len, n_slots)


class PlayClock:
    """When a player would show each frame: as evenly as they were taken, none before it is here.

    A source that sends several seconds at once is ahead of the player for that time; one that is
    late delays it.
    """

    def __init__(self) -> None:
        self._delay: float | None = None
        self._last = 0.0

    def due(self, seconds: float, now: float) -> float:
        """When a frame of the source's time `seconds`, received now, is due, on the clock of now.

        >>> clock = PlayClock()
        >>> clock.due(5.0, now=100.0), clock.due(6.0, now=100.0), clock.due(6.5, now=103.0)
        (100.0, 101.0, 103.0)
        """
        delay = now - seconds
        if self._delay is not None and self._delay > delay:
            fraction = 0.5 ** ((now - self._last) / AHEAD_HALF_LIFE_SECONDS)
            delay += fraction * (self._delay - delay)
        self._delay, self._last = delay, now
        return seconds + delay


class SnippetWriter:
    """Gathers frames to snippets in slots, and drops snippets whole where no slot is free.

    Args:
        slots: (n_slots, T + 1, H, W, 3) uint8, the shared memory.
        connection: To the parent.
        max_lag_seconds: How long after a frame is due a slot for it is still waited for.
    """

    def __init__(
        self, slots: NDArray[np.uint8], connection: Connection, max_lag_seconds: float
    ) -> None:
        self._slots, self._connection = slots, connection
        self._max_lag_seconds = max_lag_seconds
        self._free = list(range(len(slots)))
        self._snippet_len = slots.shape[1] - 1
        self._clock, self._part = PlayClock(), 0
        self._slot: int | None = None  # of the snippet that is gathered; None: it is dropped
        self._timestamps: list[float] = []
        self._received: list[float] = []
        self._due = 0.0

    def add(self, frame: LiveFrame) -> None:
        """Take the next frame."""
        if frame.part != self._part:
            self.finish()
            self._clock, self._part = PlayClock(), frame.part
        due = self._clock.due(frame.seconds, time.monotonic())
        if len(self._timestamps) == self._snippet_len:
            self._send(frame)
        if not self._timestamps:
            self._slot = self._wait_for_slot(due + self._max_lag_seconds)
        if self._slot is not None:
            self._slots[self._slot, len(self._timestamps)] = frame.image()
        self._timestamps.append(frame.seconds)
        self._received.append(time.time())
        self._due = due

    def finish(self) -> None:
        """Send the last snippet, filled up with its last frame."""
        if self._timestamps:
            self._send(None)

    def _send(self, following: LiveFrame | None) -> None:
        if self._slot is None:
            self._connection.send(SnippetDropped())
        else:
            n_frames = len(self._timestamps)
            frames = self._slots[self._slot]
            if following is None:
                frames[n_frames:] = frames[n_frames - 1]
                last = self._timestamps[-2:]
                stop_seconds = last[-1] + (last[-1] - last[0])
                # That it is the last one was not known before, however long the source was silent.
                self._due = time.monotonic()
            else:
                frames[n_frames] = following.image()
                stop_seconds = following.seconds
            times = SnippetTimes(
                part=self._part,
                timestamps=np.array(self._timestamps),
                stop_seconds=stop_seconds,
                received=np.array(self._received),
                due=self._due,
                has_following=following is not None,
            )
            self._connection.send(LiveSlotFilled(self._slot, times))
        self._slot = None
        self._timestamps.clear()
        self._received.clear()

    def _wait_for_slot(self, deadline: float) -> int | None:
        """A free slot; None if there is none by the deadline, or now if that has passed."""
        while self._connection.poll(0 if self._free else max(0.0, deadline - time.monotonic())):
            message: LiveSlotFree = self._connection.recv()
            self._free.append(message.slot)
        return self._free.pop() if self._free else None
