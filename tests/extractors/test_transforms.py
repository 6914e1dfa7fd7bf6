"""Resizing, crops and value ranges."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from extractors.names import CROP_COUNTS, CROP_NAMES
from extractors.transforms import (
    crop,
    crop_flow,
    resize_in_two_passes,
    resize_short_side,
    resized_dims,
    scale_flow,
    scale_rgb,
    to_gray,
)


def make_frames(n_frames: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height + width)
    return torch.randint(
        0, 256, (n_frames, 3, height, width), dtype=torch.uint8, generator=generator
    )


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        ((480, 640), (256, 341)),
        ((640, 480), (341, 256)),
        ((1, 1), (256, 256)),
        ((64, 128), (256, 512)),
        ((256, 340), (256, 340)),
        ((100, 800), (256, 2048)),
    ],
)
def test_the_short_side_becomes_256_and_the_aspect_stays(
    dims: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert resized_dims(*dims) == expected


@pytest.mark.parametrize("dims", [(480, 640), (720, 400), (97, 113), (256, 300)])
def test_resizing_is_bilinear_with_antialiasing_as_pillow_does_it(dims: tuple[int, int]) -> None:
    frames = make_frames(2, *dims)
    resized = resize_short_side(frames)
    assert resized.dtype == torch.uint8
    height, width = resized.shape[2:]
    for frame, found in zip(frames, resized, strict=True):
        image = Image.fromarray(frame.permute(1, 2, 0).numpy())
        expected = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.int16)
        assert np.abs(found.permute(1, 2, 0).numpy().astype(np.int16) - expected).max() <= 1


def test_a_single_pixel_is_enlarged_to_a_plane_of_its_color() -> None:
    frames = torch.tensor([10, 20, 30], dtype=torch.uint8).reshape(1, 3, 1, 1)
    assert torch.equal(resize_short_side(frames), frames.expand(1, 3, 256, 256))


def test_a_ribbon_is_refused_before_memory_is_asked_for() -> None:
    ribbon = torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(1, 3, 10, 10_000_000)
    with pytest.raises(ValueError, match=r"at most 8 times .* instead got 10000000x10"):
        resize_short_side(ribbon)


def test_gray_is_that_of_opencv() -> None:
    frames = make_frames(3, 50, 70)
    expected = [cv2.cvtColor(f.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY) for f in frames]
    assert np.array_equal(to_gray(frames).numpy(), expected)


def test_rgb_is_scaled_to_one_either_way() -> None:
    values = torch.tensor([0, 51, 255], dtype=torch.uint8)
    assert torch.allclose(scale_rgb(values), torch.tensor([-1.0, -0.6, 1.0]))


def test_flow_is_cut_off_at_20_pixels_and_scaled() -> None:
    flow = torch.tensor([-33.0, -20.0, -5.0, 0.0, 10.0, 21.0])
    assert torch.allclose(scale_flow(flow), torch.tensor([-1.0, -1.0, -0.25, 0.0, 0.5, 1.0]))
    assert flow[0] == -33  # the caller's tensor stays


# Of 10x14 frames whose pixel at (y, x) is (y, x), the first and last pixel of crops of 4x4.
CORNERS = {
    "center": ((3, 5), (6, 8)),
    "top left": ((0, 0), (3, 3)),
    "top right": ((0, 10), (3, 13)),
    "bottom left": ((6, 0), (9, 3)),
    "bottom right": ((6, 10), (9, 13)),
    "mirrored center": ((3, 8), (6, 5)),
    "mirrored top left": ((0, 3), (3, 0)),
    "mirrored top right": ((0, 13), (3, 10)),
    "mirrored bottom left": ((6, 3), (9, 0)),
    "mirrored bottom right": ((6, 13), (9, 10)),
}


def test_crops_come_in_the_order_of_the_published_features() -> None:
    assert tuple(CORNERS) == CROP_NAMES
    assert CROP_COUNTS == (1, 5, 10)
    frames = torch.stack(torch.meshgrid(torch.arange(10), torch.arange(14), indexing="ij"))[None]
    for index, (first, last) in enumerate(CORNERS.values()):
        square = crop(frames, index, side=4)
        assert square.shape == (1, 2, 4, 4)
        assert tuple(square[0, :, 0, 0].tolist()) == first
        assert tuple(square[0, :, -1, -1].tolist()) == last


def test_only_a_mirrored_flow_crop_turns_its_horizontal_component_round() -> None:
    flow = torch.randn(3, 2, 9, 12, generator=torch.Generator().manual_seed(0))
    before = flow.clone()
    for index in range(10):
        expected = crop(flow, index, side=5).clone()
        if index >= 5:
            expected[:, 0] = -expected[:, 0]
        assert torch.equal(crop_flow(flow, index, side=5), expected)
    assert torch.equal(flow, before)


def test_impossible_crops_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 224x224 to crop, instead got 300x200"):
        crop(torch.zeros(1, 3, 200, 300), 0)
    with pytest.raises(ValueError, match="index must be 0 to 9, instead got 10"):
        crop(torch.zeros(1, 3, 256, 256), 10)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (300, 200), (100, 150), (256, 340)])
def test_two_passes_give_the_frames_that_a_cpu_gives(height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=generator)
    expected = resize_short_side(frames)
    found = resize_in_two_passes(frames, (expected.shape[2], expected.shape[3]))
    difference = (found.int() - expected.int()).abs()
    assert difference.max() <= 2
    assert difference.float().mean() < 0.02


@pytest.mark.parametrize(("height", "width"), [(240, 320), (720, 1280), (97, 61), (256, 300)])
def test_frames_are_resized_as_torchvision_does_to_the_bit(height, width):
    generator = torch.Generator().manual_seed(0)
    decoded = torch.randint(256, (3, height, width, 3), dtype=torch.uint8, generator=generator)
    frames = decoded.permute(0, 3, 1, 2)  # (T, H, W, C) -> (T, C, H, W), as decoders give them
    found = resize_short_side(frames)
    expected = resize(frames, list(found.shape[2:]), antialias=True)
    assert min(found.shape[2:]) == 256
    assert torch.equal(found, expected)


def test_the_transforms_do_not_load_torchvision():
    code = "import sys, extractors.i3d; print('torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
