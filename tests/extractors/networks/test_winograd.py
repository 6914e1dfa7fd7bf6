"""Winograd's form of a convolution, against the convolution itself in float64."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from extractors.networks.winograd import WinogradUnit


def make_conv(in_channels: int, kernel: int, stride: int) -> nn.Conv3d:
    generator = torch.Generator().manual_seed(kernel)
    conv = nn.Conv3d(in_channels, 24, kernel, stride)
    scale = (in_channels * kernel**3) ** -0.5
    with torch.no_grad():
        conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator) * scale)
        conv.bias.copy_(torch.randn(24, generator=generator))
    return conv


def make_clips(*shape: int) -> Tensor:
    clips = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return clips.contiguous(memory_format=torch.channels_last_3d)


def convolve(conv: nn.Conv3d, clips: Tensor) -> Tensor:
    """The definition, in float64, with the formula of TensorFlow's documentation of SAME."""
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    pads: list[int] = []
    for n in clips.shape[2:]:
        along = max(kernel - stride, 0) if n % stride == 0 else max(kernel - n % stride, 0)
        pads = [along // 2, along - along // 2, *pads]
    padded = functional.pad(clips.double(), pads)
    return functional.conv3d(padded, conv.weight.double(), conv.bias.double(), stride).relu()


@torch.inference_mode()
@pytest.mark.parametrize(("in_channels", "kernel", "stride"), [(3, 7, 2), (2, 7, 2), (40, 3, 1)])
@pytest.mark.parametrize("n_frames", [1, 2, 3, 4, 5, 7, 8, 9, 16])
def test_it_is_the_convolution_for_any_number_of_frames(
    in_channels: int, kernel: int, stride: int, n_frames: int
) -> None:
    conv = make_conv(in_channels, kernel, stride)
    for dims in ((12, 16), (9, 7)):
        clips = make_clips(2, in_channels, n_frames, *dims)
        expected = convolve(conv, clips)
        found = WinogradUnit(conv)(clips)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 2e-5 * expected.abs().max()


@torch.inference_mode()
@pytest.mark.parametrize(("in_channels", "kernel", "stride"), [(3, 7, 2), (40, 3, 1)])
def test_a_clip_has_the_same_values_to_the_bit_whatever_is_beside_it(
    in_channels: int, kernel: int, stride: int
) -> None:
    unit = WinogradUnit(make_conv(in_channels, kernel, stride))
    clips = make_clips(3, in_channels, 16, 20, 24)
    together = unit(clips)
    for index in range(3):
        assert torch.equal(unit(clips[index : index + 1]), together[index : index + 1])
    assert torch.equal(unit(clips.flip(0)), together.flip(0))


@torch.inference_mode()
def test_a_frame_reaches_only_the_outputs_that_have_it_in_their_window() -> None:
    unit = WinogradUnit(make_conv(4, 3, 1))
    clips = make_clips(1, 4, 16, 8, 8)
    before = unit(clips)
    clips[:, :, 12:] += 1000.0
    assert torch.equal(unit(clips)[:, :, :8], before[:, :, :8])  # another tile has frame 12, too


@pytest.mark.parametrize(
    ("kernel", "stride"), [(3, 2), (7, 1), (5, 1), ((3, 3, 3), (1, 2, 2)), ((1, 3, 3), 1)]
)
def test_a_convolution_of_another_kind_is_refused(kernel, stride) -> None:
    with pytest.raises(ValueError, match="3 long at stride 1 or 7 at stride 2, instead got kernel"):
        WinogradUnit(nn.Conv3d(3, 8, kernel, stride))
