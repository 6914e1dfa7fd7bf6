"""Plot one video's scores over time."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.figures import CURVE_COLOR, NOTE_COLOR, png_figure


def plot_scores(
    timestamps: NDArray[np.float64],
    per_frame: NDArray[np.float32],
    path: Path,
    *,
    title: str = "",
    note: str = "",
) -> None:
    """Plot the score of every frame over time as a PNG file.

    Args:
        timestamps: (n_frames,) seconds.
        per_frame: (n_frames,) scores in [0, 1].
        path: The file, which appears whole or not at all; `-` is stdout.
        title: Above the curve, usually the video's name.
        note: A warning at the right of the title, such as that the weights are random.

    Raises:
        OSError: If the file cannot be written.
    """
    with png_figure(path, inches=(10, 3.2), dpi=120, font_size=10) as figure:
        axes = figure.add_subplot()
        # The bytes of a file's name may be no text, and a dollar in it begins no formula.
        readable = title.encode(errors="surrogateescape").decode(errors="replace")
        axes.set_title(readable, loc="left", parse_math=False)
        if note:
            axes.set_title(note, loc="right", color=NOTE_COLOR, fontsize=9)
        axes.step(timestamps, per_frame, where="post", color=CURVE_COLOR)
        axes.fill_between(timestamps, per_frame, step="post", color=CURVE_COLOR, alpha=0.15)
        axes.set(xlabel="time (seconds)", ylabel="anomaly score", ylim=(0, 1.02))
        axes.margins(x=0)
        axes.grid(alpha=0.3)
