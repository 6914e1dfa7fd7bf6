"""The result of an evaluation: its values, its tables for people, its JSON for programs."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from extractors.snippets import SNIPPET_LEN
from pipeline.evaluation.alarms import AlarmMetrics
from pipeline.evaluation.ground_truth_conventions import ANNOTATION
from pipeline.evaluation.metrics import MACRO_AUC_DATASETS, Curves, FrameMetrics
from pipeline.evaluation.paired_jackknife import (
    LEVEL,
    WHY_NO_INTERVAL,
    Difference,
    JackknifedAuc,
    paired_difference,
)
from pipeline.outputs import write_output
from pipeline.scoring.calibration import Calibration
from pipeline.scoring.events import EventRule

FORMAT = "lookaround evaluation"
FORMAT_VERSION = 2

RowKind = Literal["model", "seeds averaged", "best on test", "control", "averaged control", "class"]

_FRAME_HEADS = {
    "auc": "AUC",
    "auc_abnormal": "AUC abnormal",
    "ap_trapezoid": "AP trapezoid",
    "ap_step": "AP step",
    "ap_abnormal": "AP abnormal",
}
_ALARM_HEADS = {
    "false_alarm_fraction": "% of frames",
    "false_alarms_per_hour": "events per hour",
    "event_precision": "event precision %",
    "event_recall": "event recall %",
    "delay_seconds": "delay s",
}
_NOT_FRACTIONS = ("false_alarms_per_hour", "delay_seconds")


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """One system, measured once.

    Attributes:
        frames: Frame-level metrics of its scores.
        alarms: Metrics of its events; None if scores are not in [0, 1].
        curves: ROC and precision-recall; None if several were averaged.
        jackknifed: The AUC with and without each test video; None if it is compared with none.
    """

    frames: FrameMetrics
    alarms: AlarmMetrics | None = None
    curves: Curves | None = None
    jackknifed: JackknifedAuc | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: one system, measured once per seed.

    Attributes:
        name: For people.
        kind: The model itself; the mean of the scores of all its seeds, which is what `pipeline
            score` gives; the model at its epochs that were best on the test videos, which is
            optimistic; a control; one of the averaged seeds alone; or the model on one class of
            anomalies.
        per_seed: One measurement per seed.
        n_videos: Abnormal videos of the class; None if the row is of all videos.
    """

    name: str
    kind: RowKind
    per_seed: tuple[Measurement, ...]
    n_videos: int | None = None

    def lead_over(self, other: "Row") -> Difference | None:
        """The mean AUC of the model or of its averaged seeds minus that of a control.

        None if the other row is no control of this one, or one of both was not jackknifed. A
        control of several seeds is one of single seeds; one of a single measurement is one of both.
        """
        if self.kind == "seeds averaged":
            is_single = other.kind == "control" and len(other.per_seed) == 1
            is_control = is_single or other.kind == "averaged control"
        else:
            is_control = other.kind == "control"
        of_self, of_other = (
            {
                seed: measured.jackknifed
                for seed, measured in enumerate(row.per_seed)
                if measured.jackknifed is not None
            }
            for row in (self, other)
        )
        return paired_difference(of_self, of_other) if is_control and of_self and of_other else None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row that could not be measured, and why in one line.

    Attributes:
        name: Of the row.
        reason: Why.
        is_failure: Whether something went wrong; else nothing could be measured from the start.
    """

    name: str
    reason: str
    is_failure: bool = True


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One model, measured on the test split of a dataset.

    Attributes:
        trained_on: The name of the dataset that the model was trained on.
        dataset: The name of the dataset whose test videos were scored.
        n_videos: Test videos that were scored.
        n_absent: Test videos that have no features.
        n_frames: Frames of all test videos together.
        n_anomalous: Those that are anomalous.
        labels_sha256: Of the frame labels as bytes 0 and 1, video after video: metrics are
            comparable only if it is equal.
        rule: When a score was an event.
        seeds: Of the training runs.
        is_pretrained: False if the features are of random weights; None if that is not known.
        rows: One per system; the model itself first.
        left_out: Rows that could not be measured.
        ground_truth: How frame labels were made: `annotation`, cut to each video's true length, or
            the published convention of this name.
        calibration: The run's, whose rule it is; None where there is none, or a threshold was
            given.
    """

    trained_on: str
    dataset: str
    n_videos: int
    n_absent: int
    n_frames: int
    n_anomalous: int
    labels_sha256: str
    rule: EventRule
    seeds: tuple[int, ...]
    is_pretrained: bool | None
    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...] = ()
    ground_truth: str = ANNOTATION
    calibration: Calibration | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the model by name, such as "auc": means over seeds, fractions in [0, 1].

        They are the fields of `FrameMetrics` and `AlarmMetrics`; NaN where there is nothing to
        count.
        """
        per_seed = [
            asdict(measured.frames) | (asdict(measured.alarms) if measured.alarms else {})
            for measured in self.rows[0].per_seed
        ]
        return {name: float(np.mean([values[name] for values in per_seed])) for name in per_seed[0]}

    @property
    def compared(self) -> dict[str, Row]:
        """What is compared with controls, by the key of the difference in the JSON.

        The model and, with several seeds, the mean of their scores.
        """
        averaged = [row for row in self.rows if row.kind == "seeds averaged"]
        return dict(zip(("model_lead", "averaged_lead"), (self.rows[0], *averaged), strict=False))


@dataclass(frozen=True, slots=True)
class Table:
    """A table for people, not laid out yet.

    Attributes:
        title: Printed above it.
        header: Names of the columns.
        rows: The cells of each row.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def metrics_table(evaluation: Evaluation) -> Table:
    """The frame-level metrics: in percent, mean and sample standard deviation over seeds."""
    absent = f" ({evaluation.n_absent} more have no features)" if evaluation.n_absent else ""
    fraction = evaluation.n_anomalous / evaluation.n_frames
    title = (
        f"{evaluation.dataset}: {evaluation.n_videos} test videos{absent}, "
        f"{evaluation.n_frames} frames, {evaluation.n_anomalous} of them anomalous ({fraction:.1%})"
    )
    if evaluation.ground_truth != ANNOTATION:
        title += f"; ground truth of {evaluation.ground_truth}"
    rows = [(row, [asdict(m.frames) for m in row.per_seed]) for row in evaluation.rows]
    macro = {"auc_macro": "AUC macro"} if evaluation.dataset in MACRO_AUC_DATASETS else {}
    return _table(title, _FRAME_HEADS | macro, rows)


