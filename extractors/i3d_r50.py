"""The ResNet-50 I3D extractor: RGB frames to 2048 numbers, without a flow stream."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from extractors import transforms
from extractors.i3d import I3D
from extractors.networks import resnet_i3d
from extractors.networks.resnet_i3d import ResNetI3D
from extractors.snippets import REPEAT_LAST_FRAME


class I3DR50(I3D):
    """ResNet-50 I3D features of snippets of 16 frames. An `Extractor`.

    All is as with the Inception-I3D but for the network and what it takes: standardised grey values
    (`transforms.standardise_rgb`), which is not the range of the Inception-I3D.

    Args:
        flow: None: there are no weights for a flow stream.
        crops: 1, 5 or 10 crops of each frame.
        weights: A name, "random:SEED" or a path (see `weights.py`).
        precision: One of `PRECISIONS`, for the network.
        device: Where the frames are resized and the network runs.
        flow_weights: None.
        tail_policy: One of `snippets.TAIL_POLICIES`.

    Raises:
        ValueError: If a flow method is named, or there is no such number of crops, precision or
            tail policy.
        WeightsError: If the weights cannot be found, downloaded or read, or do not fit.
    """

    name: ClassVar[str] = "i3d_r50"
    feature_dim: ClassVar[int] = resnet_i3d.FEATURE_DIM
    rgb_range: ClassVar[str] = f"(v - {transforms.RGB_MEAN}) / {transforms.RGB_STD} of [0, 255]"

    def __init__(
        self,
        *,
        flow: str | None,
        crops: int,
        weights: str,
        precision: str,
        device: torch.device,
        flow_weights: str | None = None,
        tail_policy: str = REPEAT_LAST_FRAME,
    ) -> None:
        if flow is not None or flow_weights is not None:
            raise ValueError(
                "flow and flow_weights must be None: i3d_r50 has no flow stream, "
                f"instead got {flow} and {flow_weights}"
            )
        super().__init__(
            flow=None,
            crops=crops,
            weights=weights,
            precision=precision,
            device=device,
            tail_policy=tail_policy,
        )

    def _build_network(self, stream: str, state_dict: dict[str, Tensor]) -> nn.Module:
        network = ResNetI3D()
        network.load_state_dict(state_dict)
        return resnet_i3d.folded(network)

    def _scale_rgb(self, frames: Tensor) -> Tensor:
        return transforms.standardise_rgb(frames)
