"""The distance of features from those of the training: its value, its limit, and its warning."""

import json

import numpy as np
import pytest
import torch

from models.layers import Standardize
from pipeline.runs.checkpoints import CheckpointError
from pipeline.runs.feature_distance import (
    describe_distance,
    distance_limit,
    read_distance_limit,
    snippet_distance,
    video_distance,
)
from pipeline.runs.run_folder import Run

DIM = 50


def fitted(snippets):
    norm = Standardize(snippets.shape[1])
    norm.fit(snippets)
    return norm


def test_the_distance_is_the_mean_deviation_over_features_and_crops():
    norm = Standardize(3)
    norm.mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm.std.copy_(torch.tensor([1.0, 0.5, 2.0]))
    rgb, flow = np.array([[2, 2], [0, 3]], "float32"), np.array([[3], [5]], "float32")
    # By crop: 1, 0 and 0 deviations; 1, 2 and 1.
    assert snippet_distance(norm, {"rgb": rgb, "flow": flow}) == pytest.approx((1 / 3 + 4 / 3) / 2)


def test_the_distance_of_a_video_is_the_mean_over_its_snippets_and_crops():
    rng = np.random.default_rng(3)
    norm = fitted(torch.from_numpy(rng.normal(2, 3, size=(40, 5))).float())
    rgb = rng.normal(2, 6, size=(7, 2, 3)).astype("float32")
    flow = rng.normal(2, 6, size=(7, 2, 2)).astype("float32")
    together = np.concatenate([rgb, flow], axis=2)
    deviations = np.abs(together - norm.mean.numpy()) / norm.std.numpy()
    expected = np.minimum(deviations, 5).mean()
    assert deviations.max() > 5
    assert video_distance(norm, {"rgb": rgb, "flow": flow}) == pytest.approx(expected, rel=1e-5)


def test_a_single_feature_that_hardly_varied_in_training_does_not_decide():
    norm = Standardize(DIM)
    norm.std[0] = 1e-6
    snippet = np.zeros((1, DIM), np.float32)
    snippet[0, 0] = 100
    assert snippet_distance(norm, {"rgb": snippet}) == pytest.approx(5 / DIM)


def videos(rng, n_videos, shift=0.0):
    """Videos of 20 snippets, each with a scene of its own: snippets of a video are alike."""
    scenes = rng.normal(size=(n_videos, 1, DIM))
    return scenes + 0.5 * rng.normal(size=(n_videos, 20, DIM)) + shift


def distances_of(norm, of_videos):
    return [
        np.mean([snippet_distance(norm, {"rgb": s[None].astype("float32")}) for s in video])
        for video in of_videos
    ]


def test_no_video_of_the_training_distribution_is_far_and_shifted_ones_are():
    rng = np.random.default_rng(0)
    training = torch.from_numpy(videos(rng, 40).reshape(-1, DIM)).float()
    norm = fitted(training)
    limit = distance_limit(norm, training)
    assert max(distances_of(norm, videos(rng, 200))) <= limit
    assert min(distances_of(norm, videos(rng, 200, shift=3.0))) > limit


def test_the_limit_is_exceeded_by_one_training_snippet_in_a_hundred(monkeypatch):
    snippets = torch.randn(5000, DIM, generator=torch.Generator().manual_seed(0))
    norm = fitted(snippets)
    limit = distance_limit(norm, snippets)
    each = [snippet_distance(norm, {"rgb": snippet[None].numpy()}) for snippet in snippets]
    assert np.mean(np.array(each) > limit) == pytest.approx(0.01, abs=1e-3)
    assert distance_limit(norm, snippets.half()) == pytest.approx(limit, rel=1e-3)


def write_training(run, content):
    run.folder.mkdir(exist_ok=True)
    run.training_path.write_text(content)


def test_the_limit_is_read_from_the_run_and_may_be_missing(tmp_path):
    run = Run(tmp_path / "run")
    assert read_distance_limit(run) is None
    write_training(run, json.dumps({"n_normal": 3}))
    assert read_distance_limit(run) is None
    write_training(run, json.dumps({"max_feature_distance": 1.25}))
    assert read_distance_limit(run) == 1.25


@pytest.mark.parametrize("content", ["{", "[]", '{"max_feature_distance": "far"}', "NaN"])
def test_a_damaged_limit_is_one_line_that_names_the_file(tmp_path, content):
    run = Run(tmp_path / "run")
    write_training(run, content)
    with pytest.raises(CheckpointError, match=r"training\.json: is damaged .*; remove it"):
        read_distance_limit(run)


@pytest.mark.parametrize(
    ("distance", "limits", "is_far"),
    [
        (2.0, (1.5, None), True),
        (2.0, (1.5, 1.9), True),
        (2.0, (1.5, 2.5), False),  # as far as the calibration's videos
        (1.5, (1.5, None), False),
        (2.0, (None, None), False),
        (None, (1.5, None), False),
    ],
)
def test_a_video_is_far_if_it_is_beyond_training_and_calibration(distance, limits, is_far):
    text = describe_distance(distance, limits)
    assert bool(text) == is_far
    if is_far:
        assert "unlike those that the run was trained and calibrated on (distance 2.00" in text
