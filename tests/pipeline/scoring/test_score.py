"""Scoring: crops, context, and rows and times of the CSV."""

import csv
import io
import itertools
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models.optical_flow import raft_small

from extractors.build import ExtractorChoice
from extractors.networks.inception_i3d import InceptionI3D
from extractors.networks.resnet_i3d import ResNetI3D
from extractors.snippets import DROP_TAIL, REPEAT_LAST_FRAME
from pipeline.scoring.frame_scores import csv_bytes
from pipeline.scoring.scorer import extractor_of_run
from pipeline.scoring.snippet_scores import snippet_scores

CPU = torch.device("cpu")


@pytest.fixture
def checkpoint(brightness_scorer):
    return brightness_scorer.checkpoint


def csv_rows(path, scorer, tail_policy=REPEAT_LAST_FRAME):
    """Score a video to its CSV and read that back; the reports on the way come with it."""
    scorer.extractor.tail_policy = tail_policy
    reports = []
    scores = scorer.score(path, report=reports.append)
    return list(csv.DictReader(io.StringIO(csv_bytes(scores).decode()))), reports


def presented_times(path):
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        return [float(frame.pts * frame.time_base) for frame in container.decode(stream)]


def test_scores_are_averaged_over_crops_after_the_sigmoid(checkpoint, features_of):
    rng = np.random.default_rng(0)
    streams = {"rgb": rng.normal(size=(5, 2, 3)).astype(np.float32)}
    features = features_of(streams, 70)
    found = snippet_scores(checkpoint.model, features, device=CPU)
    mask = torch.ones(1, 5).bool()
    with torch.no_grad():
        per_crop = [
            checkpoint.model(torch.from_numpy(streams["rgb"][:, crop])[None], mask).logits[0]
            for crop in (0, 1)
        ]
    expected = [
        sum(1 / (1 + np.exp(-float(logits[t]))) for logits in per_crop) / 2 for t in range(5)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_progress_counts_every_frame(brightness_scorer, counting_clip):
    rows, reports = csv_rows(counting_clip, brightness_scorer)
    assert len(rows) == 40
    done = [report.done for report in reports]
    assert done[:3] == [pytest.approx(n_frames / 40) for n_frames in (16, 32, 40)]
    assert done[-1] == 1
    assert all(a <= b for a, b in itertools.pairwise(done))
    assert {(report.total, report.unit) for report in reports} == {(1, "videos")}


def test_a_clip_of_varying_frame_rate_keeps_its_times(brightness_scorer, write_clip, tmp_path):
    pts = [0, 1, 2, 7, 8, 20, 21, 22, 30, 31, 32, 50, 51, 52, 53, 54, 60, 61, 90]
    path = write_clip(tmp_path / "varying.mp4", n_frames=len(pts), pts=pts, fps=25)
    rows, _ = csv_rows(path, brightness_scorer)
    assert [int(row["frame"]) for row in rows] == list(range(len(pts)))
    assert [row["time_seconds"] for row in rows] == [f"{t / 25:.3f}" for t in pts]


def test_frames_of_a_dropped_tail_have_the_score_of_the_last_snippet(
    brightness_scorer, counting_clip
):
    rows, _ = csv_rows(counting_clip, brightness_scorer, DROP_TAIL)
    scores = [row["score"] for row in rows]
    assert len(scores) == 40
    assert scores[31:] == [scores[31]] * 9
    kept, _ = csv_rows(counting_clip, brightness_scorer)
    assert kept[39]["score"] != kept[31]["score"]


@pytest.mark.real
def test_every_real_video_of_varying_frame_rate_has_the_frames_and_times_of_its_container(
    brightness_scorer, shared_folder
):
    paths = sorted((shared_folder / "data/gmdcsa24").rglob("*.mp4"))
    assert len(paths) == 23
    for path in paths[::6]:  # the whole set takes a minute; see test_video.py for the rest
        rows, _ = csv_rows(path, brightness_scorer)
        times = presented_times(path)
        assert [int(row["frame"]) for row in rows] == list(range(len(times)))
        found = [float(row["time_seconds"]) for row in rows]
        np.testing.assert_allclose(found, times, atol=5.1e-4, err_msg=path.name)


@pytest.mark.real
@pytest.mark.slow
def test_all_real_videos_of_varying_frame_rate_do(brightness_scorer, shared_folder):
    for path in sorted((shared_folder / "data/gmdcsa24").rglob("*.mp4")):
        rows, _ = csv_rows(path, brightness_scorer)
        times = presented_times(path)
        assert len(rows) == len(times), path.name
        found = [float(row["time_seconds"]) for row in rows]
        np.testing.assert_allclose(found, times, atol=5.1e-4, err_msg=path.name)


@pytest.fixture
def weights(tmp_path):
    """Untrained weights of every network, which take no time to make."""
    save_file(InceptionI3D(3).state_dict(), tmp_path / "rgb.safetensors")
    save_file(InceptionI3D(2).state_dict(), tmp_path / "flow.safetensors")
    save_file(ResNetI3D().state_dict(), tmp_path / "r50.safetensors")
    torch.save(raft_small(weights=None).state_dict(), tmp_path / "raft.pth")
    return tmp_path


@pytest.mark.parametrize(
    ("extractor", "weights_name", "flow", "flow_weights", "tail_policy"),
    [
        ("i3d", ".", "raft", "raft.pth", DROP_TAIL),
        ("i3d_r50", "r50.safetensors", None, None, REPEAT_LAST_FRAME),
    ],
)
def test_the_extractor_of_a_run_is_built_again_from_its_provenance(
    weights, extractor, weights_name, flow, flow_weights, tail_policy
):
    places = {
        "weights": str(weights / weights_name),
        "flow_weights": flow_weights and str(weights / flow_weights),
    }
    choice = ExtractorChoice(extractor, flow or "none", 10, tail_policy=tail_policy, **places)
    built = choice.build(CPU)
    paths = {name: place and Path(place) for name, place in places.items()}
    again = extractor_of_run(built.provenance(), device=CPU, **paths)
    assert again.provenance() == built.provenance()
    assert again.tail_policy == tail_policy


def test_progress_has_the_frames_per_second(brightness_scorer, counting_clip, monkeypatch):
    times = itertools.chain([100.0], itertools.repeat(110.0))
    monkeypatch.setattr("pipeline.scoring.scorer.monotonic", lambda: next(times))
    _, reports = csv_rows(counting_clip, brightness_scorer)
    assert [report.detail for report in reports[:3]] == [
        "1.6 frames/s",
        "3.2 frames/s",
        "4.0 frames/s",
    ]
