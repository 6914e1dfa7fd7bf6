"""Drawing with NumPy: shapes with soft edges at fractions of a pixel, and textures.

A canvas is (H, W, 3) float32 RGB in [0, 255], drawn on in place. Points are (x, y) in pixels, x to
the right, y down; pixel (column, row) has its centre at x = column, y = row.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Canvas = NDArray[np.float32]
Point = tuple[float, float]
Colour = tuple[float, float, float]


def draw_line(canvas: Canvas, start: Point, end: Point, radius: float, colour: Colour) -> None:
    """Draw a line with round ends; `radius` is half its thickness."""
    patch = _Patch(canvas, (start, end), margin=radius + 1)
    along = (end[0] - start[0], end[1] - start[1])
    squared_len = max(along[0] ** 2 + along[1] ** 2, 1e-9)
    x, y = patch.x - start[0], patch.y - start[1]
    fraction = np.clip((x * along[0] + y * along[1]) / squared_len, 0, 1)
    distance = np.hypot(x - fraction * along[0], y - fraction * along[1])
    patch.paint(distance - radius, colour)


def draw_lines(canvas: Canvas, points: Sequence[Point], radius: float, colour: Colour) -> None:
    """Draw an open chain of lines."""
    for start, end in pairwise(points):
        draw_line(canvas, start, end, radius, colour)


def draw_ellipse(
    canvas: Canvas, centre: Point, radii: Point, colour: Colour, opacity: float = 1.0
) -> None:
    """Draw a filled ellipse with its axes along x and y; `opacity` is in [0, 1]."""
    patch = _Patch(canvas, (centre,), margin=max(radii) + 1)
    relative = np.hypot((patch.x - centre[0]) / radii[0], (patch.y - centre[1]) / radii[1])
    patch.paint((relative - 1) * min(radii), colour, opacity)


def draw_ring(canvas: Canvas, centre: Point, radius: float, width: float, colour: Colour) -> None:
    """Draw a circle's outline, `width` pixels wide."""
    patch = _Patch(canvas, (centre,), margin=radius + width)
    distance = np.hypot(patch.x - centre[0], patch.y - centre[1])
    patch.paint(np.abs(distance - radius) - width / 2, colour)


def draw_polygon(canvas: Canvas, points: Sequence[Point], colour: Colour) -> None:
    """Draw a filled convex polygon; the points may go round either way."""
    patch = _Patch(canvas, points, margin=1)
    centre_x = sum(x for x, _ in points) / len(points)
    centre_y = sum(y for _, y in points) / len(points)
    distance = np.full(np.broadcast_shapes(patch.x.shape, patch.y.shape), -np.inf, np.float32)
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        edge_len = max(math.hypot(x1 - x0, y1 - y0), 1e-9)
        normal_x, normal_y = (y1 - y0) / edge_len, (x0 - x1) / edge_len
        if (centre_x - x0) * normal_x + (centre_y - y0) * normal_y > 0:
            normal_x, normal_y = -normal_x, -normal_y
        distance = np.maximum(distance, (patch.x - x0) * normal_x + (patch.y - y0) * normal_y)
    patch.paint(distance, colour)


def draw_box(canvas: Canvas, corner: Point, opposite: Point, colour: Colour) -> None:
    """Draw a filled rectangle with its sides along x and y."""
    (x0, y0), (x1, y1) = corner, opposite
    draw_polygon(canvas, ((x0, y0), (x1, y0), (x1, y1), (x0, y1)), colour)


def smooth_noise(
    rng: np.random.Generator, height: int, width: int, cell_len: int
) -> NDArray[np.float32]:
    """Make blotches about `cell_len` pixels wide: (height, width), mean about 0, deviation 0.5."""
    rows = np.linspace(0, height / cell_len, height, dtype=np.float32)
    columns = np.linspace(0, width / cell_len, width, dtype=np.float32)
    knots = rng.standard_normal((height // cell_len + 2, width // cell_len + 2), dtype=np.float32)
    row, row_fraction = rows.astype(int), rows[:, None] % 1
    column, column_fraction = columns.astype(int), columns % 1
    upper, lower = knots[row], knots[row + 1]
    along_rows = upper + row_fraction * (lower - upper)
    left, right = along_rows[:, column], along_rows[:, column + 1]
    texture: NDArray[np.float32] = left + column_fraction * (right - left)
    return texture


class _Patch:
    """The part of a canvas around some points, and the coordinates of its pixels.

    Attributes:
        x: (1, width) column coordinates.
        y: (height, 1) row coordinates.
    """

    def __init__(self, canvas: Canvas, points: Sequence[Point], margin: float) -> None:
        height, width = canvas.shape[:2]
        left = min(max(math.floor(min(x for x, _ in points) - margin), 0), width)
        right = max(min(math.ceil(max(x for x, _ in points) + margin) + 1, width), left)
        top = min(max(math.floor(min(y for _, y in points) - margin), 0), height)
        bottom = max(min(math.ceil(max(y for _, y in points) + margin) + 1, height), top)
        self._pixels = canvas[top:bottom, left:right]
        self.x = np.arange(left, right, dtype=np.float32)[None]
        self.y = np.arange(top, bottom, dtype=np.float32)[:, None]

    def paint(self, distance: NDArray[np.floating], colour: Colour, opacity: float = 1.0) -> None:
        """Lay the colour over the pixels whose signed distance to a shape's edge is below 0."""
        cover = (np.clip(0.5 - distance, 0, 1) * opacity)[..., None]  # (height, width, 1)
        self._pixels += cover * (np.asarray(colour, np.float32) - self._pixels)
