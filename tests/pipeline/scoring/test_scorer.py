"""Loading a run to score with: which of its seeds score, and whose calibration counts."""

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import pipeline
from models import model_class
from pipeline.cli import main
from pipeline.config import resolve_config, with_seed
from pipeline.reports.html_report import describe_run
from pipeline.runs.checkpoints import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from pipeline.runs.run_folder import RunDescription, create_runs
from pipeline.runs.seeds import seeds_of
from pipeline.scoring import live
from pipeline.scoring import scorer as scorer_module
from pipeline.scoring.calibration import (
    Calibration,
    calibration_path,
    read_calibration,
    write_calibration,
)
from pipeline.scoring.events import EventRule, describe_events
from pipeline.scoring.scorer import Scorer
from pipeline.scoring.snippet_scores import snippet_scores

CPU = torch.device("cpu")
PROVENANCE = {"extractor": "i3d", "streams": "rgb", "is_pretrained": False}


@pytest.fixture
def runs(tmp_path, monkeypatch, brightness_scorer):
    """Three seeds of one command, of which the last is not finished."""
    extractor = brightness_scorer.extractor
    monkeypatch.setattr(scorer_module, "extractor_of_run", lambda *_, **__: extractor)
    settings = ["model.embedding_dim=4", "model.relation_dim=4", "model.scorer_dim=4"]
    config = resolve_config("clav-como", "none", settings=settings)
    descriptions = [
        RunDescription("small", "a.csv", Path("f"), PROVENANCE, with_seed(config, seed))
        for seed in range(3)
    ]
    runs = create_runs(tmp_path, descriptions)
    model = model_class("clav-como")
    for seed, run in enumerate(runs[:2]):
        torch.manual_seed(seed)
        network = model(model.config_type(stream_dims=(("rgb", 3),), embedding_dim=4)).eval()
        checkpoint = Checkpoint(network, "clav-como", PROVENANCE, "small", seed, 10)
        save_checkpoint(run.checkpoint_path, checkpoint)
    return runs


@pytest.fixture
def scores_of(features_of):
    """A function that scores the same random features with any model."""
    values = np.random.default_rng(0).normal(size=(7, 1, 3)).astype(np.float32)
    features = features_of({"rgb": values})
    return lambda model: snippet_scores(model, features, device=CPU)


def test_all_finished_seeds_score_whichever_of_them_is_named(runs, scores_of):
    single = [scores_of(load_checkpoint(run.checkpoint_path).model) for run in runs[:2]]
    assert np.abs(single[0] - single[1]).max() > 1e-3
    for named in runs[:2]:
        found = scores_of(Scorer.load(seeds_of(named), device="cpu").checkpoint.model)
        np.testing.assert_allclose(found, (single[0] + single[1]) / 2, atol=1e-6)


def test_a_report_says_how_many_seeds_it_is_of(runs):
    facts = dict(describe_run(Scorer.load(seeds_of(runs[0]), device="cpu").checkpoint).facts)
    assert facts["Trained on"] == "small, 10 steps, 2 seeds averaged"
    runs[1].checkpoint_path.unlink()
    facts = dict(describe_run(Scorer.load(seeds_of(runs[0]), device="cpu").checkpoint).facts)
    assert facts["Trained on"] == "small, 10 steps, seed 0"


def test_a_run_that_is_alone_scores_alone(runs, scores_of):
    runs[1].checkpoint_path.unlink()
    expected = scores_of(load_checkpoint(runs[0].checkpoint_path).model)
    found = scores_of(Scorer.load(seeds_of(runs[0]), device="cpu").checkpoint.model)
    assert (found == expected).all()


def test_a_calibration_is_that_of_all_seeds(runs):
    assert calibration_path(seeds_of(runs[0])) == calibration_path(seeds_of(runs[1]))


CALIBRATION = Calibration(0.625, 2.0, 0.5, 8, 0.5, 3, 12.5, 6, 0.9, 0.95)


def test_a_calibration_of_other_seeds_is_refused(runs, counting_clip):
    write_calibration(seeds_of(runs[0]), CALIBRATION)
    assert read_calibration(seeds_of(runs[1])) == CALIBRATION
    runs[2].checkpoint_path.write_bytes(runs[1].checkpoint_path.read_bytes())
    with pytest.raises(CheckpointError, match=r"calibration\.json.* of 2 seeds, and there are 3"):
        read_calibration(seeds_of(runs[0]))
    arguments = ["score", str(counting_clip), "--run", str(runs[0].folder)]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1
    assert "calibration.json: is not a calibration of this run" in refused.stderr
    with pytest.raises(CheckpointError, match=r"calibration\.json"):
        pipeline.watch(Path(counting_clip), print, run=runs[0].folder)
    with pytest.raises(CheckpointError, match=r"calibration\.json"):
        pipeline.score(str(counting_clip), run=runs[0].folder)
    given = CliRunner().invoke(main, [*arguments, "--threshold", "0.5"])  # one's own
    assert given.exit_code == 0, given.output
    Scorer.load(seeds_of(runs[0]), device="cpu")  # for a new calibration


