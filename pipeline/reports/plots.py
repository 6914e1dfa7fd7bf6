"""Pictures that people look at instead of numbers. The only door to matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.outputs import write_output
from pipeline.scoring.frame_scores import Scores

# What computes metrics takes a second to load, for which `pipeline score` need not wait.
if TYPE_CHECKING:
    from pipeline.evaluation.results import Evaluation, Row

CURVE_COLOUR = "#1f4e79"
NOTE_COLOUR = "#a61c00"
ROW_COLOURS = (CURVE_COLOUR, "#c55a11", "#7f7f7f")


def plot_scores(scores: Scores, path: Path, *, title: str, note: str = "") -> None:
    """Draw the score of every frame over time as a PNG file.

    Args:
        scores: One video's.
        path: Where the picture goes, whole or not at all.
        title: Drawn above the curve, usually the video's name.
        note: A warning drawn under the title, such as "random weights: not pretrained".

    Raises:
        OSError: If the file cannot be written.
    """
    with mpl.rc_context({"font.size": 10}):
        figure = Figure(figsize=(10, 3.2), dpi=120, layout="constrained")
        axes = figure.add_subplot()
        # A file's name: its bytes may be no text, and a dollar in it begins no formula.
        readable = title.encode(errors="surrogateescape").decode(errors="replace")
        axes.set_title(readable, loc="left", parse_math=False)
        if note:
            axes.set_title(note, loc="right", color=NOTE_COLOUR, fontsize=9)
        axes.step(scores.timestamps, scores.per_frame, where="post", color=CURVE_COLOUR)
        axes.fill_between(
            scores.timestamps, scores.per_frame, step="post", color=CURVE_COLOUR, alpha=0.15
        )
        axes.set(xlabel="time (seconds)", ylabel="anomaly score", ylim=(0, 1.02))
        axes.margins(x=0)
        axes.grid(alpha=0.3)
        write_output(path, _png(figure))


def plot_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Draw the ROC and the precision-recall curves, one line per system and seed, as a PNG file.

    Args:
        evaluation: What was measured.
        path: Where the picture goes, whole or not at all.

    Raises:
        OSError: If the file cannot be written.
    """
    drawn = [row for row in evaluation.rows if row.per_seed[0].curves is not None]
    share = evaluation.n_anomalous / evaluation.n_frames
    with mpl.rc_context({"font.size": 10}):
        figure = Figure(figsize=(11, 5.2), dpi=120, layout="constrained")
        title = (
            f"{evaluation.dataset}: {evaluation.n_frames} frames of {evaluation.n_videos} videos"
        )
        figure.suptitle(title, x=0.01, ha="left", parse_math=False)
        roc, recall = figure.subplots(1, 2)
        for row, colour in zip(drawn, ROW_COLOURS, strict=False):
            _draw_curves(row, roc, recall, colour)
        roc.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":", label="chance")
        recall.axhline(share, color="black", linewidth=0.8, linestyle=":", label="chance")
        roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
        recall.set(xlabel="recall", ylabel="precision", title="precision and recall")
        for axes, place in ((roc, "lower right"), (recall, "upper right")):
            axes.set(xlim=(0, 1), ylim=(0, 1.02))
            axes.grid(alpha=0.3)
            axes.legend(loc=place, fontsize=9)
        if not evaluation.is_pretrained:
            note = "random weights: not pretrained"
            figure.text(0.99, 0.975, note, ha="right", va="top", color=NOTE_COLOUR, fontsize=9)
        write_output(path, _png(figure))


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_curves(row: Row, roc: Axes, recall: Axes, colour: str) -> None:
    """All seeds in one colour; the first carries the label with the mean."""
    n_seeds = len(row.per_seed)
    auc = sum(m.frames.auc for m in row.per_seed) / n_seeds
    ap = sum(m.frames.ap_trapezoid for m in row.per_seed) / n_seeds
    for index, measured in enumerate(row.per_seed):
        curves = measured.curves
        assert curves is not None
        x, y = curves.false_positive_rate, curves.true_positive_rate
        (roc_line,) = roc.plot(x, y, color=colour, alpha=0.8)
        (recall_line,) = recall.plot(curves.recall, curves.precision, color=colour, alpha=0.8)
        if index == 0:
            roc_line.set_label(f"{row.name}, AUC {auc:.1%}")
            recall_line.set_label(f"{row.name}, AP {ap:.1%}")


def plot_losses(losses: Sequence[dict[str, float]], steps: Sequence[int], path: Path) -> None:
    """Draw every term of a training's loss over its steps as a PNG file.

    Args:
        losses: Per epoch the terms by name.
        steps: Per epoch the steps done so far.
        path: Where the picture goes, whole or not at all.

    Raises:
        OSError: If the file cannot be written.
    """
    names = list(losses[0])
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(8, 1.6 * len(names) + 0.5), dpi=110, layout="constrained")
        panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
        for axes, name in zip(panels, names, strict=True):
            values = [epoch[name] for epoch in losses]
            marker = "o" if len(values) < 3 else None  # a line of one point shows nothing
            axes.plot(steps, values, color=CURVE_COLOUR, linewidth=1.3, marker=marker)
            axes.set_title(name, loc="left", fontsize=9)
            axes.grid(alpha=0.3)
        panels[-1].set_xlabel("step")
        write_output(path, _png(figure))
