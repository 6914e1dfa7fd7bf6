import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from extractors import EXTRACTORS, build_extractor
from extractors.flow import FLOWS
from extractors.i3d import I3D
from extractors.inception_i3d import IN_CHANNELS, InceptionI3D
from extractors.random_weights import random_weights
from extractors.snippets import DROP_TAIL, REPEAT_LAST_FRAME

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    for stream in ("rgb", "flow"):
        safetensors.torch.save_file(random_weights(stream, 0)[0], folder / f"{stream}.safetensors")
    return folder


@pytest.fixture(scope="module")
def two_stream(weights: Path) -> I3D:
    return I3D(flow="dis", crops=1, weights=str(weights), device=CPU)


def make_frames(n_frames: int, height: int = 60, width: int = 84) -> Tensor:
    """A soft pattern that drifts and turns brighter."""
    y, x = np.mgrid[:height, :width]
    i = np.arange(n_frames)[:, None, None]
    channels = [np.sin((x - 2 * i) / 7 + c) * np.cos((y + i) / (5 + c)) for c in range(3)]
    frames = 110 + 80 * np.stack(channels, axis=-1) + 2 * i[..., None]
    return torch.from_numpy(frames.clip(0, 255).astype(np.uint8))


def crop_by_hand(picture: np.ndarray, crop: int) -> np.ndarray:
    H, W = picture.shape[:2]
    top, left = (
        ((H - 224) // 2, (W - 224) // 2),
        (0, 0),
        (0, W - 224),
        (H - 224, 0),
        (H - 224, W - 224),
    )[crop % 5]
    square = picture[top : top + 224, left : left + 224]
    return square[:, ::-1] if crop >= 5 else square


def features_by_hand(frames: Tensor, weights: Path, crop: int) -> dict[str, Tensor]:
    """One snippet's features with Pillow, NumPy and the unfolded networks."""
    height, width = frames.shape[1:3]
    dims = (round(256 * width / height), 256)  # landscape
    resized = [
        np.asarray(Image.fromarray(f.numpy()).resize(dims, Image.Resampling.BILINEAR))
        for f in frames
    ]
    pictures = {
        "rgb": [crop_by_hand(picture, crop) / 127.5 - 1 for picture in resized[:-1]],
    }
    flows = FLOWS["dis"]()(torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2))
    mirror = np.array([-1 if crop >= 5 else 1, 1])
    pictures["flow"] = [
        crop_by_hand(flow.permute(1, 2, 0).numpy(), crop).clip(-20, 20) / 20 * mirror
        for flow in flows
    ]
    features = {}
    for stream, planes in pictures.items():
        network = InceptionI3D(IN_CHANNELS[stream]).eval()
        network.load_state_dict(safetensors.torch.load_file(weights / f"{stream}.safetensors"))
        clip = torch.from_numpy(np.stack(planes).astype(np.float32))
        with torch.inference_mode():
            # (T, H, W, C) -> (1, C, T, H, W)
            features[stream] = network(clip.permute(3, 0, 1, 2)[None])[0]
    return features


def test_a_snippet_has_the_features_of_a_computation_by_hand(
    two_stream: I3D, weights: Path
) -> None:
    frames = make_frames(17, 300, 400)
    found = two_stream.extract(frames)
    for stream, expected in features_by_hand(frames, weights, crop=0).items():
        assert found[stream].shape == (1, 1, 1024)
        assert found[stream].dtype == torch.float32
        difference = (found[stream][0, 0] - expected).abs().max()
        # When it resizes, Pillow may round a grey value the other way.
        assert difference < 0.1 * expected.abs().mean()


@pytest.mark.slow
def test_ten_crops_come_in_their_order(weights: Path) -> None:
    frames = make_frames(17, 256, 291)  # these are not resized
    found = I3D(flow="dis", crops=10, weights=str(weights), device=CPU).extract(frames)
    for crop in range(10):
        for stream, expected in features_by_hand(frames, weights, crop).items():
            assert found[stream].shape == (1, 10, 1024)
            difference = (found[stream][0, crop] - expected).abs().max()
            assert difference < 1e-3 * expected.abs().mean()


def test_features_do_not_depend_on_the_batch(two_stream: I3D) -> None:
    frames = make_frames(33)
    together = two_stream.extract(frames)
    alone = two_stream.extract(frames[16:])
    for stream, features in together.items():
        assert features.shape == (2, 1, 1024)
        assert torch.allclose(alone[stream], features[1:], rtol=1e-3, atol=1e-4)


