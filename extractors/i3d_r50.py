"""The ResNet-50 I3D extractor: 2048-d features of RGB frames, without a flow stream."""

from typing import ClassVar

from torch import Tensor, nn

from extractors import transforms
from extractors.i3d import I3D
from extractors.networks import resnet_i3d
from extractors.networks.resnet_i3d import ResNetI3D


class I3DR50(I3D):
    """ResNet-50 I3D features of snippets of 16 frames. An `Extractor`.

    As the Inception-I3D except for the network and its input values, which are standardized
    (`transforms.standardize_rgb`). Its snippets are 16 consecutive frames; its published weights
    were trained with 8 frames sampled at a stride of 8.

    Its arguments are those of `I3D`; `flow` and `flow_weights` are None, for there are no weights
    for a flow stream.

    Raises:
        ValueError: If a flow method is named, or there is no such number of crops, precision or
            tail policy.
        WeightsError: If the weights cannot be found, downloaded or read, or do not fit.
    """

    name: ClassVar[str] = "i3d_r50"
    feature_dim: ClassVar[int] = resnet_i3d.FEATURE_DIM
    has_flow_stream: ClassVar[bool] = False
    rgb_range: ClassVar[str] = f"(v - {transforms.RGB_MEAN}) / {transforms.RGB_STD} of [0, 255]"

    def _build_network(self, stream: str, state_dict: dict[str, Tensor]) -> nn.Module:
        network = ResNetI3D()
        network.load_state_dict(state_dict)
        return resnet_i3d.fold_batch_norm(network)

    def _scale_rgb(self, frames: Tensor) -> Tensor:
        return transforms.standardize_rgb(frames)
