"""The curve of a report: runs of equal scores, and no peak lost where runs are left out."""

import base64

import numpy as np
import pytest

from pipeline.reports.curve import make_curve
from pipeline.scoring.frame_scores import Scores


def one_score_per_frame(per_frame, fps=10):
    return Scores(np.asarray(per_frame, np.float32), 1, np.arange(len(per_frame)) / fps)


def test_frames_with_the_same_score_are_one_run():
    curve = make_curve(Scores(np.array([0.1, 0.1, 0.9], np.float32), 4, np.arange(11) / 2))
    assert curve.frames.tolist() == [0, 8]
    assert curve.starts.tolist() == [0.0, 4.0]
    assert curve.lasts.tolist() == [3.5, 5.0]
    np.testing.assert_array_equal(curve.scores, np.array([0.1, 0.9], np.float32))
    assert (curve.n_frames, curve.end_seconds, curve.is_reduced) == (11, 5.5, False)


def test_the_true_times_of_a_variable_frame_rate_are_kept():
    times = np.array([0.04, 0.1, 0.9, 1.0, 3.0])
    curve = make_curve(Scores(np.array([0.2, 0.8, 0.4], np.float32), 2, times))
    assert curve.starts.tolist() == [0.04, 0.9, 3.0]
    assert curve.lasts.tolist() == [0.1, 1.0, 3.0]


@pytest.mark.parametrize("n_frames", [1000, 1001, 1999])
def test_a_long_curve_is_reduced_without_losing_a_peak(n_frames):
    rng = np.random.default_rng(n_frames)
    per_frame = rng.uniform(0.2, 0.4, n_frames).astype(np.float32)
    peaks = rng.choice(n_frames // 50, 5, replace=False) * 50 + 7  # in different stretches
    per_frame[peaks] = 0.9, 0.8, 0.95, 0.7, 0.85
    curve = make_curve(one_score_per_frame(per_frame), max_runs=100)
    assert curve.is_reduced
    assert len(curve.frames) <= 101  # the first frame is kept as well
    assert curve.frames[0] == 0
    assert set(peaks.tolist()) <= set(curve.frames.tolist())
    kept = curve.frames[1:]
    np.testing.assert_array_equal(curve.scores[1:], per_frame[kept])
    assert per_frame.min() in curve.scores


def test_every_stretch_of_a_reduced_curve_reaches_its_highest_score():
    per_frame = np.random.default_rng(3).random(900).astype(np.float32)
    curve = make_curve(one_score_per_frame(per_frame), max_runs=60)
    for start in range(0, 900, 30):
        inside = (curve.frames >= start) & (curve.frames < start + 30)
        assert curve.scores[inside].max() == per_frame[start : start + 30].max()


def test_runs_of_a_reduced_curve_cover_the_video_without_gaps():
    per_frame = np.random.default_rng(4).random(500).astype(np.float32)
    curve = make_curve(one_score_per_frame(per_frame), max_runs=20)
    assert (np.diff(curve.frames) > 0).all()
    np.testing.assert_allclose(curve.lasts[:-1], curve.starts[1:] - 0.1)
    assert curve.lasts[-1] == 49.9


def test_a_curve_of_two_runs_is_the_shortest_that_can_be_asked_for():
    with pytest.raises(ValueError, match="max_runs must be at least 2, instead got 1"):
        make_curve(one_score_per_frame([0, 1, 0]), max_runs=1)


def test_the_arrays_are_stored_as_little_endian_bytes():
    stored = make_curve(one_score_per_frame([0, 0.5])).to_json()
    assert base64.b64decode(stored["scores"]) == np.array([0, 0.5], "<f4").tobytes()
    assert base64.b64decode(stored["starts"]) == np.array([0, 0.1], "<f8").tobytes()
    assert base64.b64decode(stored["frames"]) == np.array([0, 1], "<u4").tobytes()


def test_scores_without_a_part_of_the_model_follow_the_runs_of_the_curve():
    without = {"motion": np.array([0.1, 0.2, 0.3], np.float32)}
    scores = Scores(np.array([0, 1, 0.5], np.float32), 2, np.arange(5) / 10, without=without)
    curve = make_curve(scores)
    assert curve.frames.tolist() == [0, 2, 4]
    assert curve.without["motion"].tolist() == without["motion"].tolist()
    stored = curve.to_json()["without"]
    assert base64.b64decode(stored["motion"]) == without["motion"].astype("<f4").tobytes()