def test_the_library_finds_the_events_that_the_command_finds(runs, counting_clip, tmp_path):
    video = str(counting_clip)
    peak = float(pipeline.score(video, run=runs[0].folder).per_frame.max())
    write_calibration(seeds_of(runs[0]), replace(CALIBRATION, threshold=peak, min_seconds=0.0))

    def command_events(*options):
        arguments = ["--run", str(runs[0].folder), "--events", str(tmp_path / "e.json"), *options]
        result = CliRunner().invoke(main, ["score", video, "--out", os.devnull, *arguments])
        assert result.exit_code == 0, result.output
        events = json.loads((tmp_path / "e.json").read_text())["events"]
        return [(event["start_frame"], event["stop_frame"]) for event in events]

    scores = pipeline.score(video, run=runs[0].folder)
    assert scores.rule == EventRule(peak, 2.0, 0.0)
    for options, values in [
        ([], {}),
        (["--min-seconds", "60"], {"min_seconds": 60}),
        (["--threshold", "0.01"], {"threshold": 0.01}),
        (["--threshold", "1"], {"threshold": 1.0}),
    ]:
        found = [(event.start_frame, event.stop_frame) for event in scores.events(**values)]
        assert found == command_events(*options)
    assert scores.events()[0].peak == pytest.approx(peak)
    assert scores.events(0.75) == describe_events(
        scores.per_frame, scores.timestamps, EventRule(0.75)
    )


def test_which_seeds_score_is_said(runs):
    loaded = Scorer.load(seeds_of(runs[2]), device="cpu")
    assert loaded.seeds == "mean of seeds: 0, 1 (1 not finished)"
    runs[2].checkpoint_path.write_bytes(runs[1].checkpoint_path.read_bytes())
    assert Scorer.load(seeds_of(runs[0]), device="cpu").seeds == "mean of seeds: 0, 1, 2"


@pytest.fixture
def reads(runs, monkeypatch):
    """How often the description of each run and the calibration are read from now on."""
    write_calibration(seeds_of(runs[0]), CALIBRATION)
    counted = Counter()
    read_text = Path.read_text

    def count_and_read(path, *arguments, **options):
        if path.name in ("config.json", "calibration.json"):
            counted[str(path.relative_to(runs[0].folder.parent))] += 1
        return read_text(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", count_and_read)
    return counted


@pytest.fixture
def each_once(runs):
    descriptions = [f"{run.folder.name}/config.json" for run in runs]
    return Counter([*descriptions, f"{runs[0].folder.name}/calibration.json"])


def test_score_reads_the_calibration_and_each_description_once(
    runs, reads, each_once, counting_clip, tmp_path
):
    arguments = ["score", str(counting_clip), "--run", str(runs[1].folder)]
    result = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "s.csv")])
    assert result.exit_code == 0, result.output
    assert "calibrated threshold 0.625" in result.stderr
    assert reads == each_once


def test_watch_reads_the_calibration_and_each_description_once(
    runs, reads, each_once, monkeypatch, counting_clip
):
    rules = []
    monkeypatch.setattr(
        live, "watch_source", lambda _, scorer, *__, **___: rules.append(scorer.rule)
    )
    pipeline.watch(str(counting_clip), print, run=runs[1].folder)
    assert [rule.threshold for rule in rules] == [0.625]
    assert reads == each_once


def test_the_limit_of_the_training_is_that_of_a_finished_seed(runs):
    runs[0].training_path.write_text('{"max_feature_distance": 1.5}')
    assert Scorer.load(seeds_of(runs[2]), device="cpu").distance_limits == (1.5, None)
    # CALIBRATION is from before its limit was stored.
    loaded = Scorer.load(seeds_of(runs[2]), device="cpu", calibration=CALIBRATION)
    assert loaded.distance_limits == (1.5, None)
    loaded = Scorer.load(
        seeds_of(runs[2]), device="cpu", calibration=replace(CALIBRATION, max_feature_distance=1.25)
    )
    assert loaded.distance_limits == (1.5, 1.25)
