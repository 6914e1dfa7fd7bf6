"""The benchmark of live scores: its delays, with a scorer that takes a known time."""

import time

from pipeline.experiments import bench_live as module
from pipeline.experiments.bench_live import bench_live


def test_the_delay_of_a_score_is_measured_from_the_snippets_last_frame(
    brightness_scorer, monkeypatch
):
    monkeypatch.setattr(module, "START_SECONDS", 2.0)
    monkeypatch.setattr(module, "END_SECONDS", 1.0)
    prepare = brightness_scorer.extractor.prepare

    def prepare_slowly(frames):
        time.sleep(0.2)
        return prepare(frames)

    brightness_scorer.extractor.prepare = prepare_slowly
    found = bench_live(brightness_scorer, fps=50, seconds=2.56, width=64, height=48)
    # The last snippet's end is not known before the file has ended.
    assert len(found.delays) == found.summary.n_scored == 7
    assert all(0.2 < delay < 2 for delay in found.delays)
    assert "maximum" in found.describe()
