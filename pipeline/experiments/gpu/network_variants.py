"""Faster forms of the Inception-I3D for a GPU, to be measured: fused, compiled, as a CUDA graph."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from extractors.networks.inception_i3d import ConvUnit, PointwiseUnit, same_paddings

Network = Callable[[Tensor], Tensor]


class FusedConvUnit(nn.Module):
    """A folded `ConvUnit` whose bias and ReLU belong to the convolution: one pass over the output.

    On a CPU they are passes of their own.

    Args:
        unit: With the normalization folded in.
    """

    def __init__(self, unit: ConvUnit) -> None:
        super().__init__()
        self.conv3d = unit.conv3d

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, T, H, W) to (N, out_channels, T', H', W'), T' = ceil(T / stride)."""
        conv = self.conv3d
        before, surplus = same_paddings(x, conv.kernel_size, conv.stride)
        if any(surplus):
            x = functional.pad(x, (0, surplus[2], 0, surplus[1], 0, surplus[0]))
        if not x.is_cuda:
            return functional.conv3d(x, conv.weight, conv.bias, conv.stride, before).relu_()
        return torch.cudnn_convolution_relu(
            x, conv.weight, conv.bias, conv.stride, before, conv.dilation, conv.groups
        )


class FusedPointwiseUnit(nn.Module):
    """A `PointwiseUnit` whose ReLU belongs to the matrix product."""

    def __init__(self, unit: PointwiseUnit) -> None:
        super().__init__()
        self.weight, self.bias = unit.weight, unit.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, T, H, W) to (N, out_channels, T, H, W)."""
        x = x.permute(0, 2, 3, 4, 1)  # (N, C, T, H, W) -> (N, T, H, W, C)
        assert self.bias is not None  # the normalization is folded in
        rows = torch._addmm_activation(self.bias, x.flatten(0, 3), self.weight.t())
        return rows.view(*x.shape[:4], -1).permute(0, 4, 1, 2, 3)  # -> (N, C, T, H, W)


def fused(network: nn.Module, clips: Tensor) -> Network:
    """Return a copy of a folded network with bias and ReLU fused into its convolutions."""
    fused_network = copy.deepcopy(network)
    for parent in list(fused_network.modules()):
        for name, unit in list(parent.named_children()):
            if isinstance(unit, ConvUnit):
                setattr(parent, name, FusedConvUnit(unit))
            if isinstance(unit, PointwiseUnit):
                setattr(parent, name, FusedPointwiseUnit(unit))
    return fused_network


def compiled(network: nn.Module, clips: Tensor) -> Network:
    """Return the network through torch.compile; on a CPU traced only, for that takes seconds."""
    backend = "inductor" if clips.is_cuda else "eager"
    network_as_compiled: Network = torch.compile(network, backend=backend, dynamic=False)
    return network_as_compiled


def graphed(network: nn.Module, clips: Tensor) -> Network:
    """Return the network as a CUDA graph for clips of this shape; on a CPU the network itself."""
    if not clips.is_cuda:
        return network
    given = clips.clone()
    network(given)  # chooses the kernels
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        features: Tensor = network(given)

    def replay(clips: Tensor) -> Tensor:
        given.copy_(clips)
        graph.replay()
        return features.clone()

    return replay


VARIANTS: dict[str, Callable[[nn.Module, Tensor], Network]] = {
    "fused": fused,
    "graphed": graphed,
    "compiled": compiled,
}
