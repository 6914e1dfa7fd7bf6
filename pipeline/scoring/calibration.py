"""The threshold that a run was calibrated to, stored in the run's folder as `calibration.json`."""

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pipeline.atomic import replacing
from pipeline.printable import describe_error
from pipeline.runs.checkpoints import CheckpointError
from pipeline.runs.feature_distance import read_distance_limit
from pipeline.runs.seeds import Seeds
from pipeline.scoring.events import EventRule

FORMAT = "lookaround calibration"
FORMAT_VERSION = 1
N_SEEDS = "n_seeds"  # whose mean score was calibrated; one where it is not said


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold and the normal footage that supports it.

    Attributes:
        threshold: In (0, 1]; the score that begins an event.
        merge_seconds: As in `EventRule`.
        min_seconds: As in `EventRule`.
        stride: Of the scores, in frames.
        false_alarms_per_hour: What was asked for.
        n_videos: Normal videos that were scored.
        n_hours: Their length together.
        n_events: Events in them at the threshold: false alarms.
        max_false_alarms_per_hour: One-sided upper bound of the rate at the threshold.
        confidence: Of the bound, in (0, 1).
        max_feature_distance: The largest of the normal videos, see
            `pipeline/runs/feature_distance.py`; 0 if it was not stored.
        alarm_fraction: Fraction in [0, 1] of the time that the events last; None in a calibration
            that was stored before the time in alarm was limited.

    Raises:
        ValueError: If a value is out of its range.
    """

    threshold: float
    merge_seconds: float
    min_seconds: float
    stride: int
    false_alarms_per_hour: float
    n_videos: int
    n_hours: float
    n_events: int
    max_false_alarms_per_hour: float
    confidence: float
    max_feature_distance: float = 0.0
    alarm_fraction: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name == "alarm_fraction":
                continue
            if not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{field.name} must be a number, at least 0, instead got {value}")
        EventRule(self.threshold, self.merge_seconds, self.min_seconds)

    @property
    def rule(self) -> EventRule:
        """When a score is an event."""
        return EventRule(self.threshold, self.merge_seconds, self.min_seconds)

    def notices(self, stride: int, *, is_live: bool = False) -> list[str]:
        """What a user should know before the threshold is used.

        Args:
            stride: Of the scores that it is used for, in frames.
            is_live: Whether they are of a live source. Such scores see no later frames, so that the
                bound, which is for whole videos, is left out.
        """
        lines = f"calibrated {self.describe()}".splitlines()
        if is_live:
            lines[1:] = ["it was calibrated with whole videos: expect another rate of events live"]
        if self.stride != stride:
            lines.append(
                f"it was calibrated with stride {self.stride}, this is {stride}: "
                "expect another rate of events"
            )
        return lines

    def describe(self) -> str:
        """The threshold, the footage and the bound that it allows, in two lines."""
        in_alarm = (
            ""
            if self.alarm_fraction is None
            else f"in alarm {self.alarm_fraction:.2%} of the time, "
        )
        return (
            f"threshold {self.threshold:g}: {self.n_events} false alarms in "
            f"{_duration(self.n_hours)} of {self.n_videos} normal videos, {in_alarm}"
            f"{self.false_alarms_per_hour:g} per hour were asked for\n"
            f"at most {_rate(self.max_false_alarms_per_hour)} per hour with {self.confidence:.0%} "
            "confidence, for footage like this"
        )


def _duration(n_hours: float) -> str:
    """Seconds below two minutes, minutes below two hours."""
    seconds = 3600 * n_hours
    if seconds < 120:
        return f"{seconds:.1f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{n_hours:.2f} hours"


def _rate(per_hour: float) -> str:
    return f"{per_hour:,.0f}" if per_hour >= 10 else f"{per_hour:.2g}"


def calibration_path(seeds: Seeds) -> Path:
    """The file of a run's calibration: one for all seeds, which score together."""
    return seeds.finished[0].folder / "calibration.json"


def read_rule(
    seeds: Seeds,
    *,
    threshold: float | None = None,
    merge_seconds: float | None = None,
    min_seconds: float | None = None,
) -> tuple[EventRule, Calibration | None]:
    """When a score of a run is an event.

    Args:
        seeds: Of the run.
        threshold: As in `EventRule`; None for that of the calibration, else the default. One that
            is given stands for the whole calibration, which then does not count.
        merge_seconds: As in `EventRule`; None likewise.
        min_seconds: As in `EventRule`; None likewise.

    Returns:
        The rule, and the run's calibration; None where there is none, or it does not count.

    Raises:
        CheckpointError: As `read_calibration`, unless a threshold is given.
        ValueError: If a value is out of its range.
    """
    calibration = None if threshold is not None else read_calibration(seeds)
    rule = EventRule() if calibration is None else calibration.rule
    changed = rule.with_values(
        threshold=threshold, merge_seconds=merge_seconds, min_seconds=min_seconds
    )
    return changed, calibration


def distance_limits(seeds: Seeds, calibration: Calibration | None) -> tuple[float | None, ...]:
    """From which distance of its features on a video is unlike those that a run knows.

    Args:
        seeds: Of the run.
        calibration: The run's; None where there is none, or it does not count.

    Returns:
        The limits of the training and of the calibration, None where one is not known: see
        `describe_distance`.

    Raises:
        CheckpointError: If the limit of the training cannot be read.
    """
    stored = 0.0 if calibration is None else calibration.max_feature_distance
    return read_distance_limit(seeds.finished[0]), stored or None


def write_calibration(seeds: Seeds, calibration: Calibration) -> None:
    """Store a calibration with its run; the file appears whole or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, N_SEEDS: len(seeds.finished)}
    values = {**header, **asdict(calibration)}
    with replacing(calibration_path(seeds)) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_calibration(seeds: Seeds) -> Calibration | None:
    """A run's calibration; None if it was not calibrated.

    Raises:
        CheckpointError: If the file cannot be understood, or other seeds score than then.
    """
    path = calibration_path(seeds)
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT or values["format_version"] != FORMAT_VERSION:
            raise ValueError("it is of another program or version")
        values.setdefault("max_feature_distance", 0.0)  # of a calibration before it was stored
        values.setdefault("alarm_fraction", None)  # likewise
        n_seeds, n_now = values.get(N_SEEDS, 1), len(seeds.finished)
        if n_seeds != n_now:
            raise ValueError(f"it is for the mean score of {n_seeds} seeds, and there are {n_now}")
        return Calibration(**{field.name: values[field.name] for field in fields(Calibration)})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: is not a calibration of this run ({describe_error(error)}); "
            "run `pipeline calibrate` again"
        ) from error
