"""Make a figure and write it as PNG. The only module that imports matplotlib."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from numpy.typing import NDArray

from pipeline.outputs import write_output

__all__ = [
    "CURVE_COLOR",
    "NOTE_COLOR",
    "TRUTH_COLOR",
    "Axes",
    "Figure",
    "place_image",
    "png_figure",
]

CURVE_COLOR = "#1f4e79"
NOTE_COLOR = "#a61c00"
TRUTH_COLOR = "#12824c"


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


def place_image(axes: Axes, image: NDArray[np.uint8], x: float, dpi: int) -> None:
    """Show an image pixel by pixel, with its middle in the middle of the axes' height.

    Args:
        axes: Where.
        image: (H, W, 3) uint8 RGB.
        x: Of its middle, in the axes' units.
        dpi: Pixels per inch of the figure.
    """
    box = OffsetImage(image, zoom=72 / dpi)  # a size without a zoom is in points, 72 per inch
    placed = AnnotationBbox(
        box,
        (x, 0.5),
        xycoords=("data", "axes fraction"),
        frameon=False,
        pad=0,
        annotation_clip=True,
    )
    placed.set_in_layout(False)
    axes.add_artist(placed)
