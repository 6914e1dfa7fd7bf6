"""The network's layers for CUDA: by Triton's interpreter on a CPU, and on a GPU."""

import math
import os
import subprocess
import sys
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from extractors.networks.inception_cuda import (
    CudaMaxPool,
    CudaStem,
    concatenate_channels,
    use_cuda_layers,
)
from extractors.networks.inception_i3d import IN_CHANNELS, InceptionI3D, fold_batch_norm
from extractors.networks.random_weights import random_weights

CUDA = torch.device("cuda")

# The interpreter must be chosen before Triton's kernels are defined: in a process of its own.
LAYERS = """
import sys, torch
from torch import nn
from extractors.networks import inception_cuda
from extractors.networks.inception_i3d import ConvUnit, InceptionI3D, fold_batch_norm

def build(kind, settings, state_dict):
    if kind == "pool":
        return inception_cuda.CudaMaxPool(*settings)
    if kind == "concatenation":
        return inception_cuda.concatenate_channels
    if kind == "bias":
        unit = ConvUnit(*settings)
        unit.conv3d, unit.bn = nn.Conv3d(*settings), nn.Identity()
        unit.load_state_dict(state_dict)
        return inception_cuda.CudaConv(unit)
    if kind == "stem":
        conv = nn.Conv3d(*settings, stride=2)
        conv.load_state_dict(state_dict)
        return inception_cuda.CudaStem(conv)
    network = InceptionI3D(*settings)
    network.load_state_dict(state_dict)
    network = fold_batch_norm(network)
    inception_cuda.use_cuda_layers(network)
    return network

with torch.inference_mode():
    cases = torch.load(sys.argv[1], weights_only=True)
    outputs = [build(*layer)(x) for layer, x in cases]
torch.save(outputs, sys.argv[1])
"""
# A kind of layer, its settings and its state dict.
Layer = tuple[str, tuple[object, ...], dict[str, Tensor]]
POOLS = {
    "2a and 3a": ((1, 3, 3), (1, 2, 2)),
    "4a": ((3, 3, 3), (2, 2, 2)),
    "5a": ((2, 2, 2), (2, 2, 2)),
    "of a block": ((3, 3, 3), (1, 1, 1)),
}


def interpreted(cases: list[tuple[Layer, Tensor | list[Tensor]]], tmp_path) -> list[Tensor]:
    """The outputs of layers by the interpreted kernels."""
    path = tmp_path / "cases.pt"
    torch.save(cases, path)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", LAYERS, path], env=environment, check=True)
    return torch.load(path, weights_only=True)


