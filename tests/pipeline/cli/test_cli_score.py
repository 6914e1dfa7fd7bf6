"""`pipeline score` on several videos: outputs, formats, events, exit codes, Ctrl-C, quiet."""

import base64
import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from PIL import Image

from pipeline.cli import main
from pipeline.scoring.events import EventRule
from pipeline.scoring.score_files import write_video_outputs
from pipeline.scoring.scorer import Scorer


@pytest.fixture
def world(tmp_path, counting_clip, brightness_scorer, monkeypatch) -> Path:
    """A working folder with two videos, one of them in a folder below, and a fast extractor."""
    (tmp_path / "cameras/gate").mkdir(parents=True)
    shutil.copy(counting_clip, tmp_path / "cameras/a.mp4")
    shutil.copy(counting_clip, tmp_path / "cameras/gate/b.MP4")
    (tmp_path / "cameras/notes.txt").write_text("no video")
    monkeypatch.setattr(
        Scorer,
        "load",
        lambda run, rule=None, *_, **__: replace(brightness_scorer, rule=rule or EventRule()),
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def score(*arguments: object):
    return CliRunner().invoke(main, ["score", "--run", "run", *map(str, arguments)])


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_folder_of_videos_goes_to_folders_of_outputs(world):
    options = ["--out", "scores", "--events", "found/events", "--plot", "plots"]
    result = score("cameras", *options)
    assert result.exit_code == 0, result.output
    assert files_below(world / "scores") == {"a.mp4.csv", "gate/b.MP4.csv"}
    assert files_below(world / "found") == {
        "events/a.mp4.events.json",
        "events/gate/b.MP4.events.json",
    }
    assert files_below(world / "plots") == {"a.mp4.png", "gate/b.MP4.png"}
    assert result.stdout == ""
    score("cameras/a.mp4", "--out", "one.csv")
    assert (world / "scores/a.mp4.csv").read_bytes() == (world / "one.csv").read_bytes()


def test_a_video_that_fails_leaves_the_others_whole_and_gives_exit_code_3(world):
    (world / "bad.mp4").write_bytes(b"no video")
    result = score("bad.mp4", "cameras/a.mp4", "absent.mp4", "--out", "scores")
    assert result.exit_code == 3
    assert files_below(world / "scores") == {"a.mp4.csv"}
    assert "1 of 3 videos are scored; failed:" in result.stderr
    assert "bad.mp4" in result.stderr
    assert "absent.mp4" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("options", [[], ["--out", "-"], ["--out", "s", "--events", "-"]])
def test_several_videos_need_a_folder(world, options):
    result = score("cameras", *options)
    assert result.exit_code == 2
    assert "several videos need a folder: give --out FOLDER" in result.stderr


def test_two_videos_whose_outputs_would_have_one_name_are_refused(world):
    (world / "night").mkdir()
    shutil.copy(world / "cameras/a.mp4", world / "night")
    result = score("cameras", "night", "--out", "scores")
    assert result.exit_code == 1
    assert "night/a.mp4: its outputs would have the same names as those of" in result.stderr
    assert not (world / "scores").exists()


@pytest.mark.parametrize(
    ("named", "twice"), [("cameras/a.mp4", "a.mp4"), ("cameras/gate", "gate/b.MP4")]
)
def test_a_video_that_is_named_twice_is_refused(world, named, twice):
    (world / "run").mkdir()
    paths = [named, world / "cameras"]
    for result in (score(*paths, "--out", "scores"), calibrate("run", *paths)):
        assert result.exit_code == 1
        assert f"cameras/{twice}: is named twice" in result.stderr
    assert not (world / "scores").exists()
    assert not (world / "run/calibration.json").exists()


def test_a_file_where_the_folder_is_to_be_is_refused(world):
    (world / "scores").write_text("mine")
    result = score("cameras", "--out", "scores")
    assert result.exit_code == 1
    assert "scores: --out must name a folder for several videos" in result.stderr
    assert (world / "scores").read_text() == "mine"


def test_no_output_of_several_replaces_an_input(world):
    (world / "scores").mkdir()
    (world / "scores/a.mp4.csv").hardlink_to(world / "cameras/gate/b.MP4")
    result = score("cameras", "--out", "scores")
    assert result.exit_code == 1
    assert "must not be replaced, it is an input" in result.stderr


def test_json_and_parquet_hold_what_the_csv_holds(world):
    for suffix in ("csv", "json", "parquet"):
        result = score("cameras/a.mp4", "--format", suffix, "--out", f"s.{suffix}")
        assert result.exit_code == 0, result.output
    with (world / "s.csv").open() as file:
        rows = list(csv.DictReader(file))
    as_json = json.loads((world / "s.json").read_text())
    as_parquet = pyarrow.parquet.read_table(world / "s.parquet").to_pydict()
    assert (as_json["format"], as_json["snippet_len"], as_json["stride"]) == (
        "lookaround scores",
        16,
        16,
    )
    for name in ("frame", "time_seconds", "score"):
        expected = [float(row[name]) for row in rows]
        assert len(expected) == 40
        np.testing.assert_allclose(as_json[name], expected, atol=5.1e-4)
        assert as_json[name] == as_parquet[name]


def test_a_name_says_the_format_where_no_option_does(world):
    for name in ("s.json", "s.txt"):
        assert score("cameras/a.mp4", "--out", name).exit_code == 0
    assert json.loads((world / "s.json").read_text())["format"] == "lookaround scores"
    assert (world / "s.txt").read_text().startswith("frame,time_seconds,score")
    assert score("cameras/a.mp4", "--out", "t.json", "--format", "csv").exit_code == 0
    assert (world / "t.json").read_text().startswith("frame,time_seconds,score")


def test_a_plot_under_the_name_of_another_format_is_refused_before_the_work(world):
    result = score("cameras/a.mp4", "--out", "s.csv", "--plot", "s.jpg")
    assert result.exit_code == 1
    assert "s.jpg: expected a name that ends in .png" in result.stderr
    assert not (world / "s.csv").exists()


def test_parquet_without_pyarrow_is_said_before_the_work(world, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = score("cameras/a.mp4", "--format", "parquet", "--out", "s")
    assert result.exit_code == 1
    assert "parquet needs pyarrow: pip install 'lookaround[parquet]'" in result.stderr
    assert not (world / "s").exists()


def test_events_have_frames_seconds_peak_mean_thumbnail_and_the_rule_that_found_them(
    world, read_number
):
    result = score("cameras/a.mp4", "--format", "json", "--out", "s.json")
    scores = np.array(json.loads((world / "s.json").read_text())["score"])
    threshold = float(scores.max()) - 1e-6
    options = ["--threshold", threshold, "--merge-seconds", 0, "--events", "e.json"]
    result = score("cameras/a.mp4", "--out", "s.csv", *options)
    assert result.exit_code == 0, result.output
    found = json.loads((world / "e.json").read_text())
    assert found["video"] == "a.mp4"
    assert found["rule"]["threshold"] == pytest.approx(threshold)
    assert found["rule"]["release"] == pytest.approx(0.8 * threshold)
    (event,) = found["events"]
    start, stop = event["start_frame"], event["stop_frame"]
    assert (scores[start:stop] >= 0.8 * threshold).all()
    assert (event["start_seconds"], event["stop_seconds"]) == (
        pytest.approx(start / 25),
        pytest.approx(stop / 25),
    )
    assert event["peak"] == pytest.approx(scores.max(), abs=1e-6)
    assert event["peak_frame"] == int(scores.argmax())
    assert event["mean"] == pytest.approx(scores[start:stop].mean(), abs=1e-6)
    jpeg = base64.b64decode(event["thumbnail"].removeprefix("data:image/jpeg;base64,"))
    assert read_number(np.asarray(Image.open(io.BytesIO(jpeg)))) == event["peak_frame"]
    score("cameras/a.mp4", "--out", "s.csv", *options, "--min-seconds", 60)
    assert json.loads((world / "e.json").read_text())["events"] == []


def curve_of(page):
    """The frames of a report's curve, and the score without each part there, as it draws them."""
    curve = json.loads(re.search(r'id="report-data">(.*?)</script>', page, re.DOTALL)[1])["curve"]
    without = {
        name: np.frombuffer(base64.b64decode(text), "<f4")
        for name, text in curve["without"].items()
    }
    return np.frombuffer(base64.b64decode(curve["frames"]), "<u4"), without


@pytest.mark.parametrize("stride", [16, 4])
def test_events_say_what_their_peaks_rest_on_as_the_report_does(world, stride):
    options = ["--threshold", 0.01, "--stride", stride, "--events"]
    together = score("cameras/a.mp4", "--report", "r.html", "--out", "s.csv", *options, "1.json")
    assert together.exit_code == 0, together.output
    score("cameras/a.mp4", "--out", "s.csv", *options, "2.json")
    assert (world / "1.json").read_bytes() == (world / "2.json").read_bytes()
    (event,) = json.loads((world / "2.json").read_text())["events"]
    frames, without = curve_of((world / "r.html").read_text())
    run = np.searchsorted(frames, event["peak_frame"], side="right") - 1
    expected = {name: float(values[run]) for name, values in without.items()}
    assert set(expected) == {"context", "motion"}
    assert len({*expected.values(), event["peak"]}) == 3
    assert event["scores_without"] == expected


def test_events_go_to_stdout_on_request(world):
    result = score("cameras/a.mp4", "--out", "s.csv", "--events", "-")
    assert json.loads(result.stdout)["format"] == "lookaround events"


def test_ctrl_c_leaves_finished_outputs_whole_and_says_what_is_left(world, monkeypatch):
    calls = []

    def write_one_then_interrupt(outputs, scores, **options):
        if calls:
            raise KeyboardInterrupt
        calls.append(outputs)
        return write_video_outputs(outputs, scores, **options)

    monkeypatch.setattr(
        "pipeline.scoring.score_files.write_video_outputs", write_one_then_interrupt
    )
    result = score("cameras", "--out", "scores")
    assert result.exit_code == 130
    assert files_below(world / "scores") == {"a.mp4.csv"}
    assert len((world / "scores/a.mp4.csv").read_text().splitlines()) == 41
    said = result.stderr.splitlines()
    assert "1 of 2 videos are scored; left:" in said
    assert "  cameras/gate/b.MP4" in said


def test_quiet_writes_results_and_errors_alone(world):
    loud = score("cameras/a.mp4")
    quiet = score("-q", "cameras/a.mp4")
    assert quiet.stdout == loud.stdout
    assert "random weights: not pretrained" in loud.stderr
    assert quiet.stderr == ""
    failed = score("-q", "absent.mp4")
    assert failed.exit_code == 1
    assert "absent.mp4" in failed.stderr


def test_a_stride_gives_finer_scores_and_its_cost_is_said_beforehand(world):
    options = ["cameras/a.mp4", "--format", "json", "--out"]
    assert "times the time" not in score(*options, "16.json").stderr
    result = score(*options, "4.json", "--stride", 4)
    assert result.exit_code == 0, result.output
    assert "stride 4: about 4 times the time of stride 16" in result.stderr
    coarse, fine = (json.loads((world / f"{n}.json").read_text()) for n in (16, 4))
    assert (coarse["stride"], fine["stride"]) == (16, 4)
    assert len(coarse["score"]) == len(fine["score"]) == 40
    assert [i for i in range(1, 40) if coarse["score"][i] != coarse["score"][i - 1]] == [16, 32]
    assert [i for i in range(1, 40) if fine["score"][i] != fine["score"][i - 1]] == [
        *range(4, 40, 4)
    ]


@pytest.mark.parametrize("stride", ["0", "3", "32", "x"])
def test_another_stride_is_a_usage_error(world, stride):
    result = score("cameras/a.mp4", "--stride", stride)
    assert result.exit_code == 2
    assert "'--stride'" in result.stderr


def copy_of(copy: Path, path: Path):
    shutil.copy(path, copy)


def calibrate(*arguments: object):
    return CliRunner().invoke(main, ["calibrate", *map(str, arguments)])


def test_a_calibration_is_stored_with_the_run_and_used_by_score(world, write_clip):
    (world / "run").mkdir()
    shutil.move(write_clip(world / "b.mp4", n_frames=48), world / "cameras/gate/b.MP4")
    result = calibrate("run", "cameras", "--false-alarms-per-hour", 2, "--min-seconds", 0.25)
    assert result.exit_code == 0, result.output
    stored = json.loads((world / "run/calibration.json").read_text())
    assert (stored["n_videos"], stored["n_events"], stored["min_seconds"]) == (2, 0, 0.25)
    assert 0 < stored["max_feature_distance"] < 5
    assert f"threshold {stored['threshold']:g}: 0 false alarms in 3.5 seconds" in result.stdout
    assert "in alarm 0.00% of the time" in result.stdout
    assert "with 95% confidence" in result.stdout
    events = ["cameras/a.mp4", "--out", "s.csv", "--events", "e.json"]
    used = score(*events)
    assert f"calibrated threshold {stored['threshold']:g}" in used.stderr
    rule = json.loads((world / "e.json").read_text())["rule"]
    assert (rule["threshold"], rule["min_seconds"]) == (stored["threshold"], 0.25)
    assert "calibrated with stride 16" in score(*events, "--stride", 8).stderr
    given = score(*events, "--threshold", 0.25)
    assert "calibrated" not in given.stderr
    assert json.loads((world / "e.json").read_text())["rule"]["threshold"] == 0.25


def test_without_a_calibration_the_threshold_is_a_half(world):
    score("cameras/a.mp4", "--out", "s.csv", "--events", "e.json")
    rule = json.loads((world / "e.json").read_text())["rule"]
    assert rule == {"threshold": 0.5, "merge_seconds": 1.0, "min_seconds": 0.0, "release": 0.4}


def test_a_normal_video_that_fails_is_left_out_of_the_calibration_with_exit_code_3(world):
    (world / "run").mkdir()
    (world / "bad.mp4").write_bytes(b"no video")
    result = calibrate("run", "bad.mp4", "cameras/a.mp4")
    assert result.exit_code == 3
    assert "1 of 2 videos are scored; failed:" in result.stderr
    assert json.loads((world / "run/calibration.json").read_text())["n_videos"] == 1


def test_normal_videos_of_one_name_in_two_folders_are_both_used(world, write_clip):
    (world / "run").mkdir()
    (world / "night").mkdir()
    write_clip(world / "night/a.mp4", n_frames=48)
    (world / "cameras/gate/b.MP4").unlink()
    result = calibrate("run", "cameras", "night", "--false-alarms-per-hour", 2)
    assert result.exit_code == 0, result.output
    assert json.loads((world / "run/calibration.json").read_text())["n_videos"] == 2


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to, copy_of])
def test_a_video_under_two_names_is_refused_because_its_hours_would_count_twice(
    world, link, assert_one_line_error
):
    (world / "run").mkdir()
    link(world / "night.mp4", world / "cameras/a.mp4")
    refused = calibrate("run", "cameras/a.mp4", "night.mp4", "--false-alarms-per-hour", 2)
    assert_one_line_error(
        refused, "night.mp4: has the same content as cameras/a.mp4, whose hours would count twice"
    )
    assert not (world / "run/calibration.json").exists()


