"""ResNet-50 I3D, against pytorchvideo."""

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from pytorchvideo.models.hub.resnet import i3d_r50
from torch import Tensor

from extractors.i3d_r50 import I3DR50
from extractors.networks.random_weights import random_resnet_weights
from extractors.networks.resnet_i3d import ResNetI3D, fold_batch_norm

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def state_dict() -> dict[str, Tensor]:
    return random_resnet_weights("rgb", 0)[0]


@pytest.fixture(scope="module")
def extractor(state_dict: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> I3DR50:
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    safetensors.torch.save_file(state_dict, path)
    return I3DR50(flow=None, crops=1, weights=str(path), precision="float32", device=CPU)


def make_frames(n_frames: int, height: int, width: int) -> Tensor:
    """A soft pattern that drifts, as frames (T, H, W, 3)."""
    y, x = np.mgrid[:height, :width]
    i = np.arange(n_frames)[:, None, None]
    channels = [np.sin((x - 2 * i) / 9 + c) * np.cos((y + i) / (6 + c)) for c in range(3)]
    frames = 120 + 90 * np.stack(channels, axis=-1)
    return torch.from_numpy(frames.clip(0, 255).astype(np.uint8))


def maps_of_pytorchvideo(clips: Tensor, state_dict: dict[str, Tensor]) -> Tensor:
    """What the head of pytorchvideo's whole, unmodified network is given."""
    network = i3d_r50(pretrained=False).eval()
    network.load_state_dict(state_dict, strict=False)  # all but the head
    seen = []
    network.blocks[6].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        network(clips)
    return seen[0]


def test_a_snippet_has_the_features_of_pytorchvideos_network(
    extractor: I3DR50, state_dict: dict[str, Tensor]
) -> None:
    frames = make_frames(17, 300, 400)
    resized = [
        np.asarray(Image.fromarray(f.numpy()).resize((341, 256), Image.Resampling.BILINEAR))
        for f in frames[:16]
    ]
    top, left = (256 - 224) // 2, (341 - 224) // 2
    clip = np.stack(resized)[:, top : top + 224, left : left + 224]
    clip = (clip / 255 - 0.45) / 0.225  # as pytorchvideo's own transforms have it
    # (T, H, W, C) -> (1, C, T, H, W)
    clips = torch.from_numpy(clip.astype(np.float32)).permute(3, 0, 1, 2)[None]
    expected = maps_of_pytorchvideo(clips, state_dict).mean(dim=(2, 3, 4))[0]
    found = extractor.embed([extractor.prepare(frames)])["rgb"]
    assert found.shape == (1, 1, 2048)
    # When it resizes, Pillow may round a gray value the other way.
    assert (found[0, 0] - expected).abs().max() < 0.1 * expected.abs().mean()


def test_the_folded_network_is_the_same(state_dict: dict[str, Tensor]) -> None:
    network = ResNetI3D().eval()
    network.load_state_dict(state_dict)
    clips = torch.randn(2, 3, 16, 64, 64, generator=torch.Generator().manual_seed(0))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.inference_mode():
        expected = network(clips)
        torch.testing.assert_close(fold_batch_norm(network)(clips), expected, rtol=1e-3, atol=1e-4)
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert (expected.std(dim=0) > 0).float().mean() > 0.9  # random weights leave features alive


def test_the_provenance_says_that_it_is_another_network(extractor: I3DR50) -> None:
    provenance = extractor.provenance()
    assert provenance["extractor"] == "i3d_r50"
    assert provenance["feature_dim"] == 2048
    assert provenance["streams"] == "rgb"
    assert provenance["rgb_range"] == "(v - 114.75) / 57.375 of [0, 255]"
    assert provenance["flow_method"] == "none"
    assert (provenance["weights"], provenance["is_pretrained"]) == ("mine.safetensors", True)


def test_a_flow_stream_and_clips_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="i3d_r50 has no flow stream, instead got tvl1"):
        I3DR50(flow="tvl1", crops=1, weights="random:0", precision="float32", device=CPU)
    with pytest.raises(ValueError, match=r"\(N, 3, T, H, W\), instead got \(1, 2, 4, 8, 8\)"):
        ResNetI3D()(torch.zeros(1, 2, 4, 8, 8))
