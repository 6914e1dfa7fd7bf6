"""Random weights: the same bits everywhere, and activations that neither fade nor explode."""

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from extractors.networks.inception_i3d import IN_CHANNELS, ConvUnit, InceptionI3D
from extractors.networks.random_weights import (
    ACTIVATION_STEP,
    CLIP_STEP,
    WEIGHT_STEP,
    random_resnet_weights,
    random_weights,
    synthetic_clips,
)

CHECKSUMS = {
    "rgb": "ecc1540b58f16d4679e5398c7fd098ff4825bcb1537a74993ef0f8801b214850",
    "flow": "d86eda54849ca4e62e8ece349fd92bdc5d8f845092457a43b6211b1e3fc842ee",
    "resnet": "8271593fc21c6bcef7c46682fb5d85497350daeb16bf4d1c7111834ae64e8c3d",
}
N_EXACT = 2**24  # a float32 holds every integer up to here


@pytest.fixture(scope="module")
def flow_weights() -> tuple[dict[str, Tensor], str]:
    return random_weights("flow", 0)


def test_the_checksums_are_the_same_on_every_machine(
    flow_weights: tuple[dict[str, Tensor], str],
) -> None:
    assert flow_weights[1] == CHECKSUMS["flow"]
    assert random_weights("rgb", 0)[1] == CHECKSUMS["rgb"]
    assert random_resnet_weights("rgb", 0)[1] == CHECKSUMS["resnet"]


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_seed_gives_the_same_bits_with_any_number_of_threads(
    n_threads: int, flow_weights: tuple[dict[str, Tensor], str]
) -> None:
    code = (
        "import torch; from extractors.networks.random_weights import random_weights;"
        f"torch.set_num_threads({n_threads});"
        "print(torch.get_num_threads(), random_weights('flow', 0)[1])"
    )
    variables = {**os.environ, "OMP_NUM_THREADS": str(n_threads)}
    other = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    assert other.stdout.split() == [str(n_threads), flow_weights[1]]


def test_a_seed_gives_the_same_bits_without_mkldnn(
    flow_weights: tuple[dict[str, Tensor], str],
) -> None:
    with torch.backends.mkldnn.flags(enabled=False):
        state_dict, sha256 = random_weights("flow", 0)
    assert sha256 == flow_weights[1]
    for name, tensor in flow_weights[0].items():
        assert torch.equal(state_dict[name], tensor), name


def test_a_changed_statistic_changes_the_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    # The same kernels, calibrated on paler clips.
    monkeypatch.setattr(
        "extractors.networks.random_weights.synthetic_clips",
        lambda stream, generator: synthetic_clips(stream, generator) / 2,
    )
    assert random_weights("flow", 0)[1] != CHECKSUMS["flow"]


@pytest.mark.parametrize("network", ["rgb", "flow", "resnet"])
def test_no_sum_of_a_convolution_can_leave_the_integers_of_float32(network: str) -> None:
    """In units of the last digit, |inputs| times |weights| bound every partial sum."""
    largest: list[float] = []

    def bound(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        conv = module.conv3d if isinstance(module, ConvUnit) else module
        if isinstance(conv, nn.Conv3d):
            weights, x = conv.weight.double(), inputs[0].double()
            # A kernel's bound is a power of two; its largest of many weights is just below.
            step = 2.0 ** torch.ceil(torch.log2(weights.abs().max())) * WEIGHT_STEP
            input_step = CLIP_STEP if x.shape[1] in (2, 3) else ACTIVATION_STEP
            in_steps, x_in_steps = weights / step, x / input_step
            assert (in_steps == in_steps.round()).all()
            assert (x_in_steps == x_in_steps.round()).all()
            per_filter = in_steps.abs().sum(dim=(1, 2, 3, 4)).max()
            largest.append(float(per_filter * x_in_steps.abs().max()))

    hook = register_module_forward_pre_hook(bound)
    random_resnet_weights("rgb", 5) if network == "resnet" else random_weights(network, 5)
    hook.remove()
    assert len(largest) == (53 if network == "resnet" else 57)
    assert max(largest) < N_EXACT


def test_another_seed_gives_other_weights(
    flow_weights: tuple[dict[str, Tensor], str],
) -> None:
    state_dict, sha256 = random_weights("flow", 1)
    assert sha256 != flow_weights[1]
    name = "Mixed_5c.b0.conv3d.weight"
    assert not torch.equal(state_dict[name], flow_weights[0][name])


@torch.inference_mode()
def test_both_streams_are_alive_and_differ_from_each_other(
    flow_weights: tuple[dict[str, Tensor], str],
) -> None:
    state_dicts = {"flow": flow_weights[0], "rgb": random_weights("rgb", 0)[0]}
    name = "Mixed_5c.b0.conv3d.weight"
    assert not torch.equal(state_dicts["rgb"][name], state_dicts["flow"][name])
    for stream, state_dict in state_dicts.items():
        network = InceptionI3D(IN_CHANNELS[stream]).eval()
        network.load_state_dict(state_dict, strict=True)
        clips = synthetic_clips(stream, torch.Generator().manual_seed(99))
        features = network(clips)
        assert torch.isfinite(features).all()
        assert 0.1 < features.mean() < 5
        spread = features.std(dim=0)  # over the clips
        assert spread.mean() > 0.2
        assert (spread == 0).float().mean() < 0.01  # hardly any dead feature


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_synthetic_clips_are_what_the_network_takes(stream: str) -> None:
    clips = synthetic_clips(stream, torch.Generator().manual_seed(0))
    assert clips.shape[1] == IN_CHANNELS[stream]
    assert clips.abs().max() <= 1
    moves = (clips[:, :, 1:] - clips[:, :, :-1]).abs().amax(dim=(1, 2, 3, 4))
    assert (moves > 0.02).all()
