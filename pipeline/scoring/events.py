"""Events: when a score per frame is an alarm, by one rule with hysteresis, merging and a length.

An event begins at the first frame whose score reaches the threshold and ends before the first
frame whose score falls below the release score, which is a little lower: a score that varies around
the threshold gives one event and not many. Events that follow each other within a short time are
merged; events that are shorter than a minimum length are then dropped. `score`, `evaluate` and
`calibrate` all use this rule.
"""

from dataclasses import dataclass, replace

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

    def with_values(self, **values: float | None) -> "EventRule":
        """The same rule with other values of some attributes; None keeps an attribute.

        Raises:
            ValueError: If a value is out of its range.
        """
        return replace(self, **{name: value for name, value in values.items() if value is not None})

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

    Raises:
        ValueError: If a time is NaN, as those of imported features are.

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

    Raises:
        ValueError: If a time is NaN, as those of imported features are.

    >>> scores = np.array([0.1, 0.45, 0.6, 0.42, 0.1, 0.1, 0.9], "float32")
    >>> find_events(scores, np.arange(7.0), EventRule(threshold=0.5))
    ((2, 4), (6, 7))
    """
    n_unknown = int(np.isnan(timestamps).sum())
    if n_unknown:
        raise ValueError(
            f"timestamps must be numbers, instead {n_unknown} of {len(timestamps)} are NaN"
        )
    finder = EventFinder(rule)
    events = [*finder.add(scores, timestamps), *finder.finish()]
    ends = frame_ends(timestamps)
    return tuple(
        (start, stop)
        for start, stop in events
        if ends[stop - 1] - timestamps[start] >= rule.min_seconds
    )


class EventFinder:
    """Finds the events of frames that come part by part; the minimum length is left to the caller.

    Args:
        rule: When a score is an event.

    Attributes:
        n_frames: Frames so far.
        current: The event that may still grow, as (start, stop) in frames; None if there is none.
    """

    def __init__(self, rule: EventRule) -> None:
        self._rule = rule
        self._is_above_release = False  # the last frame so far
        self._last_seconds = -np.inf  # of the current event's last frame
        self.n_frames = 0
        self.current: Interval | None = None

    def add(self, scores: NDArray[np.float32], timestamps: NDArray[np.float64]) -> list[Interval]:
        """Take the next frames.

        Args:
            scores: (n,) in [0, 1].
            timestamps: (n,) seconds.

        Returns:
            The events that have ended and cannot be merged with a later one.
        """
        ended: list[Interval] = []
        if not len(scores):
            return ended
        first = self.n_frames
        for start, stop in true_runs(scores >= self._rule.release):
            goes_on = start == 0 and self._is_above_release and self._reaches(first)
            if not goes_on:
                reached = np.flatnonzero(scores[start:stop] >= self._rule.threshold)
                if not reached.size:
                    continue
                start += int(reached[0])
                ended += self._end_before(float(timestamps[start]))
            begin = first + start if self.current is None else self.current[0]
            self.current = begin, first + stop
            self._last_seconds = float(timestamps[stop - 1])
        self.n_frames += len(scores)
        self._is_above_release = bool(scores[-1] >= self._rule.release)
        if not (self._is_above_release and self._reaches(self.n_frames)):
            ended += self._end_before(float(timestamps[-1]))
        return ended

    def finish(self) -> list[Interval]:
        """The event that had not ended, if there is one."""
        ended, self.current = self.current, None
        return [] if ended is None else [ended]

    def _reaches(self, frame: int) -> bool:
        return self.current is not None and self.current[1] == frame

    def _end_before(self, seconds: float) -> list[Interval]:
        """End the current event if one that begins at `seconds` is not merged with it."""
        if self.current is None or seconds - self._last_seconds <= self._rule.merge_seconds:
            return []
        return self.finish()


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


def n_seconds(timestamps: NDArray[np.float64]) -> float:
    """The length of a video, from its first frame to the end of its last one.

    Args:
        timestamps: (n_frames,) seconds, n_frames at least 1.

    >>> n_seconds(np.array([10.0, 10.5, 12.0]))  # the last frame lasts 1 s, as the median one
    3.0
    """
    return float(frame_ends(timestamps)[-1] - timestamps[0])


def true_runs(flags: NDArray[np.bool_]) -> list[Interval]:
    """Where flags are True without a gap, as (start, stop).

    >>> true_runs(np.array([True, True, False, True]))
    [(0, 2), (3, 4)]
    """
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
