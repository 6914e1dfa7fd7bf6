"""Decoding in watched child processes, several videos at a time.

A worker that hangs or dies takes nothing along but its video. That one is read once more, with
PyAV; if it brings that worker down too, it is given up. See `decode_worker.py` for the other end.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from extractors.decoding.decode_worker import (
    Begun,
    Ended,
    Message,
    Opened,
    Refused,
    SlotFilled,
    SlotFree,
    Task,
    map_slots,
)
from extractors.errors import LookaroundError

logger = logging.getLogger(__name__)

# A worker that is silent for longer hangs. Before its first word on a video it reads the whole
# file once, which on a slow disk takes a while.
PATIENCE_SECONDS = 60.0
MIN_DISK_BYTES_PER_SECOND = 10e6
# A busy machine with a slow disk may take minutes to import what a worker needs.
START_SECONDS = 600.0
# New workers in a row that end before they take a video up; then something is wrong with all.
MAX_FAILED_STARTS = 3
# Until a process that is ending, or was killed, is gone.
END_SECONDS = 10.0

# The worker's `main`, in a process that looks for modules where this one does: nowhere else, and
# not in the current folder, which may be somebody else's. SIGINT (Ctrl-C) reaches the parent, which
# ends its workers.
CHILD_CODE = """
import sys
sys.path[:] = sys.argv[3:]
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from {module} import main
main()
"""


class DecoderStartError(LookaroundError, OSError):
    """Decoding processes end before they take up a video, one after the other."""


class Copy(Protocol):
    """A copy of a snippet's frames that goes on in the background, as CUDA's events are."""

    def query(self) -> bool:
        """Whether it has ended."""

    def synchronize(self) -> None:
        """Wait for its end."""


# Pins memory; what it returns undoes that, and is None where nothing was pinned.
Register = Callable[[NDArray[np.uint8]], Callable[[], None] | None]


@dataclass(frozen=True, slots=True)
class VideoOpened:
    """A video is being read, from its start; anything that came of it before does not count."""

    path: Path
    opened: Opened


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
class VideoEnded:
    """All snippets of a video were there; `n_missing` of its frames could not be decoded."""

    path: Path
    n_missing: int


@dataclass(frozen=True, slots=True)
class VideoLost:
    """A video cannot be read.

    Attributes:
        path: The video.
        kind: Name of the error's class; of a worker "DecoderDied" or "DecoderHung".
        reason: One line that names the file.
        is_quarantined: Whether it brought its worker down, so that it had better be left alone.
        is_machine_error: Whether the machine lacked memory or room, so that it may be read later.
    """

    path: Path
    kind: str
    reason: str
    is_quarantined: bool
    is_machine_error: bool = False


DecodeEvent = VideoOpened | SnippetDecoded | VideoEnded | VideoLost


@dataclass(frozen=True, slots=True)
class _Job:
    """A video to read.

    Attributes:
        path: The video.
        failure: How the first try ended; the second one is with PyAV.
        n_failed_starts: New workers in a row that ended before they took it up.
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
        connection: Takes `Task` and `SlotFree`, brings `Message`s.
        memory_fd: The anonymous file that holds the slots.
        job: What it reads; None while it is idle.
        task_id: Of the task that it was given last.
        has_begun: Whether it has taken that task up.
        has_started: Whether it has taken any task up.
        slots: (n_slots, T, H, W, C) uint8, the video's slots once it is open; kept for the next
            video, which may have frames of the same size.
        unregister: Undoes the pinning of the slots, where they are pinned.
        lent: The snippet that was passed on last.
        copies: Of slots, in order, that the worker has not got back because they are still read.
        seconds: How long it may be silent.
        deadline: When that time is over.
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
        """Give it some time to say something."""
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds

    def is_silent(self) -> bool:
        """Whether it should have said something by now, and has not."""
        is_late = self.job is not None and time.monotonic() > self.deadline
        return is_late and not self.connection.poll()

    def open_slots(self, opened: Opened, register: Register | None) -> None:
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
            return  # it died; what it says next is the end of its pipe


