"""TV-L1 optical flow in torch, batched over frame pairs, on any device.

Zach, Pock and Bischof, "A Duality Based Approach for Realtime TV-L1 Optical Flow", DAGM 2007,
in the numerical form of Sánchez Pérez, Meinhardt-Llopis and Facciolo, "TV-L1 Optical Flow
Estimation", Image Processing On Line 3, 2013. "The paper" in this file is the latter.

The flow u minimizes the sum over pixels of |grad u1| + |grad u2| + lambda |rho(u)|, where
rho(u) = I1(x + u0) + grad I1(x + u0) . (u - u0) - I0 is the brightness difference, linearized
about u0. From coarse to fine, I1 is warped several times at each scale; after each warp, a
thresholding step for the data term and an ascent of the dual of the total variation take turns.

Where the paper and OpenCV's DualTVL1OpticalFlow differ, this follows OpenCV, whose TV-L1 the
published features were made with; gamma and initial flow, off by default there, are left out.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from extractors.features import Provenance
from extractors.flow.median import median_filter
from extractors.transforms import check_frame_pairs, to_gray

MIN_LEVEL_SIDE = 16  # as in OpenCV: no level of the pyramid is smaller, except the image itself
MIN_SQUARED_GRADIENT = torch.finfo(torch.float32).eps
PIXELS_PER_SOLVE = 6_000_000  # 64 pairs of 341x256: 3 GB of working memory


@dataclass(frozen=True, slots=True)
class TVL1Config:
    """The parameters of TV-L1; the defaults are those of OpenCV's DualTVL1OpticalFlow.

    Attributes:
        tau: Time step of the dual update. At most 0.25 keeps the iteration stable.
        lambda_: Weight of the data term for gray values in 0..255; smaller is smoother.
        theta: Coupling of the data term's flow with the smooth flow.
        n_scales: Levels of the pyramid; fewer are used where a side would fall below 16 pixels.
        n_warps: Warps of the second frame at each scale.
        epsilon: A pair is done when an iteration changes its flow by no more (RMS, pixels).
        n_inner_iterations: Iterations between two median filters.
        n_outer_iterations: Rounds of a median filter and inner iterations.
        scale_step: Size of a level relative to the next finer one, in (0, 1).
        median_len: Side of the median filter in pixels, odd; 1 switches it off.

    Raises:
        ValueError: If a parameter is out of its range.
    """

    tau: float = 0.25
    lambda_: float = 0.15
    theta: float = 0.3
    n_scales: int = 5
    n_warps: int = 5
    epsilon: float = 0.01
    n_inner_iterations: int = 30
    n_outer_iterations: int = 10
    scale_step: float = 0.8
    median_len: int = 5

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0 and name != "epsilon":
                raise ValueError(f"{name} must be positive, instead got {value}")
        if self.epsilon < 0:
            raise ValueError(f"epsilon must not be negative, instead got {self.epsilon}")
        if self.scale_step >= 1:
            raise ValueError(f"scale_step must be below 1, instead got {self.scale_step}")
        if self.median_len % 2 == 0:
            raise ValueError(f"median_len must be odd, instead got {self.median_len}")


OPENCV_DEFAULTS = TVL1Config()


class TVL1Flow:
    """TV-L1 flow, the method of the published features. A `FlowMethod`.

    Args:
        implementation: "torch" for any device, or "triton" for CUDA devices only: fused kernels,
            some forty times as fast there. The flows of both differ by 0.006 px on average.
    """

    def __init__(self, implementation: Literal["torch", "triton"] = "torch") -> None:
        self.config = TVL1Config()
        self._implementation = implementation
        self._flow: Callable[[Tensor], Tensor] = tvl1_flow
        if implementation == "triton":
            # Triton is installed only with torch's builds for GPUs.
            from extractors.flow.tvl1_cuda import KernelSolver  # noqa: PLC0415

            self._flow = KernelSolver(self.config).flow

    def __call__(self, frames: Tensor) -> Tensor:
        """Compute the flow (..., T, 2, H, W) in pixels of frames (..., T + 1, 3, H, W)."""
        check_frame_pairs(frames)
        return self._flow(to_gray(frames).float())

    def describe(self) -> Provenance:
        """Return the parameters of TV-L1 and its implementation."""
        return asdict(self.config) | {"implementation": self._implementation}


def build(device: torch.device) -> TVL1Flow:
    """Build TV-L1 in the implementation for a device."""
    return TVL1Flow("triton" if device.type == "cuda" else "torch")


@torch.no_grad()
def tvl1_flow(gray: Tensor, config: TVL1Config = OPENCV_DEFAULTS) -> Tensor:
    """TV-L1 flow from each frame to the next.

    The flow of a pair does not depend on the other frames given. Working memory does not grow
    with the number of frames, only the result does.

    Args:
        gray: (..., T + 1, H, W) float32 gray values in 0..255, on any device.
        config: Parameters of the method.

    Returns:
        (..., T, 2, H, W) float32 displacement (x, y) in pixels, on the device of gray.

    Raises:
        ValueError: If gray is not float32, not (..., T + 1, H, W), or has fewer than two frames.
    """
    check_gray(gray)
    first, second = frame_pairs(gray)
    # A CPU is fastest with the planes of one pair, which fit its cache; a GPU needs many pairs.
    n_pairs = 1 if gray.device.type == "cpu" else max(1, PIXELS_PER_SOLVE // first[0].numel())
    flow = gray.new_empty(len(first), 2, *gray.shape[-2:])
    for start in range(0, len(first), n_pairs):
        pairs = slice(start, start + n_pairs)
        flow[pairs] = solve_jointly(first[pairs], second[pairs], config)
    # (P, 2, H, W) -> (..., T, 2, H, W)
    return flow.reshape(*gray.shape[:-3], -1, *flow.shape[1:])


def frame_pairs(gray: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the second frames (P, H, W) of all pairs in (..., T + 1, H, W)."""
    H, W = gray.shape[-2:]
    return gray[..., :-1, :, :].reshape(-1, H, W), gray[..., 1:, :, :].reshape(-1, H, W)


