"""A pool of child processes that decode several videos at a time.

A worker that hangs or crashes affects only its video, which is read once more, with PyAV. If that
worker fails too, the video is quarantined. The worker's side is `decode_worker.py`.
"""

import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from extractors.decoding.decode_messages import (
    Begun,
    Message,
    SlotFilled,
    SlotFree,
    Task,
    VideoEnded,
    VideoLost,
    VideoOpened,
)
from extractors.decoding.decode_process import describe_end, start_process, wait_for_end
from extractors.decoding.decode_worker import map_slots
from extractors.errors import LookaroundError

__all__ = [
    "DecodeEvent",
    "DecodePool",
    "DecoderStartError",
    "SnippetDecoded",
    "VideoEnded",
    "VideoLost",
    "VideoOpened",
]

# A worker that sends no message for longer counts as hung. Before a video's first message it reads
# the whole file once, which takes longer on a slow disk.
PATIENCE_SECONDS = 60.0
MIN_DISK_BYTES_PER_SECOND = 10e6
# A busy machine with a slow disk may take minutes to import what a worker needs.
START_SECONDS = 600.0
# New workers in a row that end before they begin with a video; then none of them can work.
MAX_FAILED_STARTS = 3


class DecoderStartError(LookaroundError, OSError):
    """Several decoding processes in a row end before they begin with a video."""


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


DecodeEvent = VideoOpened | SnippetDecoded | VideoEnded | VideoLost


@dataclass(frozen=True, slots=True)
class _Job:
    """A video to read.

    Attributes:
        path: The video.
        failure: How the first attempt failed; the second one is with PyAV.
        n_failed_starts: New workers in a row that ended before they began with it.
    """

    path: Path
    failure: str = ""
    n_failed_starts: int = 0

    @property
    def decoder(self) -> Literal["pyav"] | None:
        return "pyav" if self.failure else None


@dataclass(slots=True, eq=False)
class _Worker:
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
    job: _Job | None = None
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
        try:
            self.connection.send(message)
        except ConnectionError:
            return  # it died: the next thing received is the end of its pipe


