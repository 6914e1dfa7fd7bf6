"""The messages between `live_decoder.py` and its process, `live_worker.py`.

The parent sends one `LiveTask`, and a `LiveSlotFree` for each slot that it has read. The worker
answers with `SourceOpened` and then, in any number, `LiveSlotFilled`, `SnippetDropped` and
`PacketsRead`; at the end comes `SourceLost`. `SourceOpened`, `SnippetDropped` and `SourceLost` are
also what the decoder's caller receives.
"""

import mmap
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extractors.decoding.live_source import LiveSource


@dataclass(frozen=True, slots=True)
class LiveTask:
    """A source to read.

    Attributes:
        source: What to open.
        snippet_len: Frames per snippet.
        stall_seconds: A source that sends nothing for longer is lost.
        max_lag_seconds: As in `LiveDecoder`.
        n_packets_read: Of a file: packets that were read before, which are skipped.
    """

    source: LiveSource
    snippet_len: int
    stall_seconds: float
    max_lag_seconds: float
    n_packets_read: int


@dataclass(frozen=True, slots=True)
class LiveSlotFree:
    """The parent has read a slot; the worker may fill it again."""

    slot: int


@dataclass(frozen=True, slots=True)
class SourceOpened:
    """The first frame of a source was decoded.

    Attributes:
        height: Pixels, after rotation.
        width: Pixels, after rotation.
        codec: FFmpeg's name, as "h264".
        slot_len: Frames in a slot.
        n_slots: Slots in the shared memory, from its start.
    """

    height: int
    width: int
    codec: str
    slot_len: int
    n_slots: int


@dataclass(frozen=True, slots=True, eq=False)
class SnippetTimes:
    """When the frames of a snippet are shown and were received.

    Attributes:
        part: Number of the part of this connection in which times increase steadily, from 0. Where
            they jump, a new part begins.
        timestamps: (n_frames,) float64 seconds of the source's clock, strictly increasing.
        stop_seconds: The time of the frame after the snippet; where there is none, when the last
            frame would end if it were as long as the one before.
        received: (n_frames,) float64 seconds since 1970, when each frame was decoded.
        due: When a player would show the last frame, by `time.monotonic`.
        has_following: Whether the frame after the snippet was read.
    """

    part: int
    timestamps: NDArray[np.float64]
    stop_seconds: float
    received: NDArray[np.float64]
    due: float
    has_following: bool


@dataclass(frozen=True, slots=True, eq=False)
class LiveSlotFilled:
    """A snippet's frames and the frame after them are in a slot."""

    slot: int
    times: SnippetTimes


@dataclass(frozen=True, slots=True)
class SnippetDropped:
    """A whole snippet was left out, because its score would have been late."""


@dataclass(frozen=True, slots=True)
class PacketsRead:
    """The source is alive: the number of its packets that have been read so far."""

    n_packets: int


@dataclass(frozen=True, slots=True)
class SourceLost:
    """A source has ended, cannot be opened, or is not read any more.

    Attributes:
        reason: What happened, to follow the source's name.
        n_packets: Packets that were read, with those before this connection.
        n_bytes: Bytes of a file that were read; 0 if that is not known.
    """

    reason: str
    n_packets: int
    n_bytes: int = 0


LiveMessage = SourceOpened | LiveSlotFilled | SnippetDropped | PacketsRead | SourceLost


def map_live_slots(memory_fd: int, opened: SourceOpened) -> NDArray[np.uint8]:
    """Map the shared memory as an array (n_slots, T, H, W, 3) uint8."""
    shape = (opened.n_slots, opened.slot_len, opened.height, opened.width, 3)
    return np.frombuffer(mmap.mmap(memory_fd, int(np.prod(shape))), np.uint8).reshape(shape)
