"""`pipeline datasets` at the command line."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import main
from pipeline.datasets import DATASETS
from pipeline.datasets.catalog import Dataset, DatasetSource, VideoEntry
from pipeline.progress import Progress


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["datasets", *arguments])


@pytest.fixture
def dummy(monkeypatch, tmp_path, write_clip) -> str:
    """The name of a dataset that is registered and nothing else."""

    def load(videos=None, *, allow_outside=False):
        folder = Path("data/dummy") if videos is None else videos
        return Dataset("dummy", (VideoEntry("only", folder / "only.mp4", "train", 0),))

    def make(folder, *, seed=0, n_test_videos=0, report=lambda progress: None):
        folder.mkdir(parents=True)
        report(Progress("make dummy", 1, 1, "videos"))
        names = ["only", *map(str, range(n_test_videos))]
        return [write_clip(folder / f"{name}.mp4", n_frames=seed + 1) for name in names]

    monkeypatch.setitem(DATASETS, "dummy", DatasetSource(load, "one video", make))
    monkeypatch.chdir(tmp_path)
    return "dummy"


def test_a_dataset_that_is_only_registered_works_at_the_command_line(dummy, tmp_path):
    listed = run("list").stdout.splitlines()
    assert any(line.split() == ["dummy", "data/dummy", "one", "video"] for line in listed)

    assert run("check", dummy).exit_code == 3
    made = run("make", dummy, "--seed", "3")
    assert (made.exit_code, made.stdout) == (0, "1 videos and manifest.csv are in data/dummy\n")
    checked = run("check", dummy)
    assert checked.exit_code == 0, checked.output

    extract = ["extract", dummy, "--crops", "1", "--weights", "random:0", "--flow", "none"]
    extracted = CliRunner().invoke(main, extract)
    assert extracted.exit_code == 0, extracted.output
    assert (tmp_path / "features/dummy/only.h5").exists()
    unknown = CliRunner().invoke(main, ["extract", "nothing"])
    assert "expected avenue, dummy, microworld, " in unknown.output


def test_the_size_of_a_synthetic_test_split_can_be_chosen(dummy):
    made = run("make", dummy, "--test-videos", "2")
    assert (made.exit_code, made.stdout) == (0, "3 videos and manifest.csv are in data/dummy\n")


@pytest.mark.parametrize("n_videos", ["20", "0", "-8", "99999999999999999999"])
def test_a_size_of_the_test_split_that_is_not_balanced_is_refused_in_one_line(tmp_path, n_videos):
    folder = tmp_path / "videos"
    result = run("make", "microworld", "--videos", str(folder), "--test-videos", n_videos)
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: microworld: the number of test videos must be a multiple of 8 from 8 to 10000, "
        f"instead got {n_videos}\n"
    )
    assert not folder.exists()


@pytest.mark.parametrize("name", ["xd_violence", "nothing", "mine.csv"])
def test_only_synthetic_datasets_can_be_made(name):
    result = run("make", name)
    assert result.exit_code == 2
    assert f"name must be one of microworld, instead got '{name}'" in result.stderr


def test_check_lists_what_is_there_of_a_published_dataset_with_odd_names(tmp_path, write_clip):
    name = "v=-fOWSLV6Esw__#1_label_B4-0-0"
    folder = tmp_path / "-a & b #1"
    folder.mkdir()
    write_clip(folder / f"{name}.mp4", n_frames=2)
    result = run("check", "xd_violence", "--videos", str(folder))
    assert result.exit_code == 3
    lines = result.stdout.splitlines()
    assert lines[2] == (
        "test    800 videos: 300 normal, 500 anomalous; 1 found; listed as published"
    )
    assert len([line for line in lines if line.startswith("missing: ")]) == 4753


def test_check_and_extract_ask_for_the_rate_of_a_folder_of_frames(tmp_path, write_frames):
    folder = write_frames(tmp_path / "gate")
    (tmp_path / "mine.csv").write_text("path,split,label,anomalies\ngate,train,0,\n")
    refused = run("check", str(tmp_path / "mine.csv"))
    assert refused.exit_code == 3
    assert refused.stdout.splitlines()[-1] == (
        f"unreadable: {folder} is a folder; to read its frames as a video, give their rate with "
        "--fps"
    )
    assert run("check", str(tmp_path / "mine.csv"), "--fps", "12.5").exit_code == 0
    assert run("check", str(tmp_path / "mine.csv"), "--fps", "0").exit_code == 2
