"""Decoding in a process of its own: what runs in there, and what it says.

A decoder may hang or crash on a bad file; then only this process does. It reads one video at a
time, puts each snippet's frames into a slot of memory that it shares with its parent, and says over
a pipe what is in which slot. It stops when no slot is free, until the parent gives one back. The
other end of all this is `decode_pool.py`.

The memory is an anonymous file: it needs no room in /dev/shm, and is gone when both processes are,
however they end.
"""

import mmap
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from extractors.frame_dims import resized_dims
from extractors.video import DecoderFailure, FrameChunk, Video, VideoError

# Enough to decode ahead while the parent computes, and no more than this of memory if two fit.
MAX_SLOTS = 8
MIN_SLOTS = 2
MAX_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is asked to read; `decoder` None leaves the choice to `Video`."""

    path: Path
    decoder: Literal["pyav"] | None
    snippet_len: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has started and waits for its first task."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The video's first frame could be decoded; what is known of the rest.

    Attributes:
        height: Pixels, after rotation.
        width: Pixels, after rotation.
        fps: Average frames per second.
        n_frames_expected: Frames that the container says are shown.
        decoder_version: What reads it, with its version.
        slot_len: Frames in a slot.
        n_slots: Slots in the shared memory, from its start.
    """

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
        slot: Its number.
        timestamps: (n_frames,) float64 seconds of the snippet's own frames: fewer than
            `snippet_len` in the last one, whose last frame is repeated.
    """

    slot: int
    timestamps: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ended:
    """All frames of the video were read; `n_missing` of it could not be decoded."""

    n_missing: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The video, or the rest of it, cannot be read.

    Attributes:
        kind: Name of the error's class.
        reason: In one line.
        is_decoder: Whether another decoder may do better.
    """

    kind: str
    reason: str
    is_decoder: bool


Message = Ready | Opened | SlotFilled | Ended | Refused


def serve(connection: Connection, memory_fd: int) -> None:
    """Read one video after the other until the parent says None or is gone.

    Args:
        connection: Brings `Task`s and the numbers of slots that are free again; takes `Message`s.
        memory_fd: The anonymous file that holds the slots.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this one
    try:
        connection.send(Ready())
        while (task := connection.recv()) is not None:
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
    opened = _open_slots(video, task.snippet_len, memory_fd)
    connection.send(opened)
    slots = map_slots(memory_fd, opened)
    free = list(range(opened.n_slots))
    for chunk, following in _with_following(video.read(task.snippet_len)):
        while not free or connection.poll():
            free.append(connection.recv())
        slot = free.pop()
        n_frames = len(chunk.frames)
        slots[slot, :n_frames] = chunk.frames
        # Paper is silent: others drop the incomplete snippet; its frames would have no score.
        slots[slot, n_frames:] = chunk.frames[-1]
        if following is not None:
            slots[slot, -1] = following.frames[0]
        connection.send(SlotFilled(slot, chunk.timestamps))
    while len(free) < opened.n_slots:  # the next task must not meet this one's slots
        free.append(connection.recv())
    connection.send(Ended(video.n_missing))


def _open_slots(video: Video, snippet_len: int, memory_fd: int) -> Opened:
    """Make room for a video's slots in the shared memory."""
    try:
        resized_dims(video.height, video.width)
    except ValueError as error:
        raise VideoError(f"{video.path}: {error}") from error
    slot_len = snippet_len + 1  # T flows need T + 1 frames
    slot_bytes = slot_len * video.height * video.width * 3
    n_slots = min(max(MAX_BYTES // slot_bytes, MIN_SLOTS), MAX_SLOTS)
    os.ftruncate(memory_fd, n_slots * slot_bytes)
    # Where memory is short this is an error; to write to pages not set aside would be a crash.
    os.posix_fallocate(memory_fd, 0, n_slots * slot_bytes)
    return Opened(
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
    return Refused(type(error).__name__, reason, isinstance(error, DecoderFailure))
