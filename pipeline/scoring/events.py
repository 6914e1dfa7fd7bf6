"""From a score per frame to events, and from events to what an operator would live with.

An event begins at the first frame whose score reaches the threshold and ends before the first frame
whose score falls below the release, a little lower: a score that trembles about the threshold is
one event and not many. Events that follow each other within a moment are one. All of it needs only
the scores up to the present frame, so a live system would see the same events.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Interval = tuple[int, int]

DEFAULT_THRESHOLD = 0.5
DEFAULT_MERGE_SECONDS = 1.0
DEFAULT_MIN_SECONDS = 0.0
RELEASE_FRACTION = 0.8
SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class EventRule:
    """When a score is an event.

    Attributes:
        threshold: In (0, 1]; the score that begins an event.
        merge_seconds: An event that begins within this time after the last frame of the event
            before is merged with it.
        min_seconds: Events shorter than this are dropped, after merging.

    Raises:
        ValueError: If a value is out of its range.
    """

    threshold: float = DEFAULT_THRESHOLD
    merge_seconds: float = DEFAULT_MERGE_SECONDS
    min_seconds: float = DEFAULT_MIN_SECONDS

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold must be in (0, 1], instead got {self.threshold}")
        for name in ("merge_seconds", "min_seconds"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, instead got {getattr(self, name)}")

    @property
    def release(self) -> float:
        """The score below which an event ends."""
        return RELEASE_FRACTION * self.threshold


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a video.

    Attributes:
        start_frame: The first frame, counted from 0.
        stop_frame: The frame after the last one.
        start_seconds: When the first frame is shown.
        stop_seconds: When the last frame is replaced by the next one.
        peak: The highest score, in [0, 1].
        peak_frame: The first frame that has it.
        mean: The mean score of the event's frames, in [0, 1].
    """

    start_frame: int
    stop_frame: int
    start_seconds: float
    stop_seconds: float
    peak: float
    peak_frame: int
    mean: float


def describe_events(
    scores: NDArray[np.float32], timestamps: NDArray[np.float64], rule: EventRule
) -> tuple[Event, ...]:
    """Find the events of one video and describe each.

    Args:
        scores: (n_frames,) in [0, 1].
        timestamps: (n_frames,) seconds.
        rule: When a score is an event.

    >>> scores = np.array([0, 0.5, 1, 0], "float32")
    >>> describe_events(scores, np.arange(4) / 2, EventRule())  # doctest: +NORMALIZE_WHITESPACE
    (Event(start_frame=1, stop_frame=3, start_seconds=0.5, stop_seconds=1.5,
           peak=1.0, peak_frame=2, mean=0.75),)
    """
    ends = frame_ends(timestamps)
    return tuple(
        Event(
            start_frame=start,
            stop_frame=stop,
            start_seconds=float(timestamps[start]),
            stop_seconds=float(ends[stop - 1]),
            peak=float(scores[start:stop].max()),
            peak_frame=start + int(scores[start:stop].argmax()),
            mean=float(scores[start:stop].mean(dtype=np.float64)),
        )
        for start, stop in find_events(scores, timestamps, rule)
    )


def find_events(
    scores: NDArray[np.float32], timestamps: NDArray[np.float64], rule: EventRule
) -> tuple[Interval, ...]:
    """The events of one video as (start, stop) in frames, stop excluded.

    Args:
        scores: (n_frames,) in [0, 1].
        timestamps: (n_frames,) seconds.
        rule: When a score is an event.

    >>> scores = np.array([0.1, 0.45, 0.6, 0.42, 0.1, 0.1, 0.9], "float32")
    >>> find_events(scores, np.arange(7.0), EventRule(threshold=0.5))
    ((2, 4), (6, 7))
    """
    events: list[Interval] = []
    for start, stop in true_runs(scores >= rule.release):
        reached = np.flatnonzero(scores[start:stop] >= rule.threshold)
        if not reached.size:
            continue
        begin = start + int(reached[0])
        if events and timestamps[begin] - timestamps[events[-1][1] - 1] <= rule.merge_seconds:
            begin = events.pop()[0]
        events.append((begin, stop))
    ends = frame_ends(timestamps)
    return tuple(
        (start, stop)
        for start, stop in events
        if ends[stop - 1] - timestamps[start] >= rule.min_seconds
    )


