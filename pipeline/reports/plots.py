"""Plot ROC and precision-recall curves of an evaluation, and the loss terms of a training run."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.evaluation.results import Evaluation, Row
from pipeline.figures import CURVE_COLOR, NOTE_COLOR, Axes, png_figure
from pipeline.notes import weights_note

ROW_COLORS = (CURVE_COLOR, "#c55a11", "#7f7f7f")


def plot_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Plot the ROC and the precision-recall curves, one line per system and seed, as a PNG file.

    Args:
        evaluation: What was measured.
        path: The file, which appears whole or not at all; `-` is stdout.

    Raises:
        OSError: If the file cannot be written.
    """
    drawn = [row for row in evaluation.rows if row.per_seed[0].curves is not None]
    fraction = evaluation.n_anomalous / evaluation.n_frames
    with png_figure(path, inches=(11, 5.2), dpi=120, font_size=10) as figure:
        title = (
            f"{evaluation.dataset}: {evaluation.n_frames} frames of {evaluation.n_videos} videos"
        )
        figure.suptitle(title, x=0.01, ha="left", parse_math=False)
        roc, recall = figure.subplots(1, 2)
        for row, color in zip(drawn, ROW_COLORS, strict=False):
            _draw_curves(row, roc, recall, color)
        roc.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":", label="chance")
        recall.axhline(fraction, color="black", linewidth=0.8, linestyle=":", label="chance")
        roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
        recall.set(xlabel="recall", ylabel="precision", title="precision and recall")
        for axes, place in ((roc, "lower right"), (recall, "upper right")):
            axes.set(xlim=(0, 1), ylim=(0, 1.02))
            axes.grid(alpha=0.3)
            axes.legend(loc=place, fontsize=9)
        note = weights_note(evaluation.is_pretrained)
        figure.text(0.99, 0.975, note, ha="right", va="top", color=NOTE_COLOR, fontsize=9)


def _draw_curves(row: Row, roc: Axes, recall: Axes, color: str) -> None:
    """All seeds in one color; the first carries the label with the mean."""
    n_seeds = len(row.per_seed)
    auc = sum(m.frames.auc for m in row.per_seed) / n_seeds
    ap = sum(m.frames.ap_trapezoid for m in row.per_seed) / n_seeds
    for index, measured in enumerate(row.per_seed):
        curves = measured.curves
        assert curves is not None
        x, y = curves.false_positive_rate, curves.true_positive_rate
        (roc_line,) = roc.plot(x, y, color=color, alpha=0.8)
        (recall_line,) = recall.plot(curves.recall, curves.precision, color=color, alpha=0.8)
        if index == 0:
            roc_line.set_label(f"{row.name}, AUC {auc:.1%}")
            recall_line.set_label(f"{row.name}, AP {ap:.1%}")


def plot_losses(losses: Sequence[dict[str, float]], steps: Sequence[int], path: Path) -> None:
    """Plot every term of a training run's loss over its steps as a PNG file.

    Args:
        losses: Per epoch the terms by name.
        steps: Per epoch the steps done so far.
        path: The file, which appears whole or not at all.

    Raises:
        OSError: If the file cannot be written.
    """
    names = list(losses[0])
    inches = (8, 1.6 * len(names) + 0.5)
    with png_figure(path, inches=inches, dpi=110, font_size=9) as figure:
        panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
        for axes, name in zip(panels, names, strict=True):
            values = [epoch[name] for epoch in losses]
            marker = "o" if len(values) < 3 else None  # a line of one point shows nothing
            axes.plot(steps, values, color=CURVE_COLOR, linewidth=1.3, marker=marker)
            axes.set_title(name, loc="left", fontsize=9)
            axes.grid(alpha=0.3)
        panels[-1].set_xlabel("step")