def check_gray(gray: Tensor) -> None:
    """Check the shape and type of gray frames.

    Raises:
        ValueError: If gray is not float32, not (..., T + 1, H, W), or has fewer than two frames.
    """
    if gray.ndim < 3 or gray.shape[-3] < 2 or gray.numel() == 0:
        raise ValueError(
            f"gray must be (..., T + 1, H, W) with T >= 1, instead got {tuple(gray.shape)}"
        )
    if gray.dtype != torch.float32:
        raise ValueError(f"gray must be float32, instead got {gray.dtype}")


def solve_jointly(first: Tensor, second: Tensor, config: TVL1Config) -> Tensor:
    """Flow (P, 2, H, W) from the frames first to the frames second, each (P, H, W)."""
    levels = build_pyramid(torch.stack([first, second]), config)  # each (2, P, H, W)
    flow = first.new_zeros(len(first), 2, *levels[-1].shape[2:])
    for level in reversed(levels):
        flow = enlarge(flow, level.shape[2:], config)
        _refine(level[0], level[1], flow, config)
    return flow


def enlarge(flow: Tensor, dims: tuple[int, ...], config: TVL1Config) -> Tensor:
    """Enlarge the flow (P, 2, H, W) of a level of the pyramid to the next finer one, of dims H, W.

    At the coarsest level, where it begins with 0, the dimensions stay the same.
    """
    return F.interpolate(flow, size=dims, mode="bilinear") / config.scale_step


def build_pyramid(gray: Tensor, config: TVL1Config) -> list[Tensor]:
    """Return the levels (N, C, H, W) of the frames gray (N, C, H, W), the finest first."""
    levels = [gray]
    while len(levels) < config.n_scales:
        level = shrink(levels[-1], config.scale_step)
        if min(level.shape[2:]) < MIN_LEVEL_SIDE:
            break
        levels.append(level)
    return levels


def shrink(images: Tensor, scale_step: float) -> Tensor:
    """Sample images (N, C, H, W) bilinearly at distances of exactly 1 / scale_step."""
    # Unlike the paper: no Gaussian before it. With a size, F.interpolate would compute the
    # distances from the rounded sides; with a scale, it rounds the sides down: hence the padding.
    H, W = (round(side * scale_step) for side in images.shape[2:])
    pad_len = int(1 / scale_step) + 1
    padded = F.pad(images, (0, pad_len, 0, pad_len), mode="replicate")
    return F.interpolate(padded, scale_factor=scale_step, mode="bilinear")[..., :H, :W]


def _refine(first: Tensor, second: Tensor, flow: Tensor, config: TVL1Config) -> None:
    """Improve the flow (P, 2, H, W) of pairs of frames (P, H, W) at one scale, in place."""
    padded = F.pad(second.unsqueeze(1), (1, 1, 1, 1), mode="replicate")
    second_dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    second_dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    # With powers of two as sides the grid of `warp` is exact: where nothing moves the flow is 0.
    room_y, room_x = (2 ** (side - 1).bit_length() - side for side in second.shape[1:])
    second_with_gradient = torch.cat([second.unsqueeze(1), second_dx, second_dy], dim=1)
    second_with_gradient = F.pad(second_with_gradient, (0, room_x, 0, room_y))
    solver = _Solver(flow, config)
    for _ in range(config.n_warps):
        solver.minimize(_linearize(first, warp(second_with_gradient, flow), flow))


def warp(images: Tensor, flow: Tensor) -> Tensor:
    """Sample images (T, C, H, W) bicubically at p + flow(p); 0 outside, unlike in the paper."""
    x = flow[:, 0] + torch.arange(flow.shape[3], device=flow.device)
    y = flow[:, 1] + torch.arange(flow.shape[2], device=flow.device).unsqueeze(1)
    H, W = images.shape[2:]
    grid = torch.stack([(2 * x + 1) / W - 1, (2 * y + 1) / H - 1], dim=-1)  # (T, H, W, 2)
    return F.grid_sample(images, grid, mode="bicubic", padding_mode="zeros", align_corners=False)