def pad_as_tensorflow(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """The formula of TensorFlow's documentation of `padding="SAME"`, and zeros."""
    pads: list[int] = []
    for n, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        along = max(k - s, 0) if n % s == 0 else max(k - n % s, 0)
        pads = [along // 2, along - along // 2, *pads]
    return functional.pad(x, pads)


def make_values(*shape: int, seed: int = 0) -> Tensor:
    """Normal; rounded to bfloat16, so that both dtypes represent them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).bfloat16().float()


def make_conv(in_channels: int, width: int = 64) -> nn.Conv3d:
    conv = nn.Conv3d(in_channels, width, 7, stride=2)
    conv.weight.data = make_values(*conv.weight.shape, seed=1) / 32
    conv.bias.data = make_values(width, seed=2)
    return conv.requires_grad_(False)


@cache
def make_network(stream: str) -> InceptionI3D:
    network = InceptionI3D(IN_CHANNELS[stream])
    network.load_state_dict(random_weights(stream, 0)[0])
    return network.eval()


def make_clips(stream: str, n: int, *dims: int) -> Tensor:
    """Waves of several lengths that differ from clip to clip; (N, C, T, H, W) in [-1, 1]."""
    shape = (n, IN_CHANNELS[stream], *dims)
    i, c, t, y, x = torch.meshgrid(*(torch.arange(n).float() for n in shape), indexing="ij")
    waves = torch.sin((x - 2 * t) / (5 + i) + c) * torch.cos((y + t * i) / (4 + c))
    return (waves + 0.2 * make_values(*shape)).clamp(-1, 1)


def expected_of_stem(conv: nn.Conv3d, x: Tensor) -> Tensor:
    padded = pad_as_tensorflow(x.double(), (7, 7, 7), (2, 2, 2))
    return functional.conv3d(padded, conv.weight.double(), conv.bias.double(), stride=2).relu()


def assert_rounded_once(found: Tensor, expected: Tensor) -> None:
    """Equal to float64 but for one rounding to the dtype, and those of sums in float32."""
    tolerance = 2**-8 if found.dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=1e-5)


@pytest.mark.parametrize("in_channels", [2, 3])
def test_the_interpreted_first_layer_is_the_strided_convolution(in_channels: int, tmp_path) -> None:
    conv = make_conv(in_channels)
    # Even and odd lengths, windows that reach over both ends, last blocks that are not full.
    clips = [make_values(*dims) for dims in ((2, in_channels, 5, 9, 14), (1, in_channels, 4, 1, 2))]
    # In float32 alone: the interpreter does not multiply matrices in bfloat16.
    layer = ("stem", (in_channels, 64, 7), conv.state_dict())
    found = interpreted([(layer, x) for x in clips], tmp_path)
    for x, maps in zip(clips, found, strict=True):
        assert maps.is_contiguous(memory_format=torch.channels_last_3d)
        assert_rounded_once(maps, expected_of_stem(conv, x))


@pytest.mark.slow
@torch.inference_mode()
def test_the_network_with_interpreted_layers_computes_the_same_features(tmp_path) -> None:
    network = make_network("flow")
    clips = make_clips("flow", 1, 3, 17, 36)
    layer = ("network", (2,), network.state_dict())
    (found,) = interpreted([(layer, clips)], tmp_path)
    expected = network(clips)
    assert ((found - expected).norm(dim=1) < 1e-4 * expected.norm(dim=1)).all()


@pytest.mark.parametrize("pool", POOLS)
def test_the_interpreted_pools_are_maxima_over_zero_padded_volumes(pool: str, tmp_path) -> None:
    kernel, stride = POOLS[pool]
    # The last: more channels than those of a program.
    shapes = ((2, 16, 5, 7, 6), (1, 16, 8, 4, 5), (1, 16, 1, 2, 3), (1, 80, 4, 3, 2))
    inputs = [make_values(*shape).relu() for shape in shapes]
    inputs[0][1, 3, 2, 3, 3] = math.nan
    inputs += [x.bfloat16() for x in inputs]
    found = interpreted([(("pool", (kernel, stride), {}), x) for x in inputs], tmp_path)
    assert found[0].isnan().any()
    for x, maps in zip(inputs, found, strict=True):
        expected = functional.max_pool3d(
            pad_as_tensorflow(x.float(), kernel, stride), kernel, stride
        )
        assert maps.dtype == x.dtype
        torch.testing.assert_close(maps.float(), expected, rtol=0, atol=0, equal_nan=True)


def make_branches(dtype: torch.dtype, widths: tuple[int, ...], *dims: int) -> list[Tensor]:
    n, *others = dims
    branches = [make_values(n, width, *others, seed=width).to(dtype) for width in widths]
    return [branch.contiguous(memory_format=torch.channels_last_3d) for branch in branches]


# Blocks of channels that belong to one branch, to two, and to three of them.
WIDTHS = [(64, 128, 32, 32), (112, 288, 64, 64), (16, 16, 16, 32)]


def test_the_interpreted_concatenation_is_that_of_torch(tmp_path) -> None:
    cases = [
        make_branches(dtype, widths, 2, 3, 5, 3)
        for widths in WIDTHS
        for dtype in (torch.float32, torch.bfloat16)
    ]
    cases[0][1][1, 5, 2, 4, 0] = math.nan
    layer = ("concatenation", (), {})
    found = interpreted([(layer, branches) for branches in cases], tmp_path)
    for branches, maps in zip(cases, found, strict=True):
        assert maps.is_contiguous(memory_format=torch.channels_last_3d)
        torch.testing.assert_close(maps, torch.cat(branches, 1), rtol=0, atol=0, equal_nan=True)


def test_the_interpreted_bias_and_relu_are_those_of_torch(tmp_path) -> None:
    conv = nn.Conv3d(2, 80, 3, padding=1)
    state = {f"conv3d.{name}": values for name, values in conv.state_dict().items()}
    x = make_values(2, 2, 3, 5, 7)  # the last program has less than a block, of either kind
    x[0, 0, 0, 0, 0] = math.nan
    (found,) = interpreted([(("bias", (2, 80, (3, 3, 3)), state), x)], tmp_path)
    assert found.isnan().any()
    torch.testing.assert_close(found, conv(x).relu(), rtol=1e-5, atol=1e-5, equal_nan=True)


def test_layers_that_the_kernels_do_not_compute_are_refused() -> None:
    with pytest.raises(ValueError, match=r"stride 2, instead got \(7, 7, 7\) and \(1, 1, 1\)"):
        CudaStem(nn.Conv3d(3, 64, 7))
    with pytest.raises(ValueError, match="by 0 to 2 along T, instead got 5 and 2"):
        CudaMaxPool((5, 3, 3), (2, 2, 2))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("widths", WIDTHS)
def test_the_concatenation_on_a_gpu_is_that_of_torch(
    widths: tuple[int, ...], dtype: torch.dtype
) -> None:
    branches = [branch.to(CUDA) for branch in make_branches(dtype, widths, 3, 8, 28, 28)]
    assert torch.equal(concatenate_channels(branches), torch.cat(branches, 1))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(2, 3, 16, 224, 224), (2, 2, 16, 224, 224), (3, 3, 5, 33, 50)])
@torch.inference_mode()
def test_the_first_layer_on_a_gpu_is_the_strided_convolution(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    conv, x = make_conv(shape[1]), make_values(*shape)
    expected = functional.conv3d(
        pad_as_tensorflow(x, (7, 7, 7), (2, 2, 2)), conv.weight, conv.bias, stride=2
    ).relu()
    found = CudaStem(conv).to(CUDA, dtype)(x.to(CUDA, dtype)).cpu()
    assert_rounded_once(found, expected.double())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("pool", POOLS)
@torch.inference_mode()
def test_the_pools_on_a_gpu_are_maxima_over_zero_padded_volumes(
    pool: str, dtype: torch.dtype
) -> None:
    kernel, stride = POOLS[pool]
    for shape in ((2, 480, 8, 28, 28), (3, 80, 5, 7, 6), (1, 20, 1, 2, 3)):
        x = make_values(*shape).relu()
        x[0, 3, 0, 1, 2] = math.nan
        expected = functional.max_pool3d(pad_as_tensorflow(x, kernel, stride), kernel, stride)
        found = CudaMaxPool(kernel, stride)(x.to(CUDA, dtype)).float().cpu()
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def folded_on_gpu(stream: str) -> nn.Module:
    network = fold_batch_norm(make_network(stream))
    use_cuda_layers(network)
    return network.to(CUDA)


def run_on_gpu(network: nn.Module, clips: Tensor) -> Tensor:
    """Features (N, 1024) as the extractor computes them."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        features: Tensor = network(clips.contiguous(memory_format=torch.channels_last_3d))
    return features.float().cpu()


@pytest.mark.gpu
@pytest.mark.parametrize("dims", [(2, 16, 224, 224), (3, 8, 64, 80)])
@pytest.mark.parametrize("stream", IN_CHANNELS)
@torch.inference_mode()
def test_the_network_on_a_gpu_computes_the_features_of_the_cpu(
    stream: str, dims: tuple[int, int, int, int]
) -> None:
    clips = make_clips(stream, *dims)
    expected = make_network(stream)(clips)
    on_gpu = folded_on_gpu(stream)
    found = run_on_gpu(on_gpu, clips.to(CUDA))
    assert ((found - expected).norm(dim=1) < 1e-3 * expected.norm(dim=1)).all()
    found = run_on_gpu(on_gpu.bfloat16(), clips.to(CUDA, torch.bfloat16))
    assert (torch.cosine_similarity(found, expected) > 0.999).all()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("stream", IN_CHANNELS)
@torch.inference_mode()
def test_the_features_of_a_clip_have_the_same_bits_in_every_batch(
    stream: str, dtype: torch.dtype
) -> None:
    network = folded_on_gpu(stream).to(dtype)
    clips = make_clips(stream, 8, 16, 224, 224).to(CUDA, dtype)
    together = run_on_gpu(network, clips)
    assert torch.equal(run_on_gpu(network, clips), together)
    others = clips.clone()
    others[1:] = others[:1].flip(4)
    assert torch.equal(run_on_gpu(network, others)[0], together[0])
    assert torch.equal(run_on_gpu(network, clips.flip(0)).flip(0), together)
