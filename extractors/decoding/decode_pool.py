"""A pool of child processes that decode several videos at a time.

A worker that hangs or crashes affects only its video, which is read once more, with PyAV. If that
worker fails too, the video is quarantined. The worker's side is `decode_worker.py`.
"""

import os
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from itertools import count
from multiprocessing.connection import wait
from pathlib import Path
from typing import Self

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
from extractors.decoding.frame_folder import VideoSource
from extractors.decoding.worker_handle import Job, Register, SnippetDecoded, WorkerHandle
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


DecodeEvent = VideoOpened | SnippetDecoded | VideoEnded | VideoLost


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
        self._workers: list[WorkerHandle] = []
        self._again: deque[Job] = deque()
        self._task_ids = count()

    def __enter__(self) -> Self:
        """Enter; processes are started when there are videos to read."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Kill all workers."""
        for worker in self._workers:
            worker.process.kill()  # all at once: to wait for one after the other takes a while
        while self._workers:
            self._end(self._workers[-1])

    def decode(self, videos: Iterable[VideoSource]) -> Iterator[DecodeEvent]:
        """Yield what the workers read; snippets of one video in order, of several interleaved.

        Args:
            videos: Consumed one by one as workers become free. No path may occur twice.

        Raises:
            DecoderStartError: If several workers in a row do not start.
            OSError: If a process cannot be started.
        """
        waiting = iter(videos)
        self._hand_out(waiting)
        while busy := [worker for worker in self._workers if worker.job is not None]:
            for worker in self._wait_for_messages(busy):
                yield from self._receive(worker)
            for worker in busy:
                if worker in self._workers and worker.is_silent():
                    how = f"sent nothing for {worker.seconds:.3g} s"
                    yield from self._lose(worker, "DecoderHung", how)
            self._hand_out(waiting)

    def _hand_out(self, waiting: Iterator[VideoSource]) -> None:
        """Send a video to each idle worker, and start workers as long as there are videos."""
        while True:
            worker = next((worker for worker in self._workers if worker.job is None), None)
            if worker is None and len(self._workers) == self._n_workers:
                return
            if self._again:
                job = self._again.popleft()
            elif (source := next(waiting, None)) is not None:
                job = Job(source)
            else:
                return
            if worker is None:
                worker = WorkerHandle(*start_process(self._worker_module))
                self._workers.append(worker)
            worker.wait_for_copies()  # the next video's frames go into the same memory
            worker.job, worker.has_begun, worker.task_id = job, False, next(self._task_ids)
            worker.wait_for(self._patience_seconds if worker.has_started else START_SECONDS)
            # A worker that has died is noticed when it is received from.
            worker.send(Task(worker.task_id, job.source, job.decoder, self._snippet_len))

    def _wait_for_messages(self, busy: list[WorkerHandle]) -> list[WorkerHandle]:
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

    def _receive(self, worker: WorkerHandle) -> Iterator[DecodeEvent]:
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
                    self._again.append(Job(job.source, "failed with decord"))
                else:
                    yield message
        worker.wait_for(seconds)  # only now: the caller may have been slow

    def _lose(self, worker: WorkerHandle, kind: str, how: str) -> Generator[VideoLost, None, None]:
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
            self._again.append(Job(job.source, how))
        else:
            ways = f"{how}, twice" if how == job.failure else f"{job.failure}, then {how}"
            reason = f"{job.path}: the process that decodes it {ways}; check or remove the file"
            yield VideoLost(job.path, kind, reason, is_quarantined=True)

    def _end(self, worker: WorkerHandle) -> None:
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
