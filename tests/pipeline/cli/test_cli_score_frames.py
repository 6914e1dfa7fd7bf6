"""`pipeline score` and `calibrate` on folders of frames, alone and beside video files."""

import base64
import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import pipeline
from extractors.decoding.video import Video, VideoError
from pipeline.cli import main
from pipeline.reports.html_player import PREVIEW_WIDTH_PX
from pipeline.scoring.events import EventRule
from pipeline.scoring.scorer import Scorer


@pytest.fixture
def world(tmp_path, counting_clip, brightness_scorer, monkeypatch) -> Path:
    """A working folder with cameras/a.mp4 and its 40 frames as cameras/gate/frame000.png, ..."""
    (tmp_path / "cameras/gate").mkdir(parents=True)
    shutil.copy(counting_clip, tmp_path / "cameras/a.mp4")
    for number, frame in enumerate(frames_of(counting_clip)):
        Image.fromarray(frame).save(tmp_path / f"cameras/gate/frame{number:03d}.png")
    monkeypatch.setattr(
        Scorer,
        "load",
        lambda run, rule=None, *_, **__: replace(brightness_scorer, rule=rule or EventRule()),
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def frames_of(video) -> np.ndarray:
    return np.concatenate([chunk.frames for chunk in Video(video).read(16)])


def score(*arguments: object):
    return CliRunner().invoke(main, ["score", "--run", "run", *map(str, arguments)])


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_frames_have_the_scores_of_the_video_that_they_are_of(world):
    result = score("cameras/gate", "--fps", 25, "--out", "frames.csv")
    assert result.exit_code == 0, result.output
    score("cameras/a.mp4", "--out", "video.csv")
    assert len((world / "frames.csv").read_text().splitlines()) == 41
    assert (world / "frames.csv").read_bytes() == (world / "video.csv").read_bytes()


def test_the_times_are_those_of_the_given_frame_rate(world):
    result = score("cameras/gate", "--fps", 12.5, "--stride", 4)
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [int(row["frame"]) for row in rows] == list(range(40))
    assert [float(row["time_seconds"]) for row in rows] == [round(i / 12.5, 3) for i in range(40)]


def test_an_event_of_frames_has_a_thumbnail_of_its_peak(world, read_number):
    options = ["--events", "e.json", "--threshold", 0.01]
    result = score("cameras/gate", "--fps", 25, "--out", "s.csv", *options)
    assert result.exit_code == 0, result.output
    found = json.loads((world / "e.json").read_text())
    assert found["video"] == "gate"
    (event,) = found["events"]
    jpeg = base64.b64decode(event["thumbnail"].removeprefix("data:image/jpeg;base64,"))
    assert read_number(np.asarray(Image.open(io.BytesIO(jpeg)))) == event["peak_frame"]


def test_plot_clips_and_overlay_show_the_frames(world, figures, read_number):
    outputs = ["--plot", "p.png", "--clips", "clips", "--overlay", "o.mp4", "--threshold", 0.01]
    result = score("cameras/gate", "--fps", 25, "--out", "s.csv", *outputs)
    assert result.exit_code == 0, result.output
    (figure,) = figures
    assert len(figure.axes[1].artists) > 4  # thumbnails
    for path, height in (("clips/gate-event-001.mp4", 48), ("o.mp4", 104)):
        shown = frames_of(world / path)
        assert shown.shape[1:3] == (height, 64)
        assert [read_number(frame[:48]) for frame in shown] == list(range(40))
        np.testing.assert_allclose(
            np.concatenate([chunk.timestamps for chunk in Video(world / path).read(16)]),
            np.arange(40) / 25,
            atol=1e-4,
        )


def preview_of(page: Path) -> bytes:
    found = re.search(r'id="video-data" data-type="video/mp4">([^<]+)<', page.read_text())
    assert found is not None
    return base64.b64decode(found[1])


def test_the_report_plays_a_video_of_the_frames(world, read_number):
    result = score("cameras/gate", "--fps", 25, "--out", "s.csv", "--report", "r.html")
    assert result.exit_code == 0, result.output
    (world / "preview.mp4").write_bytes(preview_of(world / "r.html"))
    assert [read_number(frame) for frame in frames_of(world / "preview.mp4")] == list(range(40))
    assert "made of the frames of the folder, at 25 frames per second" in (
        (world / "r.html").read_text()
    )


def test_the_preview_of_wide_frames_is_small(world):
    for path in (world / "cameras/gate").iterdir():
        Image.open(path).resize((1280, 720)).save(path)
    result = score("cameras/gate", "--fps", 25, "--out", "s.csv", "--report", "r.html")
    assert result.exit_code == 0, result.output
    (world / "preview.mp4").write_bytes(preview_of(world / "r.html"))
    assert Video(world / "preview.mp4").width == PREVIEW_WIDTH_PX


@pytest.mark.parametrize("limit", ["MAX_PREVIEW_FRAMES", "MAX_EMBEDDED_BYTES"])
def test_thumbnails_stand_in_for_too_many_frames(world, monkeypatch, limit):
    monkeypatch.setattr(f"pipeline.reports.html_player.{limit}", 39)
    result = score("cameras/gate", "--fps", 25, "--out", "s.csv", "--report", "r.html")
    assert result.exit_code == 0, result.output
    page = (world / "r.html").read_text()
    assert "The folder has too many frames for a video in this page" in page
    assert "<video" not in page
    assert "data:image/jpeg;base64," in page


def test_frames_and_files_in_a_folder_are_scored_together(world, write_frames):
    write_frames(world / "cameras/night/1", 20)
    outputs = ["--out", "s", "--report", "r", "--overlay", "o", "--events", "e"]
    result = score("cameras", "--fps", 25, *outputs)
    assert result.exit_code == 0, result.output
    assert files_below(world / "s") == {"a.mp4.csv", "gate.csv", "night/1.csv"}
    assert (world / "s/gate.csv").read_bytes() == (world / "s/a.mp4.csv").read_bytes()
    assert len((world / "s/night/1.csv").read_text().splitlines()) == 21
    assert files_below(world / "r") == {"index.html", "a.mp4.html", "gate.html", "night/1.html"}
    assert files_below(world / "o") == {"a.mp4.mp4", "gate.mp4", "night/1.mp4"}


def test_several_folders_of_frames_are_named_in_one_call(world, write_frames):
    write_frames(world / "night", 20)
    result = score("cameras/gate", "night", "cameras/a.mp4", "--fps", 25, "--out", "s")
    assert result.exit_code == 0, result.output
    assert files_below(world / "s") == {"a.mp4.csv", "gate.csv", "night.csv"}


def test_a_folder_that_is_the_working_folder_is_named_as_it_is_called(world, monkeypatch):
    monkeypatch.chdir(world / "cameras/gate")
    result = score(".", "../a.mp4", "--fps", 25, "--out", "../../s")
    assert result.exit_code == 0, result.output
    assert files_below(world / "s") == {"a.mp4.csv", "gate.csv"}


def test_without_a_frame_rate_a_folder_means_its_video_files(world):
    result = score("cameras", "--out", "s")
    assert result.exit_code == 0, result.output
    assert files_below(world / "s") == {"a.mp4.csv"}


def test_images_beside_a_video_file_are_no_video(world):
    shutil.copy(world / "cameras/gate/frame000.png", world / "cameras/cover1.png")
    result = score("cameras", "--fps", 25, "--out", "s")
    assert result.exit_code == 0, result.output
    assert files_below(world / "s") == {"a.mp4.csv", "gate.csv"}


def test_plots_of_video_files_are_no_frames(world):
    for _ in range(2):
        result = score("cameras", "--fps", 25, "--out", "s", "--plot", "cameras/plots")
        assert result.exit_code == 0, result.output
        assert files_below(world / "s") == {"a.mp4.csv", "gate.csv"}
    assert files_below(world / "cameras/plots") == {"a.mp4.png", "gate.png"}


def test_plots_of_folders_of_frames_are_no_frames_either(world, write_frames):
    for name in ("01", "02", "night/cam3"):
        write_frames(world / "testing" / name, 20)
    for _ in range(2):
        result = score("testing", "--fps", 25, "--out", "s", "--plot", "testing/plots")
        assert result.exit_code == 0, result.output
        assert files_below(world / "s") == {"01.csv", "02.csv", "night/cam3.csv"}
    plots = {"01.plot.png", "02.plot.png", "night/cam3.plot.png"}
    assert files_below(world / "testing/plots") == plots


def test_frames_in_a_folder_called_like_a_video_are_one_video(world):
    (world / "cameras/gate").rename(world / "cameras/gate.mp4")
    result = score("cameras", "--fps", 25, "--out", "s")
    assert result.exit_code == 0, result.output
    assert files_below(world / "s") == {"a.mp4.csv", "gate.mp4.csv"}


def test_frames_without_a_frame_rate_are_refused_with_the_remedy(world):
    result = score("cameras/gate", "--out", "s.csv")
    assert result.exit_code == 1
    assert "cameras/gate: holds no video" in result.stderr
    assert "to read its images as frames, give their rate with --fps" in result.stderr


def test_a_folder_without_either_is_refused(world):
    (world / "empty").mkdir()
    result = score("empty", "--fps", 25, "--out", "s")
    assert result.exit_code == 1
    assert "nor folder of frames (numbered jpg or png)" in result.stderr
    assert "with --fps" not in result.stderr


@pytest.mark.parametrize("fps", ["0", "nan", "-1", "1001"])
def test_a_frame_rate_that_is_none_is_a_usage_error(world, fps):
    result = score("cameras/gate", f"--fps={fps}")
    assert result.exit_code == 2
    assert "'--fps'" in result.stderr


def test_a_frame_that_is_missing_fails_its_video_alone(world):
    (world / "cameras/gate/frame007.png").unlink()
    result = score("cameras", "--fps", 25, "--out", "s")
    assert result.exit_code == 3
    assert files_below(world / "s") == {"a.mp4.csv"}
    assert "frame008.png follows frame 6, expected frame 7" in result.stderr


def test_labels_of_frames_are_shown(world):
    rows = "path,split,label,anomalies\ngate,test,1,10-20\n"
    (world / "cameras/labels.csv").write_text(rows)
    options = ["--out", "s.csv", "--report", "r.html", "--labels", "cameras/labels.csv"]
    result = score("cameras/gate", "--fps", 25, *options)
    assert result.exit_code == 0, result.output
    assert '"truth": [[0.4, 0.8]]' in (world / "r.html").read_text()


OUTPUTS = ["--out", "--events", "--plot", "--report", "--overlay", "--clips"]


@pytest.mark.parametrize("option", OUTPUTS)
def test_no_output_goes_into_a_folder_of_frames(world, option):
    before = files_below(world)
    result = score("cameras/gate", "--fps", 25, option, "cameras/gate/plot1.png")
    assert result.exit_code == 1
    assert f"cameras/gate/plot1.png: {option} must not write into a folder of frames" in (
        result.stderr
    )
    result = score("cameras", "--fps", 25, option, "cameras/gate")
    assert result.exit_code == 1
    assert f"cameras/gate: {option} must not write into a folder of frames" in result.stderr
    assert files_below(world) == before


def test_a_report_that_the_index_would_replace_is_refused(world):
    (world / "cameras/gate").rename(world / "cameras/index")
    result = score("cameras", "--fps", 25, "--report", "r")
    assert result.exit_code == 1
    assert "cameras/index: its report would have the name of the index" in result.stderr


def test_the_library_scores_a_folder_of_frames(world):
    found = pipeline.score("cameras/gate", fps=25, run="run")
    expected = pipeline.score("cameras/a.mp4", run="run")
    assert (found.per_frame == expected.per_frame).all()
    assert found.timestamps.tolist() == (np.arange(40) / 25).tolist()
    with pytest.raises(VideoError, match=r"cameras/gate is a folder; .* give their rate"):
        pipeline.score("cameras/gate", run="run")


def test_a_run_is_calibrated_with_folders_of_frames(world):
    (world / "run").mkdir()
    arguments = ["run", "cameras", "--fps", "25", "--false-alarms-per-hour", "2"]
    result = CliRunner().invoke(main, ["calibrate", *arguments])
    assert result.exit_code == 0, result.output
    assert json.loads((world / "run/calibration.json").read_text())["n_videos"] == 2


def test_a_run_is_calibrated_with_folders_of_frames_of_one_name(world, write_frames):
    (world / "run").mkdir()
    for first, day in enumerate(("day1", "day2")):
        write_frames(world / day / "frames", 20, first=first)
    folders = ["day1/frames", "day2/frames", "--fps", "25", "--false-alarms-per-hour", "2"]
    result = CliRunner().invoke(main, ["calibrate", "run", *folders])
    assert result.exit_code == 0, result.output
    assert json.loads((world / "run/calibration.json").read_text())["n_videos"] == 2


def test_frames_in_two_folders_that_are_links_to_one_are_refused(world):
    (world / "run").mkdir()
    (world / "again").symlink_to("cameras/gate")
    folders = ["cameras/gate", "again", "--fps", "25"]
    refused = CliRunner().invoke(main, ["calibrate", "run", *folders])
    assert refused.exit_code == 1
    assert "again: has the same content as cameras/gate" in refused.stderr
