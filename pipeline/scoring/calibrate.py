"""Choose the threshold of events from normal footage, so that false alarms are as rare as wanted.

On normal footage every event is a false alarm. The threshold is the lowest at which the footage has
no more than the wanted number of events per hour, there and at every higher threshold.

What the footage supports is a one-sided bound. If false alarms are independent of each other, a
threshold just above the peak of the (n + 1)-th highest event has a rate of false alarms whose
product with the hours of footage follows a gamma distribution of shape n + 1, whatever the scores
are. The 95 % quantile of that bounds the rate: 3.0 / hours for n = 0, 4.7 / hours for n = 1.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import gamma

from extractors.decoding.frame_folder import VideoSource
from extractors.errors import LookaroundError
from extractors.snippets import SNIPPET_LEN
from pipeline.progress import ReportProgress, no_report
from pipeline.scoring.calibration import Calibration
from pipeline.scoring.events import RELEASE_FRACTION, EventRule, find_events, frame_ends
from pipeline.scoring.frame_scores import Scores
from pipeline.scoring.scorer import Scorer, VideoFailure

CONFIDENCE = 0.95
SECONDS_PER_HOUR = 3600.0
STEP = 1e-6  # thresholds are multiples of it, as scores are written with six decimals


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
        normal_videos: Files and folders of frames without anomalies. No path may occur twice.
        false_alarms_per_hour: Above 0.
        rule: Merging and minimum length of events; its threshold is not used. None for the default.
        stride: As in `score`.
        report: Called with the progress.

    Returns:
        The calibration, and the videos that could not be scored and do not count.

    Raises:
        CalibrationError: If no video could be scored, or no threshold gives so few events.
    """
    scored: list[Scores] = []
    failures = scorer.score_all(
        normal_videos, lambda _, scores: scored.append(scores), stride=stride, report=report
    )
    if not scored:
        raise CalibrationError(f"no normal video could be scored; {failures[0].reason}")
    return choose_threshold(scored, false_alarms_per_hour, rule or EventRule()), failures


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
    per_frame = [scores.per_frame for scores in scored]
    timestamps = [scores.timestamps for scores in scored]
    n_seconds = sum(float(frame_ends(times)[-1] - times[0]) for times in timestamps)
    n_hours = n_seconds / SECONDS_PER_HOUR
    if n_hours <= 0:
        raise CalibrationError("the normal videos have no length; give longer ones")
    n_allowed = math.floor(false_alarms_per_hour * n_hours)

    def n_events(threshold: float) -> int:
        tried = EventRule(threshold, rule.merge_seconds, rule.min_seconds)
        return sum(
            len(find_events(scores, times, tried))
            for scores, times in zip(per_frame, timestamps, strict=True)
        )

    threshold = STEP
    for critical in _critical_thresholds(per_frame, rule):
        if n_events(critical) > n_allowed:
            threshold = (math.floor(critical / STEP) + 1) * STEP
            while threshold <= 1 and n_events(threshold) > n_allowed:
                threshold += STEP  # it was rounded to the critical one, as scores are float32
            break
    if threshold > 1:
        raise CalibrationError(
            f"more than {n_allowed} false alarms in {n_hours:.2f} hours have a score of 1; "
            "no threshold gives fewer"
        )
    return Calibration(
        threshold=round(threshold, 6),
        merge_seconds=rule.merge_seconds,
        min_seconds=rule.min_seconds,
        stride=scored[0].stride,
        false_alarms_per_hour=false_alarms_per_hour,
        n_videos=len(scored),
        n_hours=n_hours,
        n_events=n_events(threshold),
        max_false_alarms_per_hour=float(gamma.ppf(CONFIDENCE, n_allowed + 1)) / n_hours,
        confidence=CONFIDENCE,
        max_feature_distance=max(scores.feature_distance or 0.0 for scores in scored),
    )


def _critical_thresholds(per_frame: Sequence[NDArray[np.float32]], rule: EventRule) -> list[float]:
    """The thresholds at which a falling threshold meets new events, the highest first.

    They are the local maxima of the scores. With a minimum length they are all scores, for an event
    that grows can become long enough at its threshold or at its release score.
    """
    found: set[float] = set()
    for scores in per_frame:
        steps = np.flatnonzero(np.diff(scores))
        levels = scores[np.concatenate([steps, [len(scores) - 1]])]  # one for each run of equals
        if rule.min_seconds > 0:
            found.update(levels.tolist(), (levels / RELEASE_FRACTION).tolist())
        else:
            padded = np.concatenate([[-1], levels, [-1]])
            is_peak = (padded[1:-1] > padded[:-2]) & (padded[1:-1] > padded[2:])
            found.update(levels[is_peak].tolist())
    return sorted((threshold for threshold in found if 0 < threshold <= 1), reverse=True)
