"""Pictures that people look at instead of numbers. The only door to matplotlib."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from pipeline.atomic import replacing
from pipeline.frame_scores import Scores

CURVE_COLOUR = "#1f4e79"
NOTE_COLOUR = "#a61c00"


def plot_scores(scores: Scores, path: Path, *, title: str, note: str = "") -> None:
    """Draw the score of every frame over time as a PNG file.

    Args:
        scores: One video's.
        path: Where the picture goes, whole or not at all.
        title: Drawn above the curve, usually the video's name.
        note: A warning drawn under the title, such as "random weights: no semantics".

    Raises:
        OSError: If the file cannot be written.
    """
    with mpl.rc_context({"font.size": 10}):
        figure = Figure(figsize=(10, 3.2), dpi=120, layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title, loc="left")
        if note:
            axes.set_title(note, loc="right", color=NOTE_COLOUR, fontsize=9)
        axes.step(scores.timestamps, scores.per_frame, where="post", color=CURVE_COLOUR)
        axes.fill_between(
            scores.timestamps, scores.per_frame, step="post", color=CURVE_COLOUR, alpha=0.15
        )
        axes.set(xlabel="time (seconds)", ylabel="anomaly score", ylim=(0, 1.02))
        axes.margins(x=0)
        axes.grid(alpha=0.3)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")
