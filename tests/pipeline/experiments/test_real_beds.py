"""The script of the real beds: its commands, run on a small bed, and its table."""

import json
import sys

import pytest

from pipeline.config import resolve_config
from pipeline.experiments import real_beds
from pipeline.runs.run_folder import RunDescription, create_runs, find_runs


def system(name, kind, mean, std=None):
    return {"name": name, "kind": kind, "metrics": {"auc": {"mean": mean, "std": std}}}


def test_the_table_has_a_column_per_bed_and_no_rows_of_classes():
    evaluations = {
        "one": {
            "seeds": [0, 1],
            "rows": [
                system("clav-como", "model", 0.75, 0.02),
                system("motion energy", "control", 0.9),
                system("fall", "class", 0.5),
            ],
        },
        "two": {"seeds": [0], "rows": [system("clav-como", "model", 0.6)]},
    }
    assert real_beds.as_markdown(evaluations).splitlines() == [
        "| frame AUC, % | one, 2 seeds | two, 1 seeds |",
        "| --- | --- | --- |",
        "| clav-como | 75.0 ± 2.0 | 60.0 |",
        "| motion energy | 90.0 | - |",
    ]


def test_a_command_that_fails_ends_the_script_with_its_words(tmp_path, monkeypatch):
    monkeypatch.setitem(real_beds.BEDS, "surv", "surv")
    (tmp_path / "surv").mkdir()
    (tmp_path / "surv" / "manifest.csv").write_text("path,split,label\n")
    with pytest.raises(real_beds.CommandFailedError, match=r"pipeline extract surv.csv .* code 1"):
        real_beds.evaluate_bed("surv", tmp_path, tmp_path, n_seeds=1)


def test_a_bed_is_evaluated_only_when_all_its_seeds_are_finished(tmp_path, monkeypatch):
    (tmp_path / "surv").mkdir()
    (tmp_path / "surv" / "manifest.csv").write_text("path,split,label\n")
    commands, n_left = [], [0]  # seeds that a training finishes before it is interrupted

    def finish(runs):
        for run in runs[: n_left[0]]:
            run.checkpoint_path.touch()
        if len(runs) > n_left[0]:
            raise real_beds.CommandFailedError("interrupted")

    def record(folder, command, *arguments):
        if command == "train":
            commands.append(arguments[1:])
            if "--resume" in arguments:
                runs = find_runs(folder / "runs")
                finish([run for run in runs if not run.is_finished])
            else:
                configs = [resolve_config("clav-como", "x", settings=[f"seed={i}"]) for i in (0, 1)]
                described = [RunDescription("surv", "surv.csv", folder, {}, c) for c in configs]
                finish(create_runs(folder / "runs", described))
        elif command == "evaluate":
            commands.append(("evaluate",))
            (tmp_path / "evaluation-surv.json").write_text("{}")

    monkeypatch.setattr(real_beds, "_pipeline", record)
    for n_finished in (1, 0):
        n_left[0] = n_finished
        with pytest.raises(real_beds.CommandFailedError, match="interrupted"):
            real_beds.evaluate_bed("surv", tmp_path, tmp_path, n_seeds=2)
    n_left[0] = 9
    for _ in range(2):
        real_beds.evaluate_bed("surv", tmp_path, tmp_path, n_seeds=2)
    first, *later = commands
    assert first == ("--seeds", "2")
    assert later == [("--resume",), ("--resume",), ("evaluate",), ("evaluate",)]
    real_beds.evaluate_bed("surv", tmp_path, tmp_path, n_seeds=3)
    assert commands[-2:] == [("--seeds", "3"), ("evaluate",)]


@pytest.mark.slow
def test_a_bed_is_extracted_trained_evaluated_and_written_as_a_table(
    tmp_path, monkeypatch, write_clip, capsys
):
    data = tmp_path / "data" / "small"
    data.mkdir(parents=True)
    rows = ["path,split,label,anomalies"]
    for index, (split, label) in enumerate((s, v) for s in ("train", "test") for v in (0, 1)):
        write_clip(data / f"{index}.mp4")
        rows.append(f"{index}.mp4,{split},{label},{'0-16' if label else ''}")
    (data / "manifest.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.setattr(real_beds, "BEDS", {"small": "small"})
    out = tmp_path / "out"
    arguments = ["--data", str(tmp_path / "data"), "--out", str(out), "--seeds", "2"]
    monkeypatch.setattr(sys, "argv", ["real_beds", *arguments])
    real_beds.main()
    written = (out / "table.md").read_text()
    assert capsys.readouterr().out == written
    for name in ("clav-como", "motion energy", "linear MIL, rgb + flow", "context shuffled"):
        assert name in written
    assert len(json.loads((out / "evaluation-small.json").read_text())["seeds"]) == 2