class DecodePool:
    """Worker processes that decode videos. A context manager; leaving it ends them.

    Args:
        n_workers: Videos that are read at the same time.
        snippet_len: Frames per snippet.
        patience_seconds: How long a worker may be silent when it could speak.
        register: Pins the memory of the slots in this process.
        worker_module: Its `main` is what runs in a worker.
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
        """Nothing is started before there is a video to read."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End all workers, whatever they are doing."""
        while self._workers:
            self._end(self._workers[-1])

    def decode(self, paths: Iterable[Path]) -> Iterator[DecodeEvent]:
        """Yield what the workers read; snippets of one video in order, of several mixed.

        Args:
            paths: Taken one by one as workers become free. No path may come twice.

        Raises:
            DecoderStartError: If several workers in a row do not even start.
            OSError: If a process cannot be started.
        """
        waiting = iter(paths)
        self._hand_out(waiting)
        while busy := [worker for worker in self._workers if worker.job is not None]:
            for worker in self._heard(busy):
                yield from self._receive(worker)
            for worker in busy:
                if worker in self._workers and worker.is_silent():
                    how = f"sent nothing for {worker.seconds:.3g} s"
                    yield from self._lose(worker, "DecoderHung", how)
            self._hand_out(waiting)

    def _hand_out(self, waiting: Iterator[Path]) -> None:
        """Give every idle worker a video, and start workers as long as there are videos."""
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
                worker = _start(self._worker_module)
                self._workers.append(worker)
            worker.wait_for_copies()  # the next video's frames go into the same memory
            worker.job, worker.has_begun, worker.task_id = job, False, next(self._task_ids)
            worker.wait_for(self._patience_seconds if worker.has_started else START_SECONDS)
            # A worker that is gone already is noticed when it is listened to.
            worker.send(Task(worker.task_id, job.path, job.decoder, self._snippet_len))

    def _heard(self, busy: list[_Worker]) -> list[_Worker]:
        """Wait until a worker has something to say, or until one should have had."""
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
        """Pass on one message of a worker."""
        try:
            message: Message = worker.connection.recv()
        except (EOFError, OSError):
            yield from self._lose(worker, "DecoderDied", _way_of_death(worker.process))
            return
        job = worker.job
        assert job is not None
        if message.task_id != worker.task_id:
            return  # of an earlier task
        seconds = self._patience_seconds
        match message:
            case Begun():
                worker.has_begun = worker.has_started = True
                seconds += _seconds_to_read(job.path)
            case Opened():
                worker.open_slots(message, self._register)
                yield VideoOpened(job.path, message)
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
            case Ended(n_missing=n_missing):
                worker.job = None
                yield VideoEnded(job.path, n_missing)
            case Refused():
                worker.job = None
                # The worker may have changed the memory's length, and so its pages.
                worker.close_slots()
                if message.is_decoder and not job.failure:
                    self._again.append(_Job(job.path, "failed with decord"))
                else:
                    kind, reason = message.kind, message.reason
                    yield VideoLost(job.path, kind, reason, False, message.is_machine_error)
        worker.wait_for(seconds)  # not before, for the reader may have taken its time

    def _lose(self, worker: _Worker, kind: str, how: str) -> Generator[VideoLost, None, None]:
        """End a worker that failed; its video is read again by another, or given up."""
        job = worker.job
        assert job is not None
        self._end(worker)
        if not worker.has_begun:
            # One that ends between two videos has shown that workers do start.
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
        try:
            worker.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            logger.warning(
                "decoding process %d was killed and is still there after %g s; going on without it",
                worker.process.pid,
                END_SECONDS,
            )


def _start(module: str) -> _Worker:
    """Start a worker: a program of its own, which does not import this one's main module again."""
    ours, theirs = Pipe()
    memory_fd = os.memfd_create("frames")
    fds = theirs.fileno(), memory_fd
    folders = [folder for folder in sys.path if folder]
    folders.append(str(Path(__file__).parents[2]))  # where this one was found by the current folder
    code = CHILD_CODE.format(module=module)
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, *map(str, fds), *folders],
        stdin=subprocess.DEVNULL,
        # NumPy would start a thread for each core, which a decoder never uses.
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        pass_fds=fds,
    )
    theirs.close()
    return _Worker(process, ours, memory_fd)


def _seconds_to_read(path: Path) -> float:
    try:
        return path.stat().st_size / MIN_DISK_BYTES_PER_SECOND
    except OSError:
        return 0.0  # the worker will say what is wrong with it


def _way_of_death(process: subprocess.Popen[bytes]) -> str:
    """How a process ended that closed its pipe, in words: "was killed by SIGSEGV"."""
    try:
        code = process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        return "closed its pipe"
    if code < 0:
        names = {one.value: one.name for one in signal.Signals}
        return f"was killed by {names.get(-code, f'signal {-code}')}"
    return f"ended with exit code {code}"
