"""TV-L1 optical flow on CUDA devices: what launches the kernels of `tvl1_kernels.py`.

What an iteration costs and why it is built so is said there. The launches of a round of inner
iterations are recorded in a CUDA graph, once for each size of frames. All sizes share one block of
memory, and each is solved for a fixed number of pairs at once, so neither memory nor the number of
graphs grows with the number of videos.
"""

from collections import OrderedDict
from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from extractors.flow.tvl1 import (
    MIN_SQUARED_GRADIENT,
    TVL1Config,
    build_pyramid,
    check_gray,
    frame_pairs,
    start_level,
)
from extractors.flow.tvl1_kernels import MEDIAN_LEN, iterate_kernel, linearise_kernel, median_kernel

PIXELS_PER_SOLVE = 12_000_000  # 137 pairs of 341x256: 0.8 GB of state
BLOCK_Y, BLOCK_X = 8, 32  # pixels of a program
N_WARPS = 4  # 2 pixels for each thread
MEDIAN_BLOCK = 256  # pixels of a program of the median filter
MAX_GRAPHS = 128  # levels of pyramids whose graphs are kept: 25 sizes of frames

# Floats for each pixel of a pair, by name; "2" are buffers that are read and written in turn.
_PLANES = {"first": 1, "second": 1, "flow": 2, "flow2": 2, "dual": 4, "dual2": 4, "data": 3}
_ALIGNMENT = 64  # floats


class _State:
    """Where the planes of P pairs of frames of one size lie in the shared block of memory.

    Attributes:
        first: (P, H, W) the first frames of the pairs.
        second: (P, H, W) the second frames.
        data: (P, 3, H, W) the data term.
        flows: Two of (P, 2, H, W); [0] is what is read next.
        duals: Two of (P, 4, H, W), likewise.
    """

    def __init__(self, block: Tensor, dims: tuple[int, int, int]) -> None:
        P, H, W = dims
        planes, start = {}, 0
        for name, n_planes in _PLANES.items():
            n_floats = n_planes * P * H * W
            planes[name] = block[start : start + n_floats].view(P, n_planes, H, W)
            start += _aligned(n_floats)
        self.first, self.second = planes["first"][:, 0], planes["second"][:, 0]
        self.data = planes["data"]
        self.flows = [planes["flow"], planes["flow2"]]
        self.duals = [planes["dual"], planes["dual2"]]

    @staticmethod
    def n_floats(dims: tuple[int, int, int]) -> int:
        """How long the block of memory must be at least."""
        return sum(_aligned(n_planes * prod(dims)) for n_planes in _PLANES.values())


