"""Events of a live source: each is told when it begins, while it lasts, and when it has ended.

The rule is that of `events.py`. Two things follow from not knowing the future: with a minimum
length an event is told once it has lasted so long, and its end is told once no later event can be
merged with it. Where snippets were dropped, an event goes on if the time without scores is no
longer than that within which events are merged; else it ends with the last score before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from extractors.decoding.live_messages import SnippetTimes
from pipeline.scoring.events import EventFinder, EventRule
from pipeline.scoring.live_records import Cause, LiveEvent, utc_time

UPDATE_SECONDS = 5.0  # from one update of an event to the next


@dataclass(slots=True)
class _Event:
    """An event that may still grow. `n_gap` and `gap_total` are of the frames after its last."""

    start_seconds: float
    start_received: float
    stop_seconds: float = 0.0
    stop_received: float = 0.0
    peak: float = -1.0
    peak_seconds: float = 0.0
    n_frames: int = 0
    total: float = 0.0
    n_gap: int = 0
    gap_total: float = 0.0
    number: int = 0  # 0 until it has been told
    told_seconds: float = 0.0

    def extend(self, score: float, times: SnippetTimes) -> None:
        """Take a snippet that belongs to the event."""
        n_frames = len(times.timestamps)
        if score > self.peak:
            self.peak, self.peak_seconds = score, float(times.timestamps[0])
        self.n_frames += self.n_gap + n_frames
        self.total += self.gap_total + score * n_frames
        self.n_gap, self.gap_total = 0, 0.0
        self.stop_seconds = times.stop_seconds
        self.stop_received = float(times.received[-1])


class LiveEvents:
    """Finds the events of a live source, stretch by stretch.

    Args:
        source: Its name.
        rule: When a score is an event.
        tell: Called with each change of an event.

    Attributes:
        n_events: Events that have been told.
    """

    def __init__(self, source: str, rule: EventRule, tell: Callable[[LiveEvent], None]) -> None:
        self._source, self._rule, self._tell_caller = source, rule, tell
        self._finder = EventFinder(rule)
        self._event: _Event | None = None
        self._stretch = 0
        self._stop_seconds: float | None = None  # of the last snippet of the stretch
        self.n_events = 0

    def begin_stretch(self, stretch: int) -> None:
        """Begin a stretch of video, after the one before was finished."""
        self._stretch = stretch
        self._stop_seconds = None
        self._finder = EventFinder(self._rule)

    def add(self, score: float, times: SnippetTimes) -> None:
        """Take the score of the next snippet, which is that of each of its frames."""
        n_frames = len(times.timestamps)
        begin, before = float(times.timestamps[0]), self._stop_seconds
        if before is not None and begin - before > self._rule.merge_seconds:
            self.finish("dropped")  # a regular step between snippets is no gap: it is 0
            self._finder = EventFinder(self._rule)
        self._stop_seconds = times.stop_seconds
        ended = self._finder.add(np.full(n_frames, score, np.float32), times.timestamps)
        if ended:
            self._end("score")
        if self._finder.current is None:
            return
        if self._event is None:
            self._event = _Event(begin, float(times.received[0]))
        if self._finder.current[1] == self._finder.n_frames:
            self._event.extend(score, times)
            self._tell_growth(self._event)
        else:
            self._event.n_gap += n_frames
            self._event.gap_total += score * n_frames

    def finish(self, cause: Cause) -> None:
        """End the event that had not ended, where no more scores follow."""
        if self._finder.finish():
            # It may have been waiting for another one to be merged with it.
            self._end("score" if self._event is not None and self._event.n_gap else cause)

    def _tell_growth(self, event: _Event) -> None:
        if not event.number:
            if event.stop_seconds - event.start_seconds >= self._rule.min_seconds:
                self.n_events += 1
                event.number = self.n_events
                self._tell("begin", event)
        elif event.stop_seconds - event.told_seconds >= UPDATE_SECONDS:
            self._tell("update", event)

    def _end(self, cause: Cause) -> None:
        event, self._event = self._event, None
        if event is not None and event.number:
            self._tell("end", event, cause)

    def _tell(
        self,
        kind: Literal["begin", "update", "end"],
        event: _Event,
        cause: Cause | None = None,
    ) -> None:
        event.told_seconds = event.stop_seconds
        self._tell_caller(
            LiveEvent(
                kind=kind,
                event=event.number,
                source=self._source,
                stretch=self._stretch,
                start_seconds=round(event.start_seconds, 3),
                stop_seconds=round(event.stop_seconds, 3),
                start_time=utc_time(event.start_received),
                stop_time=utc_time(event.stop_received),
                peak=round(event.peak, 6),
                peak_seconds=round(event.peak_seconds, 3),
                mean=round(event.total / event.n_frames, 6),
                threshold=self._rule.threshold,
                cause=cause,
            )
        )
