"""Decoding in watched child processes, several videos at a time.

A worker that hangs or dies takes nothing along but its video. That one is read once more, with
PyAV; if it brings that worker down too, it is given up. See `decode_worker.py` for the other end.
"""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from extractors.decode_worker import (
    Ended,
    Message,
    Opened,
    Ready,
    Refused,
    SlotFilled,
    Task,
    map_slots,
    serve,
)

# A worker that is silent for longer hangs. Before its first word on a video it reads the whole
# file once, which on a slow disk takes a while.
PATIENCE_SECONDS = 60.0
SLOWEST_DISK_BYTES_PER_SECOND = 10e6


@dataclass(frozen=True, slots=True)
class VideoOpened:
    """A video is being read, from its start; anything that came of it before does not count."""

    path: Path
    opened: Opened


@dataclass(frozen=True, slots=True, eq=False)
class SnippetDecoded:
    """A snippet of a video, in order.

    Attributes:
        path: The video.
        frames: (snippet_len + 1, H, W, 3) uint8 RGB, the last one being the one after the snippet;
            where the video ends its last frame is repeated. They are overwritten once the next
            event is asked for.
        timestamps: (n_frames,) float64 seconds of the snippet's own frames.
    """

    path: Path
    frames: NDArray[np.uint8]
    timestamps: NDArray[np.float64]


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
    """

    path: Path
    kind: str
    reason: str
    is_quarantined: bool


DecodeEvent = VideoOpened | SnippetDecoded | VideoEnded | VideoLost


class _Memory:
    """An anonymous file, which a process that is being started gets a descriptor of its own for."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_parent, (DupFd(self.fd),)


def _from_parent(descriptor: Any) -> _Memory:
    return _Memory(descriptor.detach())


@dataclass(slots=True, eq=False)
class _Worker:
    """The parent's side of one worker."""

    process: BaseProcess
    connection: Connection
    memory: _Memory
    task: Task | None = None
    is_ready: bool = False
    slots: NDArray[np.uint8] | None = None
    deadline: float = 0.0

    def is_silent(self) -> bool:
        """Whether it should have said something by now, and has not."""
        is_late = self.task is not None and time.monotonic() > self.deadline
        return is_late and not self.connection.poll()


class DecodePool:
    """Worker processes that decode videos. A context manager; leaving it ends them.

    Args:
        n_workers: Videos that are read at the same time.
        snippet_len: Frames per snippet.
        patience_seconds: How long a worker may be silent when it could speak.
    """

    def __init__(
        self, n_workers: int, snippet_len: int, *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        if n_workers < 1:
            raise ValueError(f"n_workers must be at least 1, instead got {n_workers}")
        self._n_workers = n_workers
        self._snippet_len = snippet_len
        self._patience_seconds = patience_seconds
        self._workers: list[_Worker] = []
        self._retries: deque[Task] = deque()

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
            RuntimeError: If a worker does not even start.
        """
        waiting = iter(paths)
        self._hand_out(waiting)
        while busy := [worker for worker in self._workers if worker.task is not None]:
            for worker in self._heard(busy):
                yield from self._receive(worker)
            for worker in busy:
                if worker in self._workers and worker.is_silent():
                    yield from self._lose(worker, "DecoderHung", "hung")
            self._hand_out(waiting)

    def _hand_out(self, waiting: Iterator[Path]) -> None:
        """Give every idle worker a video, and start workers as long as there are videos."""
        while True:
            idle = next((worker for worker in self._workers if worker.task is None), None)
            if idle is None and len(self._workers) == self._n_workers:
                return
            if self._retries:
                task = self._retries.popleft()
            elif (path := next(waiting, None)) is not None:
                task = Task(path, None, self._snippet_len)
            else:
                return
            if idle is None:
                idle = _start()
                self._workers.append(idle)
            idle.task = task
            idle.deadline = self._deadline_of_opening(task)
            # A worker that is gone already is noticed when it is listened to.
            _send(idle, task)

    def _heard(self, busy: list[_Worker]) -> list[_Worker]:
        """Wait until a worker has something to say, or until one should have had."""
        first_deadline = min(worker.deadline for worker in busy)
        seconds_left = max(0.0, first_deadline - time.monotonic())
        ready = wait([worker.connection for worker in busy], timeout=seconds_left)
        return [worker for worker in busy if worker.connection in ready]

    def _receive(self, worker: _Worker) -> Iterator[DecodeEvent]:
        """Pass on one message of a worker."""
        assert worker.task is not None
        path = worker.task.path
        try:
            message: Message = worker.connection.recv()
        except (EOFError, OSError):
            yield from self._lose(worker, "DecoderDied", "")
            return
        match message:
            case Ready():
                worker.is_ready = True
                worker.deadline = self._deadline_of_opening(worker.task)
                return
            case Opened():
                worker.slots = map_slots(worker.memory.fd, message)
                yield VideoOpened(path, message)
            case SlotFilled(slot=slot, timestamps=timestamps):
                assert worker.slots is not None
                yield SnippetDecoded(path, worker.slots[slot], timestamps)
                _send(worker, slot)
            case Ended(n_missing=n_missing):
                worker.task = worker.slots = None
                yield VideoEnded(path, n_missing)
            case Refused(kind=kind, reason=reason, is_decoder=is_decoder):
                task, worker.task, worker.slots = worker.task, None, None
                if not (is_decoder and self._retry(task)):
                    yield VideoLost(path, kind, reason, is_quarantined=False)
        worker.deadline = time.monotonic() + self._patience_seconds

    def _lose(self, worker: _Worker, kind: str, how: str) -> Generator[VideoLost, None, None]:
        """End a worker that failed; its video is read again by another, or given up."""
        task, is_ready = worker.task, worker.is_ready
        assert task is not None
        self._end(worker)
        how = how or _way_of_death(worker.process)
        if not is_ready:
            raise RuntimeError(f"a decoding process {how} before it began; its words are above")
        if self._retry(task):
            return
        reason = f"{task.path}: the process that decodes it {how}, twice; check or remove the file"
        yield VideoLost(task.path, kind, reason, is_quarantined=True)

    def _retry(self, task: Task) -> bool:
        """Have a video read once more, with PyAV; False if that has been tried."""
        if task.decoder is not None:
            return False
        self._retries.append(replace(task, decoder="pyav"))
        return True

    def _deadline_of_opening(self, task: Task) -> float:
        return time.monotonic() + self._patience_seconds + _seconds_to_read(task.path)

    def _end(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.process.kill()
        worker.process.join()
        worker.connection.close()
        os.close(worker.memory.fd)


def _start() -> _Worker:
    # Not a fork: that would inherit CUDA, threads and locks in whatever state they are.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    memory = _Memory(os.memfd_create("frames"))
    process = context.Process(target=_serve, args=(theirs, memory), name="decoder", daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours, memory)


def _serve(connection: Connection, memory: _Memory) -> None:
    serve(connection, memory.fd)


def _send(worker: _Worker, message: Task | int) -> None:
    try:
        worker.connection.send(message)
    except ConnectionError:
        return  # it died; what it says next is the end of its pipe


def _seconds_to_read(path: Path) -> float:
    try:
        return path.stat().st_size / SLOWEST_DISK_BYTES_PER_SECOND
    except OSError:
        return 0.0  # the worker will say what is wrong with it


def _way_of_death(process: BaseProcess) -> str:
    """How a process ended, in words: "was killed by SIGSEGV"."""
    code = process.exitcode
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
