from collections.abc import Iterator

import pytest
import torch

from extractors.inception_i3d import IN_CHANNELS, InceptionI3D
from extractors.random_weights import random_weights, synthetic_clips


@pytest.fixture(scope="module")
def flow_weights() -> tuple[dict[str, torch.Tensor], str]:
    return random_weights("flow", 0)


@pytest.fixture
def other_n_threads() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2 if n_threads == 1 else 1)
    yield
    torch.set_num_threads(n_threads)


@pytest.mark.usefixtures("other_n_threads")
def test_a_seed_always_gives_the_same_weights(
    flow_weights: tuple[dict[str, torch.Tensor], str],
) -> None:
    state_dict, sha256 = random_weights("flow", 0)
    assert sha256 == flow_weights[1]
    for name, tensor in flow_weights[0].items():
        if name.endswith("conv3d.weight"):
            assert torch.equal(state_dict[name], tensor)
        else:
            assert torch.allclose(state_dict[name].float(), tensor.float(), rtol=1e-3, atol=1e-3)


def test_the_checksum_is_the_same_on_every_machine(
    flow_weights: tuple[dict[str, torch.Tensor], str],
) -> None:
    assert flow_weights[1] == "f6772c1f1d22bcf07fb4cabe1e7a4c703be04dfa5bbc4d6771ae8a3683d71726"


def test_another_seed_gives_other_weights(
    flow_weights: tuple[dict[str, torch.Tensor], str],
) -> None:
    state_dict, sha256 = random_weights("flow", 1)
    assert sha256 != flow_weights[1]
    name = "Mixed_5c.b0.conv3d.weight"
    assert not torch.equal(state_dict[name], flow_weights[0][name])


@torch.inference_mode()
def test_both_streams_are_alive_and_differ_from_each_other(
    flow_weights: tuple[dict[str, torch.Tensor], str],
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
        assert (features.std(dim=0) > 0).all()  # no dead feature, and clips are told apart


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_synthetic_clips_are_what_the_network_takes(stream: str) -> None:
    clips = synthetic_clips(stream, torch.Generator().manual_seed(0))
    assert clips.shape[1] == IN_CHANNELS[stream]
    assert clips.abs().max() <= 1
    moves = (clips[:, :, 1:] - clips[:, :, :-1]).abs().amax(dim=(1, 2, 3, 4))
    assert (moves > 0.02).all()
