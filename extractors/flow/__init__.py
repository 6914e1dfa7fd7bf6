"""Optical flow by name: TV-L1 and RAFT (any device), and DIS (for machines without a GPU).

The only file that imports OpenCV.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extractors.features import FlowMethod, Provenance
from extractors.flow.raft import RAFTFlow
from extractors.flow.tvl1 import TVL1Config, tvl1_flow
from extractors.transforms import check_frame_pairs, to_grey


class TVL1Flow:
    """TV-L1 flow, the method of the published features. A `FlowMethod`.

    Args:
        implementation: "torch" for any device, or "triton" for CUDA devices alone: fused kernels,
            some ten times as fast there. See the README for how far they differ.
    """

    def __init__(self, implementation: Literal["torch", "triton"] = "torch") -> None:
        self.config = TVL1Config()
        self._implementation = implementation
        self._flow: Callable[[Tensor], Tensor] = tvl1_flow
        if implementation == "triton":
            # Triton comes with torch's builds for GPUs only.
            from extractors.flow.tvl1_cuda import KernelSolver  # noqa: PLC0415

            self._flow = KernelSolver(self.config).flow

    def __call__(self, frames: Tensor) -> Tensor:
        """Compute the flow (..., T, 2, H, W) in pixels of frames (..., T + 1, 3, H, W)."""
        check_frame_pairs(frames)
        return self._flow(to_grey(frames).float())

    def describe(self) -> Provenance:
        """Return the parameters of TV-L1, and what computes it."""
        return asdict(self.config) | {"implementation": self._implementation}


class DISFlow:
    """Dense inverse search in OpenCV's medium preset, on the CPU. A `FlowMethod`.

    Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016,
    https://arxiv.org/abs/1603.03590.
    """

    def __call__(self, frames: Tensor) -> Tensor:
        """Compute the flow (..., T, 2, H, W) in pixels of frames (..., T + 1, 3, H, W)."""
        check_frame_pairs(frames)
        # OpenCV cuts the plane into as many stripes as it has threads, and a patch starts from its
        # neighbor's flow in the same stripe: with one stripe the flow is the same everywhere. The
        # pairs run side by side instead.
        cv2.setNumThreads(1)
        grey = to_grey(frames).cpu().numpy()
        T, H, W = grey.shape[-3] - 1, *grey.shape[-2:]
        first, second = (
            grey[..., :-1, :, :].reshape(-1, H, W),
            grey[..., 1:, :, :].reshape(-1, H, W),
        )
        # As initial flow OpenCV takes what is in the array; without an array, its own default, it
        # takes what the memory happens to hold.
        flow = np.zeros((len(first), H, W, 2), np.float32)
        n_workers = min(torch.get_num_threads(), len(first))
        parts = [range(worker, len(first), n_workers) for worker in range(n_workers)]
        with ThreadPoolExecutor(n_workers) as pool:
            list(pool.map(lambda part: _fill_in(flow, first, second, part), parts))
        # (P, H, W, 2) -> (..., T, 2, H, W)
        planes = torch.from_numpy(flow).permute(0, 3, 1, 2).to(frames.device)
        return planes.reshape(*frames.shape[:-4], T, 2, H, W)

    def describe(self) -> Provenance:
        """Return the preset of DIS and the flow that it starts from."""
        return {"preset": "medium", "initial_flow": "zero"}


def _tvl1_for(device: torch.device) -> TVL1Flow:
    return TVL1Flow("triton" if device.type == "cuda" else "torch")


# Each makes the method with its defaults for a device. The command line's "none" is no method: it
# leaves the flow stream out.
FLOWS: dict[str, Callable[[torch.device], FlowMethod]] = {
    "tvl1": _tvl1_for,
    "raft": lambda device: RAFTFlow(),
    "dis": lambda device: DISFlow(),
}


def build_flow(name: str, device: torch.device, weights: str | None = None) -> FlowMethod:
    """Build a flow method by name.

    Args:
        name: A name in `FLOWS`.
        device: Where the frames will be.
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
    return FLOWS[name](device)


def _fill_in(
    flow: NDArray[np.float32],
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    pairs: Iterable[int],
) -> None:
    """Compute the flow (P, H, W, 2) of some pairs of frames (P, H, W) where it stands."""
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # one for each thread
    for pair in pairs:
        method.calc(first[pair], second[pair], flow[pair])  # starts from the zeros in there
