"""RAFT optical flow: torchvision's networks, batched over frame pairs.

It has not been measured how features of this flow perform with I3D weights that were trained on
TV-L1: its advantage is speed on a GPU. It computes in bfloat16 on a GPU, in float32 on a CPU.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from extractors.features import Provenance
from extractors.networks import raft_network
from extractors.networks.registry import NETWORKS
from extractors.networks.weights import NAMED, WeightsError, load_weights, read_tensors
from extractors.transforms import check_frame_pairs, scale_rgb

N_UPDATES = 12  # of the flow by the recurrent unit: torchvision's default
STRIDE = 8  # the sides of frames are padded to multiples of it
MIN_SIDE = 128  # the coarsest correlation level must be at least two wide
PAIRS_PER_BATCH = 16


class RAFTFlow:
    """RAFT flow. A `FlowMethod`.

    Args:
        weights: "raft-small", "raft-large" or a file of either, with torchvision's or the authors'
            names of tensors.

    Raises:
        WeightsError: If the weights cannot be found, downloaded or read, or do not fit.
    """

    def __init__(self, weights: str) -> None:
        if weights in NAMED:
            variant = NAMED[weights].network
            if variant not in raft_network.ADDRESSES:
                known = ", ".join(raft_network.ADDRESSES)
                raise WeightsError(f"{weights}: not weights for optical flow; use one of {known}")
        else:
            variant = raft_network.variant_of(read_tensors(Path(weights)))
        loaded = load_weights(weights, variant, ("flow",))
        self._provenance: Provenance = {
            "network": variant,
            "weights": loaded.name,
            "weights_sha256": loaded.sha256["flow"],
            "updates": N_UPDATES,
        }
        self._network = NETWORKS[variant].build("flow").eval().requires_grad_(False)
        self._network.load_state_dict(loaded.state_dicts["flow"])

    @torch.inference_mode()
    def __call__(self, frames: Tensor) -> Tensor:
        """Compute the flow (..., T, 2, H, W) in pixels of frames (..., T + 1, 3, H, W)."""
        check_frame_pairs(frames)
        sequences = frames.reshape(-1, *frames.shape[-4:])  # (..., T + 1, 3, H, W) -> (N, ...)
        # One snippet at a time, so that the batch size, and with it the rounding, is constant.
        flows = [self._flow(sequence) for sequence in sequences]
        return torch.stack(flows).reshape(*frames.shape[:-4], *flows[0].shape)

    def _flow(self, frames: Tensor) -> Tensor:
        """Return the flow (T, 2, H, W) of frames (T + 1, 3, H, W)."""
        padded, top, left = _pad(scale_rgb(frames))
        H, W = frames.shape[2:]
        network = self._network.to(frames.device)
        flows = []
        for start in range(0, len(frames) - 1, PAIRS_PER_BATCH):
            batch = padded[start : start + PAIRS_PER_BATCH + 1]
            with (
                torch.autocast("cuda", torch.bfloat16, enabled=frames.is_cuda),
                torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
            ):
                refined = network(batch[:-1], batch[1:], num_flow_updates=N_UPDATES)
            flows.append(refined[-1][:, :, top : top + H, left : left + W].float())
        return torch.cat(flows)

    def describe(self) -> Provenance:
        """Return the network, its weights and their checksum."""
        return self._provenance


def build(device: torch.device, weights: str) -> RAFTFlow:
    """Build RAFT; it moves to the device of the frames."""
    return RAFTFlow(weights)


def _pad(frames: Tensor) -> tuple[Tensor, int, int]:
    """Pad (T, C, H, W) evenly with repeated borders to sides that the network accepts.

    Returns:
        (T, C, H', W'), and the row and the column of the original's corner.
    """
    extra = []
    for side in frames.shape[2:]:
        padded_side = max(-(-side // STRIDE) * STRIDE, MIN_SIDE)
        extra.append(padded_side - side)
    top, left = extra[0] // 2, extra[1] // 2
    padding = (left, extra[1] - left, top, extra[0] - top)
    return functional.pad(frames, padding, mode="replicate"), top, left
