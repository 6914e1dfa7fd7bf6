"""When live scoring connects to a source again, and what it has read of a file before."""

import threading
from collections.abc import Callable
from pathlib import Path

from extractors.decoding.live_decoder import SourceLost
from extractors.decoding.live_source import LiveSource

FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 30.0
FILE_POLL_SECONDS = 0.5  # how often a file that does not grow is looked at
NO_FILE = (0, 0, 0)


class Connections:
    """When a source is connected to again, and what was read of it before.

    It is tried again with growing pauses; a file, only once it has grown or was replaced.

    Args:
        source: What is read.
        warn: Called with a line for people.
    """

    def __init__(self, source: LiveSource, warn: Callable[[str], None]) -> None:
        self._source, self._warn = source, warn
        self._pause = FIRST_RETRY_SECONDS
        self._lost: SourceLost | None = None
        self._told = ""  # why it was lost last
        self._file = self._file_state()  # the file that was read last

    def begin(self) -> int:
        """A connection begins; returns the packets of a file that were read before."""
        before, self._file = self._file, self._file_state()
        lost, self._lost = self._lost, None
        if self._source.kind != "file" or lost is None:
            return 0
        is_same = before[:2] == self._file[:2] and self._file[2] >= lost.n_bytes
        return lost.n_packets if is_same else 0

    def open(self) -> None:
        """The source sends frames."""
        self._pause = FIRST_RETRY_SECONDS
        self._told = ""

    def lose(self, lost: SourceLost) -> None:
        """The source was lost."""
        self._lost = lost
        if lost.reason != self._told:
            self._told = lost.reason
            what = "until it grows" if self._source.kind == "file" else "until it returns"
            self._warn(f"{lost.reason}; waiting {what}")

    def wait(self, stop: threading.Event) -> None:
        """Wait until it is time to connect again."""
        lost = self._lost
        if lost is None or stop.wait(self._pause):
            return
        self._pause = min(2 * self._pause, MAX_RETRY_SECONDS)
        if self._source.kind == "file":
            as_it_was = (*self._file[:2], lost.n_bytes)
            while self._file_state() in (as_it_was, NO_FILE) and not stop.wait(FILE_POLL_SECONDS):
                continue

    def _file_state(self) -> tuple[int, int, int]:
        """Device, number and size of a file."""
        try:
            found = Path(self._source.address).stat()
        except (OSError, ValueError):
            return NO_FILE
        return found.st_dev, found.st_ino, found.st_size
