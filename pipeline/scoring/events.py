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

RELEASE_SHARE = 0.8
SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class EventRule:
    """When a score is an event.

    Attributes:
        threshold: In (0, 1]; the score that begins an event.
        merge_seconds: An event that begins within this time after the last one goes on with it.

    Raises:
        ValueError: If a value is out of its range.
    """

    threshold: float = 0.5
    merge_seconds: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold must be in (0, 1], instead got {self.threshold}")
        if not self.merge_seconds >= 0:
            raise ValueError(f"merge_seconds must be at least 0, instead got {self.merge_seconds}")

    @property
    def release(self) -> float:
        """The score below which an event ends."""
        return RELEASE_SHARE * self.threshold


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
    return tuple(events)


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
