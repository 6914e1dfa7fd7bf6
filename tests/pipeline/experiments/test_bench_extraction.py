"""The benchmark of extraction: its figures, by a clock that only the work moves."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from extractors.decoding.decode_pool import DecodePool
from extractors.engine import VideoFeatures
from pipeline.cli import main
from pipeline.experiments import bench_extraction as bench_module
from pipeline.experiments.bench_extraction import N_ROWS, bench_extraction

FILE_BYTES = 2_000_000


class Clock:
    """Seconds that pass where a test says so; each kind of work takes 100 more the first time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.done = set()

    def work(self, kind: str, seconds: float) -> None:
        self.now += seconds if kind in self.done else seconds + 100
        self.done.add(kind)

    def perf_counter(self) -> float:
        return self.now


class SlowNetwork(nn.Module):
    """Half a second for each batch."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.clock = clock

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        assert clips.shape == (2, 3, 16, 224, 224)
        self.clock.now += 0.5
        return clips


@pytest.fixture
def clock(monkeypatch, features_of):
    """4 s to decode, 10 s to extract, half a second to write a file of 2 MB."""
    clock = Clock()

    class SlowPool(DecodePool):
        def decode(self, paths):
            clock.now += 4
            yield from super().decode(paths)

    def extract_slowly(extractor, paths):
        clock.work("extract", 10)
        features = features_of({"rgb": np.zeros((3, 5, 8), np.float32)}, 40)
        yield from (VideoFeatures(path, features) for path in paths)

    def write_slowly(path, features, provenance, **_):
        clock.now += 0.5
        path.write_bytes(bytes(FILE_BYTES))

    monkeypatch.setattr(bench_module, "time", clock)
    monkeypatch.setattr(bench_module, "DecodePool", SlowPool)
    monkeypatch.setattr(bench_module, "extract_videos", extract_slowly)
    monkeypatch.setattr(bench_module, "write_features", write_slowly)
    return clock


def test_each_figure_is_work_over_the_time_it_took(clock, write_clip, tmp_path):
    def prepare(frames):
        assert frames.shape == (17, 48, 64, 3)
        clock.work("prepare", 0.25)
        return {"frames": frames}

    def flow(frames):
        clock.work("flow", 2)
        assert frames.shape == (3, 17, 48, 64, 3)

    extractor = SimpleNamespace(
        device=torch.device("cpu"),
        snippet_len=16,
        n_crops=5,
        n_snippets_per_batch=2,
        stream_dims={"rgb": 8},
        networks={"rgb": SlowNetwork(clock)},
        prepare=prepare,
        flow=flow,
    )
    path = write_clip(tmp_path / "a.mp4", n_frames=40)
    reports = []
    rows = bench_extraction(extractor, [path], report=reports.append)
    assert [(report.done, report.total) for report in reports] == [(i + 1, 9) for i in range(9)]
    assert [(row.name.split(",")[0], row.unit, pytest.approx(row.value)) for row in rows] == [
        ("decoding", "frames/s", 40 / 4),
        ("copying and resizing", "frames/s", 16 / 0.25),
        ("optical flow", "pairs/s", 3 * 16 / 2),
        ("writing", "MB/s", 2 / 0.5),
        # Three snippets are two batches, of each of five crops.
        ("bare network", "snippets/s", 3 / (2 * 5 * 0.5)),
        ("whole extraction", "frames/s", 40 / 10),
        ("whole extraction / bare network", "of the time", 10 / 5),
        ("whole extraction", "times real time", 1.6 / 10),
        ("1000 hours of such video take", "hours on this device", 1000 * 10 / 1.6),
    ]


def test_the_command_prints_a_row_for_each_figure(write_clip, tmp_path):
    path = write_clip(tmp_path / "a.mp4", n_frames=20)
    options = ["--flow", "none", "--crops", "1", "--device", "cpu"]
    result = CliRunner().invoke(main, ["bench", str(path), *options])
    assert result.exit_code == 0, result.output
    choices, header, _, *rows = result.stdout.splitlines()
    assert re.search("; i3d, flow none, crops 1, (float32|bfloat16)$", choices)
    assert header.split() == ["measured", "value", "unit"]
    cells = [re.split(" {2,}", row) for row in rows]
    assert len({(name, unit) for name, _, unit in cells}) == N_ROWS
    assert all(float(value) > 0 for _, value, _ in cells)
