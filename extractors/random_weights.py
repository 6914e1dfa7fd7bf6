"""Random weights for the I3D networks, for demonstrations and tests: they know nothing.

The convolutions are drawn from a seed. The statistics of the batch normalisations are then taken
from made-up clips, for without them the activations of a drawn network fade or explode with depth.
"""

import hashlib
import math

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from extractors.inception_i3d import IN_CHANNELS, InceptionI3D
from extractors.resnet_i3d import ResNetI3D
from extractors.transforms import FLOW_BOUND_PX

# Parts of the checksums. To be raised with every change of what a seed means, clips included.
RECIPE = "inception-i3d he-uniform 1"
RESNET_RECIPE = "resnet-i3d he-uniform 1"

N_CLIPS = 4
CLIP_LEN = 16
CLIP_SIDE = 96
N_BLOBS = 6
MAX_SPEED_PX = 6.0  # per frame
SWAY_PX = 0.5  # the small flow of a background: camera shake and noise


def random_weights(stream: str, seed: int) -> tuple[dict[str, Tensor], str]:
    """Draw the weights of one stream's Inception-I3D and settle its batch normalisations.

    Args:
        stream: "rgb" or "flow". Two streams of one seed have different weights.
        seed: 0 or above.

    Returns:
        The state dict of `InceptionI3D`, and the SHA-256 of the recipe and the drawn numbers. The
        statistics stay out of it: their last digits depend on the processor and its threads, while
        the draw is exact everywhere.
    """
    return _draw_weights(InceptionI3D(IN_CHANNELS[stream]), RECIPE, stream, seed)


def random_resnet_weights(stream: str, seed: int) -> tuple[dict[str, Tensor], str]:
    """Draw the weights of the ResNet-50 I3D, as `random_weights` does.

    Args:
        stream: "rgb".
        seed: 0 or above.

    Returns:
        The state dict of `ResNetI3D`, and the SHA-256 of the recipe and the drawn numbers.
    """
    return _draw_weights(ResNetI3D(), RESNET_RECIPE, stream, seed)


def _draw_weights(
    network: nn.Module, recipe: str, stream: str, seed: int
) -> tuple[dict[str, Tensor], str]:
    digest = hashlib.sha256(f"{recipe} {stream} {seed}".encode()).digest()
    generator = Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    network.requires_grad_(False)
    content = hashlib.sha256(recipe.encode())
    for name, conv in network.named_modules():
        if isinstance(conv, nn.Conv3d):
            conv.weight.copy_(_draw_kernel(conv, generator))
            content.update(name.removesuffix(".conv3d").encode())
            content.update(conv.weight.numpy().tobytes())
    _settle_batch_norms(network, synthetic_clips(stream, generator))
    return network.state_dict(), content.hexdigest()


def synthetic_clips(stream: str, generator: Generator) -> Tensor:
    """Make clips of soft blobs that move over a smooth texture.

    Args:
        stream: "rgb" for pictures of them, "flow" for how they move.
        generator: What they are drawn from.

    Returns:
        (4, C, 16, 96, 96) in [-1, 1], C = 3 for RGB and 2 for flow, as the network takes them.
    """
    opacity, velocity = _moving_blobs(generator)
    if stream == "flow":
        clips = _smooth_texture(2, generator) * (SWAY_PX / FLOW_BOUND_PX)
        paints = velocity / FLOW_BOUND_PX
    else:
        # As in real pictures, the three channels mostly rise and fall together.
        clips = torch.lerp(_smooth_texture(1, generator), _smooth_texture(3, generator), 0.25)
        paints = torch.lerp(
            _uniform((N_CLIPS, N_BLOBS, 1), generator),
            _uniform((N_CLIPS, N_BLOBS, 3), generator),
            0.25,
        )
    clips = clips[:, :, None]  # (N, C, H, W) -> (N, C, 1, H, W)
    for blob in range(N_BLOBS):
        paint = paints[:, blob, :, None, None, None]  # (N, C) -> (N, C, 1, 1, 1)
        clips = torch.lerp(clips, paint, opacity[:, blob, None])
    return clips


def _uniform(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Draw from [-1, 1). The result is exact: no rounding, no transcendental function."""
    return torch.rand(shape, generator=generator).mul_(2).sub_(1)


def _draw_kernel(conv: nn.Conv3d, generator: Generator) -> Tensor:
    """He et al. 2015, "Delving Deep into Rectifiers", Eq. 10, as a uniform distribution."""
    bound = math.sqrt(6 / conv.weight[0].numel())
    return _uniform(tuple(conv.weight.shape), generator).mul_(bound)


def _moving_blobs(generator: Generator) -> tuple[Tensor, Tensor]:
    """Return blobs' opacity (N, n_blobs, T, H, W) in [0, 1] and velocity (N, n_blobs, 2) in px."""
    velocity = _uniform((N_CLIPS, N_BLOBS, 2), generator) * MAX_SPEED_PX
    start = _uniform((N_CLIPS, N_BLOBS, 2), generator) * (CLIP_SIDE / 2) + CLIP_SIDE / 2
    radius = _uniform((N_CLIPS, N_BLOBS, 1, 1, 1), generator) * 8 + 14
    places = torch.arange(CLIP_SIDE, dtype=torch.float32)
    times = torch.arange(CLIP_LEN, dtype=torch.float32)
    # (N, n_blobs, 2) -> (N, n_blobs, 2, T): centres as (x, y)
    x, y = (start[..., None] + velocity[..., None] * times).unbind(dim=2)
    distance = torch.hypot(places - x[..., None, None], places[:, None] - y[..., None, None])
    return torch.sigmoid((radius - distance) / 2), velocity


def _smooth_texture(n_channels: int, generator: Generator) -> Tensor:
    """Return noise of equal contrast in every octave, as pictures have: (N, C, H, W) in [-1, 1]."""
    texture = torch.zeros(N_CLIPS, n_channels, CLIP_SIDE, CLIP_SIDE)
    for side in (1, 2, 4, 8, 16, 32, 64):
        noise = _uniform((N_CLIPS, n_channels, side, side), generator)
        texture += functional.interpolate(noise, (CLIP_SIDE, CLIP_SIDE), mode="bilinear")
    return texture.div_(2).clamp_(-1, 1)


def _settle_batch_norms(network: nn.Module, clips: Tensor) -> None:
    """Set every running mean and variance to those of the clips.

    In training mode each layer passes on what it has normalised with the clips' own statistics, so
    one pass settles all layers in order.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.momentum = None  # the running statistics are then plain averages
            module.weight.fill_(1)  # 0 in new ResNets: nothing would pass their branches
    network.train()
    network(clips)
    network.eval()
