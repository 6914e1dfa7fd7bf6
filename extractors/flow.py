"""Optical flow by name: TV-L1 and RAFT (any device), and DIS (for machines without a GPU).

The only file that imports OpenCV.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extractors.features import Contract
from extractors.raft import RAFTFlow
from extractors.transforms import check_frame_pairs, to_grey
from extractors.tvl1 import TVL1Config, tvl1_flow


class FlowMethod(Protocol):
    """Computes the optical flow from each frame to the next."""

    def __call__(self, frames: Tensor) -> Tensor:
        """Compute the flow of T pairs of frames.

        Args:
            frames: (T + 1, 3, H, W) uint8 RGB.

        Returns:
            (T, 2, H, W) float32 pixels, x to the right and y down, on the frames' device.

        Raises:
            ValueError: If the frames are not of this shape and type.
        """

    def describe(self) -> Contract:
        """Return the parameters of the method: flat, JSON's types."""


class TVL1Flow:
    """TV-L1 flow, the method of the published features. A `FlowMethod`.

    On a GPU by fused kernels, else by torch. The contract does not say which: where they take the
    same number of iterations, which rounding can change by one, they differ by some 1e-5 pixels
    (measured with the kernels interpreted on a CPU).
    """

    def __init__(self) -> None:
        self.config = TVL1Config()
        self._gpu_flow: Callable[[Tensor], Tensor] | None = None

    def __call__(self, frames: Tensor) -> Tensor:
        """Compute the flow (T, 2, H, W) in pixels of frames (T + 1, 3, H, W)."""
        check_frame_pairs(frames)
        grey = to_grey(frames).float()
        if not frames.is_cuda:
            return tvl1_flow(grey, self.config)
        if self._gpu_flow is None:
            # Triton comes with torch's builds for GPUs only.
            from extractors.tvl1_gpu import KernelSolver  # noqa: PLC0415

            self._gpu_flow = KernelSolver(self.config).flow
        return self._gpu_flow(grey)

    def describe(self) -> Contract:
        """Return the parameters of TV-L1."""
        return asdict(self.config)


class DISFlow:
    """Dense inverse search in OpenCV's medium preset, on the CPU. A `FlowMethod`.

    Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016,
    https://arxiv.org/abs/1603.03590.
    """

    def __call__(self, frames: Tensor) -> Tensor:
        """Compute the flow (T, 2, H, W) in pixels of frames (T + 1, 3, H, W)."""
        check_frame_pairs(frames)
        # OpenCV cuts the plane into as many stripes as it has threads, and a patch starts from its
        # neighbour's flow in the same stripe: with one stripe the flow is the same everywhere. The
        # pairs run side by side instead.
        cv2.setNumThreads(1)
        grey = to_grey(frames).cpu().numpy()
        n_pairs = len(grey) - 1
        flow = np.zeros((n_pairs, *grey.shape[1:], 2), np.float32)
        n_workers = min(torch.get_num_threads(), n_pairs)
        shares = [range(worker, n_pairs, n_workers) for worker in range(n_workers)]
        with ThreadPoolExecutor(n_workers) as pool:
            list(pool.map(lambda share: _fill_in(flow, grey, share), shares))
        # (T, H, W, 2) -> (T, 2, H, W)
        return torch.from_numpy(flow).permute(0, 3, 1, 2).to(frames.device)

    def describe(self) -> Contract:
        """Return the preset of DIS."""
        return {"preset": "medium"}


# Called without arguments, each has its defaults. The command line's "none" is no method: it leaves
# the flow stream out.
FLOWS: dict[str, Callable[[], FlowMethod]] = {"tvl1": TVL1Flow, "raft": RAFTFlow, "dis": DISFlow}


def build_flow(name: str, weights: str | None = None) -> FlowMethod:
    """Build a flow method by name.

    Args:
        name: A name in `FLOWS`.
        weights: Of a method that is a network, as its class says; None for its own default.

    Raises:
        ValueError: If there is no such method, or it takes no weights and some are given.
        WeightsError: If the weights cannot be had.
    """
    if name not in FLOWS:
        raise ValueError(f"flow must be one of {', '.join(FLOWS)} or None, instead got {name}")
    if name == "raft":
        return RAFTFlow(weights)
    if weights is not None:
        raise ValueError(f"flow {name} has no weights, instead got {weights}")
    return FLOWS[name]()


def _fill_in(flow: NDArray[np.float32], grey: NDArray[np.uint8], pairs: Iterable[int]) -> None:
    """Compute the flow (T, H, W, 2) of some pairs of the frames (T + 1, H, W) where it stands."""
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # one for each thread
    for pair in pairs:
        method.calc(grey[pair], grey[pair + 1], flow[pair])  # starts from the zeros in there
