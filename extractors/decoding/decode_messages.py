"""The messages between `decode_pool.py` and the processes of `decode_worker.py`.

The parent sends a `Task` for each video and a `SlotFree` for each slot that it has read. A worker
answers with `Begun`, `VideoOpened`, a `SlotFilled` for each snippet and `VideoEnded`; or with
`VideoLost` anywhere after `Begun`. Each answer is sent as a pair (task_id, message), and answers to
an earlier task are ignored. `VideoOpened`, `VideoEnded` and `VideoLost` are also what the pool's
caller receives.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from extractors.decoding.frame_folder import VideoSource, path_of


@dataclass(frozen=True, slots=True)
class Task:
    """A video to read; with `decoder` None, `Video` selects the decoder."""

    task_id: int
    source: VideoSource
    decoder: Literal["pyav"] | None
    snippet_len: int

    @property
    def path(self) -> Path:
        """The video's file or folder."""
        return path_of(self.source)


@dataclass(frozen=True, slots=True)
class SlotFree:
    """The parent has read a slot of a task; the worker may fill it again."""

    task_id: int
    slot: int


@dataclass(frozen=True, slots=True)
class Begun:
    """The worker has started with the task: a crash from now on is caused by the video."""


@dataclass(frozen=True, slots=True)
class VideoOpened:
    """A video is read from its start; earlier snippets of the same video are void.

    Its first frame could be decoded.

    Attributes:
        path: The video.
        height: Pixels, after rotation.
        width: Pixels, after rotation.
        fps: Average frames per second.
        n_frames_expected: Frames that are shown according to the container.
        decoder_version: Name and version of the decoder.
        slot_len: Frames in a slot.
        n_slots: Slots in the shared memory, from its start.
    """

    path: Path
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
class VideoEnded:
    """All frames of a video were read; `n_missing` of its frames could not be decoded."""

    path: Path
    n_missing: int


@dataclass(frozen=True, slots=True)
class VideoLost:
    """A video, or the rest of it, cannot be read.

    Attributes:
        path: The video.
        kind: Name of the error's class; "DecoderDied" or "DecoderHung" if its process failed.
        reason: One line that names the file.
        is_quarantined: Whether its process crashed or hung, so that it should not be read again.
        is_machine_error: Whether the machine lacked memory or disk space, and not the file is at
            fault: it may be read later.
        is_decoder_error: Whether another decoder may be able to read it.
    """

    path: Path
    kind: str
    reason: str
    is_quarantined: bool = False
    is_machine_error: bool = False
    is_decoder_error: bool = False


Message = Begun | VideoOpened | SlotFilled | VideoEnded | VideoLost
