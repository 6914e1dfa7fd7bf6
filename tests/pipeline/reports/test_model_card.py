"""The card of a run and the list of runs, written from the files of the runs alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import resolve_config
from pipeline.evaluation.alarms import AlarmMetrics
from pipeline.evaluation.metrics import FrameMetrics
from pipeline.evaluation.results import Evaluation, Measurement, Row
from pipeline.reports.model_card import card_text, keep_evaluation, write_card
from pipeline.reports.run_table import HEADER, summarize, table_rows
from pipeline.runs.checkpoints import CheckpointError
from pipeline.runs.run_folder import Run, RunDescription, create_runs
from pipeline.scoring.events import EventRule

PROVENANCE = {"extractor": "i3d", "crops": 5, "weights": "kinetics", "is_pretrained": True}


def make_runs(folder: Path, *, provenance=PROVENANCE, seeds=(4, 5)) -> list[Run]:
    return create_runs(
        folder,
        [
            RunDescription(
                "small",
                "lists/small.csv",
                Path("features"),
                provenance,
                resolve_config("clav-como", "small", settings=[f"seed={seed}", "steps=70"]),
            )
            for seed in seeds
        ],
    )


def evaluation(dataset="small", seeds=(4, 5)) -> Evaluation:
    alarms = AlarmMetrics(0.1, 2.0, 0.5, 0.25, float("nan"))
    measured = tuple(
        Measurement(FrameMetrics(0.7 + 0.1 * i, 0.6, 0.5, 0.4, 0.3), alarms)
        for i, _ in enumerate(seeds)
    )
    rows = (Row("clav-como", "model", measured),)
    return Evaluation("small", dataset, 4, 0, 100, 25, "ab", EventRule(), seeds, True, rows)


def log(run: Run, *steps: int) -> None:
    lines = [json.dumps({"step": step, "loss": 1 / step, "losses": {}}) + "\n" for step in steps]
    run.metrics_path.write_text("".join(lines) + '{"step": 9')  # the last one was cut off


def test_the_card_says_data_header_limits_and_licence(tmp_path):
    run, _ = make_runs(tmp_path)
    text = card_text(run)
    assert text.startswith("# clav-como on small, seed 4\n")
    for expected in (
        "lists/small.csv",
        "fixed budget of 70 steps",
        "| crops | 5 |",
        "Not evaluated yet",
        "labels of whole videos",
        "Apache-2.0",
    ):
        assert expected in text
    assert "random" not in text
    assert "tests only" not in text


def test_the_card_of_an_ensemble_says_what_its_weights_and_aucs_are_of(tmp_path):
    run, _ = make_runs(tmp_path)
    members = [
        {"name": name, "held_out_auc": 0.75, "weight": 0.5} for name in ("network", "motion")
    ]
    run.ensemble_path.write_text(json.dumps(members))
    text = card_text(run)
    assert (
        "Networks, whose logits are averaged, and simple scorers, weighted by cross-validation over"
        " the training videos. The AUC of the network is that of a single one, trained on the other"
        " folds.\n"
    ) in text
    assert "| network | 0.750 | 0.50 |" in text


def test_random_weights_are_owned_up_to(tmp_path):
    provenance = {**PROVENANCE, "weights": "random:0", "is_pretrained": False}
    run, _ = make_runs(tmp_path, provenance=provenance)
    limit = "- Extractor with random weights: not pretrained. Use the run for tests only.\n"
    assert limit in card_text(run)
    assert "no license needed" in card_text(run)


def test_weights_of_which_nothing_is_known_are_not_called_random(tmp_path):
    provenance = {"extractor": "mine", "crops": 1}
    text = card_text(make_runs(tmp_path, provenance=provenance)[0])
    assert (
        "- It is not known whether the extractor's weights are pretrained; if not, use the run for "
        "tests only.\n"
    ) in text
    assert "random weights" not in text


def test_weights_of_ones_own_have_a_licence_that_only_their_maker_knows(tmp_path):
    run, _ = make_runs(tmp_path, provenance={**PROVENANCE, "weights": "mine.pt"})
    assert "weights `mine.pt` of unknown license" in card_text(run)


def test_an_evaluation_goes_into_the_card_of_each_seed(tmp_path):
    runs = make_runs(tmp_path)
    for run in runs:
        keep_evaluation(run, evaluation())
    first, second = (run.card_path.read_text() for run in runs)
    assert "| frame AUC | 0.7000 | 0.7500 | 0.0707 |" in first
    assert "| frame AUC | 0.8000 | 0.7500 | 0.0707 |" in second
    assert "| detection delay in seconds | - | - | - |" in first
    keep_evaluation(runs[0], evaluation("other"))
    text = runs[0].card_path.read_text()
    assert "Test split of small" in text
    assert "Test split of other" in text


def test_the_list_says_how_far_each_run_came_and_how_good_it_is(tmp_path):
    finished, stopped = make_runs(tmp_path)
    (diverged,) = make_runs(tmp_path / "more", seeds=(6,))
    log(finished, 50, 70)
    log(stopped, 50)
    finished.checkpoint_path.touch()
    diverged.diverged_path.touch()
    keep_evaluation(finished, evaluation())
    keep_evaluation(finished, evaluation("other"))
    first, more, second, third = table_rows(
        [summarize(run) for run in (finished, stopped, diverged)]
    )
    assert HEADER[:4] == ("run", "state", "steps", "loss")
    assert first[0] == "/".join(finished.folder.parts[-3:])
    # By the alphabet of the datasets.
    assert first[1:] == ("finished", "70/70", "0.0143", "other", "70.0", "60.0", "50.0")
    assert more == ("", "", "", "", "small", "70.0", "60.0", "50.0")
    assert second[1:] == ("stopped", "50/70", "0.0200", "-", "-", "-", "-")
    assert third[1:4] == ("diverged", "0/70", "-")


def test_no_runs_are_an_empty_list():
    assert table_rows([]) == []


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"format": "x"}', '{"format": "lookaround evaluation", "format_version": 1}'],
)
def test_what_is_no_evaluation_is_named(tmp_path, content):
    run, _ = make_runs(tmp_path)
    run.evaluation_path("small").write_text(content)
    with pytest.raises(CheckpointError, match=r"evaluation-small\.json: is not an evaluation"):
        write_card(run)
    assert not run.card_path.exists()


def test_the_card_says_which_baselines_the_model_does_not_beat(tmp_path):
    run, _ = make_runs(tmp_path)
    found = evaluation()
    lower, higher = (
        Row(name, "control", (Measurement(FrameMetrics(auc, 0.5, 0.5, 0.5, 0.5)),))
        for name, auc in (("motion energy", 0.1), ("linear MIL, flow", 0.9))
    )
    keep_evaluation(run, replace(found, rows=(*found.rows, lower, higher)))
    assert "clav-como (AUC 75.0) does not beat linear MIL, flow (90.0)." in card_text(run)
    damaged = json.loads(run.evaluation_path("small").read_text())
    del damaged["rows"][2]["metrics"]["auc"]
    run.evaluation_path("small").write_text(json.dumps(damaged))
    with pytest.raises(CheckpointError, match="is not an evaluation"):
        card_text(run)
