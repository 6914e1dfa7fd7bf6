"""Events by the rule, by hand and against a frame-by-frame loop."""

import numpy as np
import pytest

from pipeline.scoring.events import (
    Event,
    EventRule,
    describe_events,
    find_events,
    frame_ends,
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


def test_all_events_may_be_merged_to_one():
    scores = array(0.1, 0.9, 0.1, 0.1, 0.9, 0.1)
    rule = EventRule(merge_seconds=float("inf"))
    assert find_events(scores, np.arange(6.0) * 1e6, rule) == ((1, 5),)


@pytest.mark.parametrize("min_seconds", [0.0, 1.0])
def test_frames_without_times_are_refused_instead_of_having_no_events(min_seconds):
    times = np.array([0.0, np.nan, np.nan])
    for find in (find_events, describe_events):
        with pytest.raises(ValueError, match="timestamps must be numbers, instead 2 of 3 are NaN"):
            find(array(0.9, 0.9, 0.9), times, EventRule(min_seconds=min_seconds))


def test_no_score_reaching_the_threshold_is_no_event():
    assert find_events(array(0.49, 0.45), np.arange(2.0), EventRule()) == ()


def test_runs_touch_both_ends():
    assert true_runs(flags("xx.x..xx")) == [(0, 2), (3, 4), (6, 8)]
    assert true_runs(flags("...")) == []


@pytest.mark.parametrize(
    "options", [{"threshold": 0}, {"threshold": 1.1}, {"merge_seconds": -1}, {"min_seconds": -1}]
)
def test_a_rule_out_of_range_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        EventRule(**options)


def test_a_minimum_length_drops_short_events_after_merging():
    scores = array(0.9, 0, 0.9, 0, 0, 0, 0, 0.9, 0.9, 0)
    times = np.arange(10) / 2  # a frame lasts half a second
    found = [
        find_events(scores, times, EventRule(merge_seconds=1, min_seconds=seconds))
        for seconds in (1, 1.5, 1.6)
    ]
    assert found == [((0, 3), (7, 9)), ((0, 3),), ()]


def test_an_event_has_frames_seconds_peak_and_mean():
    scores = array(0, 0.5, 0.9, 0.9, 0.5, 0.1)
    times = np.array([0, 1, 2, 4, 8, 16.0])
    (event,) = describe_events(scores, times, EventRule())
    assert (event.start_frame, event.stop_frame, event.peak_frame) == (1, 5, 2)
    assert (event.start_seconds, event.stop_seconds) == (1, 16)  # shown until the next frame is
    assert event.peak == pytest.approx(0.9)
    assert event.mean == pytest.approx(0.7)


def test_an_event_at_the_end_lasts_until_the_last_frame_has_been_shown():
    (event,) = describe_events(array(0, 0, 1), np.array([0, 2, 4.0]), EventRule())
    assert event == Event(2, 3, 4.0, 6.0, 1.0, 2, 1.0)
    assert frame_ends(np.array([3.0])).tolist() == [3.0]


def test_some_values_of_a_rule_are_replaced_and_checked():
    rule = EventRule(0.25, 2.0, 3.0)
    assert rule.with_values(threshold=None, min_seconds=0.0) == EventRule(0.25, 2.0, 0.0)
    with pytest.raises(ValueError, match="threshold"):
        rule.with_values(threshold=2.0)
