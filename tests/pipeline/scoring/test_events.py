"""Events and what is counted about them, by hand and against a frame-by-frame loop."""

import math

import numpy as np
import pytest

from pipeline.scoring.events import (
    EventRule,
    EventTally,
    ScoredVideo,
    alarm_metrics,
    find_events,
    tally_events,
    true_runs,
)


def array(*scores: float) -> np.ndarray:
    return np.array(scores, dtype=np.float32)


def flags(text: str) -> np.ndarray:
    return np.array([letter == "x" for letter in text])


def events_frame_by_frame(scores, times, threshold, release, merge_seconds):
    """What a live system would do: one frame at a time, never looking ahead."""
    events, is_on = [], False
    for frame, score in enumerate(scores):
        if not is_on and score >= threshold:
            if events and times[frame] - times[events[-1][1] - 1] <= merge_seconds:
                begin = events.pop()[0]
            else:
                begin = frame
            events.append((begin, frame + 1))
            is_on = True
        elif is_on and score >= release:
            events[-1] = (events[-1][0], frame + 1)
        else:
            is_on = False
    return tuple(events)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("merge_seconds", [0.0, 0.5, 3.0])
def test_events_are_those_of_a_loop_over_frames(seed, merge_seconds):
    rng = np.random.default_rng(seed)
    scores = np.convolve(rng.random(200), np.ones(3) / 3, mode="same").astype(np.float32)
    times = np.cumsum(rng.choice([0.1, 0.2, 0.9], size=200))
    rule = EventRule(threshold=0.6, merge_seconds=merge_seconds)
    expected = events_frame_by_frame(scores, times, 0.6, 0.48, merge_seconds)
    assert find_events(scores, times, rule) == expected
    assert expected


def test_a_score_that_trembles_about_the_threshold_is_one_event():
    scores = array(0, 0.45, 0.5, 0.45, 0.5, 0.41, 0.39, 0)
    assert find_events(scores, np.arange(8.0) * 10, EventRule()) == ((2, 6),)


def test_events_a_moment_apart_are_one():
    scores = array(0.9, 0.1, 0.1, 0.9, 0.1, 0.9)
    times = np.array([0, 1, 2, 3, 4, 5]) / 2
    assert find_events(scores, times, EventRule(merge_seconds=1)) == ((0, 1), (3, 6))
    assert find_events(scores, times, EventRule(merge_seconds=1.5)) == ((0, 6),)


def test_no_score_reaching_the_threshold_is_no_event():
    assert find_events(array(0.49, 0.45), np.arange(2.0), EventRule()) == ()


def test_runs_touch_both_ends():
    assert true_runs(flags("xx.x..xx")) == [(0, 2), (3, 4), (6, 8)]
    assert true_runs(flags("...")) == []


@pytest.mark.parametrize(
    ("events", "labels", "expected"),
    [
        # begins two frames late; the other anomaly is missed
        ([(4, 8)], "..xxxx..xx", EventTally(1, 1, 2, (1.0,))),
        # began before the anomaly: no delay; half of it is anomalous, which is enough
        ([(0, 4)], "..xxxx", EventTally(1, 1, 1, (0.0,))),
        # less than half is anomalous: not right, so nothing is found
        ([(0, 6)], "....xx", EventTally(1, 0, 1, ())),
        # one event finds two anomalies
        ([(0, 5)], "xx.xx", EventTally(1, 1, 2, (0.0, 0.0))),
        # two events in one anomaly: the first decides the delay
        ([(2, 3), (4, 5)], ".xxxxx", EventTally(2, 2, 1, (0.5,))),
        # touching is not sharing a frame
        ([(0, 2)], "xx" + ".." + "xx", EventTally(1, 1, 2, (0.0,))),
        ([], "xx", EventTally(0, 0, 1, ())),
        ([(0, 2)], "..", EventTally(1, 0, 0, ())),
    ],
)
def test_events_are_matched_with_anomalies_by_the_stated_rule(events, labels, expected):
    marks = flags(labels)
    assert tally_events(events, marks, np.arange(len(marks)) / 2) == expected


def video(scores, labels, *, abnormal, seconds_per_frame=1.0):
    return ScoredVideo(
        scores=array(*scores),
        labels=flags(labels),
        timestamps=np.arange(len(labels)) * seconds_per_frame,
        duration_seconds=len(labels) * seconds_per_frame,
        is_abnormal=abnormal,
    )


def test_alarms_are_counted_over_the_test_set():
    videos = [
        # 10 frames of a minute each: two events, three frames at or above the threshold
        video(
            [0.5, 0.9, 0, 0, 0, 0.7, 0.45, 0, 0, 0],
            "." * 10,
            abnormal=False,
            seconds_per_frame=60,
        ),
        # one right event, 2 s late; one anomaly is missed
        video([0, 0, 0, 0.9, 0.9, 0, 0, 0, 0], ".xxxx..xx", abnormal=True),
    ]
    metrics = alarm_metrics(videos, EventRule())
    assert metrics.false_alarm_share == pytest.approx(3 / 10)
    assert metrics.false_alarms_per_hour == pytest.approx(2 / (10 / 60))
    assert metrics.event_precision == pytest.approx(1 / 3)
    assert metrics.event_recall == pytest.approx(1 / 2)
    assert metrics.delay_seconds == pytest.approx(2)


def test_where_there_is_nothing_to_count_there_is_no_figure():
    metrics = alarm_metrics([video([0, 0], "xx", abnormal=True)], EventRule())
    assert math.isnan(metrics.false_alarm_share)
    assert math.isnan(metrics.false_alarms_per_hour)
    assert math.isnan(metrics.event_precision)
    assert metrics.event_recall == 0
    assert math.isnan(metrics.delay_seconds)


@pytest.mark.parametrize("options", [{"threshold": 0}, {"threshold": 1.1}, {"merge_seconds": -1}])
def test_a_rule_out_of_range_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        EventRule(**options)
