"""Choose the threshold of events from normal footage, so that false alarms are as rare as wanted.

On normal footage every event is a false alarm. The threshold is the lowest at which the footage has
no more than the wanted number of events per hour, there and at every higher threshold.

An alarm that never ends is a single event. So the time in alarm is limited too: to one minute for
each event that is allowed, and to a tenth of the footage. Where even the lowest threshold is
within both limits, the footage excludes none; the threshold is then just above the highest score.

What the footage supports is a one-sided bound. If false alarms are independent of each other, a
threshold just above the peak of the (n + 1)-th highest event has a rate of false alarms whose
product with the hours of footage follows a gamma distribution of shape n + 1, whatever the scores
are. The 95 % quantile of that bounds the rate: 3.0 / hours for n = 0, 4.7 / hours for n = 1. It
also bounds the rate at a higher threshold, which the time in alarm may ask for.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import gamma

from extractors.decoding.frame_folder import VideoSource, path_of
from extractors.errors import LookaroundError
from extractors.snippets import SNIPPET_LEN
from pipeline.extraction.video_digest import Source, identify_source
from pipeline.progress import ReportProgress, no_report
from pipeline.scoring.calibration import Calibration
from pipeline.scoring.events import (
    RELEASE_FRACTION,
    SECONDS_PER_HOUR,
    EventRule,
    find_events,
    frame_ends,
    n_seconds,
)
from pipeline.scoring.frame_scores import Scores
from pipeline.scoring.scorer import Scorer, VideoFailure

CONFIDENCE = 0.95
SECONDS_PER_EVENT = 60.0  # of alarm, for each event that is allowed
MAX_ALARM_FRACTION = 0.1  # of the time, however many events are allowed
N_STEPS = 10**6  # thresholds are multiples of 1 / N_STEPS: scores are written with six decimals


class CalibrationError(LookaroundError, ValueError):
    """No threshold can be chosen from the footage."""


def calibrate(
    scorer: Scorer,
    normal_videos: Sequence[VideoSource],
    *,
    false_alarms_per_hour: float,
    rule: EventRule | None = None,
    stride: int = SNIPPET_LEN,
    report: ReportProgress = no_report,
) -> tuple[Calibration, list[VideoFailure]]:
    """Score normal videos and choose the threshold from their scores.

    Args:
        scorer: The run and its extractor.
        normal_videos: Files and folders of frames without anomalies. No video may occur twice.
        false_alarms_per_hour: Above 0.
        rule: Merging and minimum length of events; its threshold is not used. None for the default.
        stride: As in `score`.
        report: Called with the progress.

    Returns:
        The calibration, and the videos that could not be scored and do not count.

    Raises:
        CalibrationError: If a video is given twice, be it under two names, no video could be
            scored, or no threshold gives so few events.
    """
    _check_different(normal_videos)
    scored: list[Scores] = []
    failures = scorer.score_all(
        normal_videos, lambda _, scores: scored.append(scores), stride=stride, report=report
    )
    if not scored:
        raise CalibrationError(f"no normal video could be scored; {failures[0].reason}")
    return choose_threshold(scored, false_alarms_per_hour, rule or EventRule()), failures


def _check_different(videos: Sequence[VideoSource]) -> None:
    """Refuse a video that is given twice.

    Its hours would count twice, and the bound would be too low.
    """
    seen: dict[Source, Path] = {}
    for video in videos:
        path = path_of(video)
        try:
            source = identify_source(video)
        except OSError:  # it cannot be scored either, which is told then
            continue
        if source in seen:
            raise CalibrationError(
                f"{path}: has the same content as {seen[source]}, whose hours would count twice; "
                "name one of them"
            )
        seen[source] = path


def choose_threshold(
    scored: Sequence[Scores], false_alarms_per_hour: float, rule: EventRule
) -> Calibration:
    """Choose the threshold from the scores of normal videos.

    Args:
        scored: The scores of each video, with one stride.
        false_alarms_per_hour: Above 0.
        rule: Merging and minimum length of events; its threshold is not used.

    Raises:
        ValueError: If false_alarms_per_hour is not above 0.
        CalibrationError: If the footage has no length, or no threshold gives so few events.
    """
    if not 0 < false_alarms_per_hour < math.inf:
        raise ValueError(
            f"false_alarms_per_hour must be above 0, instead got {false_alarms_per_hour}"
        )
    footage = _Footage(scored, rule)
    n_hours = footage.n_seconds / SECONDS_PER_HOUR
    if n_hours <= 0:
        raise CalibrationError("the normal videos have no length; give longer ones")
    n_allowed = math.floor(false_alarms_per_hour * n_hours)
    step = _lowest_step(footage, n_allowed)
    if step > N_STEPS:
        raise CalibrationError(
            f"more than {n_allowed} false alarms in {n_hours:.2f} hours, or too long ones, "
            "have a score of 1; no threshold gives fewer"
        )
    return Calibration(
        threshold=step / N_STEPS,
        merge_seconds=rule.merge_seconds,
        min_seconds=rule.min_seconds,
        stride=scored[0].stride,
        false_alarms_per_hour=false_alarms_per_hour,
        n_videos=len(scored),
        n_hours=n_hours,
        n_events=footage.n_events(step / N_STEPS),
        max_false_alarms_per_hour=float(gamma.ppf(CONFIDENCE, n_allowed + 1)) / n_hours,
        confidence=CONFIDENCE,
        max_feature_distance=max(scores.feature_distance or 0.0 for scores in scored),
        alarm_fraction=footage.alarm_seconds(step / N_STEPS) / footage.n_seconds,
    )


def _lowest_step(footage: "_Footage", n_allowed: int) -> int:
    """The lowest threshold that is allowed, in steps; more than `N_STEPS` if none is."""
    max_seconds = min(SECONDS_PER_EVENT * n_allowed, MAX_ALARM_FRACTION * footage.n_seconds)
    # A lower threshold never shortens the time in alarm: events begin earlier, and none ends
    # earlier. The number of events can fall, as events grow together: all thresholds are tried.
    lowest = bisect_left(
        range(N_STEPS + 1),
        True,
        lo=1,
        key=lambda step: footage.alarm_seconds(step / N_STEPS) <= max_seconds,
    )
    for critical in footage.critical_thresholds():
        if critical * N_STEPS < lowest - 1:
            break
        if footage.n_events(critical) > n_allowed:
            return footage.first_step_with(n_allowed, max(lowest, _step_above(critical)))
    if lowest > 1:
        return lowest
    return min(N_STEPS, footage.first_step_with(0, _step_above(footage.highest_score)))


def _step_above(score: float) -> int:
    return math.floor(score * N_STEPS) + 1


class _Footage:
    """The events of normal videos at any threshold."""

    def __init__(self, scored: Sequence[Scores], rule: EventRule) -> None:
        self._rule = rule
        self._videos = [(scores.per_frame, scores.timestamps) for scores in scored]
        self._ends = [frame_ends(timestamps) for _, timestamps in self._videos]
        self.n_seconds = sum(n_seconds(timestamps) for _, timestamps in self._videos)
        self.highest_score = max(float(per_frame.max()) for per_frame, _ in self._videos)

    def n_events(self, threshold: float) -> int:
        """How many events there are."""
        rule = self._rule.with_values(threshold=threshold)
        return sum(len(find_events(*video, rule)) for video in self._videos)

    def alarm_seconds(self, threshold: float) -> float:
        """How long the events last together."""
        rule = self._rule.with_values(threshold=threshold)
        return sum(
            float(ends[stop - 1] - timestamps[start])
            for (scores, timestamps), ends in zip(self._videos, self._ends, strict=True)
            for start, stop in find_events(scores, timestamps, rule)
        )

    def first_step_with(self, n_allowed: int, step: int) -> int:
        """From this step on the first with no more events than allowed.

        A threshold just above a score may be rounded to it, as scores are float32.
        """
        while step <= N_STEPS and self.n_events(step / N_STEPS) > n_allowed:
            step += 1
        return step

    def critical_thresholds(self) -> list[float]:
        """The thresholds at which a falling threshold meets new events, the highest first.

        They are the local maxima of the scores. With a minimum length they are all scores, for an
        event that grows can become long enough at its threshold or at its release score.
        """
        found: set[float] = set()
        for scores, _ in self._videos:
            steps = np.flatnonzero(np.diff(scores))
            levels = scores[np.append(steps, len(scores) - 1)]  # one for each run of equals
            if self._rule.min_seconds > 0:
                found.update(levels.tolist(), (levels / RELEASE_FRACTION).tolist())
            else:
                padded = np.concatenate([[-1], levels, [-1]])
                is_peak = (padded[1:-1] > padded[:-2]) & (padded[1:-1] > padded[2:])
                found.update(levels[is_peak].tolist())
        reached = (threshold for threshold in found if 0 < threshold <= self.highest_score)
        return sorted(reached, reverse=True)
