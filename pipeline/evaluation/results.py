"""What an evaluation found: kept as values, laid out for people, written as JSON for machines."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.evaluation.alarms import AlarmMetrics
from pipeline.evaluation.metrics import Curves, FrameMetrics
from pipeline.outputs import write_output
from pipeline.scoring.events import EventRule

FORMAT = "lookaround evaluation"
FORMAT_VERSION = 1

RowKind = Literal["model", "best on test", "control", "class"]

_FRAME_HEADS = {
    "auc": "AUC",
    "auc_abnormal": "AUC abnormal",
    "ap_trapezoid": "AP trapezoid",
    "ap_step": "AP step",
    "ap_abnormal": "AP abnormal",
}
_ALARM_HEADS = {
    "false_alarm_share": "% of normal frames",
    "false_alarms_per_hour": "events per normal hour",
    "event_precision": "event precision %",
    "event_recall": "event recall %",
    "delay_seconds": "delay s",
}
_NOT_SHARES = ("false_alarms_per_hour", "delay_seconds")


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """One system, measured once.

    Attributes:
        frames: How well its scores rank frames.
        alarms: What its scores would alarm for; None where scores are not in [0, 1].
        curves: ROC and precision-recall; None where several were averaged.
    """

    frames: FrameMetrics
    alarms: AlarmMetrics | None = None
    curves: Curves | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: one system, measured once per seed.

    Attributes:
        name: What people read.
        kind: The model itself; the model at its epochs that were best on the test videos, which is
            optimistic; a control that is no model; or the model on one class of anomalies.
        per_seed: One measurement per seed.
        n_videos: Abnormal videos of the class; None where the row is of all videos.
    """

    name: str
    kind: RowKind
    per_seed: tuple[Measurement, ...]
    n_videos: int | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a table says, and of what.

    Attributes:
        trained_on: The name of the dataset that the model was trained on.
        dataset: The name of the dataset whose test videos were scored.
        n_videos: Test videos that were scored.
        n_absent: Test videos that have no features.
        n_frames: Frames of all test videos together.
        n_anomalous: Those that are anomalous.
        labels_sha256: Of the frame labels as bytes 0 and 1, video after video: figures are
            comparable only where it is equal.
        rule: When a score was an event.
        seeds: Of the model's trainings.
        is_pretrained: False where the features came from random weights.
        rows: One per system.
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
    is_pretrained: bool
    rows: tuple[Row, ...]


def as_table(evaluation: Evaluation) -> str:
    """The tables for people: in percent, mean and sample standard deviation over seeds."""
    absent = f" ({evaluation.n_absent} more have no features)" if evaluation.n_absent else ""
    share = evaluation.n_anomalous / evaluation.n_frames
    lines = [
        f"{evaluation.dataset}: {evaluation.n_videos} test videos{absent}, "
        f"{evaluation.n_frames} frames, "
        f"{evaluation.n_anomalous} of them anomalous ({share:.1%})",
        *_grid(
            _FRAME_HEADS,
            [(r, [asdict(m.frames) for m in r.per_seed]) for r in evaluation.rows],
        ),
    ]
    alarms = [
        (row, [asdict(m.alarms) for m in row.per_seed if m.alarms is not None])
        for row in evaluation.rows
        if row.per_seed[0].alarms is not None
    ]
    rule = evaluation.rule
    lines += [
        "",
        f"alarms at {rule.threshold:g}, released below {rule.release:g}, "
        f"joined within {rule.merge_seconds:g} s",
        *_grid(_ALARM_HEADS, alarms),
    ]
    return "\n".join(lines)


def _grid(
    heads: dict[str, str], rows: Sequence[tuple[Row, Sequence[dict[str, float]]]]
) -> list[str]:
    """A heading and a line per row; the columns are as wide as what stands in them."""
    names = [_row_name(row) for row, _ in rows]
    cells = [
        [
            _mean_and_spread(
                [values[key] * (1 if key in _NOT_SHARES else 100) for values in per_seed]
            )
            for key in heads
        ]
        for _, per_seed in rows
    ]
    width = max(map(len, names))
    widths = [
        max(len(head), *(len(line[column]) for line in cells))
        for column, head in enumerate(heads.values())
    ]
    lines = [f"{'':{width}}  seeds" + _columns(list(heads.values()), widths)]
    for name, (_, per_seed), line in zip(names, rows, cells, strict=True):
        lines.append(f"{name:{width}}  {len(per_seed):>5}" + _columns(line, widths))
    return lines


def _columns(texts: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f"  {text:>{width}}" for text, width in zip(texts, widths, strict=True))


def _row_name(row: Row) -> str:
    return row.name if row.n_videos is None else f"  {row.name} ({row.n_videos})"


def _mean_and_spread(values: list[float]) -> str:
    """To one decimal, with the spread where there is more than one value."""
    if any(math.isnan(value) for value in values):
        return "-"
    mean = f"{np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.1f}"


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """The same as plain values: shares in [0, 1], null where a figure has no meaning.

    Each metric of a row holds `mean`, `std` (sample standard deviation, null for one seed) and
    `per_seed`, in the order of `seeds`.
    """
    values = asdict(evaluation)
    del values["rows"], values["rule"]
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **values,
        "event_rule": {**asdict(evaluation.rule), "release": evaluation.rule.release},
        "rows": [_row_to_json(row) for row in evaluation.rows],
    }


def _row_to_json(row: Row) -> dict[str, Any]:
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
    return {"name": row.name, "kind": row.kind, "n_videos": row.n_videos, "metrics": metrics}


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
