"""Resizing, crops and value ranges: pure tensor functions for RGB frames and for flow.

Frames are (T, C, H, W) here. The reference is described in the README of
https://github.com/google-deepmind/kinetics-i3d: short side 256, bilinear; flow clipped to 20
pixels; RGB and flow in [-1, 1]; a crop of 224x224. That flow is computed on the resized frames,
its authors say in issue 34 there.
"""

import torch
from torch import Tensor
from torch.nn import functional

from extractors.frame_dims import SHORT_SIDE, resized_dims
from extractors.names import CROP_NAMES, CROP_POSITIONS

CROP_SIDE = 224
FLOW_BOUND_PX = 20.0
# 0.45 and 0.225 of 255: what the ResNet I3Ds were trained with (utils/util.py of
# https://github.com/Tushar-N/pytorch-resnet3d).
RGB_MEAN = 114.75
RGB_STD = 57.375


def resize_short_side(frames: Tensor, short_side: int = SHORT_SIDE) -> Tensor:
    """Resize frames to a short side, bilinear with antialiasing; smaller ones are enlarged.

    Args:
        frames: (T, C, H, W) uint8.
        short_side: Pixels.

    Returns:
        (T, C, H', W') uint8, rounded, min(H', W') = `short_side`.

    Raises:
        ValueError: If the frames are too large or their aspect ratio is too extreme.
    """
    dims = resized_dims(frames.shape[2], frames.shape[3], short_side)
    if frames.is_cuda:
        return resize_in_two_passes(frames, dims)
    if frames.shape[2:] == dims:
        return frames
    # What torchvision's resize calls, whose import takes seconds and brings a compiler along.
    return functional.interpolate(frames, dims, mode="bilinear", antialias=True)


def resize_in_two_passes(frames: Tensor, dims: tuple[int, int]) -> Tensor:
    """Resize as torch does uint8 frames on a CPU (and Pillow): along x, round, along y, round.

    On a GPU torch rounds once: a fifth of all values then differ by one from a CPU's, and the
    cosine of the features is 0.9995. Rounded twice, one or two values in a hundred differ.

    Args:
        frames: (T, C, H, W) uint8, on any device.
        dims: H' and W' in pixels.

    Returns:
        (T, C, H', W') uint8.
    """
    for pass_dims in ((frames.shape[2], dims[1]), dims):
        if frames.shape[2:] != pass_dims:
            resized = functional.interpolate(
                frames.float(), pass_dims, mode="bilinear", antialias=True
            )
            frames = resized.round().clamp(0, 255).to(torch.uint8)
    return frames


def check_frame_pairs(frames: Tensor) -> None:
    """Check the input of a flow method.

    Raises:
        ValueError: If the frames are not (..., T + 1, 3, H, W) uint8 of at least one pair.
    """
    if frames.ndim < 4 or frames.shape[-4] < 2 or frames.shape[-3] != 3:
        raise ValueError(
            f"frames must be (..., T + 1, 3, H, W) of at least one pair, "
            f"instead got {tuple(frames.shape)}"
        )
    if frames.dtype != torch.uint8:
        raise ValueError(f"frames must be uint8, instead got {frames.dtype}")


def to_gray(frames: Tensor) -> Tensor:
    """Convert RGB to gray: 0.299 R + 0.587 G + 0.114 B, rounded, as OpenCV's RGB2GRAY does.

    Args:
        frames: (..., 3, H, W) uint8.

    Returns:
        (..., H, W) uint8.
    """
    red, green, blue = frames.unbind(dim=-3)
    # OpenCV's fixed-point weights; they add up to 2 ** 15.
    gray = red.to(torch.int32).mul_(9798).add_(green, alpha=19235).add_(blue, alpha=3735)
    return gray.add_(1 << 14).bitwise_right_shift_(15).to(torch.uint8)


def scale_rgb(frames: Tensor) -> Tensor:
    """Map uint8 values [0, 255] to float32 [-1, 1]."""
    return frames.float().div_(127.5).sub_(1.0)


def standardize_rgb(frames: Tensor) -> Tensor:
    """Map uint8 values [0, 255] to float32 (v - 114.75) / 57.375, about [-2, 2.44]."""
    return frames.float().sub_(RGB_MEAN).div_(RGB_STD)


def scale_flow(flow: Tensor) -> Tensor:
    """Clip flow in pixels to [-20, 20] and map it to [-1, 1]."""
    return flow.clamp(-FLOW_BOUND_PX, FLOW_BOUND_PX).div_(FLOW_BOUND_PX)


def crop(frames: Tensor, index: int, side: int = CROP_SIDE) -> Tensor:
    """Crop a square from frames.

    Args:
        frames: (..., H, W), both H and W at least `side`.
        index: Which of `CROP_NAMES`.
        side: Pixels.

    Returns:
        (..., side, side); a view unless it is mirrored.

    Raises:
        ValueError: If there is no such crop or the frames are too small.
    """
    H, W = frames.shape[-2:]
    if min(H, W) < side:
        raise ValueError(f"frames must be at least {side}x{side} to crop, instead got {W}x{H}")
    if not 0 <= index < len(CROP_NAMES):
        raise ValueError(f"index must be 0 to {len(CROP_NAMES) - 1}, instead got {index}")
    top, left = (
        ((H - side) // 2, (W - side) // 2),
        (0, 0),
        (0, W - side),
        (H - side, 0),
        (H - side, W - side),
    )[index % len(CROP_POSITIONS)]
    square = frames[..., top : top + side, left : left + side]
    return square.flip(-1) if index >= len(CROP_POSITIONS) else square


def crop_flow(flow: Tensor, index: int, side: int = CROP_SIDE) -> Tensor:
    """Crop a square from flow (..., 2, H, W) as `crop` does.

    The x component of a mirrored crop is negated.
    """
    square = crop(flow, index, side)
    if index >= len(CROP_POSITIONS):
        square[..., 0, :, :].neg_()  # not the caller's memory: flip returns a copy
    return square