class DecodePool:
    """Worker processes that decode videos. A context manager; leaving it ends them.

    Args:
        n_workers: Videos that are read at the same time.
        snippet_len: Frames per snippet.
        patience_seconds: Timeout of a worker without a message.
        register: Pins the memory of the slots in this process.
        worker_module: Its `main` runs in a worker.
    """

    def __init__(
        self,
        n_workers: int,
        snippet_len: int,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        register: Register | None = None,
        worker_module: str = "extractors.decoding.decode_worker",
    ) -> None:
        if n_workers < 1:
            raise ValueError(f"n_workers must be at least 1, instead got {n_workers}")
        self._n_workers = n_workers
        self._snippet_len = snippet_len
        self._patience_seconds = patience_seconds
        self._register = register
        self._worker_module = worker_module
        self._workers: list[_Worker] = []
        self._again: deque[_Job] = deque()
        self._task_ids = count()

    def __enter__(self) -> Self:
        """Enter; processes are started when there are videos to read."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Kill all workers."""
        while self._workers:
            self._end(self._workers[-1])

    def decode(self, paths: Iterable[Path]) -> Iterator[DecodeEvent]:
        """Yield what the workers read; snippets of one video in order, of several interleaved.

        Args:
            paths: Consumed one by one as workers become free. No path may occur twice.

        Raises:
            DecoderStartError: If several workers in a row do not start.
            OSError: If a process cannot be started.
        """
        waiting = iter(paths)
        self._hand_out(waiting)
        while busy := [worker for worker in self._workers if worker.job is not None]:
            for worker in self._wait_for_messages(busy):
                yield from self._receive(worker)
            for worker in busy:
                if worker in self._workers and worker.is_silent():
                    how = f"sent nothing for {worker.seconds:.3g} s"
                    yield from self._lose(worker, "DecoderHung", how)
            self._hand_out(waiting)

    def _hand_out(self, waiting: Iterator[Path]) -> None:
        """Send a video to each idle worker, and start workers as long as there are videos."""
        while True:
            worker = next((worker for worker in self._workers if worker.job is None), None)
            if worker is None and len(self._workers) == self._n_workers:
                return
            if self._again:
                job = self._again.popleft()
            elif (path := next(waiting, None)) is not None:
                job = _Job(path)
            else:
                return
            if worker is None:
                worker = _Worker(*start_process(self._worker_module))
                self._workers.append(worker)
            worker.wait_for_copies()  # the next video's frames go into the same memory
            worker.job, worker.has_begun, worker.task_id = job, False, next(self._task_ids)
            worker.wait_for(self._patience_seconds if worker.has_started else START_SECONDS)
            # A worker that has died is noticed when it is received from.
            worker.send(Task(worker.task_id, job.path, job.decoder, self._snippet_len))

    def _wait_for_messages(self, busy: list[_Worker]) -> list[_Worker]:
        """Wait until workers have sent messages, or until the first timeout; return the former."""
        first_deadline = min(worker.deadline for worker in busy)
        seconds_left = max(0.0, first_deadline - time.monotonic())
        connections = [worker.connection for worker in busy]
        for worker in busy:
            worker.give_slots_back()
        ready = wait(connections, timeout=0)
        if not ready:
            # They may be waiting for the slots that are not read yet.
            for worker in busy:
                worker.wait_for_copies()
            ready = wait(connections, timeout=seconds_left)
        return [worker for worker in busy if worker.connection in ready]

    def _receive(self, worker: _Worker) -> Iterator[DecodeEvent]:
        """Receive one message of a worker and yield the event that follows from it."""
        message: Message
        try:
            task_id, message = worker.connection.recv()
        except (EOFError, OSError):
            yield from self._lose(worker, "DecoderDied", describe_end(worker.process))
            return
        job = worker.job
        assert job is not None
        if task_id != worker.task_id:
            return  # of an earlier task
        seconds = self._patience_seconds
        match message:
            case Begun():
                worker.has_begun = worker.has_started = True
                seconds += _seconds_to_read(job.path)
            case VideoOpened():
                worker.open_slots(message, self._register)
                yield message
            case SlotFilled(slot=slot, timestamps=timestamps):
                assert worker.slots is not None
                is_pinned = worker.unregister is not None
                snippet = SnippetDecoded(job.path, worker.slots[slot], timestamps, is_pinned)
                worker.lent = snippet
                yield snippet
                if snippet.copy is None:
                    worker.send(SlotFree(worker.task_id, slot))
                else:
                    worker.copies.append((slot, snippet.copy))
            case VideoEnded():
                worker.job = None
                yield message
            case VideoLost():
                worker.job = None
                # The worker may have changed the memory's length, and so its pages.
                worker.close_slots()
                if message.is_decoder_error and not job.failure:
                    self._again.append(_Job(job.path, "failed with decord"))
                else:
                    yield message
        worker.wait_for(seconds)  # only now: the caller may have been slow

    def _lose(self, worker: _Worker, kind: str, how: str) -> Generator[VideoLost, None, None]:
        """Kill a worker that failed; its video is read again by another one, or quarantined."""
        job = worker.job
        assert job is not None
        self._end(worker)
        if not worker.has_begun:
            # A worker that has read a video before shows that workers can start.
            n_failed_starts = 0 if worker.has_started else job.n_failed_starts + 1
            if n_failed_starts == MAX_FAILED_STARTS:
                raise DecoderStartError(
                    f"{MAX_FAILED_STARTS} decoding processes in a row could not begin, the last "
                    f"one {how}; their messages are above, if there are any"
                )
            self._again.appendleft(replace(job, n_failed_starts=n_failed_starts))
        elif not job.failure:
            self._again.append(_Job(job.path, how))
        else:
            ways = f"{how}, twice" if how == job.failure else f"{job.failure}, then {how}"
            reason = f"{job.path}: the process that decodes it {ways}; check or remove the file"
            yield VideoLost(job.path, kind, reason, is_quarantined=True)

    def _end(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.process.kill()
        worker.close_slots()
        worker.connection.close()
        os.close(worker.memory_fd)
        wait_for_end(worker.process)


def _seconds_to_read(path: Path) -> float:
    try:
        return path.stat().st_size / MIN_DISK_BYTES_PER_SECOND
    except OSError:
        return 0.0  # the worker will report what is wrong with it
