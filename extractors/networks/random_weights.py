"""Random weights for the I3D networks, for demonstrations and tests: features without meaning.

The convolutions are sampled from a seed. The batch normalizations are then calibrated on synthetic
clips, because without their statistics the activations of a random network vanish or explode with
depth.

A seed leads to the same bits on every machine and with any number of threads. Weights, clips and
activations are multiples of powers of two, with so few digits that every sum of a convolution is
exact in float32, and every sum of a statistic in float64: the order of addition does not matter.
All other operations are element-wise and rounded correctly by IEEE 754 (+, -, *, /, square root).
"""

import hashlib
import math

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from extractors.networks.inception_i3d import IN_CHANNELS, InceptionI3D
from extractors.networks.resnet_i3d import ResNetI3D
from extractors.transforms import FLOW_BOUND_PX

# Parts of the checksums. To be raised when a seed comes to mean other weights or other clips.
RECIPE = "inception-i3d he-uniform 2"
RESNET_RECIPE = "resnet-i3d he-uniform 2"

N_CLIPS = 4
CLIP_LEN = 16
CLIP_SIDE = 96
N_BLOBS = 6
MAX_SPEED_PX = 6.0  # per frame
SWAY_PX = 0.5  # the small flow of a background: camera shake and noise

# Everything is rounded to multiples of these.
WEIGHT_STEP = 1 / 16  # of a kernel's bound
CLIP_STEP = 1 / 512
ACTIVATION_STEP = 1 / 4  # of what a normalization returns
SUM_STEP = 1 / 1024  # of what a convolution returns, before its mean and variance are computed

MAX_ACTIVATION = 63  # steps
MAX_EXACT = 2**53  # a float64 holds every integer up to here


def random_weights(stream: str, seed: int) -> tuple[dict[str, Tensor], str]:
    """Sample the weights of one stream's Inception-I3D and calibrate its batch normalizations.

    Args:
        stream: "rgb" or "flow". Two streams of one seed have different weights.
        seed: 0 or above.

    Returns:
        The state dict of `InceptionI3D`, and the SHA-256 of the recipe and the whole state dict.
    """
    return _sample_weights(InceptionI3D(IN_CHANNELS[stream]), RECIPE, stream, seed)


def random_resnet_weights(stream: str, seed: int) -> tuple[dict[str, Tensor], str]:
    """Sample the weights of the ResNet-50 I3D, as `random_weights` does.

    Args:
        stream: "rgb".
        seed: 0 or above.

    Returns:
        The state dict of `ResNetI3D`, and the SHA-256 of the recipe and the whole state dict.
    """
    return _sample_weights(ResNetI3D(), RESNET_RECIPE, stream, seed)


@torch.no_grad()
def _sample_weights(
    network: nn.Module, recipe: str, stream: str, seed: int
) -> tuple[dict[str, Tensor], str]:
    digest = hashlib.sha256(f"{recipe} {stream} {seed}".encode()).digest()
    generator = Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    network.requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.weight.copy_(_sample_kernel(module, generator))
    _calibrate_batch_norms(network, synthetic_clips(stream, generator))
    content = hashlib.sha256(recipe.encode())
    for name, tensor in network.state_dict().items():
        content.update(name.encode())
        content.update(tensor.numpy().tobytes())
    return network.state_dict(), content.hexdigest()


def synthetic_clips(stream: str, generator: Generator) -> Tensor:
    """Make clips of soft blobs that move over a smooth texture.

    Args:
        stream: "rgb" for frames of them, "flow" for how they move.
        generator: What they are sampled from.

    Returns:
        (4, C, 16, 96, 96) float32 in [-1, 1], C = 3 for RGB and 2 for flow, as the network's
        input: multiples of `CLIP_STEP`.
    """
    opacity, velocity = _moving_blobs(generator)
    if stream == "flow":
        clips = _smooth_texture(2, generator) * (SWAY_PX / FLOW_BOUND_PX)
        paints = velocity / FLOW_BOUND_PX
    else:
        # As in real frames, the three channels are correlated.
        clips = _blend(_smooth_texture(1, generator), _smooth_texture(3, generator), 0.25)
        paints = _blend(
            _uniform((N_CLIPS, N_BLOBS, 1), generator),
            _uniform((N_CLIPS, N_BLOBS, 3), generator),
            0.25,
        )
    clips = _rounded(clips, CLIP_STEP)[:, :, None]  # (N, C, H, W) -> (N, C, 1, H, W)
    paints = _rounded(paints, CLIP_STEP)
    for blob in range(N_BLOBS):
        paint = paints[:, blob, :, None, None, None]  # (N, C) -> (N, C, 1, 1, 1)
        clips = _blend(clips, paint, opacity[:, blob, None])
    return clips.float()


