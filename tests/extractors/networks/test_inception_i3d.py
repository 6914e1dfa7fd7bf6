"""Inception-I3D: shapes, padding, folding, against an independent implementation."""

import itertools
import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from extractors.networks.inception_i3d import (
    ConvUnit,
    InceptionI3D,
    MaxPool,
    fold_batch_norm,
    same_padding,
)

CPU = torch.device("cpu")

# Fig. 3 of the paper; the widths of the Inception blocks are GoogLeNet's (Szegedy et al. 2015,
# Table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection).
STEM = (
    ("conv", "Conv3d_1a_7x7", 64, (7, 7, 7), (2, 2, 2)),
    ("pool", "MaxPool3d_2a_3x3", None, (1, 3, 3), (1, 2, 2)),
    ("conv", "Conv3d_2b_1x1", 64, (1, 1, 1), (1, 1, 1)),
    ("conv", "Conv3d_2c_3x3", 192, (3, 3, 3), (1, 1, 1)),
    ("pool", "MaxPool3d_3a_3x3", None, (1, 3, 3), (1, 2, 2)),
)
BLOCKS = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4a": ((3, 3, 3), (2, 2, 2)),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5a": ((2, 2, 2), (2, 2, 2)),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}
BRANCHES = ("b0", "b1a", "b1b", "b2a", "b2b", "b3b")


