"""The distance of features from those of the training: its value, its limit, and its warning."""

import json

import numpy as np
import pytest
import torch

from models.layers import Standardize
from pipeline.runs.checkpoints import CheckpointError
from pipeline.runs.feature_distance import (
    MAX_DEVIATIONS,
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


def videos(rng, n_videos, shift=0.0, *, n_factors=0):
    """Videos of 20 snippets, each with a scene of its own: snippets of a video are alike.

    With factors the features of a snippet vary together, and the scenes hardly differ: the distance
    of a video varies much less than that of its snippets.
    """
    scenes, noise = rng.normal(size=(n_videos, 1, DIM)), rng.normal(size=(n_videos, 20, DIM))
    if not n_factors:
        return scenes + 0.5 * noise + shift
    factors = np.random.default_rng(0).normal(size=(n_factors, DIM))
    return 0.1 * scenes + noise[..., :n_factors] @ factors + shift


def distances_of(norm, of_videos):
    """The mean over crops is that over snippets."""
    each = [snippet_distance(norm, {"rgb": video.astype("float32")}) for video in of_videos]
    return np.array(each)


def limit_of(of_videos):
    n_videos, n_snippets, _ = of_videos.shape
    return distance_limit(
        torch.from_numpy(of_videos.reshape(-1, DIM)).float(),
        np.repeat(np.arange(n_videos), n_snippets),
    )


@pytest.mark.parametrize(
    ("n_videos", "n_factors", "power"),
    [(8, 0, 0.5), (20, 0, 0.9), (200, 0, 0.95), (20, 2, 0.9), (200, 2, 0.95)],
)
def test_a_video_in_a_hundred_is_far_and_most_that_are_shifted_by_a_deviation(
    n_videos, n_factors, power
):
    n_far = n_shifted_far = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        training = videos(rng, n_videos, n_factors=n_factors)
        norm = fitted(torch.from_numpy(training.reshape(-1, DIM)).float())
        limit = limit_of(training)
        n_far += (distances_of(norm, videos(rng, 50, n_factors=n_factors)) > limit).sum()
        one = training.std(axis=(0, 1)).mean()  # one standard deviation of every feature
        n_shifted_far += (
            distances_of(norm, videos(rng, 50, one, n_factors=n_factors)) > limit
        ).sum()
        assert min(distances_of(norm, videos(rng, 50, shift=3.0, n_factors=n_factors))) > limit
    assert 0.002 <= n_far / 1000 <= 0.025
    assert n_shifted_far / 1000 >= power


def test_two_training_videos_exclude_no_third_one():
    limits = [limit_of(videos(np.random.default_rng(seed), 2)) for seed in range(5)]
    assert max(limits) <= MAX_DEVIATIONS
    assert limit_of(np.stack([np.zeros((3, DIM)), np.full((3, DIM), 9.0)])) == MAX_DEVIATIONS
    with pytest.raises(ValueError, match="videos must be at least 2, instead got 1"):
        limit_of(np.zeros((1, 3, DIM)))


def test_videos_that_are_numbered_with_gaps_have_the_same_limit():
    training = videos(np.random.default_rng(0), 5)
    snippets = torch.from_numpy(training.reshape(-1, DIM)).float()
    gaps = np.repeat(np.array([3, 4, 9, 11, 40]), training.shape[1])
    assert distance_limit(snippets, gaps) == limit_of(training)


def write_training(run, content):
    run.folder.mkdir(exist_ok=True)
    run.training_path.write_text(content)


def test_the_limit_is_read_from_the_run_and_may_be_missing(tmp_path):
    run = Run(tmp_path / "run")
    assert read_distance_limit(run) is None
    write_training(run, json.dumps({"n_normal": 3}))
    assert read_distance_limit(run) is None
    write_training(run, json.dumps({"max_video_distance": 1.25}))
    assert read_distance_limit(run) == 1.25


def test_the_limit_of_an_older_run_is_read(tmp_path):
    run = Run(tmp_path / "run")
    write_training(run, json.dumps({"max_feature_distance": 1.5}))
    assert read_distance_limit(run) == 1.5


@pytest.mark.parametrize("content", ["{", "[]", '{"max_video_distance": "far"}', "NaN"])
def test_a_damaged_limit_is_one_line_that_names_the_file(tmp_path, content):
    run = Run(tmp_path / "run")
    write_training(run, content)
    with pytest.raises(CheckpointError, match=r"training\.json: is damaged .*; remove it"):
        read_distance_limit(run)


@pytest.mark.parametrize(
    ("distance", "limits", "known"),
    [
        (2.0, (1.5, None), "trained on (distance 2.00, limit 1.50)"),
        (2.0, (None, 1.5), "calibrated on (distance 2.00, limit 1.50)"),
        (2.0, (1.5, 1.9), "trained and calibrated on (distance 2.00, limit 1.90)"),
        (2.0, (1.5, 2.5), ""),  # as far as the calibration's videos
        (1.5, (1.5, None), ""),
        (2.0, (None, None), ""),
        (2.0, (), ""),
        (None, (1.5, None), ""),
    ],
)
def test_a_video_is_far_if_it_is_beyond_training_and_calibration(distance, limits, known):
    text = describe_distance(distance, limits)
    assert bool(text) == bool(known)
    if known:
        assert f"unlike those that the run was {known}: its scores may" in text
