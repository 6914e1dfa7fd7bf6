"""Dense inverse search (DIS) optical flow on the CPU. The only module that imports OpenCV.

Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016,
https://arxiv.org/abs/1603.03590.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extractors.features import Provenance
from extractors.transforms import check_frame_pairs, to_grey


class DISFlow:
    """Dense inverse search in OpenCV's medium preset, on the CPU. A `FlowMethod`."""

    def __call__(self, frames: Tensor) -> Tensor:
        """Compute the flow (..., T, 2, H, W) in pixels of frames (..., T + 1, 3, H, W)."""
        check_frame_pairs(frames)
        # OpenCV cuts the plane into as many stripes as it has threads, and a patch starts from its
        # neighbor's flow in the same stripe: with one stripe the flow is the same everywhere. The
        # pairs are computed in parallel instead.
        cv2.setNumThreads(1)
        grey = to_grey(frames).cpu().numpy()
        T, H, W = grey.shape[-3] - 1, *grey.shape[-2:]
        first, second = (
            grey[..., :-1, :, :].reshape(-1, H, W),
            grey[..., 1:, :, :].reshape(-1, H, W),
        )
        # OpenCV takes the array's content as initial flow; without an array, its own default, it
        # takes uninitialized memory.
        flow = np.zeros((len(first), H, W, 2), np.float32)
        n_workers = min(torch.get_num_threads(), len(first))
        parts = [range(worker, len(first), n_workers) for worker in range(n_workers)]
        with ThreadPoolExecutor(n_workers) as pool:
            list(pool.map(lambda part: _compute_in_place(flow, first, second, part), parts))
        # (P, H, W, 2) -> (..., T, 2, H, W)
        planes = torch.from_numpy(flow).permute(0, 3, 1, 2).to(frames.device)
        return planes.reshape(*frames.shape[:-4], T, 2, H, W)

    def describe(self) -> Provenance:
        """Return the preset of DIS and its initial flow."""
        return {"preset": "medium", "initial_flow": "zero"}


def build(device: torch.device) -> DISFlow:
    """Build DIS, which computes on the CPU wherever the frames are."""
    return DISFlow()


def _compute_in_place(
    flow: NDArray[np.float32],
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    pairs: Iterable[int],
) -> None:
    """Write the flow (P, H, W, 2) of some pairs of frames (P, H, W) into `flow`, which is zero."""
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # one for each thread
    for pair in pairs:
        method.calc(first[pair], second[pair], flow[pair])
