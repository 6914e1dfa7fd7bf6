"""TV-L1 optical flow in fused Triton kernels, for CUDA devices. The only file that imports Triton.

The method, its parameters and the order of its steps are those of `tvl1.py`, which is what CPUs
run and what these kernels are tested against: on a CPU by Triton's interpreter, and compiled for
compute capability 9.0 without a device. **They have not run on a GPU**: no speed below is measured.

What it costs. One inner iteration reads for each pixel the flow (2 numbers), the dual (4) and the
data term (3), and writes flow and dual: 15 numbers, 60 bytes, and about 150 operations. A pair of
341x256 frames takes 271 iterations in the median, counted in pixels of the finest level (23 real
clips): 1.4 GB and 4 Gflop. An H100 (3.35 TB/s; 67 Tflop/s in float32) is then bound by memory, at
about 2,300 pairs a second. The state of a pair is 15 planes, 5.2 MB: 8 pairs stay in the 50 MB of
the second-level cache, and that bound falls. What is left is the launches, one for each iteration
of the slowest pair of a batch, at all levels. They are recorded once for each size of picture in
CUDA graphs, a round of inner iterations each.

- An iteration is one kernel. The dual's ascent needs the new flow of the pixels to the right and
  below: each program computes these again instead of waiting for its neighbours, so flow and dual
  go from one buffer to another.
- No iteration waits for the host. Each program leaves the sum of its squared changes; in the next
  iteration every program of the pair adds these up, in the same order, and so all of them know
  alike whether the pair goes on.
- The warp computes image, gradient and data term from the frame in one pass.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from extractors.tvl1 import (
    MIN_SQUARED_GRADIENT,
    TVL1Config,
    build_pyramid,
    check_grey,
    median_network,
)

PIXELS_PER_SOLVE = 700_000  # 42 MB of state: within the second-level cache of an H100
BLOCK_Y, BLOCK_X = 8, 64  # pixels of a program
N_WARPS = 8  # 2 pixels for each thread
MEDIAN_BLOCK = 256  # pixels of a program of the median filter
MEDIAN_LEN = 5
_NETWORK = tuple((low, high) for low, high, _, _ in median_network(MEDIAN_LEN**2))
EXCHANGES = tl.constexpr(_NETWORK)
N_EXCHANGES = tl.constexpr(len(_NETWORK))
N_SOLVERS = 16  # sizes of pictures whose buffers and graphs are kept


@triton.jit
def _step(flow, dual, data, y, x, H, W, theta, max_length, min_squared):
    """The flow's two changes, and the flow itself, at the pixels (y, x); 0 outside."""
    plane = H * W
    at = y * W + x
    inside = (y < H) & (x < W)
    u1 = tl.load(flow + at, inside, 0.0)
    u2 = tl.load(flow + plane + at, inside, 0.0)
    gx = tl.load(data + at, inside, 0.0)
    gy = tl.load(data + plane + at, inside, 0.0)
    constant = tl.load(data + 2 * plane + at, inside, 0.0)
    squared = gx * gx + gy * gy
    has_gradient = squared > min_squared
    rho = constant + gx * u1 + gy * u2
    length = tl.where(has_gradient, -rho / tl.where(has_gradient, squared, 1.0), 0.0)
    length = tl.minimum(tl.maximum(length, -max_length), max_length)
    has_left = inside & (x > 0)
    has_upper = inside & (y > 0)
    divergence1 = tl.load(dual + at, inside, 0.0) - tl.load(dual + at - 1, has_left, 0.0)
    divergence1 += tl.load(dual + plane + at, inside, 0.0)
    divergence1 -= tl.load(dual + plane + at - W, has_upper, 0.0)
    divergence2 = tl.load(dual + 2 * plane + at, inside, 0.0)
    divergence2 -= tl.load(dual + 2 * plane + at - 1, has_left, 0.0)
    divergence2 += tl.load(dual + 3 * plane + at, inside, 0.0)
    divergence2 -= tl.load(dual + 3 * plane + at - W, has_upper, 0.0)
    return gx * length + theta * divergence1, gy * length + theta * divergence2, u1, u2


