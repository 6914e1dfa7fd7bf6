"""TV-L1 in torch, against OpenCV and by its properties."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from extractors.decoding.video import Video
from extractors.flow.median import median_filter
from extractors.flow.tvl1 import (
    TVL1Config,
    add_divergence,
    forward_gradient,
    shrink,
    solve_jointly,
    tvl1_flow,
    warp,
)
from extractors.transforms import resize_short_side, to_gray

MARGIN = 12  # pixels at the border, where the shifted texture is cut off


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine, threads that wait for each other make these tiny planes very slow."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def make_texture(height: int, width: int, shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """A sum of plane waves, (H, W) in 0..255, moved by shift (x, y) in pixels."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    texture = np.zeros((height, width))
    for _ in range(40):
        wavelength, angle, phase = rng.uniform([8, 0, 0], [60, np.pi, 2 * np.pi])
        along = (x - shift[0]) * np.cos(angle) + (y - shift[1]) * np.sin(angle)
        texture += np.sin(2 * np.pi * along / wavelength + phase)
    return torch.from_numpy(np.clip(127.5 + 9 * texture, 0, 255)).float()


def iterate_slowly(
    first: NDArray[np.float64], second: NDArray[np.float64], config: TVL1Config, n_iterations: int
) -> NDArray[np.float64]:
    """The iteration of one warp about zero flow, pixel by pixel from the paper's equations."""
    H, W = first.shape
    step = config.tau / config.theta
    u, v = np.zeros((2, H, W)), np.zeros((2, H, W))
    p = np.zeros((2, 2, H, W))  # component of the flow, direction
    for _ in range(n_iterations):
        for y, x in np.ndindex(H, W):
            right, left = second[y, min(x + 1, W - 1)], second[y, max(x - 1, 0)]
            down, up = second[min(y + 1, H - 1), x], second[max(y - 1, 0), x]
            g = np.array([right - left, down - up]) / 2
            rho = second[y, x] + g @ u[:, y, x] - first[y, x]
            reach = config.lambda_ * config.theta * (g @ g)
            if rho < -reach:
                v[:, y, x] = u[:, y, x] + config.lambda_ * config.theta * g
            elif rho > reach:
                v[:, y, x] = u[:, y, x] - config.lambda_ * config.theta * g
            else:
                v[:, y, x] = u[:, y, x] - (rho * g / (g @ g) if g @ g > 0 else 0)
        for c, y, x in np.ndindex(2, H, W):
            divergence = p[c, 0, y, x] + p[c, 1, y, x]
            divergence -= p[c, 0, y, x - 1] if x > 0 else 0
            divergence -= p[c, 1, y - 1, x] if y > 0 else 0
            u[c, y, x] = v[c, y, x] + config.theta * divergence
        for c, y, x in np.ndindex(2, H, W):
            gradient = np.array(
                [
                    u[c, y, x + 1] - u[c, y, x] if x < W - 1 else 0,
                    u[c, y + 1, x] - u[c, y, x] if y < H - 1 else 0,
                ]
            )
            norm = np.sqrt(gradient @ gradient)
            p[c, :, y, x] = (p[c, :, y, x] + step * gradient) / (1 + step * norm)
    return u


@pytest.mark.parametrize(
    "shift", [(1.0, 0.0), (0.0, -2.0), (0.5, 0.25), (-0.3, 1.7), (4.0, -3.0), (7.3, 5.6)]
)
def test_the_shift_of_a_texture_is_found_within_a_tenth_of_a_pixel(
    shift: tuple[float, float],
) -> None:
    frames = torch.stack([make_texture(56, 72), make_texture(56, 72, shift)])
    inside = tvl1_flow(frames)[0, :, MARGIN:-MARGIN, MARGIN:-MARGIN]
    error = (inside - torch.tensor(shift)[:, None, None]).norm(dim=0)
    assert error.max() < 0.1


def test_a_still_video_has_no_flow() -> None:
    frame = make_texture(40, 56)
    assert not tvl1_flow(frame.expand(3, -1, -1)).any()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (2, 3), (15, 40), (33, 20)])