def frame_ends(timestamps: NDArray[np.float64]) -> NDArray[np.float64]:
    """When each frame is replaced by the next one; the last frame lasts as long as the median one.

    Args:
        timestamps: (n_frames,) seconds.

    Returns:
        (n_frames,) seconds. The end of a single frame is its beginning: its duration is not known.
    """
    durations = np.diff(timestamps)
    last = timestamps[-1:] + (np.median(durations) if durations.size else 0.0)
    return np.concatenate([timestamps[1:], last])


def true_runs(flags: NDArray[np.bool_]) -> list[Interval]:
    """Where flags are True without a gap, as (start, stop).

    >>> true_runs(np.array([True, True, False, True]))
    [(0, 2), (3, 4)]
    """
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


@dataclass(frozen=True, slots=True)
class EventTally:
    """The events of one video beside its anomalies.

    An event is *right* if at least half of its frames are anomalous. An anomaly, which is a run of
    anomalous frames, is *found* if a right event shares a frame with it. So an alarm that never
    ends is not right and finds nothing, and one right event may find several anomalies.

    Attributes:
        n_events: Events.
        n_right: Those that are right.
        n_anomalies: Anomalies.
        delays_seconds: Of each anomaly that was found, the time from its first frame to the first
            frame of it that a right event shows; 0 where the event began earlier. The score of a
            snippet is known only at the snippet's end, which a live system has to add.
    """

    n_events: int
    n_right: int
    n_anomalies: int
    delays_seconds: tuple[float, ...]


def tally_events(
    events: Sequence[Interval], labels: NDArray[np.bool_], timestamps: NDArray[np.float64]
) -> EventTally:
    """Compare one video's events with its anomalous frames; the rule is `EventTally`'s.

    Args:
        events: As from `find_events`.
        labels: (n_frames,) True where the frame is anomalous.
        timestamps: (n_frames,) seconds.
    """
    right = [(a, b) for a, b in events if 2 * int(labels[a:b].sum()) >= b - a]
    anomalies = true_runs(labels)
    delays = []
    for start, stop in anomalies:
        shown = [max(a, start) for a, b in right if a < stop and b > start]
        if shown:
            delays.append(float(timestamps[min(shown)] - timestamps[start]))
    return EventTally(len(events), len(right), len(anomalies), tuple(delays))


@dataclass(frozen=True, slots=True)
class AlarmMetrics:
    """What a threshold gives over a whole test set; NaN where there is nothing to count.

    Attributes:
        false_alarm_share: Share in [0, 1] of the frames of normal videos whose score reaches the
            threshold.
        false_alarms_per_hour: Events per hour of normal video.
        event_precision: Share of all events that are right.
        event_recall: Share of all anomalies that were found.
        delay_seconds: Mean over the anomalies that were found.
    """

    false_alarm_share: float
    false_alarms_per_hour: float
    event_precision: float
    event_recall: float
    delay_seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class ScoredVideo:
    """A video's scores beside the truth.

    Attributes:
        scores: (n_frames,) in [0, 1].
        labels: (n_frames,) True where the frame is anomalous.
        timestamps: (n_frames,) seconds.
        duration_seconds: How long the video is.
        is_abnormal: Whether the video is labelled anomalous.
    """

    scores: NDArray[np.float32]
    labels: NDArray[np.bool_]
    timestamps: NDArray[np.float64]
    duration_seconds: float
    is_abnormal: bool


def alarm_metrics(videos: Iterable[ScoredVideo], rule: EventRule) -> AlarmMetrics:
    """Count the alarms of a test set.

    Args:
        videos: All test videos.
        rule: When a score is an event.
    """
    tallies: list[EventTally] = []
    normal_events = normal_alarms = normal_frames = 0
    normal_seconds = 0.0
    for video in videos:
        events = find_events(video.scores, video.timestamps, rule)
        tallies.append(tally_events(events, video.labels, video.timestamps))
        if not video.is_abnormal:
            normal_events += len(events)
            normal_alarms += int((video.scores >= rule.threshold).sum())
            normal_frames += len(video.scores)
            normal_seconds += video.duration_seconds
    delays = [delay for tally in tallies for delay in tally.delays_seconds]
    return AlarmMetrics(
        false_alarm_share=_ratio(normal_alarms, normal_frames),
        false_alarms_per_hour=SECONDS_PER_HOUR * _ratio(normal_events, normal_seconds),
        event_precision=_ratio(sum(t.n_right for t in tallies), sum(t.n_events for t in tallies)),
        event_recall=_ratio(len(delays), sum(t.n_anomalies for t in tallies)),
        delay_seconds=_ratio(sum(delays), len(delays)),
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
