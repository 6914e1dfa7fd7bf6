"""Decoding in a process of its own: what runs in there, and what it says.

A decoder may hang or crash on a bad file; then only this process does. It reads one video at a
time, puts each snippet's frames into a slot of memory that it shares with its parent, and says over
a pipe what is in which slot. It stops when no slot is free, until the parent gives one back. The
other end of all this is `decode_pool.py`.

Every message in either direction belongs to a task: `Begun`, `Opened`, a `SlotFilled` for each
snippet, and `Ended`; or `Refused` anywhere after `Begun`. A message of an earlier task is ignored.

The memory is an anonymous file: it needs no room in /dev/shm, and is gone when both processes are,
however they end.
"""

import errno
import mmap
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from extractors.decoding.pyav_file import FFmpegError
from extractors.decoding.video import DecoderFailure, FrameChunk, Video, VideoError
from extractors.frame_dims import resized_dims

# Enough to decode ahead while the parent computes, and no more than this of memory if two fit.
MAX_SLOTS = 8
MIN_SLOTS = 2
MAX_BYTES = 256 << 20

# What the machine lacks at this moment, whatever the file. FFmpeg says EIO of damaged files, too.
MACHINE_ERRNOS = {
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOSPC,
    errno.EFBIG,
    errno.EDQUOT,
    errno.EIO,
    errno.EAGAIN,
}


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is asked to read; `decoder` None leaves the choice to `Video`."""

    task_id: int
    path: Path
    decoder: Literal["pyav"] | None
    snippet_len: int


@dataclass(frozen=True, slots=True)
class SlotFree:
    """The parent has read a slot of a task; the worker may fill it again."""

    task_id: int
    slot: int


@dataclass(frozen=True, slots=True)
class Begun:
    """The worker has taken a task up; what happens to it from now on is the task's doing."""

    task_id: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The video's first frame could be decoded; what is known of the rest.

    Attributes:
        task_id: Of the task.
        height: Pixels, after rotation.
        width: Pixels, after rotation.
        fps: Average frames per second.
        n_frames_expected: Frames that the container says are shown.
        decoder_version: What reads it, with its version.
        slot_len: Frames in a slot.
        n_slots: Slots in the shared memory, from its start.
    """

    task_id: int
    height: int
    width: int
    fps: float
    n_frames_expected: int
    decoder_version: str
    slot_len: int
    n_slots: int

    @property
    def slot_shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C) of a slot."""
        return (self.slot_len, self.height, self.width, 3)


