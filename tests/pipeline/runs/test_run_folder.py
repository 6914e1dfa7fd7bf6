"""Run folders: made, found again, and told apart."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import pytest

from pipeline.config import resolve_config
from pipeline.runs import run_folder as runs_module
from pipeline.runs.checkpoints import CheckpointError
from pipeline.runs.epochs import read_epochs
from pipeline.runs.run_folder import (
    Run,
    RunDescription,
    create_runs,
    descriptions_of_command,
    find_runs,
    read_description,
    unfinished_runs,
    write_description,
)
from pipeline.runs.run_lock import owned
from pipeline.runs.seeds import latest_run

PROVENANCE = {"extractor": "i3d", "n_crops": 5}


def runs_of_command(run: Run) -> list[Run]:
    return list(descriptions_of_command(run))


def describe(seed: int = 0, dataset: str = "small", group: str = "") -> RunDescription:
    config = resolve_config("clav-como", dataset, settings=[f"seed={seed}", "steps=70"])
    source = f"lists/{dataset}.csv"
    return RunDescription(dataset, source, Path("features"), PROVENANCE, config, group)


def make_run(runs: Path, name: str, *, finished: bool, group: str = "") -> Run:
    """A run at `name` such as "small/clav-como/20250101-000000-seed0"."""
    run = Run(runs / name)
    run.folder.mkdir(parents=True)
    seed = int(name.rpartition("-seed")[2]) if "-seed" in name else 0
    write_description(run, describe(seed, group=group))
    if finished:
        run.checkpoint_path.touch()
    return run


def test_the_seeds_of_one_command_share_their_time(tmp_path):
    created = create_runs(tmp_path, [describe(seed) for seed in (0, 1, 10)])
    names = [run.folder.name for run in created]
    assert [name.partition("-seed")[2] for name in names] == ["0", "1", "10"]
    assert len({name.partition("-seed")[0] for name in names}) == 1
    assert {run.folder.parent for run in created} == {tmp_path / "small" / "clav-como"}
    described = [read_description(run) for run in created]
    (group,) = {description.group for description in described}
    assert group
    assert described == [describe(seed, group=group) for seed in (0, 1, 10)]
    for run in created:
        assert runs_of_command(run) == created


class StoppedClock(datetime):
    """A clock that moves on once in three times."""

    times: ClassVar[list[datetime]] = []

    @classmethod
    def now(cls, tz=None):
        return cls.times.pop(0)


def test_trainings_that_begin_in_one_moment_are_neither_mixed_nor_in_each_others_way(
    tmp_path, monkeypatch
):
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
    monkeypatch.setattr(runs_module, "datetime", StoppedClock)
    monkeypatch.setattr(StoppedClock, "times", [early, early, early, late])
    first = create_runs(tmp_path, [describe(0), describe(1)])
    other = create_runs(tmp_path, [describe(2)])  # has another seed, so the names do not collide
    again = create_runs(tmp_path, [describe(3), describe(1)])  # its second seed is taken
    assert [run.folder.name for run in again] == [
        "20260101-000001-000000-seed3",
        "20260101-000001-000000-seed1",
    ]
    for runs in (first, other, again):
        assert sorted(runs_of_command(runs[0]), key=str) == sorted(runs, key=str)
    folders = {run.folder for run in (*first, *other, *again)}
    assert set((tmp_path / "small/clav-como").iterdir()) == folders


def test_runs_without_a_group_are_alone_though_they_began_together(tmp_path):
    first = make_run(tmp_path, "small/clav-como/20250101-000000-seed0", finished=True)
    make_run(tmp_path, "small/clav-como/20250101-000000-seed1", finished=True)
    values = json.loads(first.config_path.read_text())
    del values["group"]  # of an earlier version
    first.config_path.write_text(json.dumps(values))
    assert runs_of_command(first) == [first]


def test_a_damaged_sibling_is_passed_over(tmp_path):
    created = create_runs(tmp_path, [describe(seed) for seed in (0, 1)])
    created[1].config_path.write_text("{")
    assert runs_of_command(created[0]) == [created[0]]


def test_a_copy_beside_a_run_does_not_count_its_seed_twice(tmp_path):
    created = create_runs(tmp_path, [describe(seed) for seed in (0, 1)])
    copy = Run(created[0].folder.with_name(f"{created[0].folder.name} (copy)"))
    shutil.copytree(created[0].folder, copy.folder)
    assert runs_of_command(created[1]) == created
    assert runs_of_command(copy) == [copy]


@pytest.mark.parametrize("copy_name", ["{time}-seed9", "20200101-000000-000000-seed0"])
def test_a_copy_under_another_seed_or_time_is_left_out_and_said(tmp_path, caplog, copy_name):
    created = create_runs(tmp_path, [describe(seed) for seed in (0, 1)])
    name = created[0].folder.name
    copy = created[0].folder.with_name(copy_name.format(time=name.partition("-seed")[0]))
    shutil.copytree(created[0].folder, copy)
    assert runs_of_command(created[1]) == created
    (record,) = caplog.records
    named = created[1].folder
    assert record.getMessage() == f"{copy}: is a copy of a seed of {named}, and is left out"
    if not copy_name.endswith("seed9"):  # which is refused for its name
        with pytest.raises(CheckpointError, match=f"^{copy}: is a copy of a seed of "):
            runs_of_command(Run(copy))


def test_a_run_under_the_name_of_another_seed_is_refused(tmp_path):
    (created,) = create_runs(tmp_path, [describe(3)])
    renamed = created.folder.rename(str(created.folder).replace("-seed3", "-seed9"))
    with pytest.raises(CheckpointError) as caught:
        runs_of_command(Run(renamed))
    assert str(caught.value) == (
        f"{renamed}: was trained with seed 3, instead of the 9 in its name; if it is a copy, "
        "remove it or move it out of the folder of runs"
    )


def test_a_run_is_of_its_command_also_from_inside_its_folder(tmp_path, monkeypatch):
    created = create_runs(tmp_path, [describe(seed) for seed in (0, 1)])
    monkeypatch.chdir(created[0].folder)
    assert runs_of_command(Run(Path())) == created


def test_a_run_has_one_owner_until_that_ends(tmp_path):
    (run,) = create_runs(tmp_path, [describe()])
    code = (
        "import sys, time; from pathlib import Path\n"
        "from pipeline.runs.run_lock import owned; from pipeline.runs.run_folder import Run\n"
        "with owned([Run(Path(sys.argv[1]))]): print('owned', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(run.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "owned\n"
        with pytest.raises(CheckpointError, match="is being trained by another process"):
            owned([run]).__enter__()
        process.kill()
    with owned([run]):
        pass


def test_what_a_killed_training_left_half_written_is_removed(tmp_path):
    unfinished = make_run(tmp_path, "small/clav-como/20250101-000000-seed0", finished=False)
    finished = make_run(tmp_path, "small/clav-como/20250102-000000-seed0", finished=True)
    for run in (unfinished, finished):
        (run.folder / ".lookaround-1a2b3c4d.tmp").touch()
        (run.folder / "epochs").mkdir()
        (run.folder / "epochs/.lookaround-1a2b3c4d.tmp").touch()
    with owned([unfinished, finished]):
        assert not list(unfinished.folder.rglob("*.tmp"))
        assert len(list(finished.folder.rglob("*.tmp"))) == 2  # an evaluation may be at work
    assert unfinished.config_path.is_file()


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "3",
        "{}",
        '{"epoch": 1}',
        '{"epoch": 1, "step": 2, "loss": "low", "losses": {}}',
        '{"epoch": 1, "step": 2, "loss": 1.0, "losses": [1]}',
        '{"epoch": 1, "step": 2, "loss": 1.0, "losses": {"mil": null}}',
        "[" * 10**5,
    ],
)
def test_a_line_that_is_no_epoch_is_one_line_that_names_the_file(tmp_path, line):
    run = make_run(tmp_path, "small/clav-como/20250101-000000-seed0", finished=True)
    good = '{"epoch": 1, "step": 2, "loss": 1.0, "losses": {"mil": 1.0}}'
    run.metrics_path.write_text(f"{good}\n{good[:20]}")  # the last one was cut off by a kill
    assert len(read_epochs(run)) == 1
    run.metrics_path.write_text(f"{good}\n{line}\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: is damaged") as caught:
        read_epochs(run)
    assert "\n" not in str(caught.value)


def test_runs_of_other_commands_are_not_of_this_one(tmp_path):
    early = make_run(tmp_path, "small/clav-como/20250101-000000-seed0", finished=True)
    make_run(tmp_path, "small/clav-como/20250101-000001-seed1", finished=True)
    make_run(tmp_path, "other/clav-como/20250101-000000-seed1", finished=True)
    assert runs_of_command(early) == [early]


def test_the_latest_run_is_the_last_that_was_finished(tmp_path):
    make_run(tmp_path, "small/clav-como/20250101-000000-seed0", finished=True)
    second = make_run(tmp_path, "small/clav-como/20250102-000000-seed2", finished=True, group="a")
    tenth = make_run(tmp_path, "small/clav-como/20250102-000000-seed10", finished=True, group="a")
    make_run(tmp_path, "small/clav-como/20250103-000000-seed0", finished=False)
    other = make_run(tmp_path, "other/la-net/20250104-000000-seed0", finished=True)
    assert latest_run(tmp_path) == other
    assert latest_run(tmp_path, dataset="small") == tenth
    assert latest_run(tmp_path, model_name="la-net") == other
    assert runs_of_command(tenth) == [second, tenth]


def test_resume_goes_on_with_the_latest_command_that_was_stopped(tmp_path):
    make_run(tmp_path, "small/clav-como/20250101-000000-seed0", finished=False)
    make_run(tmp_path, "small/clav-como/20250102-000000-seed0", finished=True, group="a")
    seeds = [
        make_run(tmp_path, f"small/clav-como/20250102-000000-seed{n}", finished=False, group="a")
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


@pytest.mark.parametrize("change", [{"train": {"steps": 3}}, {"provenance": 3}, {"format": "x"}])
def test_a_description_that_was_tampered_with_is_refused(tmp_path, change):
    run = make_run(tmp_path, "small/clav-como/20250101-000000-seed0", finished=False)
    values = json.loads(run.config_path.read_text())
    run.config_path.write_text(json.dumps({**values, **change}))
    with pytest.raises(CheckpointError, match="does not describe a run"):
        read_description(run)