def test_constant_frames_of_any_size_and_brightness_have_no_flow(height: int, width: int) -> None:
    brightness = torch.tensor([0.0, 255.0, 128.0])[:, None, None]
    flow = tvl1_flow(brightness.expand(3, height, width).contiguous())
    assert flow.shape == (2, 2, height, width)
    assert flow.abs().max() == 0


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 30), (5, 7), (16, 15)])
def test_frames_smaller_than_the_pyramid_allows_have_finite_flow(height: int, width: int) -> None:
    frames = 255 * torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    assert tvl1_flow(frames, TVL1Config(n_outer_iterations=1)).isfinite().all()


def test_the_flow_of_a_pair_does_not_depend_on_its_neighbors() -> None:
    shifts = [(0.0, 0.0), (2.0, 1.0), (2.0, 1.0), (1.8, 0.9)]
    frames = torch.stack([make_texture(40, 48, shift) for shift in shifts])
    alone = torch.cat([tvl1_flow(pair) for pair in frames.unfold(0, 2, 1).permute(0, 3, 1, 2)])
    assert torch.equal(tvl1_flow(frames), alone)
    # On a GPU the pairs are solved together; they converge after unequal numbers of iterations.
    together = solve_jointly(frames[:-1], frames[1:], TVL1Config())
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shift", [(0.5, 0.25), (-0.3, 1.7), (4.0, -3.0)])
def test_the_flow_of_a_texture_is_that_of_opencv(shift: tuple[float, float]) -> None:
    frames = torch.stack([make_texture(56, 72), make_texture(56, 72, shift)]).round()
    first, second = frames.numpy().astype(np.uint8)
    expected = cv2.optflow.DualTVL1OpticalFlow_create().calc(first, second, None)
    found = tvl1_flow(frames)[0].permute(1, 2, 0).numpy()
    assert np.linalg.norm(found - expected, axis=-1).mean() < 0.02


@pytest.mark.real
@pytest.mark.parametrize("name", ["subject1/Fall/13", "subject2/ADL/23", "subject4/Fall/02"])
def test_the_flow_of_real_frames_is_that_of_opencv(shared_folder: Path, name: str) -> None:
    video = Video(shared_folder / f"data/gmdcsa24/{name}.mp4")
    chunk = next(iter(islice(video.read(16), 1, None)))
    frames = torch.from_numpy(chunk.frames[[0, 1]]).permute(0, 3, 1, 2)
    gray = to_gray(resize_short_side(frames))
    first, second = gray.numpy()
    expected = cv2.optflow.DualTVL1OpticalFlow_create().calc(first, second, None)
    found = tvl1_flow(gray.float())[0].permute(1, 2, 0).numpy()
    assert np.linalg.norm(expected, axis=-1).max() > 1  # something moves
    assert np.linalg.norm(found - expected, axis=-1).mean() < 0.1


@pytest.mark.gpu
def test_the_flow_is_the_same_on_the_gpu() -> None:
    shifts = [(0.0, 0.0), (3.0, 1.0), (3.0, 1.0), (-2.0, 4.5)]
    frames = torch.stack([make_texture(72, 88, shift) for shift in shifts])
    difference = tvl1_flow(frames.cuda()).cpu() - tvl1_flow(frames)
    # Rounding decides how many iterations a pair takes at each scale and warp; the last pair moves
    # by six pixels, a tenth of its height (0.026 px on an H200).
    assert difference.norm(dim=1).mean() < 0.05


def test_mirrored_frames_have_mirrored_flow() -> None:
    frames = torch.stack([make_texture(72, 88), make_texture(72, 88, (2.4, -1.3))])
    flow = tvl1_flow(frames)
    mirrored_back = tvl1_flow(frames.flip(-1)).flip(-1) * torch.tensor([-1.0, 1.0])[:, None, None]
    difference = (mirrored_back - flow)[..., MARGIN:-MARGIN, MARGIN:-MARGIN].norm(dim=1)
    assert difference.mean() < 0.02


