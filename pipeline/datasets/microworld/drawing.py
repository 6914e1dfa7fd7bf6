"""Anti-aliased shapes and textures for microworld's frames, drawn with OpenCV.

A canvas is (H, W, 3) uint8 RGB, drawn on in place. Points are (x, y) in pixels, x to the right, y
down; pixel (column, row) has its center at x = column, y = row.
"""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Canvas = NDArray[np.uint8]
Point = tuple[float, float]
Color = tuple[float, float, float]

# OpenCV takes coordinates as integers; with this shift they count sixteenths of a pixel.
SHIFT = 4


def draw_line(canvas: Canvas, start: Point, end: Point, radius: float, color: Color) -> None:
    """Draw a line with round ends; its thickness, twice `radius`, is rounded to whole pixels."""
    thickness = max(round(2 * radius), 1)
    cv2.line(canvas, _fixed(start), _fixed(end), color, thickness, cv2.LINE_AA, SHIFT)


def draw_lines(canvas: Canvas, points: Sequence[Point], radius: float, color: Color) -> None:
    """Draw an open chain of lines."""
    for start, end in pairwise(points):
        draw_line(canvas, start, end, radius, color)


def draw_ellipse(
    canvas: Canvas, center: Point, radii: Point, color: Color, opacity: float = 1.0
) -> None:
    """Draw a filled ellipse with its axes along x and y; `opacity` is in [0, 1]."""
    layer = canvas if opacity == 1 else canvas.copy()
    ellipse = (_fixed(center), _fixed(radii), 0, 0, 360)
    cv2.ellipse(layer, *ellipse, color, cv2.FILLED, cv2.LINE_AA, SHIFT)
    if opacity < 1:
        cv2.addWeighted(layer, opacity, canvas, 1 - opacity, 0, dst=canvas)


def draw_ring(canvas: Canvas, center: Point, radius: float, width: float, color: Color) -> None:
    """Draw a circle's outline, `width` rounded to whole pixels."""
    (fixed_radius, _), thickness = _fixed((radius, 0)), max(round(width), 1)
    cv2.circle(canvas, _fixed(center), fixed_radius, color, thickness, cv2.LINE_AA, SHIFT)


def draw_polygon(canvas: Canvas, points: Sequence[Point], color: Color) -> None:
    """Draw a filled convex polygon; the points may go round either way."""
    corners = np.array([_fixed(point) for point in points], np.int32)
    cv2.fillConvexPoly(canvas, corners, color, cv2.LINE_AA, SHIFT)


def draw_box(canvas: Canvas, corner: Point, opposite: Point, color: Color) -> None:
    """Draw a filled rectangle with its sides along x and y."""
    (x0, y0), (x1, y1) = corner, opposite
    draw_polygon(canvas, ((x0, y0), (x1, y0), (x1, y1), (x0, y1)), color)


def smooth_noise(
    rng: np.random.Generator, height: int, width: int, cell_len: int
) -> NDArray[np.float32]:
    """Sample blotches about `cell_len` pixels wide: (height, width), mean about 0, std 0.5."""
    knots = rng.standard_normal((height // cell_len + 2, width // cell_len + 2), dtype=np.float32)
    return np.asarray(cv2.resize(knots, (width, height), interpolation=cv2.INTER_LINEAR))


def to_pixels(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Clip values to [0, 255] and cut them to whole numbers."""
    pixels: NDArray[np.uint8] = np.clip(values, 0, 255).astype(np.uint8)
    return pixels


def _fixed(point: Point) -> tuple[int, int]:
    return round(point[0] * 2**SHIFT), round(point[1] * 2**SHIFT)