class _DataTerm(NamedTuple):
    """The brightness difference about some flow: rho(u) = -|gradient|^2 (offset + slope . u)."""

    gradient: Tensor  # (T, 2, H, W) of the warped second frame, gray values per pixel
    slope: Tensor  # (T, 2, H, W) -gradient / |gradient|^2; 0 where there is no gradient
    offset: Tensor  # (T, H, W) -rho(0) / |gradient|^2; 0 where there is no gradient


def _linearize(first: Tensor, warped: Tensor, flow: Tensor) -> _DataTerm:
    """Return the data term about flow; warped (T, 3, H, W): the second frame, its d/dx and d/dy."""
    gradient = warped[:, 1:].contiguous()
    squared = gradient.square().sum(1)
    inverse = torch.where(squared > MIN_SQUARED_GRADIENT, -1 / squared, 0.0)
    constant = warped[:, 0] - first - (gradient * flow).sum(1)  # rho(0)
    return _DataTerm(gradient, gradient * inverse.unsqueeze(1), constant * inverse)


class _Solver:
    """The primal-dual iteration at one scale, for all pairs at once, in preallocated memory.

    Factors of 0 freeze a converged pair: no pair depends on another, and the host seldom waits.
    """

    def __init__(self, flow: Tensor, config: TVL1Config) -> None:
        T, C, H, W = flow.shape
        self.config = config
        self.flow = flow
        self.dual = flow.new_zeros(2, T, C, H, W)  # kept from warp to warp
        self.is_active = flow.new_ones(T, 1, 1, 1)  # 1.0 or 0.0
        self.max_squared_change = config.epsilon**2 * H * W
        self._flow_gradient = torch.zeros_like(self.dual)
        self._change = torch.empty_like(flow)
        self._planes = torch.empty_like(flow)
        self._length = flow.new_empty(T, H, W)

    def minimize(self, data: _DataTerm) -> None:
        """Iterate until all pairs have converged or the number of iterations is reached."""
        self.is_active.fill_(1.0)
        on_cpu = self.flow.device.type == "cpu"  # reading a result is free there
        n_inner, side_len = self.config.n_inner_iterations, self.config.median_len
        for i in range(self.config.n_outer_iterations * n_inner):
            is_first_of_round = i % n_inner == 0
            if (on_cpu or is_first_of_round) and not self.is_active.any():
                return
            if is_first_of_round and side_len > 1:  # Unlike the paper: it has no median filter.
                filtered = median_filter(self.flow, side_len)
                torch.where(self.is_active > 0, filtered, self.flow, out=self.flow)
            self._iterate(data)

    def _iterate(self, data: _DataTerm) -> None:
        theta, change = self.config.theta, self._change
        # v minimizes lambda |rho(v)| + |u - v|^2 / (2 theta): it lies on rho(v) = 0, or as far
        # towards it as lambda theta |gradient| allows. Then u becomes v + theta div p.
        max_length = self.config.lambda_ * theta
        length = torch.addcmul(data.offset, data.slope[:, 0], self.flow[:, 0], out=self._length)
        length.addcmul_(data.slope[:, 1], self.flow[:, 1]).clamp_(-max_length, max_length)
        torch.mul(data.gradient, length.unsqueeze(1), out=change)
        add_divergence(self.dual, change, scale=theta)
        self.flow.addcmul_(change, self.is_active)
        # float64: else the order of summation, which depends on T, could decide at the threshold
        squared = torch.mul(change, change, out=self._planes)
        squared_change = squared.sum((1, 2, 3), keepdim=True, dtype=torch.float64)
        self._ascend()
        self.is_active.mul_(squared_change > self.max_squared_change)

    def _ascend(self) -> None:
        """Move p to (p + step grad u) / (1 + step |grad u|) with step = tau / theta."""
        step = self.is_active * (self.config.tau / self.config.theta)
        gradient = forward_gradient(self.flow, out=self._flow_gradient)
        norm = torch.mul(gradient[0], gradient[0], out=self._planes)
        norm.addcmul_(gradient[1], gradient[1]).sqrt_().mul_(step).add_(1)
        self.dual.addcmul_(gradient, step).div_(norm)


def forward_gradient(planes: Tensor, *, out: Tensor) -> Tensor:
    """Forward differences of planes (T, C, H, W), written to out (2, T, C, H, W): d/dx, d/dy.

    The last column of d/dx and the last row of d/dy are left alone; they must be 0 in out.
    """
    torch.sub(planes[..., 1:], planes[..., :-1], out=out[0, ..., :-1])
    torch.sub(planes[..., 1:, :], planes[..., :-1, :], out=out[1, ..., :-1, :])
    return out


def add_divergence(dual: Tensor, planes: Tensor, *, scale: float) -> None:
    """Add scale * div dual to planes (T, C, H, W), in place.

    The divergence of dual (2, T, C, H, W) is the negative adjoint of the forward gradient, for a
    dual that is 0 where that gradient is: in the last column of x and the last row of y.
    """
    planes.add_(dual[0], alpha=scale).add_(dual[1], alpha=scale)
    planes[..., 1:].sub_(dual[0, ..., :-1], alpha=scale)
    planes[..., 1:, :].sub_(dual[1, ..., :-1, :], alpha=scale)
