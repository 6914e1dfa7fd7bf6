"""The benchmark of extraction: that it runs, and that its figures fit each other."""

import pytest
import torch

from extractors.build import ExtractorChoice
from pipeline.bench import as_table, bench_extraction


def test_the_rows_fit_each_other(write_clip, tmp_path):
    path = write_clip(tmp_path / "a.mp4", n_frames=40)
    extractor = ExtractorChoice("i3d", "none", 1, "random:0").build(torch.device("cpu"))
    rows = list(bench_extraction(extractor, [path]))
    assert all(row.value > 0 for row in rows)
    whole = {row.unit: row.value for row in rows if not row.name.startswith(("decod", "resiz"))}
    assert whole["times real time"] == pytest.approx(whole["frames/s"] / 25)
    assert whole["hours on this device"] == pytest.approx(1000 / whole["times real time"])
    snippets_per_second = whole["frames/s"] * 3 / 40
    assert whole["of the time"] == pytest.approx(whole["snippets/s"] / snippets_per_second)
    assert len(as_table(rows).splitlines()) == len(rows)