@pytest.mark.parametrize("rate", ["0", "nan", "-1"])
def test_a_rate_of_false_alarms_that_is_none_is_a_usage_error(world, rate):
    result = calibrate("run", "cameras", f"--false-alarms-per-hour={rate}")
    assert result.exit_code == 2
    assert "'--false-alarms-per-hour'" in result.stderr


@pytest.fixture
def strict_limit(brightness_scorer, monkeypatch):
    """The run of `world` with a limit of the features' distance that every video exceeds."""
    strict = replace(brightness_scorer, distance_limits=(1e-6, None))
    monkeypatch.setattr(Scorer, "load", classmethod(lambda cls, *_, **__: strict))


@pytest.mark.parametrize("flags", [[], ["--quiet"]])
def test_a_video_far_from_the_training_is_scored_with_a_line_of_warning(world, strict_limit, flags):
    result = score("cameras/a.mp4", "--out", "s.csv", "--report", "r.html", *flags)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stderr.splitlines() if "unlike those that the run" in line]
    assert len(lines) == 1
    assert lines[0].startswith("cameras/a.mp4: its features are unlike")
    assert "its features are unlike those that the run" in (world / "r.html").read_text()
    assert len((world / "s.csv").read_text().splitlines()) == 41


def test_a_video_like_those_of_the_training_has_no_warning(world):
    result = score("cameras/a.mp4", "--out", "s.csv", "--report", "r.html")
    assert "unlike" not in result.stderr
    assert "its features are unlike" not in (world / "r.html").read_text()