@dataclass(frozen=True, slots=True, eq=False)
class SlotFilled:
    """A snippet's frames and the frame after them are in a slot.

    Attributes:
        task_id: Of the task.
        slot: Its number.
        timestamps: (n_frames,) float64 seconds of the snippet's own frames: fewer than
            `snippet_len` in the last one, whose last frame is repeated.
    """

    task_id: int
    slot: int
    timestamps: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ended:
    """All frames of the video were read; `n_missing` of it could not be decoded."""

    task_id: int
    n_missing: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The video, or the rest of it, cannot be read.

    Attributes:
        task_id: Of the task.
        kind: Name of the error's class.
        reason: In one line.
        is_decoder: Whether another decoder may do better.
        is_machine_error: Whether it is the machine that lacks something, and not the file.
    """

    task_id: int
    kind: str
    reason: str
    is_decoder: bool
    is_machine_error: bool


Message = Begun | Opened | SlotFilled | Ended | Refused


def main() -> None:
    """Serve the parent, which gives two descriptors: of the pipe and of the memory."""
    serve(Connection(int(sys.argv[1])), int(sys.argv[2]))


def serve(connection: Connection, memory_fd: int) -> None:
    """Read one video after the other until the parent is gone.

    Args:
        connection: Brings a `Task` whenever the one before has ended, and a `SlotFree` for every
            `SlotFilled`; takes `Message`s.
        memory_fd: The anonymous file that holds the slots.
    """
    try:
        while True:
            task = connection.recv()
            if not isinstance(task, Task):
                continue  # a slot of a video that was refused half-way
            connection.send(Begun(task.task_id))
            try:
                _read(task, connection, memory_fd)
            except ConnectionError:
                raise
            except (OSError, MemoryError) as error:
                connection.send(_refusal(task, error))
    except (EOFError, ConnectionError):
        return  # the parent is gone; nobody wants the rest


def _read(task: Task, connection: Connection, memory_fd: int) -> None:
    video = Video(task.path, task.decoder)
    opened = _open_slots(video, task, memory_fd)
    connection.send(opened)
    slots = map_slots(memory_fd, opened)
    free = list(range(opened.n_slots))
    for chunk, following in _with_following(video.read(task.snippet_len)):
        while not free or connection.poll():
            message: SlotFree = connection.recv()
            if message.task_id == task.task_id:
                free.append(message.slot)
        slot = free.pop()
        n_frames = len(chunk.frames)
        slots[slot, :n_frames] = chunk.frames
        # Paper is silent: others drop the incomplete snippet; its frames would have no score.
        slots[slot, n_frames:] = chunk.frames[-1]
        if following is not None:
            slots[slot, -1] = following.frames[0]
        connection.send(SlotFilled(task.task_id, slot, chunk.timestamps))
    connection.send(Ended(task.task_id, video.n_missing))


def _open_slots(video: Video, task: Task, memory_fd: int) -> Opened:
    """Make room for a video's slots in the shared memory."""
    try:
        resized_dims(video.height, video.width)
    except ValueError as error:
        raise VideoError(f"{video.path}: {error}") from error
    slot_len = task.snippet_len + 1  # T flows need T + 1 frames
    slot_bytes = slot_len * video.height * video.width * 3
    n_slots = min(max(MAX_BYTES // slot_bytes, MIN_SLOTS), MAX_SLOTS)
    os.ftruncate(memory_fd, n_slots * slot_bytes)
    # Where memory is short this is an error; to write to pages not set aside would be a crash.
    os.posix_fallocate(memory_fd, 0, n_slots * slot_bytes)
    return Opened(
        task_id=task.task_id,
        height=video.height,
        width=video.width,
        fps=video.fps,
        n_frames_expected=video.n_frames_expected,
        decoder_version=video.decoder_version,
        slot_len=slot_len,
        n_slots=n_slots,
    )


def map_slots(memory_fd: int, opened: Opened) -> NDArray[np.uint8]:
    """Show the shared memory as an array (n_slots, T, H, W, C) uint8."""
    shape = (opened.n_slots, *opened.slot_shape)
    memory = mmap.mmap(memory_fd, int(np.prod(shape)))
    return np.frombuffer(memory, np.uint8).reshape(shape)


def _with_following(
    chunks: Iterator[FrameChunk],
) -> Iterator[tuple[FrameChunk, FrameChunk | None]]:
    """Pair each chunk with the one after it; the last one has none."""
    before: FrameChunk | None = None
    for chunk in chunks:
        if before is not None:
            yield before, chunk
        before = chunk
    if before is not None:
        yield before, None


def _refusal(task: Task, error: Exception) -> Refused:
    reason = " ".join(str(error).split())
    if not isinstance(error, VideoError):
        reason = f"{task.path}: cannot be decoded ({reason or type(error).__name__})"
    return Refused(
        task_id=task.task_id,
        kind=type(error).__name__,
        reason=reason,
        is_decoder=isinstance(error, DecoderFailure),
        is_machine_error=_is_machine_error(error),
    )


def _is_machine_error(error: BaseException | None) -> bool:
    """Whether an error, or one that it came of, is a lack of memory, of descriptors, of room."""
    while error is not None:
        is_eio_of_ffmpeg = isinstance(error, FFmpegError) and error.errno == errno.EIO
        if isinstance(error, MemoryError):
            return True
        if isinstance(error, OSError) and error.errno in MACHINE_ERRNOS and not is_eio_of_ffmpeg:
            return True
        error = error.__cause__
    return False