def test_the_frame_after_the_snippet_is_seen_by_the_flow_alone(two_stream: I3D) -> None:
    frames = make_frames(17)
    before = two_stream.extract(frames)
    frames[-1] = frames[0].flip(0)
    after = two_stream.extract(frames)
    assert torch.equal(after["rgb"], before["rgb"])  # to the bit, run for run
    assert not torch.allclose(after["flow"], before["flow"], rtol=1e-3)


def test_the_contract_writes_down_every_choice(two_stream: I3D, weights: Path) -> None:
    contract = two_stream.contract()
    assert json.loads(json.dumps(contract)) == contract
    assert contract["streams"] == "rgb,flow"
    assert (contract["flow_method"], contract["flow_preset"]) == ("dis", "medium")
    assert (contract["crops"], contract["crop_order"]) == (1, "centre")
    assert (contract["weights"], contract["has_semantics"]) == (weights.name, True)
    assert len(str(contract["weights_sha256_flow"])) == 64
    assert contract["tail_rule"] == REPEAT_LAST_FRAME
    rgb = I3D(flow=None, crops=5, weights=str(weights), device=CPU, tail_rule=DROP_TAIL)
    contract = rgb.contract()
    assert rgb.stream_dims == {"rgb": 1024}
    assert contract["tail_rule"] == DROP_TAIL
    assert (contract["streams"], contract["flow_method"]) == ("rgb", "none")
    assert contract["crop_order"] == "centre,top left,top right,bottom left,bottom right"
    assert not any(name.startswith("flow_") for name in contract if name != "flow_method")
    assert "weights_sha256_flow" not in contract


@pytest.mark.parametrize("name", EXTRACTORS)
def test_every_extractor_keeps_its_promises(name: str) -> None:
    extractor = build_extractor(name, flow=None, crops=1, weights="random:0", device=CPU)
    contract = extractor.contract()
    assert contract["has_semantics"] is False
    assert all(isinstance(value, (str, int, float, bool)) for value in contract.values())
    features = extractor.extract(make_frames(extractor.snippet_len + 1, 3, 2))
    assert list(features) == list(extractor.stream_dims)
    for stream, dim in extractor.stream_dims.items():
        assert features[stream].shape == (1, extractor.n_crops, dim)
        assert torch.isfinite(features[stream]).all()


def test_unknown_choices_are_refused(weights: Path) -> None:
    with pytest.raises(ValueError, match="extractor must be one of i3d, i3d_r50, instead got c3d"):
        build_extractor("c3d", flow=None, crops=1, weights=str(weights), device=CPU)
    with pytest.raises(ValueError, match="flow must be one of tvl1, raft, dis or None, instead"):
        I3D(flow="brox", crops=1, weights=str(weights), device=CPU)
    with pytest.raises(ValueError, match="crops must be 1, 5 or 10, instead got 3"):
        I3D(flow=None, crops=3, weights=str(weights), device=CPU)
    with pytest.raises(ValueError, match=r"tail_rule must be one of .* instead got 'cut'"):
        I3D(flow=None, crops=1, weights=str(weights), device=CPU, tail_rule="cut")
    with pytest.raises(ValueError, match="flow dis has no weights, instead got raft-small"):
        I3D(flow="dis", crops=1, weights=str(weights), device=CPU, flow_weights="raft-small")


@pytest.mark.parametrize("n_frames", [0, 1, 16, 18])
def test_frames_that_are_not_whole_snippets_and_one_more_are_refused(
    two_stream: I3D, n_frames: int
) -> None:
    with pytest.raises(ValueError, match=f"one frame more, instead got {n_frames}$"):
        two_stream.extract(torch.zeros(n_frames, 4, 4, 3, dtype=torch.uint8))


def test_frames_of_another_kind_are_refused(two_stream: I3D) -> None:
    with pytest.raises(ValueError, match=r"uint8, instead got \(17, 3, 4, 4\) torch.uint8"):
        two_stream.extract(torch.zeros(17, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"torch.float32"):
        two_stream.extract(torch.zeros(17, 4, 4, 3))


@pytest.mark.gpu
def test_a_gpu_gives_the_features_of_the_cpu(two_stream: I3D, weights: Path) -> None:
    frames = make_frames(33, 300, 400)
    on_gpu = I3D(flow="dis", crops=1, weights=str(weights), device=torch.device("cuda"))
    found = on_gpu.extract(frames)
    for stream, expected in two_stream.extract(frames).items():
        assert found[stream].device == CPU
        similarity = torch.cosine_similarity(found[stream], expected, dim=-1)
        assert (similarity > 0.9999).all()
