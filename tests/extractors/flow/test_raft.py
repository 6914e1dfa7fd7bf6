"""RAFT: its weights, its batches and padding, against torchvision."""

import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.optical_flow import raft_small

from extractors.decoding.video import Video
from extractors.flow import build_flow
from extractors.flow.raft import RAFTFlow
from extractors.networks.weights import WeightsError
from extractors.transforms import resize_short_side

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "raft.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(raft_small(weights=None).state_dict(), path)
    return path


def make_frames(n_frames: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(n_frames, 3, height // 4, width // 4, generator=generator)
    frames = functional.interpolate(noise, (height, width), mode="bilinear")
    return frames.mul(255).to(torch.uint8)


def test_the_flow_is_that_of_torchvisions_network_on_the_padded_frames(untrained: Path) -> None:
    frames = make_frames(3, 130, 141)
    network = raft_small(weights=None).eval()
    network.load_state_dict(torch.load(untrained, weights_only=True))
    scaled = frames.float() / 255 * 2 - 1
    # 130 x 141 is put in the middle of 136 x 144.
    padded = functional.pad(scaled, (1, 2, 3, 3), mode="replicate")
    flow = RAFTFlow(str(untrained))(frames)
    assert (flow.shape, flow.dtype) == ((2, 2, 130, 141), torch.float32)
    for pair in range(2):
        with torch.inference_mode():
            expected = network(padded[pair : pair + 1], padded[pair + 1 : pair + 2])[-1]
        expected = expected[0, :, 3:-3, 1:-2]
        torch.testing.assert_close(flow[pair], expected, rtol=1e-3, atol=1e-2)


def test_small_frames_are_padded_to_sides_that_the_network_accepts(untrained: Path) -> None:
    assert RAFTFlow(str(untrained))(make_frames(2, 20, 33)).shape == (1, 2, 20, 33)


def test_the_provenance_carries_the_checksum_of_the_weights(untrained: Path) -> None:
    described = build_flow("raft", CPU, str(untrained)).describe()
    assert json.loads(json.dumps(described)) == described
    assert (described["network"], described["weights"]) == ("raft-small", "raft.pth")
    assert len(str(described["weights_sha256"])) == 64


def test_frames_and_weights_of_another_kind_are_refused(untrained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"frames must be uint8, instead got torch.float32"):
        RAFTFlow(str(untrained))(torch.zeros(2, 3, 8, 8))
    with pytest.raises(WeightsError, match=r"none.pth: no such file of weights"):
        RAFTFlow(str(tmp_path / "none.pth"))
    with pytest.raises(
        WeightsError, match="kinetics: not weights for optical flow; use one of raft-small, raft-l"
    ):
        RAFTFlow("kinetics")


def test_offline_the_message_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKAROUND_CACHE", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(
        WeightsError, match=r"there \(sha256 01064c6d\), or name .*--flow-weights$"
    ) as caught:
        build_flow("raft", CPU)
    assert "https://download.pytorch.org/models/raft_small_C_T_V2-01064c6d.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def trained(shared_folder: Path) -> RAFTFlow:
    return RAFTFlow(str(shared_folder / "weights" / "raft-small.pth"))


@pytest.fixture(scope="module")
def real_frames(shared_folder: Path) -> Tensor:
    """Two frames of a person who moves, a tenth of a second apart, 256 pixels high."""
    video = Video(shared_folder / "data/gmdcsa24/subject1/Fall/13.mp4")
    chunk = next(iter(islice(video.read(16), 1, None)))
    frames = torch.from_numpy(chunk.frames[[0, 3]]).permute(0, 3, 1, 2)
    return resize_short_side(frames)


@pytest.mark.real
@pytest.mark.parametrize("shift", [(3, 0), (-2, 5), (8, -4)])
def test_trained_weights_find_the_shift_of_a_real_frame(
    trained: RAFTFlow, real_frames: Tensor, shift: tuple[int, int]
) -> None:
    x, y = shift
    original = real_frames[0, :, 16:-16, 16:-16]
    H, W = original.shape[1:]
    moved = real_frames[0, :, 16 - y : 16 - y + H, 16 - x : 16 - x + W]
    flow = trained(torch.stack([original, moved]))[0, :, 20:-20, 20:-20]
    error = (flow - torch.tensor(shift)[:, None, None]).norm(dim=0)
    assert error.mean() < 0.3


@pytest.mark.real
def test_trained_weights_agree_in_kind_with_tvl1(trained: RAFTFlow, real_frames: Tensor) -> None:
    flow, reference = trained(real_frames)[0], build_flow("tvl1", CPU)(real_frames)[0]
    moves = reference.norm(dim=0) > 1
    assert 0.05 < moves.float().mean() < 0.5
    similarity = torch.cosine_similarity(flow, reference, dim=0)[moves]
    assert similarity.median() > 0.8
    assert flow.norm(dim=0)[~moves].median() < 0.5


@pytest.mark.gpu
def test_a_gpu_gives_about_the_flow_of_the_cpu(untrained: Path) -> None:
    frames = make_frames(3, 136, 144)
    method = RAFTFlow(str(untrained))
    expected = method(frames)
    error = (method(frames.cuda()).cpu() - expected).norm(dim=1)
    assert error.mean() < 0.05 * expected.norm(dim=1).mean() + 0.05  # bfloat16
