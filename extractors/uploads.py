"""Frames from the decoders' shared memory to a GPU: copied once, without waiting for the copy.

Memory that a GPU is to read while the CPU goes on must be pinned. The slots of the decoding
processes are registered as pinned where they lie; where that fails, each snippet is copied to
pinned memory first. On a CPU frames stay where they are.
"""

import logging
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

logger = logging.getLogger(__name__)

_PORTABLE = 1  # cudaHostRegisterPortable: pinned for every context of this process


class FrameUploads:
    """Copies frames to a device, beside what it computes.

    Args:
        device: Where the frames go.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        self._can_register = device.type == "cuda"
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def register(self, memory: NDArray[np.uint8]) -> Callable[[], None] | None:
        """Pin memory where it lies.

        Returns:
            What undoes it, to be called before the memory goes away and after all copies from it
            have ended; None where nothing was pinned.
        """
        if not self._can_register:
            return None
        address, n_bytes = memory.ctypes.data, memory.nbytes
        runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        code = int(runtime.cudaHostRegister(address, n_bytes, _PORTABLE))
        if code != 0:
            self._can_register = False
            self._forget_error()
            logger.warning(
                "the decoders' memory cannot be pinned (CUDA error %d); "
                "going on with a copy more of each snippet",
                code,
            )
            return None

        def unregister() -> None:
            runtime.cudaHostUnregister(address)

        return unregister

    def upload(
        self, frames: NDArray[np.uint8], *, is_pinned: bool
    ) -> tuple[Tensor, torch.cuda.Event | None]:
        """Copy frames to the device.

        Args:
            frames: Any shape.
            is_pinned: Whether they lie in memory that `register` has pinned.

        Returns:
            The frames on the device (on a CPU: the same memory), and what says when `frames` has
            been read, for the copy from pinned memory goes on in the background; None: already.
        """
        given = torch.from_numpy(frames)
        if self._stream is None:
            return given, None
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            source = given if is_pinned else given.pin_memory()
            copied = source.to(self._device, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
        computing.wait_event(event)
        copied.record_stream(computing)  # its memory is not used again before that is through
        return copied, event if is_pinned else None

    def _forget_error(self) -> None:
        """Take the error from CUDA, which else reports it after the next kernel."""
        try:
            torch.zeros(1, device=self._device)
        except RuntimeError:
            logger.debug("CUDA reported the error of the registration", exc_info=True)
