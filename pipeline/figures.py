"""Make a figure and write it as PNG. The only module that imports matplotlib."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.outputs import write_output

__all__ = ["CURVE_COLOR", "NOTE_COLOR", "Axes", "Figure", "png_figure"]

CURVE_COLOR = "#1f4e79"
NOTE_COLOR = "#a61c00"


@contextmanager
def png_figure(
    path: Path, *, inches: tuple[float, float], dpi: int, font_size: int
) -> Iterator[Figure]:
    """Give an empty figure to draw in, and write it as a PNG file at the end.

    Args:
        path: The file, which appears whole or not at all; `-` is stdout.
        inches: Width and height.
        dpi: Pixels per inch.
        font_size: Points.

    Yields:
        The figure.

    Raises:
        OSError: If the file cannot be written.
    """
    with mpl.rc_context({"font.size": font_size}):
        figure = Figure(figsize=inches, dpi=dpi, layout="constrained")
        yield figure
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    write_output(path, buffer.getvalue())