@triton.jit
def _ascend(dual, dual_out, at, inside, plane, dx, dy, step):
    """Move two planes of the dual along the gradient (dx, dy) of one component of the flow."""
    norm = 1.0 + step * tl.sqrt(dx * dx + dy * dy)
    px = (tl.load(dual + at, inside, 0.0) + step * dx) / norm
    py = (tl.load(dual + plane + at, inside, 0.0) + step * dy) / norm
    tl.store(dual_out + at, px, inside)
    tl.store(dual_out + plane + at, py, inside)


@triton.jit
def iterate_kernel(
    flow,
    flow_out,
    dual,
    dual_out,
    data,
    sums,
    sums_out,
    H,
    W,
    n_tiles,
    max_squared_change,
    theta,
    max_length,
    tau_over_theta,
    min_squared,
    BLOCK_Y: tl.constexpr,
    BLOCK_X: tl.constexpr,
    MAX_TILES: tl.constexpr,
):
    """One inner iteration of one tile of one pair.

    Sums of squared changes are infinite before the first iteration, and -1 in all tiles of a pair
    that was done in the iteration before: both buffers then hold its flow and its dual.
    """
    tile, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    plane = H * W
    flow += 2 * pair * plane
    flow_out += 2 * pair * plane
    dual += 4 * pair * plane
    dual_out += 4 * pair * plane
    data += 3 * pair * plane
    tiles = tl.arange(0, MAX_TILES)
    # float64: else the order of summation could decide at the threshold.
    total = tl.sum(tl.load(sums + pair * n_tiles + tiles, tiles < n_tiles, 0.0).to(tl.float64))
    left = -1.0
    if total >= 0:
        n_columns = (W + BLOCK_X - 1) // BLOCK_X
        y = (tile // n_columns) * BLOCK_Y + tl.arange(0, BLOCK_Y)[:, None]
        x = (tile % n_columns) * BLOCK_X + tl.arange(0, BLOCK_X)[None, :]
        at = y * W + x
        inside = (y < H) & (x < W)
        is_active = (total > max_squared_change).to(tl.float32)
        c1, c2, u1, u2 = _step(flow, dual, data, y, x, H, W, theta, max_length, min_squared)
        if is_active > 0:
            left = tl.sum(c1 * c1 + c2 * c2)
        u1 += is_active * c1
        u2 += is_active * c2
        tl.store(flow_out + at, u1, inside)
        tl.store(flow_out + plane + at, u2, inside)
        r1, r2, right1, right2 = _step(
            flow, dual, data, y, x + 1, H, W, theta, max_length, min_squared
        )
        l1, l2, lower1, lower2 = _step(
            flow, dual, data, y + 1, x, H, W, theta, max_length, min_squared
        )
        has_right, has_lower = x < W - 1, y < H - 1
        dx1 = tl.where(has_right, right1 + is_active * r1 - u1, 0.0)
        dx2 = tl.where(has_right, right2 + is_active * r2 - u2, 0.0)
        dy1 = tl.where(has_lower, lower1 + is_active * l1 - u1, 0.0)
        dy2 = tl.where(has_lower, lower2 + is_active * l2 - u2, 0.0)
        step = is_active * tau_over_theta
        _ascend(dual, dual_out, at, inside, plane, dx1, dy1, step)
        _ascend(dual + 2 * plane, dual_out + 2 * plane, at, inside, plane, dx2, dy2, step)
    tl.store(sums_out + pair * n_tiles + tile, left)


@triton.jit
def _cubic_weight(distance):
    """Keys' cubic with a = -0.75, as OpenCV and torch have it."""
    d = tl.abs(distance)
    near = (1.25 * d - 2.25) * d * d + 1.0
    far = ((-0.75 * d + 3.75) * d - 6.0) * d + 3.0
    return tl.where(d <= 1.0, near, tl.where(d < 2.0, far, 0.0))


@triton.jit
def linearise_kernel(frames, flow, data, H, W, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr):
    """The data term of one tile of one pair about its flow: gradient x, y, and rho at flow 0.

    The second frame and its central differences are sampled at p + flow(p), bicubic, 0 outside.
    """
    tile, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    plane = H * W
    first = frames + pair * plane
    second = first + plane
    flow += 2 * pair * plane
    data += 3 * pair * plane
    n_columns = (W + BLOCK_X - 1) // BLOCK_X
    y = (tile // n_columns) * BLOCK_Y + tl.arange(0, BLOCK_Y)[:, None]
    x = (tile % n_columns) * BLOCK_X + tl.arange(0, BLOCK_X)[None, :]
    at = y * W + x
    inside = (y < H) & (x < W)
    u1 = tl.load(flow + at, inside, 0.0)
    u2 = tl.load(flow + plane + at, inside, 0.0)
    to_x, to_y = x + u1, y + u2
    x0, y0 = tl.floor(to_x), tl.floor(to_y)
    warped = tl.zeros([BLOCK_Y, BLOCK_X], tl.float32)
    gx = tl.zeros([BLOCK_Y, BLOCK_X], tl.float32)
    gy = tl.zeros([BLOCK_Y, BLOCK_X], tl.float32)
    for tap in range(16):
        column, row = x0 + (tap % 4 - 1), y0 + (tap // 4 - 1)
        weight = _cubic_weight(to_x - column) * _cubic_weight(to_y - row)
        seen = inside & (column >= 0) & (column < W) & (row >= 0) & (row < H)
        # A flow that leads far out would not fit into an integer.
        i = tl.where(seen, column, 0.0).to(tl.int32)
        j = tl.where(seen, row, 0.0).to(tl.int32)
        warped += weight * tl.load(second + j * W + i, seen, 0.0)
        right = tl.load(second + j * W + tl.minimum(i + 1, W - 1), seen, 0.0)
        left = tl.load(second + j * W + tl.maximum(i - 1, 0), seen, 0.0)
        gx += weight * ((right - left) / 2)
        lower = tl.load(second + tl.minimum(j + 1, H - 1) * W + i, seen, 0.0)
        upper = tl.load(second + tl.maximum(j - 1, 0) * W + i, seen, 0.0)
        gy += weight * ((lower - upper) / 2)
    constant = warped - tl.load(first + at, inside, 0.0) - (gx * u1 + gy * u2)
    tl.store(data + at, gx, inside)
    tl.store(data + plane + at, gy, inside)
    tl.store(data + 2 * plane + at, constant, inside)


@triton.jit
def _in_order(wires, low: tl.constexpr, high: tl.constexpr):
    """Put the values of two wires in order; low < high."""
    smaller = tl.minimum(wires[low], wires[high])
    larger = tl.maximum(wires[low], wires[high])
    # Triton's tuples cannot be unpacked.
    return wires[:low] + (smaller,) + wires[low + 1 : high] + (larger,) + wires[high + 1 :]  # noqa: RUF005


@triton.jit
def median_kernel(
    flow,
    flow_out,
    sums,
    H,
    W,
    n_tiles,
    max_squared_change,
    BLOCK: tl.constexpr,
    MAX_TILES: tl.constexpr,
):
    """The median of each square of 5x5 pixels, borders repeated; a pair that is done is copied."""
    plane_index = tl.program_id(1).to(tl.int64)  # two planes for each pair
    flow += plane_index * H * W
    flow_out += plane_index * H * W
    tiles = tl.arange(0, MAX_TILES)
    sums += (plane_index // 2) * n_tiles
    total = tl.sum(tl.load(sums + tiles, tiles < n_tiles, 0.0).to(tl.float64))
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < H * W
    if total > max_squared_change:
        wires = ()
        for place in tl.static_range(25):
            j = tl.minimum(tl.maximum(at // W + (place // 5 - 2), 0), H - 1)
            i = tl.minimum(tl.maximum(at % W + (place % 5 - 2), 0), W - 1)
            value = tl.load(flow + j * W + i, inside, 0.0)
            wires = wires + (value,)  # type: ignore[assignment]  # noqa: RUF005
        for k in tl.static_range(N_EXCHANGES):
            wires = _in_order(wires, EXCHANGES[k][0], EXCHANGES[k][1])
        tl.store(flow_out + at, wires[12], inside)  # type: ignore[misc]
    else:
        tl.store(flow_out + at, tl.load(flow + at, inside), inside)


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
        self._n_tiles = triton.cdiv(H, BLOCK_Y) * triton.cdiv(W, BLOCK_X)
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
        median_kernel[(triton.cdiv(H * W, MEDIAN_BLOCK), 2 * T)](
            *self.flows,
            self._sums[0],
            H,
            W,
            self._n_tiles,
            self._max_squared_change,
            MEDIAN_BLOCK,
            triton.next_power_of_2(self._n_tiles),
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
            triton.next_power_of_2(self._n_tiles),
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