class LevelSolver:
    """The iteration for P pairs of frames of one size.

    Args:
        dims: P, H and W.
        config: The parameters of the method.
        block: Float32 memory for the state of the iteration, of `n_floats` or more, on a CUDA
            device or, under Triton's interpreter, the CPU. What is in it does not matter.
    """

    def __init__(self, dims: tuple[int, int, int], config: TVL1Config, block: Tensor) -> None:
        P, H, W = dims
        self.config = config
        self._state = _State(block, dims)
        self._n_blocks = _n_blocks(H, BLOCK_Y) * _n_blocks(W, BLOCK_X)
        # The tiles of an iteration overlap by a row and a column.
        self._n_tiles = _n_blocks(H, BLOCK_Y - 1) * _n_blocks(W, BLOCK_X - 1)
        # Of squared changes, for each tile: which pairs are done (see `iterate_kernel`).
        self._sums = [torch.zeros(P, self._n_tiles, device=block.device) for _ in range(2)]
        self._max_squared_change = config.epsilon**2 * H * W
        self._graph: torch.cuda.CUDAGraph | None = None

    def refine(self, first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
        """Improve the flow of at most P pairs at this scale.

        Args:
            first: (n_pairs, H, W).
            second: (n_pairs, H, W).
            flow: (n_pairs, 2, H, W).

        Returns:
            (n_pairs, 2, H, W) in the block of memory: it is overwritten by the next call.
        """
        state, n_pairs = self._state, len(flow)
        state.first[:n_pairs].copy_(first)
        state.second[:n_pairs].copy_(second)
        state.flows[0][:n_pairs].copy_(flow)
        state.duals[0].zero_()
        for _ in range(self.config.n_warps):
            self._linearise(n_pairs)
            self._sums[0].fill_(-1.0)  # done, as all pairs beyond `n_pairs` are
            self._sums[0][:n_pairs].fill_(torch.inf)
            for _ in range(self.config.n_outer_iterations):
                self._run_round()
                totals = self._sums[0].sum(dim=1, dtype=torch.float64)
                if not (totals > self._max_squared_change).any():
                    break
        return state.flows[0][:n_pairs]

    def _linearise(self, n_pairs: int) -> None:
        H, W = self._state.first.shape[1:]
        linearise_kernel[(self._n_blocks, n_pairs)](
            self._state.first,
            self._state.second,
            self._state.flows[0],
            self._state.data,
            H,
            W,
            BLOCK_Y,
            BLOCK_X,
            num_warps=N_WARPS,
            enable_fp_fusion=True,
        )

    def _run_round(self) -> None:
        """A median filter and the inner iterations; on a GPU from a graph that is recorded once."""
        if not self._state.first.is_cuda:
            self._launch_round()
        elif self._graph is None:
            self._launch_round()  # compiles what is not compiled yet
            self._graph = _record(self._launch_round)
        else:
            self._graph.replay()

    def _launch_round(self) -> None:
        """Read all buffers [0], and leave the result in them."""
        turns = (self._state.flows, self._state.duals, self._sums)
        before = [buffers[0] for buffers in turns]
        if self.config.median_len > 1:
            self._filter()
        for _ in range(self.config.n_inner_iterations):
            self._iterate()
        for buffers, first in zip(turns, before, strict=True):
            if buffers[0] is not first:
                first.copy_(buffers[0])
                buffers.reverse()

    def _filter(self) -> None:
        P, _, H, W = self._state.data.shape
        median_kernel[(_n_blocks(H * W, MEDIAN_BLOCK), 2 * P)](
            *self._state.flows,
            self._sums[0],
            H,
            W,
            self._n_tiles,
            self._max_squared_change,
            MEDIAN_BLOCK,
            _power_of_two(self._n_tiles),
            enable_fp_fusion=True,
        )
        self._state.flows.reverse()

    def _iterate(self) -> None:
        P, _, H, W = self._state.data.shape
        config = self.config
        iterate_kernel[(self._n_tiles, P)](
            *self._state.flows,
            *self._state.duals,
            self._state.data,
            *self._sums,
            H,
            W,
            self._n_tiles,
            self._max_squared_change,
            config.theta,
            config.lambda_ * config.theta,
            config.tau / config.theta,
            MIN_SQUARED_GRADIENT,
            BLOCK_Y,
            BLOCK_X,
            _power_of_two(self._n_tiles),
            num_warps=N_WARPS,
            enable_fp_fusion=True,
        )
        for buffers in (self._state.flows, self._state.duals, self._sums):
            buffers.reverse()


class KernelSolver:
    """TV-L1 flow by these kernels.

    Args:
        config: The parameters of the method; `median_len` is 5 or 1.
        pixels_per_solve: As many pairs are solved at once as have so many pixels, but at least one.

    Raises:
        ValueError: If the median filter is of another size.
    """

    def __init__(self, config: TVL1Config, pixels_per_solve: int = PIXELS_PER_SOLVE) -> None:
        if config.median_len not in (1, MEDIAN_LEN):
            raise ValueError(f"median_len must be 1 or 5, instead got {config.median_len}")
        self.config = config
        self._pixels_per_solve = pixels_per_solve
        self._block = torch.empty(0)
        self._levels: OrderedDict[tuple[int, int, int], LevelSolver] = OrderedDict()

    @torch.inference_mode()
    def flow(self, grey: Tensor) -> Tensor:
        """Compute the flow from each frame to the next.

        Args:
            grey: (..., T + 1, H, W) float32 gray values in 0..255.

        Returns:
            (..., T, 2, H, W) float32 displacement (x, y) in pixels, on the device of grey.

        Raises:
            ValueError: If grey is not float32, not (..., T + 1, H, W), or has fewer than two
                frames.
        """
        check_gray(grey)
        first, second = frame_pairs(grey)
        H, W = grey.shape[-2:]
        n_pairs = max(1, self._pixels_per_solve // (H * W))
        self._reserve((n_pairs, H, W), grey.device)
        flow = grey.new_empty(len(first), 2, H, W)
        for start in range(0, len(first), n_pairs):
            pairs = slice(start, start + n_pairs)
            flow[pairs] = self._solve(first[pairs], second[pairs], n_pairs)
            # (P, 2, H, W) -> (..., T, 2, H, W)
        return flow.reshape(*grey.shape[:-3], -1, *flow.shape[1:])

    def _reserve(self, dims: tuple[int, int, int], device: torch.device) -> None:
        """Make the block of memory long enough; the solvers that lie in a shorter one go."""
        n_floats = _State.n_floats(dims)
        if len(self._block) < n_floats or self._block.device != device:
            self._levels.clear()
            self._block = torch.empty(n_floats, device=device)

    def _solve(self, first: Tensor, second: Tensor, n_pairs: int) -> Tensor:
        flow: Tensor | None = None
        for level in reversed(build_pyramid(torch.stack([first, second]), self.config)):
            flow = start_level(flow, level, self.config)
            flow = self._solver_of((n_pairs, *level.shape[2:])).refine(level[0], level[1], flow)
        assert flow is not None  # a pyramid has at least one level
        return flow

    def _solver_of(self, dims: tuple[int, int, int]) -> LevelSolver:
        solver = self._levels.pop(dims, None) or LevelSolver(dims, self.config, self._block)
        self._levels[dims] = solver
        if len(self._levels) > MAX_GRAPHS:
            self._levels.popitem(last=False)
        return solver


def _record(launch: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """Record what a function launches. It must not take memory from the device.

    `torch.cuda.graph` would return the memory of the caching allocators, which the next batches
    then have to take again.
    """
    graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(current)
    with torch.cuda.stream(side):
        # Other threads may go on using the device meanwhile.
        graph.capture_begin(capture_error_mode="thread_local")
        launch()
        graph.capture_end()
    current.wait_stream(side)
    return graph


def _aligned(n_floats: int) -> int:
    return _n_blocks(n_floats, _ALIGNMENT) * _ALIGNMENT


def _n_blocks(length: int, block_len: int) -> int:
    return -(-length // block_len)


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()
