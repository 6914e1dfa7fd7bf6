"""3D convolutions in float32 on a CPU with about half the products: Winograd's minimal filtering.

Along time, four outputs of a filter of three taps need six products instead of twelve, and of four
taps seven instead of sixteen: weighted sums of the frames are each convolved over space, and
weighted sums of the results are the outputs. Lavin and Gray, "Fast Algorithms for Convolutional
Neural Networks", CVPR 2016, https://arxiv.org/abs/1509.09308, along one axis instead of two: the
sums are then matrix products, and the convolutions over space are torch's.

torch's convolutions keep a CPU's multipliers busy: only fewer products can be faster. The sums are
rounded, too, so that float32 results are about three times as far from the exact ones as torch's.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from extractors.networks.same_padding import same_paddings

TILE_LEN = 4  # outputs along time that are computed together
# By number of taps: where the polynomials are evaluated whose coefficients are taps and frames.
# Infinity stands for the highest coefficient. Small numbers and their inverses round least.
POINTS = {3: (0, 1, -1, 2, -2, math.inf), 4: (0, 1, -1, 2, -2, 0.5, -0.5)}


class WinogradUnit(nn.Module):
    """A SAME-padded 3D convolution of the same stride along all axes, then ReLU.

    At stride 2 two frames are taken as one of twice the channels, and seven taps as four of two.

    Args:
        conv: The convolution, with a bias. Its kernel is 3 long along time at stride 1, or 7 at
            stride 2.

    Raises:
        ValueError: If it is another one.
    """

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.kernel, self.stride = conv.kernel_size, conv.stride
        if (self.kernel[0], *self.stride) not in ((3, 1, 1, 1), (7, 2, 2, 2)):
            raise ValueError(
                f"conv must be 3 long at stride 1 or 7 at stride 2, "
                f"instead got kernel {self.kernel} and stride {self.stride}"
            )
        step = self.stride[0]
        n_taps = -(-self.kernel[0] // step)
        points = POINTS[n_taps]
        n_missing = n_taps * step - self.kernel[0]
        weight = functional.pad(conv.weight.double(), (0, 0, 0, 0, 0, n_missing))
        # (out, C, K, h, w) -> (out, C, taps, step, h, w) -> (taps, out, h, w, step, C)
        taps = weight.view(*weight.shape[:2], n_taps, step, *self.kernel[1:])
        taps = taps.permute(2, 0, 4, 5, 3, 1).flatten(2)
        self.weight = nn.Parameter(torch.tensordot(_powers(points, n_taps), taps, 1).float())
        self.bias = conv.bias
        frames_to_points = torch.linalg.inv(_powers(points, len(points))).T
        self.frames_to_points = nn.Parameter(frames_to_points.float())
        self.points_to_outputs = nn.Parameter(_powers(points, TILE_LEN).T.float())

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, T, H, W) to (N, out_channels, T', H', W'), T' = ceil(T / stride)."""
        out_dims = [-(-n // self.stride[0]) for n in x.shape[2:]]
        n_tiles = -(-out_dims[0] // TILE_LEN)
        frames = self._padded_frames(x, n_tiles)
        outputs = x.new_empty((len(x), n_tiles * TILE_LEN, *out_dims[1:], self.weight.shape[1]))
        for of_clip, outputs_of_clip in zip(frames, outputs, strict=True):
            for first in range(0, n_tiles * TILE_LEN, TILE_LEN):
                tile = of_clip[first : first + len(self.weight)]
                self._filter(tile, outputs_of_clip[first : first + TILE_LEN])
        # (N, T', H', W', out) -> (N, out, T', H', W')
        return outputs[:, : out_dims[0]].permute(0, 4, 1, 2, 3)

    def _padded_frames(self, x: Tensor, n_tiles: int) -> Tensor:
        """Return frames (N, T / stride, H, W, stride * C), SAME-padded and enough for all tiles."""
        before, surplus = same_paddings(x, self.kernel, self.stride)
        pads = [(n, n + more) for n, more in zip(before, surplus, strict=True)]
        step = self.stride[0]
        n_frames = (n_tiles * TILE_LEN + len(self.weight) - TILE_LEN) * step
        pads[0] = before[0], n_frames - x.shape[2] - before[0]
        x = x.permute(0, 2, 3, 4, 1)  # (N, C, T, H, W) -> (N, T, H, W, C)
        x = functional.pad(x, (0, 0, *pads[2], *pads[1], *pads[0]))
        # (N, T, H, W, C) -> (N, T / step, step, H, W, C) -> (N, T / step, H, W, step * C)
        return x.view(len(x), -1, step, *x.shape[2:]).permute(0, 1, 3, 4, 2, 5).flatten(4)

    def _filter(self, frames: Tensor, outputs: Tensor) -> None:
        """Write outputs (TILE_LEN, H', W', out) of frames (n_points, H, W, C)."""
        sums = torch.mm(self.frames_to_points, frames.flatten(1)).view(frames.shape)
        sums = sums.permute(0, 3, 1, 2)  # (n_points, H, W, C) -> (n_points, C, H, W)
        weights = self.weight.view(*self.weight.shape[:2], *self.kernel[1:], -1)
        weights = weights.permute(0, 1, 4, 2, 3)  # (..., h, w, C) -> (..., C, h, w)
        # What is added at the point 1, the second one, is added to each output once.
        biases = [self.bias if point == 1 else None for point in range(len(sums))]
        products = torch.stack(
            [
                functional.conv2d(plane[None], weight, bias, self.stride[1:]).permute(0, 2, 3, 1)
                for plane, weight, bias in zip(sums, weights, biases, strict=True)
            ]
        )
        torch.mm(self.points_to_outputs, products.flatten(1), out=outputs.flatten(1))
        outputs.relu_()


def _powers(points: tuple[float, ...], n: int) -> Tensor:
    """The powers 0 to n - 1 of each point (n_points, n); of infinity only the last one counts."""
    rows = [
        [float(power == n - 1) if math.isinf(point) else point**power for power in range(n)]
        for point in points
    ]
    return torch.tensor(rows, dtype=torch.float64)
