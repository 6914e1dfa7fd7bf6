"""The I3D extractor, against a computation by hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from extractors.build import ExtractorChoice, ExtractorError
from extractors.features import Extractor
from extractors.flow import build_flow
from extractors.i3d import I3D
from extractors.names import EXTRACTORS
from extractors.networks.inception_i3d import IN_CHANNELS, InceptionI3D, fold_batch_norm
from extractors.networks.random_weights import random_weights
from extractors.snippets import DROP_TAIL

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    for stream in ("rgb", "flow"):
        safetensors.torch.save_file(random_weights(stream, 0)[0], folder / f"{stream}.safetensors")
    return folder


@pytest.fixture(scope="module")
def two_stream(weights: Path) -> I3D:
    return I3D(flow="dis", crops=1, weights=str(weights), precision="float32", device=CPU)


def make_frames(n_frames: int, height: int = 60, width: int = 84) -> Tensor:
    """A soft pattern that drifts and turns brighter."""
    y, x = np.mgrid[:height, :width]
    i = np.arange(n_frames)[:, None, None]
    channels = [np.sin((x - 2 * i) / 7 + c) * np.cos((y + i) / (5 + c)) for c in range(3)]
    frames = 110 + 80 * np.stack(channels, axis=-1) + 2 * i[..., None]
    return torch.from_numpy(frames.clip(0, 255).astype(np.uint8))


def extract(extractor: Extractor, frames: Tensor) -> dict[str, Tensor]:
    """The features (n_snippets, K, D) of whole snippets and one frame more."""
    starts = range(0, len(frames) - 1, extractor.snippet_len)
    return extractor.embed(
        [extractor.prepare(frames[i : i + extractor.snippet_len + 1]) for i in starts]
    )


def crop_by_hand(frame: np.ndarray, crop: int) -> np.ndarray:
    H, W = frame.shape[:2]
    top, left = (
        ((H - 224) // 2, (W - 224) // 2),
        (0, 0),
        (0, W - 224),
        (H - 224, 0),
        (H - 224, W - 224),
    )[crop % 5]
    square = frame[top : top + 224, left : left + 224]
    return square[:, ::-1] if crop >= 5 else square


def features_by_hand(frames: Tensor, weights: Path, crop: int) -> dict[str, Tensor]:
    """One snippet's features with Pillow, NumPy and the unfolded networks."""
    height, width = frames.shape[1:3]
    dims = (round(256 * width / height), 256)  # landscape
    resized = [
        np.asarray(Image.fromarray(f.numpy()).resize(dims, Image.Resampling.BILINEAR))
        for f in frames
    ]
    inputs = {
        "rgb": [crop_by_hand(frame, crop) / 127.5 - 1 for frame in resized[:-1]],
    }
    flows = build_flow("dis", CPU)(torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2))
    mirror = np.array([-1 if crop >= 5 else 1, 1])
    inputs["flow"] = [
        crop_by_hand(flow.permute(1, 2, 0).numpy(), crop).clip(-20, 20) / 20 * mirror
        for flow in flows
    ]
    features = {}
    for stream, planes in inputs.items():
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
    found = extract(two_stream, frames)
    for stream, expected in features_by_hand(frames, weights, crop=0).items():
        assert found[stream].shape == (1, 1, 1024)
        assert found[stream].dtype == torch.float32
        difference = (found[stream][0, 0] - expected).abs().max()
        # When it resizes, Pillow may round a gray value the other way.
        assert difference < 0.1 * expected.abs().mean()


def test_a_snippet_that_fills_the_batch_up_has_its_flow_computed_once(two_stream: I3D) -> None:
    prepared = two_stream.prepare(make_frames(17, 256, 300))
    alone = two_stream.embed([prepared])
    n_given = []
    computing = two_stream.flow
    assert computing is not None
    two_stream.flow = lambda frames: n_given.append(len(frames)) or computing(frames)
    try:
        filled_up = two_stream.embed([prepared] * 3)
    finally:
        two_stream.flow = computing
    assert n_given == [1]
    for stream, expected in alone.items():
        torch.testing.assert_close(
            filled_up[stream], expected.expand(3, -1, -1), rtol=1e-4, atol=1e-3
        )


