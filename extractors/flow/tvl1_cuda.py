"""TV-L1 optical flow on CUDA devices: what launches the Triton kernels, and when.

What an iteration costs and why it is built so is said in `tvl1_advance.py`. The launches of a round
of inner iterations are recorded in a CUDA graph, once for each size of frames. All sizes share one
block of memory, and each is solved for a fixed number of pairs at once, so neither memory nor the
number of graphs grows with the number of videos.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from extractors.flow.tvl1 import (
    MIN_SQUARED_GRADIENT,
    TVL1Config,
    build_pyramid,
    check_gray,
    enlarge,
)
from extractors.flow.tvl1_advance import advance_kernel
from extractors.flow.tvl1_kernels import DONE, MEDIAN_LEN, linearize_kernel, median_kernel
from extractors.flow.tvl1_state import LANES, State, Tiling, n_blocks

logger = logging.getLogger(__name__)

MAX_PIXELS_PER_SOLVE = 96_000_000  # 1,100 pairs of 341x256: 6.5 GB of state
# The memory of a GPU, and what is free of it, are at least so many times as large as the state.
MEMORY_PER_STATE = 8
FREE_PER_STATE = 2
N_WARPS = 4  # of a program of the data term or of the median filter
DATA_BLOCK = 128  # pixels of a program of the data term: one for each thread
MEDIAN_BLOCK = 128  # pairs of pixels of a program of the median filter: one for each thread
MIN_MAX_TILES = 64  # one compiled kernel serves all levels of a pyramid that have fewer tiles
MAX_PAIRS = 4096  # of tiny frames: CUDA's grids have at most 65,535 rows
MAX_GRAPHS = 128  # levels of pyramids whose graphs are kept: 25 sizes of frames

DEFAULT_TILING = Tiling()


class LevelSolver:
    """The iteration for P pairs of frames of one size.

    Args:
        dims: P, H and W.
        config: The parameters of the method.
        block: Float32 memory for the state of the iteration, of `n_floats` or more, on a CUDA
            device or, under Triton's interpreter, the CPU. What is in it does not matter.
        tiling: How the iteration is cut up.
    """

    def __init__(
        self,
        dims: tuple[int, int, int],
        config: TVL1Config,
        block: Tensor,
        tiling: Tiling = DEFAULT_TILING,
    ) -> None:
        P, H, W = dims
        self.config = config
        self._tiling = tiling
        self._state = State(block, dims)
        self._n_tiles = tiling.n_tiles(H, W)
        device = block.device
        # Of squared changes; each launch reads those of the one before.
        self._sums = [
            torch.zeros(P, tiling.n_steps, self._n_tiles, device=device) for _ in range(2)
        ]
        # Two, for a program may still read what another one of its launch writes.
        self._statuses = [torch.zeros(P, dtype=torch.int32, device=device) for _ in range(2)]
        self._unused = torch.zeros(P, dtype=torch.int32, device=device)
        self._max_squared_change = config.epsilon**2 * H * W
        self._graphs: dict[bool, torch.cuda.CUDAGraph] = {}

    def refine(self, first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
        """Improve the flow of at most P pairs at this scale.

        Args:
            first: (..., H, W) of n_pairs in all.
            second: (..., H, W), likewise.
            flow: (n_pairs, 2, H, W).

        Returns:
            (n_pairs, 2, H, W), with memory of its own.
        """
        state, n_pairs = self._state, len(flow)
        state.first[:n_pairs].view_as(first).copy_(first)
        state.second[:n_pairs].view_as(second).copy_(second)
        state.flows[0, :n_pairs].copy_(flow)
        state.duals[0].zero_()
        self._statuses[0].zero_()
        self._unused.fill_(DONE)
        self._unused[:n_pairs].zero_()
        for _ in range(self.config.n_warps):
            for index in range(self.config.n_outer_iterations):
                self._run_round(is_first=index == 0)
                if (self._statuses[0] >= DONE).all():
                    break
        is_second = (self._statuses[0][:n_pairs] & 1).view(-1, 1, 1, 1) > 0
        return torch.where(is_second, state.flows[1, :n_pairs], state.flows[0, :n_pairs])

    def _run_round(self, *, is_first: bool) -> None:
        """A median filter and the inner iterations, the first of a warp with its data term before.

        On a GPU it comes from a graph that is recorded once.
        """
        if not self._state.first.is_cuda:
            self._launch_round(is_first)
        elif is_first not in self._graphs:
            self._launch_round(is_first)  # compiles what is not compiled yet
            self._graphs[is_first] = _record(partial(self._launch_round, is_first))
        else:
            self._graphs[is_first].replay()

    def _launch_round(self, is_first: bool) -> None:
        """Read the status [0], and leave the new one there."""
        before = self._statuses[0]
        if is_first:
            self._linearize()
        if self.config.median_len > 1:
            self._filter()
        n_left, n_before = self.config.n_inner_iterations, 0
        while n_left:
            n_now = min(self._tiling.n_steps, n_left)
            self._advance(n_before, n_now)
            n_left, n_before = n_left - n_now, n_now
        self._advance(n_before, 0)
        if self._statuses[0] is not before:
            before.copy_(self._statuses[0])
            self._statuses.reverse()

    def _linearize(self) -> None:
        state = self._state
        P, H, W = state.first.shape
        linearize_kernel[(n_blocks(H * W, DATA_BLOCK), P)](
            state.first,
            state.second,
            state.flows,
            state.data,
            *self._statuses,
            self._unused,
            P,
            H,
            W,
            DATA_BLOCK,
            num_warps=N_WARPS,
            enable_fp_fusion=True,
        )
        self._statuses.reverse()

    def _filter(self) -> None:
        P, H, W = self._state.first.shape
        median_kernel[(n_blocks(n_blocks(H, 2) * W, MEDIAN_BLOCK), 2 * P)](
            self._state.flows,
            *self._statuses,
            P,
            H,
            W,
            MEDIAN_BLOCK,
            num_warps=N_WARPS,
            enable_fp_fusion=True,
        )
        self._statuses.reverse()

    def _advance(self, n_before: int, n_now: int) -> None:
        """Do `n_now` iterations after a launch of `n_before`, or what that one has left open."""
        state, config, tiling = self._state, self.config, self._tiling
        P, H, W = state.first.shape
        advance_kernel[(self._n_tiles, P)](
            state.flows,
            state.duals,
            state.data,
            *self._statuses,
            *self._sums,
            P,
            H,
            W,
            self._n_tiles,
            n_before,
            n_now,
            self._max_squared_change,
            config.lambda_ * config.theta,
            config.tau,
            config.tau / config.theta,
            MIN_SQUARED_GRADIENT,
            tiling.n_steps,
            tiling.n_columns,
            tiling.segment_len,
            max(MIN_MAX_TILES, _power_of_two(self._n_tiles)),
            LANES,
            num_warps=1,
            enable_fp_fusion=True,
        )
        self._statuses.reverse()
        self._sums.reverse()


class KernelSolver:
    """TV-L1 flow by these kernels.

    Args:
        config: The parameters of the method; `median_len` is 5 or 1.
        pixels_per_solve: As many pairs are solved at once as have so many pixels, but at least one;
            None for a number that fits the device's memory.
        tiling: How the iteration is cut up.

    Raises:
        ValueError: If the median filter is of another size.
    """

    def __init__(
        self,
        config: TVL1Config,
        pixels_per_solve: int | None = None,
        tiling: Tiling = DEFAULT_TILING,
    ) -> None:
        if config.median_len not in (1, MEDIAN_LEN):
            raise ValueError(f"median_len must be 1 or 5, instead got {config.median_len}")
        self.config = config
        self._pixels_per_solve = pixels_per_solve
        self._tiling = tiling
        self._block = torch.empty(0)
        self._levels: OrderedDict[tuple[int, int, int], LevelSolver] = OrderedDict()

    @torch.inference_mode()
    def flow(self, gray: Tensor) -> Tensor:
        """Compute the flow from each frame to the next.

        Args:
            gray: (..., T + 1, H, W) float32 gray values in 0..255.

        Returns:
            (..., T, 2, H, W) float32 displacement (x, y) in pixels, on the device of gray.

        Raises:
            ValueError: If gray is not float32, not (..., T + 1, H, W), or has fewer than two
                frames.
            torch.OutOfMemoryError: If the device has no room for a single pair.
        """
        check_gray(gray)
        T, H, W = gray.shape[-3] - 1, *gray.shape[-2:]
        frames = gray.reshape(-1, T + 1, H, W)
        n_pairs = self._reserve(len(frames) * T, H, W, gray.device)
        flow = gray.new_empty(len(frames), T, 2, H, W)
        n_clips, clip_len = max(1, n_pairs // T), min(T, n_pairs)
        for first in range(0, len(frames), n_clips):
            for start in range(0, T, clip_len):
                part = frames[first : first + n_clips, start : start + clip_len + 1]
                solved = self._solve(part, n_pairs)
                flow[first : first + n_clips, start : start + clip_len] = solved
        return flow.reshape(*gray.shape[:-3], T, 2, H, W)

    def _reserve(self, n_given: int, H: int, W: int, device: torch.device) -> int:
        """Make the block of memory long enough; the solvers that lie in a shorter one go.

        Args:
            n_given: Pairs of frames whose flow is wanted.
            H: Rows of a frame.
            W: Columns of a frame.
            device: Of the frames.

        Returns:
            How many pairs are solved at once: a power of four, so that few graphs serve batches of
            all lengths, or as many as fit; fewer for good, where there is no room for the block.
        """
        if self._pixels_per_solve is None:
            self._pixels_per_solve = fitting_pixels(device)
        while True:
            n_fitting = min(max(1, self._pixels_per_solve // (H * W)), MAX_PAIRS)
            n_pairs = min(_power_of_four(n_given), n_fitting)
            n_floats = State.n_floats((n_pairs, H, W))
            if len(self._block) >= n_floats and self._block.device == device:
                return n_pairs
            self._levels.clear()
            self._block = torch.empty(0)  # before the next one is taken
            try:
                self._block = torch.empty(n_floats, device=device)
            except torch.OutOfMemoryError:
                if n_pairs == 1:
                    raise
                self._pixels_per_solve = n_pairs // 2 * H * W
                logger.warning("out of memory: going on with the flow of %d pairs", n_pairs // 2)

    def _solve(self, frames: Tensor, n_pairs: int) -> Tensor:
        """Flow (S, T, 2, H, W) of frames (S, T + 1, H, W) of at most n_pairs pairs."""
        S, n_frames, H, W = frames.shape
        levels = build_pyramid(frames, self.config)
        flow = frames.new_zeros(S * (n_frames - 1), 2, *levels[-1].shape[2:])
        for level in reversed(levels):
            solver = self._solver_of((n_pairs, *level.shape[2:]))
            flow = enlarge(flow, level.shape[2:], self.config)
            flow = solver.refine(level[:, :-1], level[:, 1:], flow)
        return flow.view(S, n_frames - 1, 2, H, W)

    def _solver_of(self, dims: tuple[int, int, int]) -> LevelSolver:
        solver = self._levels.pop(dims, None) or LevelSolver(
            dims, self.config, self._block, self._tiling
        )
        self._levels[dims] = solver
        if len(self._levels) > MAX_GRAPHS:
            self._levels.popitem(last=False)
        return solver


def fitting_pixels(device: torch.device) -> int:
    """Return how many pixels a CUDA device solves at once: as many as keep it busy, if they fit."""
    n_free, n_bytes = torch.cuda.mem_get_info(device)
    n_bytes = min(n_bytes // MEMORY_PER_STATE, n_free // FREE_PER_STATE)
    return min(MAX_PIXELS_PER_SOLVE, n_bytes // State.BYTES_PER_PIXEL)


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


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _power_of_four(least: int) -> int:
    return 1 << ((least - 1).bit_length() + 1) // 2 * 2
