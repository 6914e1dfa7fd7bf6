"""Resize images, write JPEG, draw curves and labels. The only module that imports Pillow."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

BACKGROUND = (16, 22, 29)
GRID = (44, 55, 66)
CURVE = (106, 168, 255)
ALARM = (255, 122, 89)
ALARM_BACKGROUND = (168, 38, 20)
BAND = (84, 42, 36)
TEXT = (255, 255, 255)
PLAYHEAD = (255, 255, 255)


def resize_to_width(image: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Scale an image (H, W, 3) uint8 RGB to a width in pixels; a narrower one is left as it is."""
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    if image.shape[1] <= width:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def resize_to_fit(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Scale an image (H, W, 3) uint8 RGB to fit into a box, its proportions kept; never larger."""
    return resize_to_width(image, max(1, min(width, height * image.shape[1] // image.shape[0])))


def save_jpeg(image: NDArray[np.uint8], file: BinaryIO, *, quality: int) -> None:
    """Write an image (H, W, 3) uint8 RGB as JPEG; quality is in [1, 95]."""
    Image.fromarray(np.ascontiguousarray(image)).save(file, "JPEG", quality=quality, optimize=True)


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """A drawn curve on which a playhead can be set.

    Attributes:
        image: (height, width, 3) uint8 RGB.
    """

    image: NDArray[np.uint8]

    def at(self, fraction: float) -> NDArray[np.uint8]:
        """A copy with the playhead at a fraction in [0, 1] of the width."""
        width = self.image.shape[1]
        thickness = max(2, width // 400)
        left = min(round(fraction * (width - 1)), width - thickness)
        image = self.image.copy()
        image[:, left : left + thickness] = PLAYHEAD
        return image


def draw_curve_panel(
    size: tuple[int, int],
    scores: NDArray[np.float32],
    bands: Sequence[tuple[float, float]],
    threshold: float,
) -> Panel:
    """Draw a score curve with its threshold and events.

    Args:
        size: Height and width in pixels.
        scores: (width,) the score of each column, in [0, 1].
        bands: Events as (start, stop), fractions of the width in [0, 1].
        threshold: In [0, 1]; a line.
    """
    height, width = size
    scale = 2  # drawn larger and made smaller: smooth lines
    image = Image.new("RGB", (width * scale, height * scale), BACKGROUND)
    draw = ImageDraw.Draw(image)
    margin = height * 0.08

    def y(score: float) -> float:
        return float((margin + (1 - score) * (height - 2 * margin)) * scale)

    for start, stop in bands:
        left, right = start * width * scale, max(stop * width, start * width + 1) * scale
        draw.rectangle((left, 0, right, height * scale), fill=BAND)
    for grid in (0.0, 0.5, 1.0):
        draw.line((0, y(grid), width * scale, y(grid)), fill=GRID, width=scale)
    draw.line((0, y(threshold), width * scale, y(threshold)), fill=ALARM, width=scale)
    points = []
    for column, score in enumerate(scores.tolist()):
        points += [(column * scale, y(score)), ((column + 1) * scale, y(score))]
    draw.line(points, fill=CURVE, width=max(2, height // 40) * scale, joint="curve")
    return Panel(np.asarray(image.resize((width, height), Image.Resampling.BOX)))


def draw_label(
    size: tuple[int, int], score: str, time: str, *, is_alarm: bool
) -> NDArray[np.uint8]:
    """Draw a score in large type above a time in small type.

    Args:
        size: Height and width in pixels.
        score: Such as "0.87".
        time: Such as "1:02.3".
        is_alarm: Whether the score is part of an event, which is drawn on red.
    """
    height, width = size
    image = Image.new("RGB", (width, height), ALARM_BACKGROUND if is_alarm else BACKGROUND)
    draw = ImageDraw.Draw(image)
    middle = width / 2
    draw.text(
        (middle, height * 0.37), score, fill=TEXT, font=_font(round(height * 0.46)), anchor="mm"
    )
    draw.text(
        (middle, height * 0.79), time, fill=TEXT, font=_font(round(height * 0.22)), anchor="mm"
    )
    return np.asarray(image)


@cache
def _font(px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=px)