@pytest.mark.slow
def test_ten_crops_come_in_their_order(weights: Path) -> None:
    frames = make_frames(17, 256, 291)  # these are not resized
    extractor = I3D(flow="dis", crops=10, weights=str(weights), precision="float32", device=CPU)
    found = extract(extractor, frames)
    for crop in range(10):
        for stream, expected in features_by_hand(frames, weights, crop).items():
            assert found[stream].shape == (1, 10, 1024)
            difference = (found[stream][0, crop] - expected).abs().max()
            assert difference < 1e-3 * expected.abs().mean()


def test_features_do_not_depend_on_the_batch(two_stream: I3D) -> None:
    frames = make_frames(33)
    together = extract(two_stream, frames)
    alone = extract(two_stream, frames[16:])
    for stream, features in together.items():
        assert features.shape == (2, 1, 1024)
        assert torch.allclose(alone[stream], features[1:], rtol=1e-3, atol=1e-4)


def test_the_frame_after_the_snippet_is_seen_by_the_flow_alone(two_stream: I3D) -> None:
    frames = make_frames(17)
    before = extract(two_stream, frames)
    frames[-1] = frames[0].flip(0)
    after = extract(two_stream, frames)
    assert torch.equal(after["rgb"], before["rgb"])  # to the bit, run for run
    assert not torch.allclose(after["flow"], before["flow"], rtol=1e-3)


def test_the_provenance_writes_down_every_choice(two_stream: I3D, weights: Path) -> None:
    provenance = two_stream.provenance()
    assert json.loads(json.dumps(provenance)) == provenance
    assert provenance["streams"] == "rgb,flow"
    assert (provenance["flow_method"], provenance["flow_preset"]) == ("dis", "medium")
    assert (provenance["crops"], provenance["crop_order"]) == (1, "center")
    assert (provenance["weights"], provenance["is_pretrained"]) == (weights.name, True)
    assert len(str(provenance["weights_sha256_flow"])) == 64
    rgb = I3D(
        flow=None,
        crops=5,
        weights=str(weights),
        precision="float32",
        device=CPU,
        tail_policy=DROP_TAIL,
    )
    provenance = rgb.provenance()
    assert rgb.stream_dims == {"rgb": 1024}
    assert provenance["tail_policy"] == DROP_TAIL
    assert (provenance["streams"], provenance["flow_method"]) == ("rgb", "none")
    assert provenance["crop_order"] == "center,top left,top right,bottom left,bottom right"
    assert not any(name.startswith("flow_") for name in provenance if name != "flow_method")
    assert "weights_sha256_flow" not in provenance


@pytest.mark.parametrize("name", EXTRACTORS)
def test_every_extractor_keeps_its_promises(name: str) -> None:
    extractor = ExtractorChoice(name, "none", 1, "random:0").build(CPU)
    provenance = extractor.provenance()
    assert provenance["is_pretrained"] is False
    assert all(isinstance(value, (str, int, float, bool)) for value in provenance.values())
    features = extract(extractor, make_frames(extractor.snippet_len + 1, 3, 2))
    assert extractor.n_snippets_per_batch >= 1
    assert list(features) == list(extractor.stream_dims)
    for stream, dim in extractor.stream_dims.items():
        assert features[stream].shape == (1, extractor.n_crops, dim)
        assert torch.isfinite(features[stream]).all()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"extractor": "c3d"}, "extractor must be one of i3d, i3d_r50, instead got c3d"),
        ({"extractor": "i3d_r50", "flow": "dis"}, "i3d_r50 has no flow stream, instead got flow"),
        ({"flow": "farneback"}, "flow must be one of tvl1, raft, dis, none, instead"),
        ({"crops": 3}, "crops must be 1, 5 or 10, instead got 3"),
        ({"tail_policy": "cut"}, "tail_policy must be one of .* instead got 'cut'"),
        (
            {"flow": "dis", "flow_weights": "raft-small"},
            "flow dis has no weights, instead",
        ),
        ({"precision": "float8"}, "precision must be float32 or bfloat16, instead got float8"),
    ],
)
def test_unknown_choices_are_refused(weights: Path, changes, complaint) -> None:
    choice = ExtractorChoice("i3d", "none", 1, str(weights))
    with pytest.raises(ExtractorError, match=complaint):
        replace(choice, **changes).build(CPU)