def reference_shapes(in_channels: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def add(name: str, n_in: int, n_out: int, kernel: int) -> None:
        shapes[f"{name}.conv3d.weight"] = (n_out, n_in, kernel, kernel, kernel)
        for statistic in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{statistic}"] = (n_out,)
        shapes[f"{name}.bn.num_batches_tracked"] = ()

    channels = in_channels
    for kind, name, width, kernel, _ in STEM:
        if kind == "conv":
            add(name, channels, width, kernel[0])
            channels = width
    for block, widths in BLOCKS.items():
        if len(widths) == 2:
            continue
        inputs = (channels, channels, widths[1], channels, widths[3], channels)
        for branch, n_in, n_out in zip(BRANCHES, inputs, widths, strict=True):
            kernel = 3 if branch in ("b1b", "b2b") else 1
            add(f"Mixed_{block}.{branch}", n_in, n_out, kernel)
        channels = widths[0] + widths[2] + widths[4] + widths[5]
    return shapes


@cache
def make_state_dict(in_channels: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(in_channels)
    state_dict = {}
    for name, shape in reference_shapes(in_channels).items():
        if name.endswith("num_batches_tracked"):
            state_dict[name] = torch.tensor(0)
        elif len(shape) == 5:
            scale = math.sqrt(2 / math.prod(shape[1:]))
            state_dict[name] = torch.randn(shape, generator=generator) * scale
        elif name.endswith(("bn.weight", "running_var")):
            state_dict[name] = torch.rand(shape, generator=generator) + 0.5
        else:
            state_dict[name] = torch.randn(shape, generator=generator) * 0.1
    return state_dict


def pad_as_tensorflow(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """The formula of TensorFlow's documentation of `padding="SAME"`, and zeros."""
    pads: list[int] = []
    for n, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        along = max(k - s, 0) if n % s == 0 else max(k - n % s, 0)
        pads = [along // 2, along - along // 2, *pads]
    return functional.pad(x, pads)


def reference_features(state_dict: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network from the table above, with nothing of ours."""

    def unit(name: str, x: Tensor, stride: tuple[int, ...] = (1, 1, 1)) -> Tensor:
        weight = state_dict[f"{name}.conv3d.weight"]
        x = functional.conv3d(pad_as_tensorflow(x, weight.shape[2:], stride), weight, stride=stride)
        mean, var, gamma, beta = (
            state_dict[f"{name}.bn.{statistic}"][:, None, None, None]
            for statistic in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 0.001).sqrt() * gamma + beta).clamp(min=0)

    def pool(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        x = pad_as_tensorflow(x, kernel, stride)
        for axis, (k, s) in enumerate(zip(kernel, stride, strict=True), start=2):
            x = x.unfold(axis, k, s).amax(-1)
        return x

    for kind, name, _, kernel, stride in STEM:
        x = unit(name, x, stride) if kind == "conv" else pool(x, kernel, stride)
    for block, widths in BLOCKS.items():
        if len(widths) == 2:
            x = pool(x, *widths)
            continue
        name = f"Mixed_{block}"
        branches = (
            unit(f"{name}.b0", x),
            unit(f"{name}.b1b", unit(f"{name}.b1a", x)),
            unit(f"{name}.b2b", unit(f"{name}.b2a", x)),
            unit(f"{name}.b3b", pool(x, (3, 3, 3), (1, 1, 1))),
        )
        x = torch.cat(branches, 1)
    pooled = [x[:, :, t : t + 2].mean((2, 3, 4)) for t in range(max(1, x.shape[2] - 1))]
    return torch.stack(pooled).mean(0)


def make_clips(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(7)) * 2 - 1


def build(in_channels: int) -> InceptionI3D:
    network = InceptionI3D(in_channels).eval()
    network.load_state_dict(make_state_dict(in_channels), strict=True)
    return network


def relative_difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().mean())


@pytest.mark.parametrize("in_channels", [2, 3])
def test_the_state_dict_has_the_names_and_shapes_of_the_port(in_channels: int) -> None:
    found = {
        name: tuple(tensor.shape) for name, tensor in InceptionI3D(in_channels).state_dict().items()
    }
    assert found == reference_shapes(in_channels)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 3, 16, 64, 48),
        (2, 2, 16, 32, 64),
        (1, 3, 9, 33, 50),
        (1, 2, 33, 32, 32),
        (1, 3, 7, 40, 40),
    ],
)
@torch.inference_mode()
def test_features_are_those_of_an_independent_network(shape: tuple[int, ...]) -> None:
    network = build(shape[1])
    clips = make_clips(*shape)
    expected = reference_features(make_state_dict(shape[1]), clips)
    assert expected.shape == (shape[0], 1024)
    assert relative_difference(network(clips), expected) < 1e-4
    assert relative_difference(fold_batch_norm(network)(clips), expected) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("in_channels", [2, 3])
@torch.inference_mode()
def test_features_of_a_full_clip_are_those_of_an_independent_network(in_channels: int) -> None:
    clips = make_clips(2, in_channels, 16, 224, 224)
    expected = reference_features(make_state_dict(in_channels), clips)
    assert relative_difference(fold_batch_norm(build(in_channels))(clips), expected) < 1e-4


def test_same_padding_is_the_least_that_lets_every_output_have_its_window() -> None:
    for n, kernel, stride in itertools.product(range(1, 33), range(1, 9), range(1, 5)):
        n_out = math.ceil(n / stride)
        total = 0
        while len(range(0, n + total - kernel + 1, stride)) < n_out:
            total += 1
        before, after = same_padding(n, kernel, stride)
        assert (before, after) == (total // 2, math.ceil(total / 2)), (n, kernel, stride)


@pytest.mark.parametrize("dims", [(4, 6, 8), (5, 7, 9), (1, 2, 3), (6, 5, 4)])
@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1), (3, 2), (2, 2)])
@torch.inference_mode()
def test_convolutions_and_pools_see_the_windows_of_the_definition(
    dims: tuple[int, int, int], kernel: int, stride: int
) -> None:
    x = make_clips(1, 1, *dims).abs()
    unit = ConvUnit(1, 1, (kernel, kernel, kernel), stride).eval()
    unit.conv3d.weight.abs_()
    pool = MaxPool((kernel, kernel, kernel), (stride, stride, stride))
    starts = [
        [
            stride * i - max((math.ceil(n / stride) - 1) * stride + kernel - n, 0) // 2
            for i in range(math.ceil(n / stride))
        ]
        for n in dims
    ]
    sums, maxima = [], []
    for start in itertools.product(*starts):
        weighted, largest = 0.0, -math.inf
        for offset in itertools.product(range(kernel), repeat=3):
            place = tuple(s + o for s, o in zip(start, offset, strict=True))
            if all(0 <= p < n for p, n in zip(place, dims, strict=True)):
                value = float(x[(0, 0, *place)])
                weighted += value * float(unit.conv3d.weight[(0, 0, *offset)])
                largest = max(largest, value)
        sums.append(weighted / math.sqrt(1 + 1e-3))
        maxima.append(largest)
    out_dims = tuple(len(axis) for axis in starts)
    assert unit(x).shape[2:] == pool(x).shape[2:] == out_dims
    np.testing.assert_allclose(unit(x).flatten().numpy(), sums, rtol=1e-5)
    np.testing.assert_allclose(pool(x).flatten().numpy(), maxima, rtol=1e-6)


@torch.inference_mode()
@pytest.mark.parametrize("dims", [(16, 32, 30), (5, 9, 14), (1, 2, 7)])
@pytest.mark.parametrize(
    ("kernel", "stride"),
    [(m[3], m[4]) for m in STEM if m[0] == "pool"]
    + [BLOCKS["4a"], BLOCKS["5a"], ((3, 3, 3), (1, 1, 1))],
)
def test_a_pool_is_the_maximum_over_zero_padded_volumes(
    kernel: tuple[int, ...], stride: tuple[int, ...], dims: tuple[int, int, int]
) -> None:
    x = torch.rand(2, 3, *dims, generator=torch.Generator().manual_seed(0))
    pads = [same_padding(*axis) for axis in zip(dims, kernel, stride, strict=True)]
    padded = functional.pad(x, (*pads[2], *pads[1], *pads[0]))
    expected = functional.max_pool3d(padded, kernel, stride)
    assert torch.equal(MaxPool(kernel, stride)(x), expected)


@torch.inference_mode()
def test_folding_leaves_the_original_as_it_was() -> None:
    network = build(3)
    inference = fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm3d) for module in inference.modules())
    state_dict = make_state_dict(3)
    assert all(torch.equal(state_dict[name], t) for name, t in network.state_dict().items())


@torch.inference_mode()
def test_features_do_not_depend_on_the_batch_and_are_the_same_every_time() -> None:
    network = fold_batch_norm(build(2))
    clips = make_clips(5, 2, 16, 48, 48)
    together = network(clips)
    assert torch.equal(together, network(clips))
    for n_clips in (1, 2, 3):
        parts = torch.cat([network(part) for part in clips.split(n_clips)])
        assert relative_difference(parts, together) < 1e-4


def test_clips_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"clips must be \(N, 3, T, H, W\), instead got \(1, 2, 1"):
        InceptionI3D(3)(torch.zeros(1, 2, 16, 32, 32))
    with pytest.raises(ValueError, match=r"in_channels must be 3 .* instead got 4"):
        InceptionI3D(4)


def test_a_pool_that_needs_more_padding_at_its_end_than_torch_adds_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be odd where stride is 1, instead got \(2, 3, 3\)"):
        MaxPool((2, 3, 3), (1, 2, 2))
