"""`pipeline score` with --report, --clips and --overlay."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.scoring.scorer import Scorer


@pytest.fixture
def world(tmp_path, counting_clip, brightness_scorer, monkeypatch) -> Path:
    """A working folder with cameras/a.mp4 and cameras/gate/b.mp4, and a fast extractor."""
    for name in ("a.mp4", "gate/b.mp4"):
        video = tmp_path / "cameras" / name
        video.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(counting_clip, video)
    monkeypatch.setattr(Scorer, "load", lambda run, **options: brightness_scorer)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def score(*arguments: str):
    return CliRunner().invoke(main, ["score", *arguments, "--run", "run"])


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_one_video_gets_its_report_clips_and_overlay(world):
    (world / "out").mkdir()
    outputs = ["--out", "out/a.csv", "--report", "out/a.html", "--overlay", "out/a.mkv"]
    result = score("cameras/a.mp4", *outputs, "--clips", "out/clips", "--threshold", "0.01")
    assert result.exit_code == 0, result.output
    assert {"a.csv", "a.html", "a.mkv", "clips/a-event-001.mp4"} <= files_below(world / "out")
    page = (world / "out/a.html").read_text()
    assert "<h1>a.mp4</h1>" in page
    assert 'value="0.01"' in page
    assert "“without context” is" in page
    assert "report: open out/a.html in a browser" in result.stderr


def test_a_folder_of_videos_gets_an_index(world):
    result = score("cameras", "--report", "reports", "--overlay", "overlays", "--clips", "clips")
    assert result.exit_code == 0, result.output
    assert files_below(world / "reports") == {"index.html", "a.mp4.html", "gate/b.mp4.html"}
    assert files_below(world / "overlays") == {"a.mp4.mp4", "gate/b.mp4.mp4"}
    assert "2 videos" in (world / "reports/index.html").read_text()
    assert "report: open reports/index.html in a browser" in result.stderr


def test_an_interrupted_folder_has_an_index_of_the_finished_reports(world, monkeypatch):
    score_all = Scorer.score_all

    def interrupted(scorer, videos, receive, **options):
        score_all(scorer, videos[:1], receive, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Scorer, "score_all", interrupted)
    result = score("cameras", "--report", "reports")
    assert result.exit_code == 130
    assert files_below(world / "reports") == {"index.html", "a.mp4.html"}


def test_videos_that_all_fail_have_no_index(world):
    (world / "bad.mp4").write_bytes(b"no video")
    result = score("bad.mp4", "absent.mp4", "--report", "reports")
    assert result.exit_code == 3
    assert files_below(world / "reports") == set()
    assert "in a browser" not in result.stderr


def test_a_video_that_fails_is_not_in_the_index(world):
    (world / "bad.mp4").write_bytes(b"no video")
    result = score("bad.mp4", "cameras/a.mp4", "--report", "reports")
    assert result.exit_code == 3
    assert files_below(world / "reports") == {"index.html", "a.mp4.html"}


def test_a_report_never_replaces_the_video(world):
    before = (world / "cameras/a.mp4").read_bytes()
    for option in ("--report", "--overlay"):
        result = score("cameras/a.mp4", option, "cameras/a.mp4")
        assert result.exit_code == 1
        assert f"{option} must not replace an input" in result.stderr
    assert (world / "cameras/a.mp4").read_bytes() == before


def test_an_overlay_that_cannot_be_written_is_refused_before_the_work(world, monkeypatch):
    monkeypatch.setattr(Scorer, "score_all", None)
    result = score("cameras/a.mp4", "--overlay", "a.avi")
    assert result.exit_code == 1
    assert "a.avi: expected a name that ends in .mp4 or .mkv" in result.stderr


def test_a_page_can_go_to_stdout(world):
    result = score("cameras/a.mp4", "--out", "a.csv", "--report", "-")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("<!doctype html>")
    assert "in a browser" not in result.stderr
