"""ResNet-50 I3D for RGB without its head, 2048-d per clip: pytorchvideo's network.

The only module that imports pytorchvideo. Its `i3d_r50` was trained on Kinetics-400 with 8 frames
of which each is the 8th of the video.

The ResNet-50 I3D of the features of RTFM and its followers (https://github.com/Tushar-N/
pytorch-resnet3d) is another network of the same family: its first convolution and first
pool halve the number of frames, and these do not. Its weights do not fit here.
"""

import copy
import warnings

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

FEATURE_DIM = 2048
ADDRESS = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/I3D_8x8_R50.pyth"


class ResNetI3D(nn.Module):
    """The network without its head; 2048-d per clip.

    Loads pytorchvideo's state dicts strictly without their `blocks.6.*` entries, the head.
    """

    def __init__(self) -> None:
        super().__init__()
        # It takes seconds to import and brings torchvision along: only where it is used.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about what its other networks use
            from pytorchvideo.models.hub.resnet import i3d_r50  # noqa: PLC0415

        self.blocks = i3d_r50(pretrained=False).blocks[:-1]

    def forward(self, clips: Tensor) -> Tensor:
        """Compute the features of clips.

        Args:
            clips: (N, 3, T, H, W), (v - 114.75) / 57.375 of values v in [0, 255].

        Returns:
            (N, 2048): the mean over T, H and W. pytorchvideo's head pools 4 steps of time at a
            stride of 1 instead, which at T = 16 would give the middle frames a larger weight.

        Raises:
            ValueError: If the clips do not have 3 channels or not five axes.
        """
        if clips.ndim != 5 or clips.shape[1] != 3:
            raise ValueError(f"clips must be (N, 3, T, H, W), instead got {tuple(clips.shape)}")
        maps = clips.contiguous(memory_format=torch.channels_last_3d)
        for block in self.blocks:
            maps = block(maps)
        return maps.mean(dim=(2, 3, 4))


def fold_batch_norm(network: ResNetI3D) -> ResNetI3D:
    """Return a copy for inference: batch normalization folded in, channels-last memory.

    The original is not changed. The copy's state dict no longer has pytorchvideo's
    names.
    """
    inference = copy.deepcopy(network).eval()
    for parent in list(inference.modules()):
        for name, conv in list(parent.named_children()):
            # conv_a has norm_a beside it, branch1_conv has branch1_norm.
            norm_name = name.replace("conv", "norm")
            norm = getattr(parent, norm_name, None)
            if isinstance(conv, nn.Conv3d) and isinstance(norm, nn.BatchNorm3d):
                setattr(parent, name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, nn.Identity())
    inference.requires_grad_(False)
    return inference.to(memory_format=torch.channels_last_3d)
