"""A flow method and an extractor that are added to their registries alone, at the command line."""

import importlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import pipeline
from extractors.flow import build_flow
from extractors.names import EXTRACTORS, FLOWS, ExtractorEntry, FlowEntry
from pipeline.extraction.feature_file import read_features, read_header

N_FRAMES = 20


class ConstantFlow:
    """Every pixel moves by (1, 2) in every frame."""

    def __init__(self, weights: str) -> None:
        self.weights = weights

    def __call__(self, frames: Tensor) -> Tensor:
        displacement = torch.tensor([1.0, 2.0])[:, None, None]
        *_, T, _, H, W = frames.shape
        return displacement.expand(*frames.shape[:-4], T - 1, 2, H, W)

    def describe(self) -> dict[str, str]:
        return {"weights": self.weights}


class MeanColor:
    """The mean of a snippet's frames, and of its flow."""

    snippet_len = 16
    n_crops = 1
    n_snippets_per_batch = 2

    def __init__(
        self, *, flow, crops, weights, precision, device, flow_weights, tail_policy
    ) -> None:
        self.device, self.tail_policy, self.networks = device, tail_policy, {}
        self.flow = None if flow is None else build_flow(flow, device, flow_weights)
        self.stream_dims = {"rgb": 3} if flow is None else {"rgb": 3, "flow": 2}
        self._chosen = {"crops": crops, "weights": weights, "precision": precision}
        self._flow_name = flow or "none"

    def provenance(self) -> dict[str, str | int | float | bool]:
        described = {} if self.flow is None else self.flow.describe()
        return {
            "extractor": "mean-color",
            "flow_method": self._flow_name,
            "snippet_len": 16,
            "tail_policy": self.tail_policy,
            "streams": ",".join(self.stream_dims),
            "is_pretrained": True,
            **self._chosen,
            **{f"flow_{name}": value for name, value in described.items()},
        }

    def prepare(self, frames: Tensor) -> dict[str, Tensor]:
        return {"frames": frames.permute(0, 3, 1, 2).clone()}

    def embed(self, snippets: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        frames = torch.stack([snippet["frames"] for snippet in snippets])
        streams = {"rgb": frames[:, :-1].float()}
        if self.flow is not None:
            streams["flow"] = self.flow(frames)
        # (N, T, C, H, W) -> (N, 1, C)
        return {name: values.mean((1, 3, 4))[:, None] for name, values in streams.items()}


def build_constant_flow(device: torch.device, weights: str) -> ConstantFlow:
    return ConstantFlow(weights)


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> click.Command:
    """The command line of a program whose registries have one line more each."""
    entry = FlowEntry(f"{__name__}:build_constant_flow", "always (1, 2)", ("one-two", "two-one"))
    monkeypatch.setitem(FLOWS, "constant", entry)
    extractor = ExtractorEntry(f"{__name__}:MeanColor", "mean color, 3-d", "no-weights", True)
    monkeypatch.setitem(EXTRACTORS, "mean-color", extractor)
    for name in [name for name in sys.modules if name.startswith("pipeline.cli")]:
        monkeypatch.delitem(sys.modules, name)  # imported again below, and restored afterwards
    monkeypatch.delattr(pipeline, "cli", raising=False)
    return importlib.import_module("pipeline.cli").main


@pytest.fixture
def manifest(write_clip, tmp_path: Path) -> Path:
    write_clip(tmp_path / "clip.mp4", n_frames=N_FRAMES)
    path = tmp_path / "tiny.csv"
    path.write_text("path,split,label,anomalies\nclip.mp4,test,0,\n")
    return path


def extract(main: click.Command, manifest: Path, *options: str):
    arguments = ["extract", str(manifest), "--features", str(manifest.parent / "features")]
    return CliRunner().invoke(main, [*arguments, "--device", "cpu", *options])


def test_help_texts_and_choices_come_from_the_registries(main: click.Command) -> None:
    for command in ("extract", "bench"):
        text = " ".join(CliRunner().invoke(main, [command, "--help"]).stdout.split())
        assert "[i3d|i3d_r50|mean-color]" in text
        assert "mean-color: mean color, 3-d." in text
        assert "[tvl1|raft|dis|constant|none]" in text
        assert "constant: always (1, 2);" in text
        assert "with --flow constant: one-two, two-one or a file of your own" in text


def test_a_registered_extractor_and_flow_method_extract_a_clip(
    main: click.Command, manifest: Path
) -> None:
    options = ("--extractor", "mean-color", "--flow", "constant", "--crops", "1")
    result = extract(main, manifest, *options, "--precision", "float32")
    assert result.exit_code == 0, result.output
    path = manifest.parent / "features/tiny/clip.h5"
    provenance = read_header(path).provenance
    assert provenance["extractor"] == "mean-color"
    assert provenance["weights"] == "no-weights"
    assert (provenance["flow_method"], provenance["flow_weights"]) == ("constant", "one-two")
    features = read_features(path).features
    assert features.streams["rgb"].shape == (2, 1, 3)
    assert features.streams["flow"].tolist() == [[[1.0, 2.0]]] * 2


def test_what_a_registered_entry_does_not_have_is_refused(
    main: click.Command, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = extract(main, manifest, "--extractor", "mean-colour")
    assert result.exit_code == 2
    assert "'mean-colour' is not one of 'i3d', 'i3d_r50', 'mean-color'" in result.stderr
    result = extract(main, manifest, "--flow", "dis", "--flow-weights", "one-two")
    assert result.exit_code == 1
    assert "flow dis has no weights, instead got one-two; give --flow raft or constant, or lea" in (
        result.stderr
    )
    rgb_only = ExtractorEntry("absent:RGB", "RGB only", "no-weights", has_flow=False)
    monkeypatch.setitem(EXTRACTORS, "mean-color", rgb_only)
    result = extract(main, manifest, "--extractor", "mean-color", "--flow", "constant")
    assert result.exit_code == 1
    assert "extractor mean-color has no flow stream, instead got flow constant" in result.stderr


def test_the_registries_are_read_without_torch_and_opencv() -> None:
    code = "import sys, extractors.flow; print({'torch', 'cv2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
