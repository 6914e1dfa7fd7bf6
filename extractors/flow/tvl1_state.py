"""The state of TV-L1's iteration on a CUDA device: its memory layout and its tiling."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from torch import Tensor

LANES = 32  # threads of a warp
# Floats for each pixel of a pair, by name; flow and dual are there twice, read and written in turn.
_PLANES = {"first": 1, "second": 1, "data": 3, "flows": 4, "duals": 8}
_ALIGNMENT = 64  # floats


@dataclass(frozen=True, slots=True)
class Tiling:
    """How the iteration is cut up; the flow depends on it by rounding alone.

    Attributes:
        n_steps: Iterations of a launch.
        n_columns: Pixels of a row for each of the 32 threads of a program.
        segment_len: Rows of a program.
    """

    n_steps: int = 6
    n_columns: int = 2
    segment_len: int = 64

    def n_tiles(self, H: int, W: int) -> int:
        """Programs for each pair."""
        width = self.n_columns * LANES
        if width <= 2 * self.n_steps:
            raise ValueError(f"{self.n_steps} steps leave nothing of a tile {width} pixels wide")
        n_strips = max(1, n_blocks(W - 2 * self.n_steps, width - 2 * self.n_steps))
        return n_strips * n_blocks(H, self.segment_len)


class State:
    """Where the planes of P pairs of frames of one size lie in the shared block of memory.

    Attributes:
        first: (P, H, W) the first frames of the pairs.
        second: (P, H, W) the second frames.
        data: (P, 3, H, W) the data term.
        flows: (2, P, 2, H, W); the status of a pair says which of the two counts.
        duals: (2, P, 4, H, W), likewise.
    """

    BYTES_PER_PIXEL: ClassVar[int] = 4 * sum(_PLANES.values())

    def __init__(self, block: Tensor, dims: tuple[int, int, int]) -> None:
        P, H, W = dims
        planes, start = {}, 0
        for name, n_planes in _PLANES.items():
            n_floats = n_planes * P * H * W
            planes[name] = block[start : start + n_floats]
            start += _aligned(n_floats)
        self.first = planes["first"].view(P, H, W)
        self.second = planes["second"].view(P, H, W)
        self.data = planes["data"].view(P, 3, H, W)
        self.flows = planes["flows"].view(2, P, 2, H, W)
        self.duals = planes["duals"].view(2, P, 4, H, W)

    @staticmethod
    def n_floats(dims: tuple[int, int, int]) -> int:
        """How long the block of memory must be at least."""
        return sum(_aligned(n_planes * prod(dims)) for n_planes in _PLANES.values())


def _aligned(n_floats: int) -> int:
    return n_blocks(n_floats, _ALIGNMENT) * _ALIGNMENT


def n_blocks(length: int, block_len: int) -> int:
    """How many blocks it takes to cover a length."""
    return -(-length // block_len)
