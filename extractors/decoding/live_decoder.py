"""Reading a live source by way of a decoding process, which may hang or crash without harm.

The process's side is `live_worker.py`.
"""

import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from extractors.decoding.decode_process import describe_end, start_process, wait_for_end
from extractors.decoding.live_messages import (
    LiveMessage,
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
from extractors.decoding.live_source import LiveSource

__all__ = [
    "LiveDecoder",
    "LiveEvent",
    "LiveSnippet",
    "SnippetDropped",
    "SourceLost",
    "SourceOpened",
]

STALL_SECONDS = 10.0
MAX_LAG_SECONDS = 1.0
# The process itself ends a source that stalls. If it cannot, or has not even begun, it hangs.
PATIENCE_SECONDS = 10.0
START_SECONDS = 60.0
STOP_POLL_SECONDS = 0.2
CLOSE_SECONDS = 2.0  # to take leave of a camera, which may else keep the connection for a minute


@dataclass(frozen=True, slots=True, eq=False)
class LiveSnippet:
    """A snippet of a live source.

    Attributes:
        frames: (snippet_len + 1, H, W, 3) uint8 RGB, the last one being the one after the snippet;
            where a part ends its last frame is repeated. They are overwritten once the next event
            is asked for.
        times: When the frames are shown and were received.
    """

    frames: NDArray[np.uint8]
    times: SnippetTimes


LiveEvent = SourceOpened | LiveSnippet | SnippetDropped | SourceLost


class LiveDecoder:
    """One connection to a live source. A context manager; leaving it ends the process.

    Args:
        source: What to read.
        snippet_len: Frames per snippet.
        stall_seconds: A source that sends nothing for longer is lost.
        max_lag_seconds: A snippet that is asked for later than this after a player would have
            shown its last frame is dropped.
        n_packets_read: Of a file: packets that were read before, which are skipped.
        worker_module: Its `main` runs in the process.

    Raises:
        OSError: If the process cannot be started.
    """

    def __init__(
        self,
        source: LiveSource,
        snippet_len: int,
        *,
        stall_seconds: float = STALL_SECONDS,
        max_lag_seconds: float = MAX_LAG_SECONDS,
        n_packets_read: int = 0,
        worker_module: str = "extractors.decoding.live_worker",
    ) -> None:
        self._stall_seconds, self._max_lag_seconds = stall_seconds, max_lag_seconds
        self._close_seconds = 0.0 if source.kind == "file" else CLOSE_SECONDS
        self._n_packets = n_packets_read
        self._process, self._connection, self._memory_fd = start_process(worker_module)
        self._waiting: deque[LiveMessage] = deque()
        self._slots: NDArray[np.uint8] | None = None
        self._send(LiveTask(source, snippet_len, stall_seconds, max_lag_seconds, n_packets_read))

    def __enter__(self) -> Self:
        """Enter; the process is running."""
        return self

    def __exit__(self, *exception: object) -> None:
        """End the process: it is asked to, and killed if it does not."""
        self._connection.close()
        try:
            self._process.wait(self._close_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            wait_for_end(self._process)
        self._slots = None
        os.close(self._memory_fd)

    def read(self, is_stopped: Callable[[], bool]) -> Iterator[LiveEvent]:
        """Yield what is received, until the source is lost or the caller wants to stop.

        Args:
            is_stopped: Asked several times a second.

        Yields:
            `SourceOpened` first, and `SourceLost` last unless the caller has stopped.
        """
        patience = START_SECONDS
        deadline = time.monotonic() + patience
        while not is_stopped():
            self._receive()
            if not self._waiting:
                if self._connection.poll(STOP_POLL_SECONDS):
                    continue
                if time.monotonic() < deadline:
                    continue
                self._process.kill()
                how = f"its decoding process sent nothing for {patience:g} s and was ended"
                self._waiting.append(SourceLost(how, self._n_packets))
            message = self._waiting.popleft()
            match message:
                case SourceOpened():
                    self._slots = map_live_slots(self._memory_fd, message)
                    yield message
                case LiveSlotFilled(slot=slot, times=times):
                    assert self._slots is not None
                    is_late = time.monotonic() > times.due + self._max_lag_seconds
                    yield SnippetDropped() if is_late else LiveSnippet(self._slots[slot], times)
                    self._send(LiveSlotFree(slot))
                case PacketsRead(n_packets=n_packets):
                    self._n_packets = n_packets
                case SnippetDropped():
                    yield message
                case SourceLost():
                    yield message
                    return
            patience = self._stall_seconds + PATIENCE_SECONDS
            deadline = time.monotonic() + patience  # only now: the caller may have been slow

    def _receive(self) -> None:
        """Receive all messages that are there."""
        try:
            while self._connection.poll():
                self._waiting.append(self._connection.recv())
        except (EOFError, OSError):
            if not any(isinstance(message, SourceLost) for message in self._waiting):
                how = f"its decoding process {describe_end(self._process)}"
                self._waiting.append(SourceLost(how, self._n_packets))

    def _send(self, message: LiveTask | LiveSlotFree) -> None:
        try:
            self._connection.send(message)
        except ConnectionError:
            return  # it died: the next thing received is the end of its pipe