@pytest.mark.parametrize("n_iterations", [1, 2, 7])
@pytest.mark.parametrize(("tau", "lambda_", "theta"), [(0.25, 0.15, 0.3), (0.1, 0.02, 0.7)])
def test_the_iteration_follows_the_equations_pixel_by_pixel(
    n_iterations: int, tau: float, lambda_: float, theta: float
) -> None:
    config = TVL1Config(
        tau=tau,
        lambda_=lambda_,
        theta=theta,
        n_scales=1,
        n_warps=1,
        epsilon=0,
        n_inner_iterations=n_iterations,
        n_outer_iterations=1,
        median_len=1,
    )
    frames = np.random.default_rng(0).uniform(100, 130, (2, 6, 8)).round()
    frames[:, :3, :3] = 110  # no gradient here
    expected = iterate_slowly(frames[0], frames[1], config, n_iterations)
    flow = tvl1_flow(torch.from_numpy(frames).float(), config)[0]
    np.testing.assert_allclose(flow.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_divergence_is_the_negative_adjoint_of_the_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(2, 2, 5, 7, generator=generator, dtype=torch.float64)
    dual = torch.randn(2, 2, 2, 5, 7, generator=generator, dtype=torch.float64)
    dual[0, ..., -1] = dual[1, ..., -1, :] = 0
    gradient = forward_gradient(u, out=torch.zeros_like(dual))
    divergence = torch.zeros_like(u)
    add_divergence(dual, divergence, scale=1.0)
    torch.testing.assert_close((gradient * dual).sum(), -(u * divergence).sum())


@pytest.mark.parametrize(("height", "width"), [(256, 341), (31, 20), (7, 5)])
@pytest.mark.parametrize("scale_step", [0.8, 0.5, 0.3])
def test_a_level_of_the_pyramid_is_that_of_opencv(
    height: int, width: int, scale_step: float
) -> None:
    image = make_texture(height, width)
    expected = cv2.resize(
        image.numpy(), None, fx=scale_step, fy=scale_step, interpolation=cv2.INTER_LINEAR
    )
    shrunk = shrink(image[None, None], scale_step)[0, 0]
    np.testing.assert_allclose(shrunk.numpy(), expected, rtol=0, atol=1e-2)


def test_the_warp_is_that_of_opencv_and_takes_0_outside_of_the_image() -> None:
    image = make_texture(16, 32)
    # Some versions of OpenCV round coordinates to 1/32 pixel.
    flow = torch.randint(-160, 160, (2, 16, 32), generator=torch.Generator().manual_seed(0)) / 32
    x, y = flow.numpy() + np.mgrid[:16, :32][::-1].astype(np.float32)
    expected = cv2.remap(image.numpy(), x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT)
    warped = warp(image[None, None], flow[None])[0, 0]
    np.testing.assert_allclose(warped.numpy(), expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize("side_len", [1, 3, 5, 7])
def test_the_median_filter_takes_the_median_of_each_square(side_len: int) -> None:
    planes = torch.randn(2, 2, 9, 4, generator=torch.Generator().manual_seed(0))
    margin = side_len // 2
    padding = ((0, 0), (0, 0), (margin, margin), (margin, margin))
    padded = np.pad(planes.numpy(), padding, mode="edge")
    filtered = median_filter(planes, side_len)
    for y, x in np.ndindex(9, 4):
        expected = np.median(padded[..., y : y + side_len, x : x + side_len], axis=(2, 3))
        np.testing.assert_array_equal(filtered[..., y, x], expected)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(1, 8, 8), r"\(\.\.\., T \+ 1, H, W\) with T >= 1, instead got \(1, 8, 8\)"),
        (torch.zeros(8, 8), r"instead got \(8, 8\)"),
        (torch.zeros(2, 0, 8), r"instead got \(2, 0, 8\)"),
        (torch.zeros(2, 8, 8, dtype=torch.uint8), "must be float32, instead got torch.uint8"),
    ],
)
def test_wrong_frames_are_refused(frames: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tvl1_flow(frames)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tau", 0.0, "tau must be positive, instead got 0.0"),
        ("n_warps", 0, "n_warps must be positive, instead got 0"),
        ("epsilon", -0.1, "epsilon must not be negative, instead got -0.1"),
        ("scale_step", 1.0, "scale_step must be below 1, instead got 1.0"),
        ("median_len", 4, "median_len must be odd, instead got 4"),
    ],
)
def test_a_parameter_out_of_range_is_refused(name: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TVL1Config(**{name: value})  # type: ignore[arg-type]  # the values are of each field's type
