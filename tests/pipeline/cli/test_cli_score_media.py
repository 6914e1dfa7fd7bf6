"""`pipeline score` with --report, --clips and --overlay."""

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from extractors.decoding.video import VideoError
from pipeline.cli import main
from pipeline.reports.overlay import write_overlay
from pipeline.scoring.events import EventRule
from pipeline.scoring.scorer import Scorer


@pytest.fixture
def world(tmp_path, counting_clip, brightness_scorer, monkeypatch) -> Path:
    """A working folder with cameras/a.mp4 and cameras/gate/b.mp4, and a fast extractor."""
    for name in ("a.mp4", "gate/b.mp4"):
        video = tmp_path / "cameras" / name
        video.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(counting_clip, video)
    monkeypatch.setattr(
        Scorer,
        "load",
        lambda run, rule=None, *_, **__: replace(brightness_scorer, rule=rule or EventRule()),
    )
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


def fail_for(name):
    def write(path, video, *arguments, **options):
        if video.name == name:
            raise VideoError(f"{video}: does not show the frames that were scored")
        write_overlay(path, video, *arguments, **options)

    return write


def test_an_overlay_that_fails_costs_no_other_output_and_no_other_video(world, monkeypatch):
    monkeypatch.setattr("pipeline.reports.media_outputs.write_overlay", fail_for("a.mp4"))
    outputs = ["--out", "scores", "--report", "reports", "--clips", "clips"]
    result = score("cameras", *outputs, "--overlay", "overlays", "--threshold", "0.01")
    assert result.exit_code == 3, result.output
    assert files_below(world / "overlays") == {"gate/b.mp4.mp4"}
    assert files_below(world / "reports") == {"index.html", "a.mp4.html", "gate/b.mp4.html"}
    assert files_below(world / "scores") == {"a.mp4.csv", "gate/b.mp4.csv"}
    assert len(files_below(world / "clips")) == 2
    expected = "  cameras/a.mp4: overlay: cameras/a.mp4: does not show the frames that were scored"
    lines = result.stderr.splitlines()
    assert lines[lines.index("outputs that could not be made:") + 1] == expected


def test_an_overlay_of_the_only_video_that_fails_is_exit_code_3(world, monkeypatch):
    monkeypatch.setattr("pipeline.reports.media_outputs.write_overlay", fail_for("a.mp4"))
    result = score("cameras/a.mp4", "--out", "a.csv", "--overlay", "a.mkv")
    assert result.exit_code == 3
    assert files_below(world) >= {"a.csv"}
    assert not (world / "a.mkv").exists()


def test_a_video_that_is_gone_after_scoring_fails_each_output_that_shows_it(world, monkeypatch):
    score_all = Scorer.score_all

    def score_and_remove(scorer, videos, receive, **options):
        def remove_and_receive(path, scores):
            path.unlink()
            receive(path, scores)

        return score_all(scorer, videos, remove_and_receive, **options)

    monkeypatch.setattr(Scorer, "score_all", score_and_remove)
    shown = ["--events", "e.json", "--plot", "p.png", "--report", "r.html", "--overlay", "o.mp4"]
    result = score("cameras/a.mp4", "--out", "a.csv", *shown, "--clips", "c", "--threshold", "0.01")
    assert result.exit_code == 3, result.output
    for name in ("events", "plot", "report", "clips", "overlay"):
        assert f"cameras/a.mp4: {name}: cameras/a.mp4" in result.stderr
    assert len((world / "a.csv").read_text().splitlines()) == 41
    assert not {"e.json", "p.png", "r.html", "o.mp4"} & files_below(world)


def test_the_progress_of_clips_and_overlays_is_reported(world, monkeypatch):
    reports = []
    shows = contextlib.nullcontext(reports.append)
    monkeypatch.setattr("pipeline.cli.terminal.show_progress", lambda: shows)
    result = score("cameras", "--overlay", "overlays", "--clips", "clips", "--threshold", "0.01")
    assert result.exit_code == 0, result.output
    drawn = [(r.done, r.total, r.unit) for r in reports if r.stage == "overlay"]
    assert drawn == [(16, 40, "frames"), (32, 40, "frames"), (40, 40, "frames")] * 2
    assert [(r.done, r.total) for r in reports if r.stage == "clips"] == [(1, 1)] * 2
