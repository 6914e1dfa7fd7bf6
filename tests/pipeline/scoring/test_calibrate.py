"""Calibration: the threshold by brute force, the bound by simulation, and the stored file."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline.runs.checkpoints import CheckpointError
from pipeline.runs.run_folder import Run
from pipeline.runs.seeds import seeds_of
from pipeline.scoring.calibrate import CalibrationError, calibrate, choose_threshold
from pipeline.scoring.calibration import (
    Calibration,
    calibration_path,
    read_calibration,
    read_rule,
    write_calibration,
)
from pipeline.scoring.events import EventRule, find_events, frame_ends
from pipeline.scoring.frame_scores import Scores

SECONDS_PER_SNIPPET = 10.0


def make_scores(per_snippet):
    """A video whose snippets are one frame of ten seconds each."""
    n = len(per_snippet)
    return Scores(np.array(per_snippet, np.float32), 1, np.arange(n) * SECONDS_PER_SNIPPET)


def n_events(videos, threshold, rule):
    tried = EventRule(threshold, rule.merge_seconds, rule.min_seconds)
    return sum(len(find_events(video.per_frame, video.timestamps, tried)) for video in videos)


def seconds_in_alarm(videos, threshold, rule):
    tried = EventRule(threshold, rule.merge_seconds, rule.min_seconds)
    return sum(
        frame_ends(video.timestamps)[stop - 1] - video.timestamps[start]
        for video in videos
        for start, stop in find_events(video.per_frame, video.timestamps, tried)
    )


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("rule", [EventRule(), EventRule(merge_seconds=25, min_seconds=35)])
@pytest.mark.parametrize("rate", [1, 4, 12])
@pytest.mark.parametrize("floor", [0.0, 0.6], ids=["varied", "flat"])
def test_the_threshold_is_the_lowest_with_few_enough_events_there_and_above(
    seed, rule, rate, floor
):
    rng = np.random.default_rng(seed)
    smooth = floor + (1 - floor) * np.convolve(rng.random(800), np.ones(4) / 4, mode="valid")
    videos = [make_scores(smooth[:500].round(2)), make_scores(smooth[500:].round(2))]
    n_seconds = sum(video.n_frames for video in videos) * SECONDS_PER_SNIPPET
    found = choose_threshold(videos, rate, rule)
    allowed = int(rate * n_seconds / 3600)
    longest = min(60 * allowed, n_seconds / 10)
    grid = np.arange(1, 2001) / 2000  # finer than the scores, which have two decimals
    too_many = [
        t
        for t in map(float, grid)
        if n_events(videos, t, rule) > allowed or seconds_in_alarm(videos, t, rule) > longest
    ]
    assert max(too_many) < found.threshold <= max(too_many) + 1e-3
    assert found.n_events == n_events(videos, found.threshold, rule) <= allowed
    in_alarm = seconds_in_alarm(videos, found.threshold, rule)
    assert found.alarm_fraction == pytest.approx(in_alarm / n_seconds)
    assert found.n_hours == pytest.approx(n_seconds / 3600)
    assert (found.n_videos, found.stride) == (2, 1)


def test_a_score_that_float32_rounds_down_does_not_reach_the_threshold():
    # 0.7 as a float32 is below 0.7, and 0.7 as a threshold is rounded to the same float32.
    found = choose_threshold([make_scores([0.1, 0.7, 0.1])], 1, EventRule())
    assert found.threshold == pytest.approx(0.700001)
    assert found.n_events == 0


@pytest.mark.parametrize("n_allowed", [0, 1, 5])
def test_the_bound_holds_in_95_of_100_calibrations(n_allowed):
    """Alarms are rare and independent, with uniform peaks: 9 (1 - t) an hour are above t."""
    rng = np.random.default_rng(n_allowed)
    n_hours, n_alarms_per_hour, n_held = 10.0, 9, 0
    n_places = int(n_hours * 3600 / SECONDS_PER_SNIPPET) // 2  # with a snippet of silence between
    for _ in range(400):
        is_alarm = rng.random(n_places) < n_hours * n_alarms_per_hour / n_places
        per_snippet = np.zeros(2 * n_places)
        per_snippet[::2] = is_alarm * rng.random(n_places)
        # The rate that is asked for allows just so many events.
        rate = (n_allowed + 0.5) / n_hours
        found = choose_threshold([make_scores(per_snippet)], rate, EventRule(merge_seconds=0))
        true_rate = n_alarms_per_hour * (1 - found.threshold)
        n_held += true_rate <= found.max_false_alarms_per_hour
    assert 0.95 - 0.022 <= n_held / 400 <= 0.95 + 0.022  # two standard deviations of a binomial


def test_the_bound_without_false_alarms_is_the_rule_of_three():
    found = choose_threshold([make_scores([0.2] * 720)], 0.4, EventRule())  # two hours
    assert found.max_false_alarms_per_hour == pytest.approx(3.0 / 2, rel=2e-3)
    assert "0 false alarms in 2.00 hours of 1 normal videos" in found.describe()
    assert "at most 1.5 per hour with 95% confidence" in found.describe()


@pytest.mark.parametrize(
    ("n_frames", "footage", "bound"),
    [(2, "20.0 seconds", "at most 539 per hour"), (60, "10.0 minutes", "at most 18 per hour")],
)
def test_little_footage_is_told_in_seconds_or_minutes(n_frames, footage, bound):
    found = choose_threshold([make_scores([0.2] * n_frames)], 0.4, EventRule())
    assert f"0 false alarms in {footage} of 1 normal videos" in found.describe()
    assert bound in found.describe()


@pytest.mark.parametrize("rate", [1, 5, 60, 1000])
def test_flat_footage_gets_no_threshold_at_which_the_alarm_never_ends(rate):
    """Above 0.8 of the highest score everywhere: an alarm that has begun goes on to the end."""
    rng = np.random.default_rng(rate)
    footage = make_scores(rng.uniform(0.42, 0.5, 720))  # two hours
    found = choose_threshold([footage], rate, EventRule())
    n_seconds = seconds_in_alarm([footage], found.threshold, EventRule())
    assert n_seconds <= min(2 * rate * 60, 720)
    assert found.alarm_fraction == pytest.approx(n_seconds / 7200)
    assert found.threshold > 0.48
    assert f"in alarm {n_seconds / 7200:.2%} of the time" in found.describe()


@pytest.mark.parametrize("rate", [0.4, 1, 1000])
def test_constant_footage_gets_a_threshold_above_its_score(rate):
    found = choose_threshold([make_scores([0.2] * 720)], rate, EventRule())
    assert found.threshold == pytest.approx(0.200001)
    assert (found.n_events, found.alarm_fraction) == (0, 0)


def test_a_long_alarm_takes_the_time_of_as_many_alarms_of_a_minute():
    per_snippet = np.full(720, 0.1)
    per_snippet[100:136] = 0.7  # six minutes
    per_snippet[300] = 0.9  # ten seconds
    # In two hours 3 per hour allow 6 events, together six minutes; 4 allow eight.
    at_three, at_four = (
        choose_threshold([make_scores(per_snippet)], rate, EventRule()) for rate in (3, 4)
    )
    assert at_three.threshold == pytest.approx(0.700001)
    assert at_four.threshold == pytest.approx(0.125001)  # 0.8 of it is above the other scores
    assert (at_three.n_events, at_four.n_events) == (1, 2)


@pytest.mark.parametrize("top", [0.7, 1.0])
def test_footage_that_excludes_no_threshold_gets_one_that_its_scores_hardly_reach(top):
    per_snippet = np.zeros(720)
    per_snippet[[100, 300]] = 0.3, top
    found = choose_threshold([make_scores(per_snippet)], 5, EventRule())
    assert found.threshold == pytest.approx(min(top + 1e-6, 1))
    assert found.n_events == (top == 1)


def test_footage_whose_alarms_have_a_score_of_1_is_refused():
    with pytest.raises(CalibrationError, match="have a score of 1; no threshold gives fewer"):
        choose_threshold([make_scores([0, 1, 0, 0, 1, 0])], 1, EventRule())


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(ValueError, match="false_alarms_per_hour must be above 0"):
        choose_threshold([make_scores([0.5] * 9)], rate, EventRule())


def test_normal_videos_that_cannot_be_read_do_not_count(brightness_scorer, counting_clip, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    found, failures = calibrate(
        brightness_scorer, [bad, counting_clip], false_alarms_per_hour=1, stride=8
    )
    assert [failure.video for failure in failures] == [bad]
    assert (found.n_videos, found.stride) == (1, 8)
    assert found.n_hours == pytest.approx(40 / 25 / 3600)
    of_video = brightness_scorer.score(counting_clip, stride=8).feature_distance
    assert found.max_feature_distance == of_video > 0
    with pytest.raises(CalibrationError, match=r"no normal video could be scored; .*bad\.mp4"):
        calibrate(brightness_scorer, [bad], false_alarms_per_hour=1)


CALIBRATION = Calibration(0.625, 2.0, 0.5, 8, 0.5, 3, 12.5, 6, 0.9, 0.95, 0.0, 0.002)


def test_a_calibration_is_stored_with_its_run(tmp_path):
    run = Run(tmp_path)
    assert read_calibration(seeds_of(run)) is None
    write_calibration(seeds_of(run), CALIBRATION)
    assert read_calibration(seeds_of(run)) == CALIBRATION
    assert CALIBRATION.rule == EventRule(0.625, 2.0, 0.5)


def test_what_a_calibration_says_depends_on_the_stride_and_on_whether_the_source_is_live():
    first, bound = CALIBRATION.describe().splitlines()
    assert CALIBRATION.notices(8) == [f"calibrated {first}", bound]
    other_stride = "it was calibrated with stride 8, this is 16: expect another rate of events"
    assert CALIBRATION.notices(16)[2:] == [other_stride]
    live = "it was calibrated with whole videos: expect another rate of events live"
    assert CALIBRATION.notices(16, is_live=True) == [f"calibrated {first}", live, other_stride]


def test_a_given_threshold_stands_for_the_whole_calibration(tmp_path):
    seeds = seeds_of(Run(tmp_path))
    assert read_rule(seeds, min_seconds=3) == (EventRule(min_seconds=3), None)
    write_calibration(seeds, CALIBRATION)
    assert read_rule(seeds) == (CALIBRATION.rule, CALIBRATION)
    assert read_rule(seeds, min_seconds=3) == (EventRule(0.625, 2.0, 3), CALIBRATION)
    assert read_rule(seeds, threshold=0.75) == (EventRule(0.75), None)


def test_a_calibration_from_before_distances_and_times_were_stored_is_read(tmp_path):
    run = Run(tmp_path)
    write_calibration(seeds_of(run), CALIBRATION)
    values = json.loads(calibration_path(seeds_of(run)).read_text())
    del values["max_feature_distance"], values["alarm_fraction"]
    calibration_path(seeds_of(run)).write_text(json.dumps(values))
    old = read_calibration(seeds_of(run))
    assert old == replace(CALIBRATION, alarm_fraction=None)
    assert "in alarm" not in old.describe()
    assert "in alarm 0.20% of the time" in CALIBRATION.describe()
    assert CALIBRATION.max_feature_distance == 0


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 0},
        {"threshold": "high"},
        {"n_hours": None},
        {"alarm_fraction": "often"},
        {"merge_seconds": float("nan")},
        {"format": "other"},
        {"format_version": 99},
    ],
)
def test_a_damaged_calibration_is_named(tmp_path, change):
    run = Run(tmp_path)
    write_calibration(seeds_of(run), CALIBRATION)
    values = json.loads(calibration_path(seeds_of(run)).read_text())
    calibration_path(seeds_of(run)).write_text(json.dumps(values | change))
    with pytest.raises(CheckpointError, match=r"calibration\.json: is not a calibration"):
        read_calibration(seeds_of(run))


@pytest.mark.parametrize("content", ["{", "[]", "[" * 10**5, "{}"])
def test_what_is_no_calibration_is_named(tmp_path, content):
    calibration_path(seeds_of(Run(tmp_path))).write_text(content)
    with pytest.raises(CheckpointError, match=r"calibration\.json: is not a calibration"):
        read_calibration(seeds_of(Run(tmp_path)))
