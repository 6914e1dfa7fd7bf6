"""The layers of the folded Inception-I3D on CUDA devices, each in its fastest form.

Blocks and warps were the fastest of those tried with 32 clips of 16x224x224 in bfloat16 on an H100.
In float32 no product is rounded to TF32 as long as torch's own settings forbid it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from extractors.networks.inception_i3d import (
    ConvUnit,
    InceptionBlock,
    MaxPool,
    PointwiseUnit,
    Triple,
    same_paddings,
)
from extractors.networks.inception_kernels import (
    bias_relu_kernel,
    concatenate_kernel,
    max_pool_kernel,
    stem_kernel,
)

ROW_PIXELS = 8  # of a row of the first layer's kernel: 7 and one of weight 0
STEP_ELEMENTS = 32  # of a window of the first layer that are multiplied at once
# Output positions and warps of a program of the first layer, and its stages of loads in advance.
STEM_PROGRAM = {torch.bfloat16: (256, 8, 4), torch.float32: (64, 4, 2)}
POOL_BLOCK = 16  # windows of a program of a max pool
POOL_CHANNELS = 64  # of a program: 8 for each thread, 16 bytes in bfloat16
POOL_WARPS = 4
BIAS_BLOCK = 64  # positions of a program that adds the bias
BIAS_CHANNELS = 64  # of a program
BIAS_WARPS = 4
CONCATENATION_BLOCK = 64  # positions of a program of a concatenation
CONCATENATION_CHANNELS = 64  # of a program
CONCATENATION_WARPS = 4


class CudaStem(nn.Module):
    """The first layer, a folded `ConvUnit` of stride 2, as a matrix product over rows of pixels.

    For 3 or 2 channels cuDNN has no fast kernel that uses a GPU's matrix units.

    Args:
        conv: The convolution with the normalization folded in; its kernel is a cube of 7 or less,
            its number of output channels a power of two.
    """

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.kernel = conv.kernel_size[0]
        if conv.stride != (2, 2, 2) or conv.kernel_size != (self.kernel,) * 3:
            raise ValueError(
                "conv must have a cube as its kernel and stride 2, "
                f"instead got {conv.kernel_size} and {conv.stride}"
            )
        width, in_channels = conv.weight.shape[:2]
        self.channels = 2 if in_channels <= 2 else 4
        self.rows = STEP_ELEMENTS // (ROW_PIXELS * self.channels)
        self.n_rows = -(-self.kernel // self.rows) * self.rows  # of a frame of a window
        weight = conv.weight.new_zeros((self.kernel, self.n_rows, ROW_PIXELS, self.channels, width))
        # (out, in, t, h, w) -> (t, h, w, in, out)
        weight[:, : self.kernel, : self.kernel, :in_channels] = conv.weight.permute(2, 3, 4, 1, 0)
        self.weight = nn.Parameter(weight.reshape(-1, STEP_ELEMENTS, width))
        assert conv.bias is not None  # the normalization is folded in
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, T, H, W) to (N, out_channels, T', H', W'), T' = ceil(T / 2)."""
        padded = self._pad(x)
        T, H, W = (-(-n // 2) for n in x.shape[2:])
        width = len(self.bias)
        out = padded.new_empty((len(x), T, H, W, width))
        n_outputs = len(x) * T * H * W
        block, n_warps, n_stages = STEM_PROGRAM[x.dtype]
        stem_kernel[(-(-n_outputs // block),)](
            padded,
            self.weight,
            self.bias,
            out,
            n_outputs,
            *padded.stride()[:3],
            T,
            H,
            W,
            self.kernel,
            ROW_PIXELS,
            self.channels,
            self.rows,
            width,
            block,
            num_warps=n_warps,
            num_stages=n_stages,
        )
        return out.permute(0, 4, 1, 2, 3)  # (N, T, H, W, C) -> (N, C, T, H, W)

    def _pad(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, T, H, W) to (N, T', H', W', channels), with every window inside."""
        before, _ = same_paddings(x, (self.kernel,) * 3, (2, 2, 2))
        # A row of a multiple of 8 pixels keeps the kernel's loads aligned.
        window = (self.kernel, self.n_rows, ROW_PIXELS)
        lengths = [2 * (-(-n // 2) - 1) + k for n, k in zip(x.shape[2:], window, strict=True)]
        lengths[2] = -(-lengths[2] // 8) * 8
        after = [m - n - b for m, n, b in zip(lengths, x.shape[2:], before, strict=True)]
        pads = [0, self.channels - x.shape[1]]
        for axis in (2, 1, 0):
            pads += [before[axis], after[axis]]
        # (N, C, T, H, W) -> (N, T, H, W, C)
        return functional.pad(x.permute(0, 2, 3, 4, 1), pads).contiguous()


class CudaConv(nn.Module):
    """A folded `ConvUnit` whose bias and ReLU are one pass over the output, in place.

    cuDNN could do them within the convolution, and torch has a function for it; but that ignores
    that the convolution is to be deterministic, and may turn NaN into 0.

    Args:
        unit: With the normalization folded in; its bias is taken out of it.
    """

    def __init__(self, unit: ConvUnit) -> None:
        super().__init__()
        assert unit.conv3d.bias is not None  # the normalization is folded in
        self.unit, self.bias = unit, unit.conv3d.bias
        unit.conv3d.bias = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, T, H, W) to (N, out_channels, T', H', W'), T' = ceil(T / stride)."""
        out = self.unit.convolve(x).contiguous(memory_format=torch.channels_last_3d)
        n_channels, n_rows = len(self.bias), out.numel() // len(self.bias)
        n_blocks = (-(-n_rows // BIAS_BLOCK), -(-n_channels // BIAS_CHANNELS))
        bias_relu_kernel[n_blocks](
            out, self.bias, n_rows, n_channels, BIAS_BLOCK, BIAS_CHANNELS, num_warps=BIAS_WARPS
        )
        return out


class CudaPointwise(nn.Module):
    """A `PointwiseUnit` whose ReLU belongs to the matrix product: one pass over the output.

    Whether cuBLAS turns NaN into 0 there is not documented; finite weights and clips lead to none.
    """

    def __init__(self, unit: PointwiseUnit) -> None:
        super().__init__()
        assert unit.bias is not None  # the normalization is folded in
        self.weight, self.bias = unit.weight, unit.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, T, H, W) to (N, out_channels, T, H, W)."""
        x = x.permute(0, 2, 3, 4, 1)  # (N, C, T, H, W) -> (N, T, H, W, C)
        rows = torch._addmm_activation(self.bias, x.flatten(0, 3), self.weight.t())
        return rows.view(*x.shape[:4], -1).permute(0, 4, 1, 2, 3)  # -> (N, C, T, H, W)


class CudaMaxPool(nn.Module):
    """`MaxPool`, for which torch's 3D pool takes several times as long in channels-last memory.

    Args:
        kernel: Along T, H and W; along T at most 2 more than the stride.
        stride: Along T, H and W.
    """

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        if not 0 <= kernel[0] - stride[0] <= 2:
            raise ValueError(
                "kernel must exceed stride by 0 to 2 along T, "
                f"instead got {kernel[0]} and {stride[0]}"
            )
        self.kernel = kernel
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, T, H, W), 0 or more, to (N, C, T', H', W'), each axis ceil(n / stride)."""
        before, _ = same_paddings(x, self.kernel, self.stride)
        frames = x.permute(0, 2, 3, 4, 1).contiguous()  # (N, C, T, H, W) -> (N, T, H, W, C)
        N, T, H, W, C = frames.shape
        T_out, H_out, W_out = (-(-n // s) for n, s in zip((T, H, W), self.stride, strict=True))
        out = frames.new_empty((N, T_out, H_out, W_out, C))
        n_windows = N * H_out * W_out
        max_pool_kernel[(-(-n_windows // POOL_BLOCK), -(-C // POOL_CHANNELS))](
            frames,
            out,
            T,
            H,
            W,
            C,
            H_out,
            W_out,
            n_windows,
            *before,
            T_out,
            *self.kernel,
            *self.stride,
            POOL_BLOCK,
            POOL_CHANNELS,
            num_warps=POOL_WARPS,
        )
        return out.permute(0, 4, 1, 2, 3)  # (N, T, H, W, C) -> (N, C, T, H, W)


def concatenate_channels(branches: list[Tensor]) -> Tensor:
    """Concatenate four maps (N, C, T, H, W) along the channels, in channels-last memory.

    torch's concatenation takes more than twice as long as its reads and writes of memory need.
    """
    # (N, C, T, H, W) -> (N, T, H, W, C)
    maps = [branch.permute(0, 2, 3, 4, 1).contiguous() for branch in branches]
    widths = [branch.shape[1] for branch in branches]
    n_channels = sum(widths)
    out = maps[0].new_empty((*maps[0].shape[:4], n_channels))
    n_rows = out.shape[:4].numel()
    n_blocks = (-(-n_rows // CONCATENATION_BLOCK), -(-n_channels // CONCATENATION_CHANNELS))
    concatenate_kernel[n_blocks](
        *maps,
        out,
        n_rows,
        *widths,
        CONCATENATION_BLOCK,
        CONCATENATION_CHANNELS,
        num_warps=CONCATENATION_WARPS,
    )
    return out.permute(0, 4, 1, 2, 3)  # (N, T, H, W, C) -> (N, C, T, H, W)


def use_cuda_layers(network: nn.Module) -> None:
    """Replace the layers of a folded network by those of this module, in place."""
    for parent in list(network.modules()):
        if isinstance(parent, InceptionBlock):
            parent.concatenate = concatenate_channels
        for name, layer in list(parent.named_children()):
            if (replacement := _replacement(layer)) is not None:
                setattr(parent, name, replacement.requires_grad_(False))


def _replacement(layer: nn.Module) -> nn.Module | None:
    if isinstance(layer, PointwiseUnit):
        return CudaPointwise(layer)
    if isinstance(layer, MaxPool):
        return CudaMaxPool(layer.kernel, layer.stride)
    if isinstance(layer, ConvUnit) and layer.conv3d.stride == (2, 2, 2):
        return CudaStem(layer.conv3d)
    return CudaConv(layer) if isinstance(layer, ConvUnit) else None
