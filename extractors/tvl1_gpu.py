"""TV-L1 optical flow on CUDA devices: what launches the kernels of `tvl1_kernels.py`.

What an iteration costs and why it is built so is said there. The launches of a round of inner
iterations are recorded once for each size of picture, in a CUDA graph.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from extractors.tvl1 import MIN_SQUARED_GRADIENT, TVL1Config, build_pyramid, check_grey
from extractors.tvl1_kernels import MEDIAN_LEN, iterate_kernel, linearise_kernel, median_kernel

PIXELS_PER_SOLVE = 700_000  # 42 MB of state: within the second-level cache of an H100
BLOCK_Y, BLOCK_X = 8, 64  # pixels of a program
N_WARPS = 8  # 2 pixels for each thread
MEDIAN_BLOCK = 256  # pixels of a program of the median filter
N_SOLVERS = 16  # sizes of pictures whose buffers and graphs are kept


class LevelSolver:
    """The buffers of one size of picture, and the iteration on them.

    Args:
        n_pairs: Number T of pairs.
        height: H, pixels.
        width: W, pixels.
        config: The parameters of the method.
        device: Where it computes: CUDA, or the CPU under Triton's interpreter.
    """

    def __init__(
        self, n_pairs: int, height: int, width: int, config: TVL1Config, device: torch.device
    ) -> None:
        self.config = config
        shape = (n_pairs, height, width)
        T, H, W = shape
        self.frames = torch.zeros(T + 1, H, W, device=device)
        # Whatever goes from buffer to buffer: [0] is what is read next.
        self.flows = [torch.zeros(T, 2, H, W, device=device) for _ in range(2)]
        self._duals = [torch.zeros(T, 4, H, W, device=device) for _ in range(2)]
        self._data = torch.zeros(T, 3, H, W, device=device)
        self._n_tiles = _n_blocks(H, BLOCK_Y) * _n_blocks(W, BLOCK_X)
        self._sums = [torch.zeros(T, self._n_tiles, device=device) for _ in range(2)]
        self._max_squared_change = config.epsilon**2 * H * W
        self._graph: torch.cuda.CUDAGraph | None = None

    def refine(self, frames: Tensor, flow: Tensor) -> Tensor:
        """Improve a flow at this scale.

        Args:
            frames: (T + 1, H, W).
            flow: (T, 2, H, W).

        Returns:
            (T, 2, H, W), a buffer that the next call overwrites.
        """
        self.frames.copy_(frames)
        self.flows[0].copy_(flow)
        self._duals[0].zero_()
        for _ in range(self.config.n_warps):
            self._linearise()
            self._sums[0].fill_(torch.inf)
            for _ in range(self.config.n_outer_iterations):
                self._run_round()
                totals = self._sums[0].sum(dim=1, dtype=torch.float64)
                if not (totals > self._max_squared_change).any():
                    break
        return self.flows[0]

    def _linearise(self) -> None:
        T, _, H, W = self._data.shape
        linearise_kernel[(self._n_tiles, T)](
            self.frames,
            self.flows[0],
            self._data,
            H,
            W,
            BLOCK_Y,
            BLOCK_X,
            num_warps=N_WARPS,
            enable_fp_fusion=True,
        )

    def _run_round(self) -> None:
        """A median filter and the inner iterations; on a GPU from a graph that is recorded once."""
        if not self.frames.is_cuda:
            self._launch_round()
        elif self._graph is None:
            self._launch_round()  # compiles what is not compiled yet
            self._graph = torch.cuda.CUDAGraph()
            # Other threads may go on using the device meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._launch_round()
        else:
            self._graph.replay()

    def _launch_round(self) -> None:
        """Read all buffers [0], and leave the result in them."""
        before = (list(self.flows), list(self._duals), list(self._sums))
        if self.config.median_len > 1:
            self._filter()
        for _ in range(self.config.n_inner_iterations):
            self._iterate()
        for buffers, (first, _) in zip((self.flows, self._duals, self._sums), before, strict=True):
            if buffers[0] is not first:
                first.copy_(buffers[0])
                buffers.reverse()

    def _filter(self) -> None:
        T, _, H, W = self._data.shape
        median_kernel[(_n_blocks(H * W, MEDIAN_BLOCK), 2 * T)](
            *self.flows,
            self._sums[0],
            H,
            W,
            self._n_tiles,
            self._max_squared_change,
            MEDIAN_BLOCK,
            _power_of_two(self._n_tiles),
            enable_fp_fusion=True,
        )
        self.flows.reverse()

    def _iterate(self) -> None:
        T, _, H, W = self._data.shape
        config = self.config
        iterate_kernel[(self._n_tiles, T)](
            *self.flows,
            *self._duals,
            self._data,
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
        for buffers in (self.flows, self._duals, self._sums):
            buffers.reverse()


class KernelSolver:
    """TV-L1 flow by these kernels; keeps the buffers and graphs of the last sizes of pictures.

    Args:
        config: The parameters of the method; `median_len` is 5 or 1.

    Raises:
        ValueError: If the median filter is of another size.
    """

    def __init__(self, config: TVL1Config) -> None:
        if config.median_len not in (1, MEDIAN_LEN):
            raise ValueError(f"median_len must be 1 or 5, instead got {config.median_len}")
        self.config = config
        self._levels: OrderedDict[tuple[int, int, int], LevelSolver] = OrderedDict()

    @torch.inference_mode()
    def flow(self, grey: Tensor) -> Tensor:
        """Compute the flow from each frame to the next.

        Args:
            grey: (T + 1, H, W) float32 grey values in 0..255.

        Returns:
            (T, 2, H, W) float32 displacement (x, y) in pixels, on the device of grey.

        Raises:
            ValueError: If grey is not float32, not (T + 1, H, W), or has fewer than two frames.
        """
        check_grey(grey)
        T, H, W = len(grey) - 1, *grey.shape[1:]
        n_pairs = max(1, PIXELS_PER_SOLVE // (H * W))
        flow = grey.new_empty(T, 2, H, W)
        for start in range(0, T, n_pairs):
            flow[start : start + n_pairs] = self._solve(grey[start : start + n_pairs + 1])
        return flow

    def _solve(self, grey: Tensor) -> Tensor:
        levels = build_pyramid(grey, self.config)
        flow = levels[-1].new_zeros(len(grey) - 1, 2, *levels[-1].shape[1:])
        for level in reversed(levels):
            if flow.shape[2:] != level.shape[1:]:
                flow = F.interpolate(flow, size=level.shape[1:], mode="bilinear")
                flow = flow / self.config.scale_step
            flow = self._solver_of(level).refine(level, flow)
        return flow

    def _solver_of(self, level: Tensor) -> LevelSolver:
        T, H, W = len(level) - 1, *level.shape[1:]
        solver = self._levels.pop((T, H, W), None)
        if solver is None:
            solver = LevelSolver(T, H, W, self.config, level.device)
        self._levels[T, H, W] = solver
        if len(self._levels) > N_SOLVERS:
            self._levels.popitem(last=False)
        return solver


def _n_blocks(length: int, block_len: int) -> int:
    return -(-length // block_len)


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()