def alarms_table(evaluation: Evaluation) -> Table:
    """The alarms at the threshold, of the rows that have scores in [0, 1]."""
    rule = evaluation.rule
    calibrated = ""
    if evaluation.calibration is not None:
        stride = evaluation.calibration.stride
        with_other = f" with stride {stride}" if stride != SNIPPET_LEN else ""
        calibrated = f" (calibrated{with_other})"
    title = (
        f"alarms at {rule.threshold:g}{calibrated}, released below {rule.release:g}, "
        f"merged within {rule.merge_seconds:g} s"
    )
    if rule.min_seconds:
        title += f", of {rule.min_seconds:g} s or more"
    title += "; % of frames, events per hour: of normal videos"
    rows = [
        (row, [asdict(m.alarms) for m in row.per_seed if m.alarms is not None])
        for row in evaluation.rows
        if row.per_seed[0].alarms is not None
    ]
    return _table(title, _ALARM_HEADS, rows)


def controls_table(evaluation: Evaluation) -> Table:
    """How far the model and its averaged seeds are above each control: points of AUC."""
    model, *averaged = compared = list(evaluation.compared.values())
    leads = {row.name: [each.lead_over(row) for each in compared] for row in evaluation.rows}
    title = (
        f"{model.name} above its controls: points of AUC, {LEVEL:.0%} interval over test videos "
        "and seeds (* excludes 0)"
    )
    if any(lead is not None and lead.low is None for of_row in leads.values() for lead in of_row):
        title += f"; {WHY_NO_INTERVAL}"
    rows = tuple(
        (name, *(str(lead or "") for lead in of_row))
        for name, of_row in leads.items()
        if any(of_row)
    )
    n_seeds = len(model.per_seed)
    means = (f"mean of {n_seeds} seeds", f"{n_seeds} seeds averaged: over test videos alone")
    return Table(title, ("", *means) if averaged else ("", "difference"), rows)


def _table(
    title: str, heads: dict[str, str], rows: Sequence[tuple[Row, Sequence[dict[str, float]]]]
) -> Table:
    cells = [
        (
            _row_name(row),
            str(len(per_seed)),
            *(
                _mean_and_spread(
                    [values[key] * (1 if key in _NOT_FRACTIONS else 100) for values in per_seed]
                )
                for key in heads
            ),
        )
        for row, per_seed in rows
    ]
    return Table(title, ("", "seeds", *heads.values()), tuple(cells))


def _row_name(row: Row) -> str:
    return row.name if row.n_videos is None else f"  {row.name} ({row.n_videos})"


def _mean_and_spread(values: list[float]) -> str:
    """To one decimal, with the standard deviation if there is more than one value."""
    if any(math.isnan(value) for value in values):
        return "-"
    mean = f"{np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.1f}"


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """The same as plain values: fractions in [0, 1], null where a metric is not defined.

    Each metric of a row holds `mean`, `std` (sample standard deviation, null for one seed) and
    `per_seed`, in the order of `seeds`. `model_lead` of a control is the `mean` difference between
    the model's AUC and its own, with the ends `low` and `high` of a 95 % interval, null where the
    test videos do not allow one; `averaged_lead` is that of the averaged seeds.
    """
    values = asdict(evaluation)
    del values["rows"], values["rule"], values["calibration"]
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **values,
        "is_calibrated": evaluation.calibration is not None,
        "event_rule": {**asdict(evaluation.rule), "release": evaluation.rule.release},
        "rows": [_row_to_json(row, evaluation) for row in evaluation.rows],
    }


def _row_to_json(row: Row, evaluation: Evaluation) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        field.name: _summary([getattr(m.frames, field.name) for m in row.per_seed])
        for field in fields(FrameMetrics)
    }
    alarms = [m.alarms for m in row.per_seed if m.alarms is not None]
    if alarms:
        metrics |= {
            field.name: _summary([getattr(alarm, field.name) for alarm in alarms])
            for field in fields(AlarmMetrics)
        }
    values: dict[str, Any] = {
        "name": row.name,
        "kind": row.kind,
        "n_videos": row.n_videos,
        "metrics": metrics,
    }
    leads = {name: each.lead_over(row) for name, each in evaluation.compared.items()}
    return values | {name: asdict(lead) for name, lead in leads.items() if lead is not None}


def _summary(values: list[float]) -> dict[str, Any]:
    is_defined = not any(math.isnan(value) for value in values)
    return {
        "mean": float(np.mean(values)) if is_defined else None,
        "std": float(np.std(values, ddof=1)) if is_defined and len(values) > 1 else None,
        "per_seed": [None if math.isnan(value) else value for value in values],
    }


def write_json(evaluation: Evaluation, path: Path) -> None:
    """Write `as_json`; the file appears whole or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    text = json.dumps(as_json(evaluation), indent=2, allow_nan=False)
    write_output(path, f"{text}\n".encode())
