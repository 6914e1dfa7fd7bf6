"""The pool's side of one decoding worker: its process, what it reads, and the slots it fills."""

import subprocess
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from extractors.decoding.decode_messages import SlotFree, Task, VideoOpened
from extractors.decoding.decode_worker import map_slots
from extractors.decoding.frame_folder import VideoSource, path_of


class Copy(Protocol):
    """A copy of a snippet's frames in the background, such as a CUDA event stands for."""

    def query(self) -> bool:
        """Whether it is complete."""

    def synchronize(self) -> None:
        """Wait until it is complete."""


# Pins memory; the returned function unpins it, and is None if nothing was pinned.
Register = Callable[[NDArray[np.uint8]], Callable[[], None] | None]


@dataclass(slots=True, eq=False)
class SnippetDecoded:
    """A snippet of a video, in order.

    Attributes:
        path: The video.
        frames: (snippet_len + 1, H, W, 3) uint8 RGB, the last one being the one after the snippet;
            where the video ends its last frame is repeated. They are overwritten once the next
            event is asked for and `copy` has ended.
        timestamps: (n_frames,) float64 seconds of the snippet's own frames.
        is_pinned: Whether the frames lie in memory that was registered.
        copy: To be set by whoever still reads the frames when asking for the next event.
    """

    path: Path
    frames: NDArray[np.uint8]
    timestamps: NDArray[np.float64]
    is_pinned: bool = False
    copy: Copy | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A video to read.

    Attributes:
        source: The video.
        failure: How the first attempt failed; the second one is with PyAV.
        n_failed_starts: New workers in a row that ended before they began with it.
    """

    source: VideoSource
    failure: str = ""
    n_failed_starts: int = 0

    @property
    def path(self) -> Path:
        """The video's file or folder."""
        return path_of(self.source)

    @property
    def decoder(self) -> Literal["pyav"] | None:
        """The decoder to use; None for the usual choice."""
        return "pyav" if self.failure else None


@dataclass(slots=True, eq=False)
class WorkerHandle:
    """The parent's side of one worker.

    Attributes:
        process: Runs `decode_worker.main`.
        connection: Sends `Task` and `SlotFree`, receives pairs of task_id and `Message`.
        memory_fd: The anonymous file with the slots.
        job: The video that it reads; None while it is idle.
        task_id: Of the task that was sent last.
        has_begun: Whether it has begun with that task.
        has_started: Whether it has begun with any task.
        slots: (n_slots, T, H, W, C) uint8, the video's slots once it is open; kept for the next
            video, whose frames may have the same size.
        unregister: Unpins the slots; None if they are not pinned.
        lent: The snippet that was passed on last.
        copies: Of slots, in order, that are still being copied and not returned to the worker.
        seconds: Timeout without a message.
        deadline: When the timeout expires.
    """

    process: subprocess.Popen[bytes]
    connection: Connection
    memory_fd: int
    job: Job | None = None
    task_id: int = -1
    has_begun: bool = False
    has_started: bool = False
    slots: NDArray[np.uint8] | None = None
    unregister: Callable[[], None] | None = None
    lent: SnippetDecoded | None = None
    copies: deque[tuple[int, Copy]] = field(default_factory=deque)
    seconds: float = 0.0
    deadline: float = 0.0

    def wait_for(self, seconds: float) -> None:
        """Restart the timeout."""
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds

    def is_silent(self) -> bool:
        """Whether the timeout expired without a message."""
        is_late = self.job is not None and time.monotonic() > self.deadline
        return is_late and not self.connection.poll()

    def open_slots(self, opened: VideoOpened, register: Register | None) -> None:
        """Map a video's slots, unless those of the video before are alike."""
        if self.slots is not None and self.slots.shape == (opened.n_slots, *opened.slot_shape):
            return
        self.close_slots()
        self.slots = map_slots(self.memory_fd, opened)
        self.unregister = None if register is None else register(self.slots)

    def close_slots(self) -> None:
        """Let go of the slots, once nobody reads them any more."""
        self.wait_for_copies()
        if self.lent is not None and self.lent.copy is not None:
            self.lent.copy.synchronize()  # whoever reads it did not ask for the next event
        if self.unregister is not None:
            self.unregister()  # before the memory is unmapped
        self.slots = self.unregister = self.lent = None

    def wait_for_copies(self) -> None:
        """Wait until all slots are read, and give them back."""
        while self.copies:
            self.copies[0][1].synchronize()
            self.give_slots_back()

    def give_slots_back(self) -> None:
        """Give those slots back to the worker that are read."""
        while self.copies and self.copies[0][1].query():
            self.send(SlotFree(self.task_id, self.copies.popleft()[0]))

    def send(self, message: Task | SlotFree) -> None:
        """Send a message; does nothing if the worker has died."""
        try:
            self.connection.send(message)
        except ConnectionError:
            return  # it died: the next thing received is the end of its pipe
