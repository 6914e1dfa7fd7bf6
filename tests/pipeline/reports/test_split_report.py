"""`evaluate --report`: a page per test video with its labels, and an index, worst first."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from models.interface import AnomalyModel, ModelConfig, Output
from pipeline.cli import main
from pipeline.datasets import load_dataset
from pipeline.evaluation.ground_truth_conventions import ANNOTATION
from pipeline.extraction.feature_file import feature_path, write_features
from pipeline.reports.split_report import write_split_report
from pipeline.runs.checkpoints import Checkpoint
from pipeline.runs.run_folder import Run
from pipeline.runs.seeds import seeds_of
from pipeline.scoring.calibration import Calibration, write_calibration
from pipeline.scoring.events import EventRule
from pipeline.video_writer import VideoWriterError

PROVENANCE = {"extractor": "brightness", "is_pretrained": False}
# By video: the score of each of its three snippets, and its anomalous frames.
VIDEOS = {
    "right": ([0.1, 0.9, 0.2], "16-32"),
    "missed": ([0.1, 0.3, 0.2], "16-32"),
    "gate/false": ([0.1, 0.85, 0.2], ""),
}


class FeatureIsLogit(AnomalyModel):
    """A model that scores a snippet by its only feature."""

    config_type = ModelConfig

    def forward(self, features, mask):
        return Output(features[..., 0], features)

    def losses(self, output, batch):
        return {}


@pytest.fixture
def checkpoint():
    model = FeatureIsLogit(ModelConfig(stream_dims=(("rgb", 1),))).eval()
    return Checkpoint(model, "plain", PROVENANCE, dataset="cameras", seed=3, step=7)


@pytest.fixture
def dataset(tmp_path, counting_clip, features_of):
    """Three test videos with the features that give the scores above."""
    rows = ["path,split,label,anomalies\n"]
    for name, (scores, anomalies) in VIDEOS.items():
        video = tmp_path / f"{name}.mp4"
        video.parent.mkdir(exist_ok=True)
        video.write_bytes(counting_clip.read_bytes())
        odds = np.array(scores) / (1 - np.array(scores))
        streams = {"rgb": np.log(odds).astype(np.float32)[:, None, None]}
        features = features_of(streams, 40)
        path = feature_path(tmp_path / "features/cameras", name)
        write_features(path, features, PROVENANCE, video_id=name, source_name="none")
        rows.append(f"{name}.mp4,test,{int(bool(anomalies))},{anomalies}\n")
    (tmp_path / "cameras.csv").write_text("".join(rows))
    return load_dataset(tmp_path / "cameras.csv")


@pytest.fixture
def write(tmp_path, checkpoint, dataset):
    """A function that writes the reports of the test split."""

    def write(**options):
        return write_split_report(
            tmp_path / "pages",
            checkpoint,
            dataset,
            tmp_path / "features",
            torch.device("cpu"),
            EventRule(0.5),
            ground_truth=ANNOTATION,
            **options,
        )

    return write


def test_the_index_begins_with_the_worst_misses_and_false_alarms(tmp_path, write, read_page):
    written = write()
    assert written.index == tmp_path / "pages/index.html"
    assert written.failures == ()
    page = read_page(written.index)
    assert page.texts["strong"] == ["gate/false", "missed", "right"]
    assert {"miss 0.70", "false alarm 0.85"} <= set(page.texts["span"])
    assert page.texts["h1"] == ["Test videos of cameras"]
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert links == ["videos/gate/false.html", "videos/missed.html", "videos/right.html"]


def test_every_page_has_the_labels_as_bands_and_leads_back(tmp_path, write, read_page):
    write()
    for name, truth in (("right", [[0.64, 1.28]]), ("gate/false", [])):
        page = read_page(tmp_path / f"pages/videos/{name}.html")
        assert page.data["truth"] == truth
        assert "labeled anomaly" in page.texts["span"]
        (back,) = [a["href"] for tag, a in page.elements if tag == "a"]
        assert (tmp_path / f"pages/videos/{name}.html").parent.joinpath(back).is_file()
        assert "cameras, 7 steps, seed 3" in page.texts["dd"]


def test_progress_counts_the_videos(write):
    reports = []
    write(report=reports.append)
    assert [(report.done, report.total, report.unit) for report in reports] == [
        (1, 3, "videos"),
        (2, 3, "videos"),
        (3, 3, "videos"),
    ]


def test_a_video_that_is_gone_has_no_page_and_is_named(tmp_path, write, read_page):
    (tmp_path / "missed.mp4").unlink()
    written = write()
    (failure,) = written.failures
    assert "missed.mp4" in failure
    assert read_page(written.index).texts["strong"] == ["gate/false", "right"]


def test_a_video_whose_imported_features_have_no_times_has_no_page_and_is_named(
    tmp_path, write, features_of, read_page
):
    path = feature_path(tmp_path / "features/cameras", "missed")
    streams = {"rgb": np.zeros((3, 1, 1), np.float32)}
    timeless = replace(features_of(streams, 40), fps=np.nan, timestamps=np.full(40, np.nan))
    path.unlink()
    write_features(path, timeless, PROVENANCE, video_id="missed", source_name="none")
    written = write()
    (failure,) = written.failures
    assert failure.startswith(f"{path}: imported features without the times of their frames")
    assert "\n" not in failure
    assert read_page(written.index).texts["strong"] == ["gate/false", "right"]


def test_a_page_warns_of_a_video_unlike_those_of_the_training(tmp_path, write, read_page):
    write(distance_limits=(1.8, None))  # the logits of "right" have a mean size of 1.93
    warning = (
        "its features are unlike those that the run was trained on "
        "(distance 1.93, limit 1.80): its scores may mean nothing"
    )
    for name in VIDEOS:
        texts = read_page(tmp_path / f"pages/videos/{name}.html").texts["p"]
        assert (warning in texts) == (name == "right")


def test_a_folder_of_frames_has_a_page_that_plays_it(
    tmp_path, write, dataset, read_page, write_frames
):
    (tmp_path / "missed.mp4").unlink()
    write_frames(tmp_path / "missed.mp4", 40)  # the list gives no frame rate; the features have it
    assert write().failures == ()
    page = read_page(tmp_path / "pages/videos/missed.html")
    assert page.by_id("video-data")["data-type"] == "video/mp4"
    assert "at 25 frames per second" in " ".join(page.texts["p"])


def test_a_folder_of_frames_without_a_preview_has_no_page_and_is_named(
    tmp_path, write, dataset, read_page, write_frames, monkeypatch
):
    def fail(path, *_, **__):
        raise VideoWriterError(f"{path}: cannot be written (Generic error)")

    (tmp_path / "missed.mp4").unlink()
    write_frames(tmp_path / "missed.mp4", 40)
    monkeypatch.setattr("pipeline.reports.html_player.write_with_sound", fail)
    written = write()
    (failure,) = written.failures
    assert failure.startswith(f"{tmp_path / 'missed.mp4'}: ")
    assert failure.endswith("preview.mp4: cannot be written (Generic error)")
    assert read_page(written.index).texts["strong"] == ["gate/false", "right"]


@pytest.fixture
def world(tmp_path, dataset, checkpoint, monkeypatch, features_of) -> Path:
    """A working folder with the videos, their features and a trained run."""
    rows = (tmp_path / "cameras.csv").read_text()
    for name, label in (("calm", 0), ("loud", 1)):
        streams = {"rgb": np.full((3, 1, 1), float(label), np.float32)}
        features = features_of(streams, 40)
        path = feature_path(tmp_path / "features/cameras", name)
        write_features(path, features, PROVENANCE, video_id=name, source_name="none")
        rows += f"{name}.mp4,train,{label},\n"
    (tmp_path / "cameras.csv").write_text(rows)
    monkeypatch.chdir(tmp_path)
    sizes = [f"model.{name}=4" for name in ("embedding_dim", "class_code_dim", "relation_dim")]
    settings = ["steps=2", "steps_per_epoch=2", "bags_per_class=1", *sizes]
    flags = [text for setting in settings for text in ("--set", setting)]
    trained = CliRunner().invoke(main, ["train", "cameras.csv", "--seeds", "1", *flags])
    assert trained.exit_code == 0, trained.output
    return tmp_path


def evaluate(*arguments: str):
    return CliRunner().invoke(main, ["evaluate", *arguments])


def test_the_command_writes_the_pages_and_says_which_one_to_open(world):
    result = evaluate("--report", "pages")
    assert result.exit_code == 0, result.output
    pages = sorted(
        str(path.relative_to(world / "pages")) for path in world.rglob("pages/**/*.html")
    )
    expected = ["index.html", *(f"videos/{name}.html" for name in sorted(VIDEOS))]
    assert pages == expected
    assert "report: open pages/index.html in a browser" in result.stderr
    assert "AUC" in result.stdout
    page = (world / "pages/videos/right.html").read_text()
    assert "“without context” is" in page  # the run is of CLAV-CoMo, which has parts


def test_the_command_warns_of_videos_as_score_does(world):
    (run,) = world.glob("runs/*/*/*")
    training = run / "training.json"
    stored = json.loads(training.read_text())
    training.write_text(json.dumps(stored | {"max_feature_distance": 1e-6}))
    assert evaluate("--report", "pages").exit_code == 0
    warning = "its features are unlike those that the run was trained on"
    assert warning in (world / "pages/videos/right.html").read_text()
    write_calibration(seeds_of(Run(run)), Calibration(0.5, 1, 0, 16, 1, 1, 1, 0, 3, 0.95, 99.0))
    assert evaluate("--report", "pages").exit_code == 0
    assert warning not in (world / "pages/videos/right.html").read_text()
    (run / "calibration.json").write_text("{}")
    result = evaluate("--report", "pages")
    assert result.exit_code == 1
    assert "calibration.json: is not a calibration of this run" in result.stderr
    assert result.stdout == ""  # before the work
    assert evaluate("--threshold", "0.5", "--report", "pages").exit_code == 0
    assert warning in (world / "pages/videos/right.html").read_text()  # as without a calibration


def test_the_command_reads_the_calibration_once(world, monkeypatch):
    (run,) = world.glob("runs/*/*/*")
    write_calibration(seeds_of(Run(run)), Calibration(0.5, 1, 0, 16, 1, 1, 1, 0, 3, 0.95, 99.0))
    read: list[str] = []
    read_text = Path.read_text
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda path, **options: read.append(path.name) or read_text(path, **options),
    )
    assert evaluate("--report", "pages").exit_code == 0
    assert read.count("calibration.json") == 1


def test_a_page_that_cannot_be_made_is_exit_code_3_and_the_others_are_written(world):
    (world / "missed.mp4").unlink()
    result = evaluate("--report", "pages")
    assert result.exit_code == 3, result.output
    assert f"no page: {world}/missed.mp4 cannot be read" in result.stderr
    assert (world / "pages/videos/right.html").is_file()
    assert not (world / "pages/videos/missed.html").exists()


def test_without_any_video_a_report_is_refused_before_the_work(world):
    for video in world.rglob("*.mp4"):
        video.unlink()
    result = evaluate("--report", "pages")
    assert result.exit_code == 1
    assert "no such file, nor any other of the 5 videos of cameras" in result.stderr
    assert result.stdout == ""


def test_a_file_or_a_run_is_no_folder_for_reports(world):
    result = evaluate("--report", "cameras.csv")
    assert result.exit_code == 1
    assert "cameras.csv: --report must name a folder" in result.stderr
    (run,) = world.glob("runs/*/*/*")
    result = evaluate("--report", str(run))
    assert result.exit_code == 1
    assert "--report must not write into the run" in result.stderr