def make_labels(folder, *rows):
    (folder / "cameras/labels.csv").write_text("path,split,label,anomalies\n" + "\n".join(rows))
    return "cameras/labels.csv"


def test_known_labels_are_shown_in_plot_and_report(world, figures):
    labels = make_labels(world, "a.mp4,test,1,10-20;30-99", "gate/b.MP4,train,1,")
    outputs = ["--out", "s", "--plot", "p", "--report", "r", "--labels", labels]
    result = score("cameras", *outputs)
    assert result.exit_code == 0, result.output
    bands = [[patch.get_x() for patch in figure.axes[0].patches] for figure in figures]
    assert bands == [[pytest.approx(10 / 25), pytest.approx(30 / 25)], []]
    pages = [(world / f"r/{name}.html").read_text() for name in ("a.mp4", "gate/b.MP4")]
    assert ["labeled anomaly" in page for page in pages] == [True, False]
    assert "Largest mistake first" in (world / "r/index.html").read_text()


def test_labels_of_other_videos_are_refused_before_the_work(world, monkeypatch):
    monkeypatch.setattr(Scorer, "load", None)
    labels = make_labels(world, "c.mp4,test,0,")
    result = score("cameras/a.mp4", "--out", "s.csv", "--labels", labels)
    assert result.exit_code == 1
    assert "cameras/a.mp4: is not a video of labels, nor is any other of the 1" in result.stderr
