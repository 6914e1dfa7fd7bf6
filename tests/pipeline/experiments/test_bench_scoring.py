"""The benchmark of scoring: its figures from times that are given, and what it runs."""

import numpy as np
import pytest

from extractors.decoding.video import Video
from pipeline.experiments import bench_scoring
from pipeline.experiments.bench_scoring import ScoringSpeed, measure_scoring
from pipeline.runs.checkpoints import load_checkpoint

SPEED = ScoringSpeed(
    start_seconds=4.0,
    start_cpu_seconds=5.0,
    video_seconds=10.64,
    seconds=24.0,
    cpu_seconds=15.0,
    n_cores=2,
    report_bytes=3_400_000,
    video_bytes=300_000,
)


def test_the_rate_leaves_out_start_up_and_the_snippet_that_it_scores():
    assert SPEED.times_real_time == pytest.approx(10 / 20)
    assert SPEED.times_real_time_alone == pytest.approx(10 / 5)


def test_the_figures_stand_beside_their_targets():
    assert SPEED.describe().splitlines() == [
        "start-up to first score: 4.0 s (5.0 s of processor); target 10 s",
        "rate: 0.50 times real time, by processor time 2.00 on 2 cores; target 1",
        "report: 3.00 MB plus the video; target 6 MB",
    ]


@pytest.mark.slow
def test_a_short_and_a_long_clip_are_scored_by_a_run_that_can_be_loaded(tmp_path, monkeypatch):
    scored = []

    def score(video, run, *options):
        source = Video(video)
        times = np.concatenate([chunk.timestamps for chunk in source.read(16)])
        scored.append((len(times), source.width, source.height, round(1 / times[1])))
        provenance = load_checkpoint(run.checkpoint_path).provenance
        assert (provenance["flow_method"], provenance["precision"]) == ("dis", "float32")
        if options:
            (tmp_path / "report.html").write_bytes(bytes(1000))
        return 1.0 + len(scored), 2.0

    monkeypatch.setattr(bench_scoring, "_score", score)
    speed = measure_scoring(tmp_path, video_seconds=2)
    assert scored == [(16, 320, 240, 25), (16, 320, 240, 25), (50, 320, 240, 25)]
    assert (speed.start_seconds, speed.seconds, speed.report_bytes) == (3.0, 4.0, 1000)
