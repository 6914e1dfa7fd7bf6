"""Run folders: made, found again, and told apart."""

import json
from pathlib import Path

import pytest

from pipeline.checkpoints import CheckpointError
from pipeline.config import resolve_config
from pipeline.runs import (
    Run,
    RunDescription,
    create_runs,
    find_runs,
    latest_run,
    read_description,
    runs_of_command,
    unfinished_runs,
    write_description,
)

CONTRACT = {"extractor": "i3d", "n_crops": 5}


def describe(seed: int = 0, dataset: str = "small") -> RunDescription:
    config = resolve_config("clav-como", dataset, settings=[f"seed={seed}", "steps=70"])
    return RunDescription(dataset, f"lists/{dataset}.csv", Path("features"), CONTRACT, config)


def make_run(runs: Path, name: str, *, finished: bool) -> Run:
    """A run at `name` such as "small/clav-como/20250101-000000-seed0"."""
    run = Run(runs / name)
    run.folder.mkdir(parents=True)
    write_description(run, describe())
    if finished:
        run.checkpoint_path.touch()
    return run


def test_the_seeds_of_one_command_share_their_time(tmp_path):
    created = create_runs(tmp_path, [describe(seed) for seed in (0, 1, 10)])
    names = [run.folder.name for run in created]
    assert [name.partition("-seed")[2] for name in names] == ["0", "1", "10"]
    assert len({name.partition("-seed")[0] for name in names}) == 1
    assert {run.folder.parent for run in created} == {tmp_path / "small" / "clav-como"}
    assert [read_description(run) for run in created] == [describe(seed) for seed in (0, 1, 10)]
    for run in created:
        assert runs_of_command(run) == created


def test_runs_of_other_commands_are_not_of_this_one(tmp_path):
    early = make_run(tmp_path, "small/clav-como/20250101-000000-seed0", finished=True)
    make_run(tmp_path, "small/clav-como/20250101-000001-seed1", finished=True)
    make_run(tmp_path, "other/clav-como/20250101-000000-seed1", finished=True)
    assert runs_of_command(early) == [early]


def test_the_latest_run_is_the_last_that_was_finished(tmp_path):
    make_run(tmp_path, "small/clav-como/20250101-000000-seed0", finished=True)
    second = make_run(tmp_path, "small/clav-como/20250102-000000-seed2", finished=True)
    tenth = make_run(tmp_path, "small/clav-como/20250102-000000-seed10", finished=True)
    make_run(tmp_path, "small/clav-como/20250103-000000-seed0", finished=False)
    other = make_run(tmp_path, "other/la-net/20250104-000000-seed0", finished=True)
    assert latest_run(tmp_path) == other
    assert latest_run(tmp_path, dataset="small") == tenth
    assert latest_run(tmp_path, model_name="la-net") == other
    assert runs_of_command(tenth) == [second, tenth]


def test_resume_goes_on_with_the_latest_command_that_was_stopped(tmp_path):
    make_run(tmp_path, "small/clav-como/20250101-000000-seed0", finished=False)
    make_run(tmp_path, "small/clav-como/20250102-000000-seed0", finished=True)
    seeds = [
        make_run(tmp_path, f"small/clav-como/20250102-000000-seed{n}", finished=False)
        for n in (1, 2)
    ]
    make_run(tmp_path, "small/clav-como/20250103-000000-seed0", finished=True)
    make_run(tmp_path, "other/clav-como/20250104-000000-seed0", finished=False)
    assert unfinished_runs(tmp_path, dataset="small", model_name="clav-como") == seeds


def test_folders_that_are_no_runs_are_passed_over(tmp_path):
    run = make_run(tmp_path, "small/clav-como/20250101-000000-seed0", finished=True)
    make_run(tmp_path, "small/clav-como/best", finished=True)
    (tmp_path / "small/clav-como/20250109-000000-seed0").mkdir()
    (tmp_path / "small/notes").mkdir()
    assert find_runs(tmp_path) == [run]
    assert find_runs(tmp_path / "absent") == []


def test_where_there_is_no_run_the_command_that_makes_one_is_named(tmp_path):
    make_run(tmp_path, "small/clav-como/20250101-000000-seed0", finished=False)
    with pytest.raises(CheckpointError, match="there is no trained run; `pipeline train` makes"):
        latest_run(tmp_path)
    with pytest.raises(CheckpointError, match="no trained run on other; `pipeline train`"):
        latest_run(tmp_path, dataset="other")
    with pytest.raises(CheckpointError, match="no unfinished run to resume"):
        unfinished_runs(tmp_path, dataset="other", model_name="clav-como")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "is not a run folder, it has no config.json"),
        ("{", "does not describe a run"),
        ("[1]", "does not describe a run"),
        ("{}", "does not describe a run"),
        ("[" * 10**5, "does not describe a run"),
        ("\0", "does not describe a run"),
    ],
)
def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path, content, text):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=text) as caught:
        read_description(Run(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"train": {"steps": 3}}, {"contract": 3}, {"format": "x"}])
def test_a_description_that_was_tampered_with_is_refused(tmp_path, change):
    run = make_run(tmp_path, "small/clav-como/20250101-000000-seed0", finished=False)
    values = json.loads(run.config_path.read_text())
    run.config_path.write_text(json.dumps({**values, **change}))
    with pytest.raises(CheckpointError, match="does not describe a run"):
        read_description(run)