def _rounded(x: Tensor, step: float) -> Tensor:
    """Round to multiples of a power of two."""
    return torch.round(x / step) * step


def _blend(start: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    """Interpolate between multiples of `CLIP_STEP`, and round to those."""
    return _rounded(start + (end - start) * weight, CLIP_STEP)


def _uniform(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Sample multiples of `CLIP_STEP` in [-1, 1], as float64."""
    return _rounded(torch.rand(shape, generator=generator).double() * 2 - 1, CLIP_STEP)


def _sample_kernel(conv: nn.Conv3d, generator: Generator) -> Tensor:
    """He et al. 2015, "Delving Deep into Rectifiers", Eq. 10, as a uniform distribution.

    The bound is rounded down to a power of two: the normalization that follows undoes any scale.
    """
    bound = 2.0 ** math.floor(math.log2(6 / conv.weight[0].numel()) / 2)
    values = torch.rand(tuple(conv.weight.shape), generator=generator).mul_(2).sub_(1)
    return values.div_(WEIGHT_STEP).round_().mul_(WEIGHT_STEP * bound)


def _moving_blobs(generator: Generator) -> tuple[Tensor, Tensor]:
    """Return blobs' opacity (N, n_blobs, T, H, W) in [0, 1] and velocity (N, n_blobs, 2) in px."""
    velocity = _uniform((N_CLIPS, N_BLOBS, 2), generator) * MAX_SPEED_PX
    start = _uniform((N_CLIPS, N_BLOBS, 2), generator) * (CLIP_SIDE / 2) + CLIP_SIDE / 2
    radius = _uniform((N_CLIPS, N_BLOBS, 1, 1, 1), generator) * 8 + 14
    pixels = torch.arange(CLIP_SIDE, dtype=torch.float64)
    times = torch.arange(CLIP_LEN, dtype=torch.float64)
    # (N, n_blobs, 2) -> (N, n_blobs, 2, T): centers as (x, y)
    x, y = (start[..., None] + velocity[..., None] * times).unbind(dim=2)
    dx, dy = pixels - x[..., None, None], pixels[:, None] - y[..., None, None]
    # Opaque from 4 px inside the rim, transparent from 4 px outside.
    opacity = ((radius - (dx * dx + dy * dy).sqrt()) / 8 + 0.5).clamp(0, 1)
    return _rounded(opacity, CLIP_STEP), velocity


def _smooth_texture(n_channels: int, generator: Generator) -> Tensor:
    """Return noise of equal contrast in every octave, as frames have: (N, C, H, W) in [-1, 1]."""
    texture = torch.zeros(N_CLIPS, n_channels, CLIP_SIDE, CLIP_SIDE, dtype=torch.float64)
    for side in (3, 6, 12, 24, 48):  # 96 is a power of two times these: the weights are exact
        noise = _uniform((N_CLIPS, n_channels, side, side), generator)
        texture += functional.interpolate(noise, (CLIP_SIDE, CLIP_SIDE), mode="bilinear")
    texture += _uniform((N_CLIPS, n_channels, 1, 1), generator)
    return _rounded(texture.div_(2).clamp_(-1, 1), CLIP_STEP)


def _calibrate_batch_norms(network: nn.Module, clips: Tensor) -> None:
    """Set every running mean and variance to those of the clips, layer by layer in one pass."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm3d)]
    for norm in norms:
        norm.weight.fill_(1)  # 0 in new ResNets, which would disable their branches
    hooks = [norm.register_forward_hook(_calibrate) for norm in norms]
    network.eval()(clips)
    for hook in hooks:
        hook.remove()


def _calibrate(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Set a normalization's statistics to those of its input, and return its output with them.

    The network's own output is not used: its rounding depends on the processor.
    """
    assert isinstance(norm, nn.BatchNorm3d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    x = inputs[0].double().div_(SUM_STEP).round_()
    n_values = x[:, 0].numel()
    squares = (x * x).sum(dim=(0, 2, 3, 4))
    if not (squares < MAX_EXACT).all():
        raise ArithmeticError("activations are too large for exact sums; lower the weights' bound")
    mean = x.sum(dim=(0, 2, 3, 4)) / n_values
    variance = squares / n_values - mean * mean
    norm.running_mean.copy_(mean * SUM_STEP)
    norm.running_var.copy_(variance * SUM_STEP**2)
    step = (variance + norm.eps / SUM_STEP**2).sqrt() * ACTIVATION_STEP
    channels = (1, -1, 1, 1, 1)
    x.sub_(mean.view(channels)).div_(step.view(channels)).round_()
    return x.clamp_(-MAX_ACTIVATION, MAX_ACTIVATION).float().mul_(ACTIVATION_STEP)
