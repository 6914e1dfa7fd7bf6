"""Live events: the same as those of the whole video, told when they can be known."""

import numpy as np
import pytest

from extractors.decoding.live_messages import SnippetTimes
from pipeline.scoring.events import EventFinder, EventRule, describe_events, find_events
from pipeline.scoring.live_events import UPDATE_SECONDS, LiveEvents

FPS = 25.0


def times_of(snippet: int, n_frames: int = 16) -> SnippetTimes:
    frames = np.arange(16 * snippet, 16 * snippet + n_frames)
    return SnippetTimes(
        part=0,
        timestamps=frames / FPS,
        stop_seconds=(frames[-1] + 1) / FPS,
        received=1e9 + frames / FPS,
        due=0.0,
        has_following=True,
    )


def live_events(scores, rule, cause="source"):
    """What is told of a stretch, each with the number of snippets that were there."""
    told, n_there = [], 0
    events = LiveEvents("camera", rule, lambda event: told.append((n_there, event)))
    events.begin_stretch(1)
    for n_there, score in enumerate(scores, 1):
        events.add(float(score), times_of(n_there - 1))
    n_there += 1
    events.finish(cause)
    return told


def random_scores(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.convolve(rng.random(300), np.ones(3) / 3, mode="same").astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("merge", "least"), [(0.0, 0.0), (1.0, 0.0), (0.7, 1.5), (5.0, 3.0)])
def test_live_events_are_those_of_the_whole_video(seed, merge, least):
    scores, rule = random_scores(seed), EventRule(0.65, merge, least)
    expected = describe_events(np.repeat(scores, 16), np.arange(16 * len(scores)) / FPS, rule)
    ends = [event for _, event in live_events(scores, rule) if event.kind == "end"]
    assert len(ends) == len(expected) > 3
    for live, whole in zip(ends, expected, strict=True):
        assert live.start_seconds == pytest.approx(whole.start_seconds, abs=1e-3)
        assert live.stop_seconds == pytest.approx(whole.stop_seconds, abs=1e-3)
        assert live.peak == pytest.approx(whole.peak, abs=1e-6)
        assert live.peak_seconds == pytest.approx(whole.peak_frame / FPS, abs=1e-3)
        assert live.mean == pytest.approx(whole.mean, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_each_event_has_one_begin_then_updates_then_one_end(seed):
    told = [event for _, event in live_events(random_scores(seed), EventRule(0.5, 3.0, 1.0))]
    numbers = [event.event for event in told if event.kind == "begin"]
    assert numbers == list(range(1, len(numbers) + 1))
    for number in numbers:
        kinds = [event.kind for event in told if event.event == number]
        assert kinds == ["begin", *["update"] * (len(kinds) - 2), "end"]
    assert "update" in {event.kind for event in told}


def test_an_event_begins_with_its_first_snippet_and_ends_once_no_other_can_be_merged():
    scores = [0.1, 0.9, 0.45, 0.1, 0.1, 0.1, 0.1]
    told = live_events(scores, EventRule(0.5, merge_seconds=1.0))
    assert [(n, event.kind) for n, event in told] == [(2, "begin"), (5, "end")]
    begin, end = (event for _, event in told)
    assert (begin.start_seconds, begin.stop_seconds, begin.cause) == (0.64, 1.28, None)
    assert (end.start_seconds, end.stop_seconds, end.cause) == (0.64, 1.92, "score")
    assert (end.start_time, end.stop_time) == (
        "2001-09-09T01:46:40.640Z",
        "2001-09-09T01:46:41.880Z",
    )


def test_an_event_that_lasts_is_updated_every_few_seconds():
    told = live_events([0.9] * 40, EventRule(0.5))
    stops = [event.stop_seconds for _, event in told if event.kind == "update"]
    assert len(stops) == 4
    assert all(UPDATE_SECONDS <= step < UPDATE_SECONDS + 0.64 for step in np.diff(stops))


def test_an_event_that_is_too_short_is_never_told():
    assert live_events([0.1, 0.9, 0.1, 0.1, 0.1, 0.1], EventRule(0.5, 1.0, min_seconds=0.65)) == []


@pytest.mark.parametrize("cause", ["source", "stop"])
def test_an_open_event_ends_with_its_stretch_and_says_why(cause):
    told = live_events([0.1, 0.9], EventRule(0.5), cause)
    assert [(event.kind, event.cause) for _, event in told] == [("begin", None), ("end", cause)]


@pytest.mark.parametrize(
    ("n_dropped", "merge_seconds", "causes"),
    [(1, 1.0, ["stop"]), (2, 1.0, ["dropped", "stop"]), (1, 0.5, ["dropped", "stop"])],
)
def test_an_event_does_not_span_a_long_time_without_scores(n_dropped, merge_seconds, causes):
    told: list = []
    events = LiveEvents("camera", EventRule(0.5, merge_seconds), told.append)
    events.begin_stretch(1)
    for snippet in (0, 1, 2 + n_dropped, 3 + n_dropped):
        events.add(0.9, times_of(snippet))
    events.finish("stop")
    ends = [event for event in told if event.kind == "end"]
    assert [event.cause for event in ends] == causes
    assert ends[-1].stop_seconds == pytest.approx((4 + n_dropped) * 0.64)
    if len(causes) == 2:
        assert ends[0].stop_seconds == pytest.approx(2 * 0.64)
        assert ends[1].start_seconds == pytest.approx((2 + n_dropped) * 0.64)


def test_an_event_whose_score_has_fallen_did_not_end_with_the_source():
    told = live_events([0.9, 0.1], EventRule(0.5, merge_seconds=60.0))
    assert told[-1][1].cause == "score"


@pytest.mark.parametrize("seed", range(6))
def test_frames_that_come_in_parts_have_the_events_of_all_at_once(seed):
    rng = np.random.default_rng(seed)
    scores = np.convolve(rng.random(200), np.ones(3) / 3, mode="same").astype(np.float32)
    times = np.cumsum(rng.choice([0.1, 0.2, 0.9], size=200))
    rule = EventRule(threshold=0.6, merge_seconds=0.5)
    finder, found, at = EventFinder(rule), [], 0
    while at < 200:
        n = int(rng.integers(0, 9))
        found += finder.add(scores[at : at + n], times[at : at + n])
        at += n
        assert finder.n_frames == min(at, 200)
    found += finder.finish()
    assert tuple(found) == find_events(scores, times, rule) != ()
    assert finder.current is None
