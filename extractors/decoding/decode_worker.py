"""The decoding worker: a child process that decodes one video after the other.

A decoder may hang or crash on a damaged file; then only this process does. It writes the frames of
each snippet to a slot of memory that it shares with its parent, and sends the slot's number over a
pipe. It waits while no slot is free. The parent's side is `decode_pool.py`, the messages between
them are in `decode_messages.py`.

The memory is an anonymous file: it needs no space in /dev/shm, and is freed when both processes
have ended, in whatever way.
"""

import errno
import mmap
import os
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection

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
from extractors.decoding.pyav_file import FFmpegError
from extractors.decoding.video import DecoderFailure, FrameChunk, Video, VideoError
from extractors.frame_dims import resized_dims
from extractors.snippets import fill_snippet

# Enough slots to decode ahead while the parent computes, within MAX_BYTES if two slots fit.
MAX_SLOTS = 8
MIN_SLOTS = 2
MAX_BYTES = 256 << 20

# Errors of the machine, whatever the file. FFmpeg also reports EIO for damaged files.
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


def main() -> None:
    """Serve the parent. Command-line arguments: the descriptors of the pipe and of the memory."""
    serve(Connection(int(sys.argv[1])), int(sys.argv[2]))


def serve(connection: Connection, memory_fd: int) -> None:
    """Read one video after the other until the parent has ended.

    Args:
        connection: Receives a `Task` whenever the one before has ended, and a `SlotFree` for each
            `SlotFilled`; sends pairs of task_id and `Message`.
        memory_fd: The anonymous file with the slots.
    """
    try:
        while True:
            task = connection.recv()
            if not isinstance(task, Task):
                continue  # a slot of a video that was lost after some snippets
            _send(connection, task, Begun())
            try:
                _read(task, connection, memory_fd)
            except ConnectionError:
                raise
            except (OSError, MemoryError) as error:
                _send(connection, task, _lost(task, error))
    except (EOFError, ConnectionError):
        return  # the parent has ended


def _send(connection: Connection, task: Task, message: Message) -> None:
    connection.send((task.task_id, message))


def _read(task: Task, connection: Connection, memory_fd: int) -> None:
    video = Video(task.source, task.decoder)
    opened = _open_slots(video, task, memory_fd)
    _send(connection, task, opened)
    slots = map_slots(memory_fd, opened)
    free = list(range(opened.n_slots))
    for chunk, following in _with_following(video.read(task.snippet_len)):
        while not free or connection.poll():
            message: SlotFree = connection.recv()
            if message.task_id == task.task_id:
                free.append(message.slot)
        slot = free.pop()
        fill_snippet(slots[slot], chunk.frames, None if following is None else following.frames[0])
        _send(connection, task, SlotFilled(slot, chunk.timestamps))
    _send(connection, task, VideoEnded(task.path, video.n_missing))


def _open_slots(video: Video, task: Task, memory_fd: int) -> VideoOpened:
    """Allocate a video's slots in the shared memory."""
    try:
        resized_dims(video.height, video.width)
    except ValueError as error:
        raise VideoError(f"{video.path}: {error}") from error
    slot_len = task.snippet_len + 1  # T flows need T + 1 frames
    slot_bytes = slot_len * video.height * video.width * 3
    n_slots = min(max(MAX_BYTES // slot_bytes, MIN_SLOTS), MAX_SLOTS)
    os.ftruncate(memory_fd, n_slots * slot_bytes)
    # If memory is short this is an error; writing to pages that are not allocated would crash.
    os.posix_fallocate(memory_fd, 0, n_slots * slot_bytes)
    return VideoOpened(
        path=task.path,
        height=video.height,
        width=video.width,
        fps=video.fps,
        n_frames_expected=video.n_frames_expected,
        decoder_version=video.decoder_version,
        slot_len=slot_len,
        n_slots=n_slots,
    )


def map_slots(memory_fd: int, opened: VideoOpened) -> NDArray[np.uint8]:
    """Map the shared memory as an array (n_slots, T, H, W, C) uint8."""
    shape = (opened.n_slots, *opened.slot_shape)
    memory = mmap.mmap(memory_fd, int(np.prod(shape)))
    return np.frombuffer(memory, np.uint8).reshape(shape)


def _with_following(
    chunks: Iterator[FrameChunk],
) -> Iterator[tuple[FrameChunk, FrameChunk | None]]:
    """Pair each chunk with the one after it; the last one with None."""
    before: FrameChunk | None = None
    for chunk in chunks:
        if before is not None:
            yield before, chunk
        before = chunk
    if before is not None:
        yield before, None


def _lost(task: Task, error: Exception) -> VideoLost:
    reason = " ".join(str(error).split())
    if not isinstance(error, VideoError):
        reason = f"{task.path}: cannot be decoded ({reason or type(error).__name__})"
    return VideoLost(
        path=task.path,
        kind=type(error).__name__,
        reason=reason,
        is_machine_error=_is_machine_error(error),
        is_decoder_error=isinstance(error, DecoderFailure),
    )


def _is_machine_error(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, is a lack of memory, descriptors or disk space."""
    while error is not None:
        is_eio_of_ffmpeg = isinstance(error, FFmpegError) and error.errno == errno.EIO
        if isinstance(error, MemoryError):
            return True
        if isinstance(error, OSError) and error.errno in MACHINE_ERRNOS and not is_eio_of_ffmpeg:
            return True
        error = error.__cause__
    return False