def test_a_cpu_that_can_only_imitate_bfloat16_is_not_asked_to(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    choice = ExtractorChoice("i3d", "none", 1, str(weights))
    assert choice.build(CPU).provenance()["precision"] == "float32"
    with pytest.raises(ExtractorError, match="must be float32 on a device without bfloat16"):
        replace(choice, precision="bfloat16").build(CPU)


@pytest.mark.slow
def test_bfloat16_turns_features_by_less_than_a_thousandth(two_stream: I3D) -> None:
    """Measured on the network itself: no device with bfloat16 is needed, only patience."""
    clips = torch.stack([make_frames(16, 112, 112), make_frames(16, 112, 112).flip(0)])
    # (N, T, H, W, C) -> (N, C, T, H, W)
    clips = clips.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    network = fold_batch_norm(InceptionI3D(3))
    with torch.inference_mode():
        exact = network(clips)
        found = network.bfloat16()(clips.bfloat16()).float()
    assert (torch.cosine_similarity(found, exact) > 0.999).all()


@pytest.mark.parametrize("n_frames", [0, 1, 16, 18, 33])
def test_frames_that_are_not_whole_snippets_and_one_more_are_refused(
    two_stream: I3D, n_frames: int
) -> None:
    with pytest.raises(ValueError, match=f"one frame more, instead got {n_frames}$"):
        two_stream.prepare(torch.zeros(n_frames, 4, 4, 3, dtype=torch.uint8))


def test_frames_of_another_kind_are_refused(two_stream: I3D) -> None:
    with pytest.raises(ValueError, match=r"uint8, instead got \(17, 3, 4, 4\) torch.uint8"):
        two_stream.prepare(torch.zeros(17, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"torch.float32"):
        two_stream.prepare(torch.zeros(17, 4, 4, 3))


@pytest.mark.gpu
def test_a_gpu_gives_the_features_of_the_cpu(two_stream: I3D, weights: Path) -> None:
    frames = make_frames(33, 300, 400)
    on_gpu = I3D(
        flow="dis", crops=1, weights=str(weights), precision="float32", device=torch.device("cuda")
    )
    found = extract(on_gpu, frames)
    for stream, expected in extract(two_stream, frames).items():
        similarity = torch.cosine_similarity(found[stream].cpu(), expected, dim=-1)
        assert (similarity > 0.9999).all()


@pytest.mark.gpu
def test_bfloat16_on_a_gpu_turns_features_by_less_than_a_thousandth(
    two_stream: I3D, weights: Path
) -> None:
    frames = make_frames(33, 300, 400)
    on_gpu = ExtractorChoice("i3d", "dis", 1, str(weights)).build(torch.device("cuda"))
    assert on_gpu.provenance()["precision"] == "bfloat16"
    found = extract(on_gpu, frames)
    for stream, expected in extract(two_stream, frames).items():
        similarity = torch.cosine_similarity(found[stream].cpu(), expected, dim=-1)
        assert (similarity > 0.999).all()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_rgb_features_are_the_same_bits_beside_the_flow_and_alone(
    weights: Path, precision: str
) -> None:
    frames = make_frames(5 * 16 + 1, 256, 340)
    alone, beside = (
        I3D(
            flow=flow,
            crops=5,
            weights=str(weights),
            precision=precision,
            device=torch.device("cuda"),
        )
        for flow in (None, "tvl1")
    )
    expected = extract(alone, frames)["rgb"].cpu()
    for _ in range(3):  # each time in the memory that the last one has left
        found = extract(beside, frames)
        assert torch.equal(found["rgb"].cpu(), expected)
