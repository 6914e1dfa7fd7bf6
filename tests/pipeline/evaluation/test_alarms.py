"""Alarm metrics: events against anomalies, counted by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from pipeline.evaluation.alarms import EventCounts, ScoredVideo, alarm_metrics, count_events
from pipeline.scoring.events import EventRule


def array(*scores: float) -> np.ndarray:
    return np.array(scores, dtype=np.float32)


def flags(text: str) -> np.ndarray:
    return np.array([letter == "x" for letter in text])


@pytest.mark.parametrize(
    ("events", "labels", "expected"),
    [
        # begins two frames late; the other anomaly is missed
        ([(4, 8)], "..xxxx..xx", EventCounts(1, 1, 2, (1.0,))),
        # began before the anomaly: no delay; half of it is anomalous, which is enough
        ([(0, 4)], "..xxxx", EventCounts(1, 1, 1, (0.0,))),
        # less than half is anomalous: not right, so nothing is found
        ([(0, 6)], "....xx", EventCounts(1, 0, 1, ())),
        # one event finds two anomalies
        ([(0, 5)], "xx.xx", EventCounts(1, 1, 2, (0.0, 0.0))),
        # two events in one anomaly: the first decides the delay
        ([(2, 3), (4, 5)], ".xxxxx", EventCounts(2, 2, 1, (0.5,))),
        # touching is not sharing a frame
        ([(0, 2)], "xx" + ".." + "xx", EventCounts(1, 1, 2, (0.0,))),
        ([], "xx", EventCounts(0, 0, 1, ())),
        ([(0, 2)], "..", EventCounts(1, 0, 0, ())),
    ],
)
def test_events_are_matched_with_anomalies_by_the_stated_rule(events, labels, expected):
    marks = flags(labels)
    assert count_events(events, marks, np.arange(len(marks)) / 2) == expected


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
    assert metrics.false_alarm_fraction == pytest.approx(3 / 10)
    assert metrics.false_alarms_per_hour == pytest.approx(2 / (10 / 60))
    assert metrics.event_precision == pytest.approx(1 / 3)
    assert metrics.event_recall == pytest.approx(1 / 2)
    assert metrics.delay_seconds == pytest.approx(2)


def test_where_there_is_nothing_to_count_there_is_no_figure():
    metrics = alarm_metrics([video([0, 0], "xx", abnormal=True)], EventRule())
    assert math.isnan(metrics.false_alarm_fraction)
    assert math.isnan(metrics.false_alarms_per_hour)
    assert math.isnan(metrics.event_precision)
    assert metrics.event_recall == 0
    assert math.isnan(metrics.delay_seconds)


def test_without_times_only_frames_are_counted():
    timed = video([0.9, 0.1], "..", abnormal=False)
    untimed = replace(timed, timestamps=np.full(2, math.nan), duration_seconds=math.nan)
    abnormal = video([0, 0.9], ".x", abnormal=True)
    metrics = alarm_metrics([timed, untimed, abnormal], EventRule())
    assert metrics.false_alarm_fraction == pytest.approx(2 / 4)
    rest = (metrics.false_alarms_per_hour, metrics.event_precision, metrics.event_recall)
    assert all(map(math.isnan, (*rest, metrics.delay_seconds)))
