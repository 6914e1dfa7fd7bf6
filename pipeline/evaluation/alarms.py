"""Events against ground truth: event precision and recall, delay, false alarms per hour."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.events import (
    SECONDS_PER_HOUR,
    EventRule,
    Interval,
    find_events,
    true_runs,
)


@dataclass(frozen=True, slots=True)
class EventCounts:
    """The events of one video compared with its anomalies.

    An event is *right* if at least half of its frames are anomalous. An anomaly, which is a run of
    anomalous frames, is *found* if a right event shares a frame with it. So an alarm that never
    ends is not right and finds nothing, and one right event may find several anomalies.

    Attributes:
        n_events: Events.
        n_right: Those that are right.
        n_anomalies: Anomalies.
        delays_seconds: For each anomaly that was found, the time from its first frame to the first
            of its frames in a right event; 0 where the event began earlier. The score of a snippet
            is known only at the snippet's end, which a live system has to add.
    """

    n_events: int
    n_right: int
    n_anomalies: int
    delays_seconds: tuple[float, ...]


def count_events(
    events: Sequence[Interval], labels: NDArray[np.bool_], timestamps: NDArray[np.float64]
) -> EventCounts:
    """Compare one video's events with its anomalous frames, as `EventCounts` defines it.

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
    return EventCounts(len(events), len(right), len(anomalies), tuple(delays))


@dataclass(frozen=True, slots=True)
class AlarmMetrics:
    """The alarms of a whole test set at one threshold; NaN where there is nothing to count.

    What depends on events is NaN, too, where the times of a video are not known.

    Attributes:
        false_alarm_fraction: Fraction in [0, 1] of the frames of normal videos whose score reaches
            the threshold.
        false_alarms_per_hour: Events per hour of normal video.
        event_precision: Fraction of all events that are right.
        event_recall: Fraction of all anomalies that were found.
        delay_seconds: Mean over the anomalies that were found.
    """

    false_alarm_fraction: float
    false_alarms_per_hour: float
    event_precision: float
    event_recall: float
    delay_seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class ScoredVideo:
    """A video's scores and its ground truth.

    Attributes:
        scores: (n_frames,) in [0, 1].
        labels: (n_frames,) True where the frame is anomalous.
        timestamps: (n_frames,) seconds; NaN where they are not known.
        duration_seconds: Length of the video; NaN likewise.
        is_abnormal: Whether the video is labeled anomalous.
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
    counts: list[EventCounts] = []
    normal_events = normal_alarms = normal_frames = 0
    normal_seconds = 0.0
    are_timed = True
    for video in videos:
        if not video.is_abnormal:
            normal_alarms += int((video.scores >= rule.threshold).sum())
            normal_frames += len(video.scores)
        are_timed = are_timed and not np.isnan(video.timestamps).any()
        if not are_timed:
            continue
        events = find_events(video.scores, video.timestamps, rule)
        counts.append(count_events(events, video.labels, video.timestamps))
        if not video.is_abnormal:
            normal_events += len(events)
            normal_seconds += video.duration_seconds
    false_alarm_fraction = _ratio(normal_alarms, normal_frames)
    if not are_timed:
        return AlarmMetrics(false_alarm_fraction, math.nan, math.nan, math.nan, math.nan)
    delays = [delay for count in counts for delay in count.delays_seconds]
    return AlarmMetrics(
        false_alarm_fraction=false_alarm_fraction,
        false_alarms_per_hour=SECONDS_PER_HOUR * _ratio(normal_events, normal_seconds),
        event_precision=_ratio(sum(c.n_right for c in counts), sum(c.n_events for c in counts)),
        event_recall=_ratio(len(delays), sum(c.n_anomalies for c in counts)),
        delay_seconds=_ratio(sum(delays), len(delays)),
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
