"""The four places of microworld, each seen by a fixed camera.

The ground on which actors move is the same part of the frame in all of them.
"""

from collections.abc import Callable

import numpy as np

from pipeline.datasets.microworld.drawing import (
    Canvas,
    Color,
    draw_box,
    draw_ellipse,
    draw_line,
    draw_lines,
    draw_polygon,
    draw_ring,
    smooth_noise,
    to_pixels,
)

HEIGHT, WIDTH = 240, 320

# Pixels drawn beyond the frame on each side, for a camera that points a little elsewhere.
MARGIN = 6

# The y of the farthest and the nearest feet or wheels.
LANES = (142.0, 218.0)

GRASS: Color = (84, 122, 62)
CONCRETE: Color = (168, 166, 160)
RUBBER: Color = (170, 88, 66)


def draw_scene(rng: np.random.Generator, scene: str) -> Canvas:
    """Draw a place without actors, as one camera at one time of day sees it.

    Args:
        rng: Decides on textures, the camera's place to a few pixels, brightness and tint.
        scene: One of `SCENES`.

    Returns:
        (240, 320, 3) uint8 RGB.
    """
    canvas = np.zeros((HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN, 3), np.uint8)
    SCENES[scene](canvas, rng)
    top, left = rng.integers(0, 2 * MARGIN + 1, 2)
    canvas = canvas[top : top + HEIGHT, left : left + WIDTH]
    warmth = rng.uniform(-0.07, 0.07)
    tint = np.array([1 + warmth, 1, 1 - warmth], np.float32)
    return to_pixels(canvas * (tint * np.float32(rng.uniform(0.82, 1.08))))


def _draw_road(canvas: Canvas, rng: np.random.Generator) -> None:
    _fill(canvas, rng, 0, 96, (146, 138, 128), grain=3, blotches=4)
    for left in range(-20, canvas.shape[1], 86):  # house fronts
        shade = rng.uniform(0.8, 1.1)
        draw_box(canvas, (left, 0), (left + 84, 90), (150 * shade, 118 * shade, 100 * shade))
        for column in range(3):
            for y in (14, 52):
                x = left + 12 + 24 * column
                draw_box(canvas, (x, y), (x + 13, y + 22), (66, 78, 92))
    _fill(canvas, rng, 92, 134, CONCRETE, grain=5, blotches=4)
    for x in range(10, canvas.shape[1], 24):
        draw_line(canvas, (x, 94), (x - 6, 130), 0.6, (140, 138, 132))
    _fill(canvas, rng, 131, 136, (196, 194, 188), grain=4, blotches=2)
    _fill(canvas, rng, 136, 236, (78, 79, 82), grain=9, blotches=5)
    first_dash = rng.integers(0, 48)
    for x in range(int(first_dash) - 48, canvas.shape[1], 48):
        draw_box(canvas, (x, 182), (x + 26, 185), (222, 222, 214))
    for y in (142, 230):
        draw_box(canvas, (0, y), (canvas.shape[1], y + 2), (206, 200, 150))
    _fill(canvas, rng, 236, canvas.shape[0], (190, 188, 182), grain=5, blotches=3)


def _draw_footpath(canvas: Canvas, rng: np.random.Generator) -> None:
    _fill(canvas, rng, 0, 136, GRASS, grain=11, blotches=12)
    _draw_foliage(canvas, rng, y=40, n_crowns=16)
    for x in rng.uniform(0, canvas.shape[1], 3):
        draw_line(canvas, (x, 46), (x, 100), 4, (86, 66, 48))
        draw_ellipse(canvas, (x, 40), (26, 30), (52, 92, 44))
        draw_ellipse(canvas, (x - 8, 32), (14, 15), (66, 110, 54))
    _fill(canvas, rng, 134, 228, (198, 186, 160), grain=6, blotches=6)
    for y in (134, 152, 174, 200, 228):
        draw_line(canvas, (0, y), (canvas.shape[1], y), 0.7, (150, 138, 114))
    for row, (upper, lower) in enumerate(((134, 152), (152, 174), (174, 200), (200, 228))):
        for x in range(-10 + 20 * (row % 2), canvas.shape[1], 40):
            draw_line(canvas, (x, upper), (x, lower), 0.7, (150, 138, 114))
    bench_x = rng.uniform(40, canvas.shape[1] - 80)
    for y in (112, 118):
        draw_line(canvas, (bench_x, y), (bench_x + 44, y), 1.8, (132, 88, 52))
    for x in (bench_x + 5, bench_x + 39):
        draw_line(canvas, (x, 112), (x, 127), 1.2, (60, 60, 62))
    _fill(canvas, rng, 229, canvas.shape[0], GRASS, grain=11, blotches=10)


def _draw_playground(canvas: Canvas, rng: np.random.Generator) -> None:
    _fill(canvas, rng, 0, 70, (146, 186, 206), grain=2, blotches=3)
    _draw_foliage(canvas, rng, y=44, n_crowns=14)
    _fill(canvas, rng, 70, 132, RUBBER, grain=10, blotches=5)
    for x in range(0, canvas.shape[1], 9):  # the fence behind
        draw_line(canvas, (x, 46), (x, 84), 0.8, (226, 206, 90))
    draw_box(canvas, (0, 52), (canvas.shape[1], 54), (226, 206, 90))
    draw_box(canvas, (0, 76), (canvas.shape[1], 78), (226, 206, 90))
    shift = rng.uniform(-14, 14)
    _draw_swing(canvas, 58 + shift)
    _draw_slide(canvas, 176 + shift)
    for radius in (34, 25, 15):  # the climbing dome, its lower half covered by the ground
        draw_ring(canvas, (280 + shift, 130), radius, 2.2, (52, 100, 178))
    _fill(canvas, rng, 130, canvas.shape[0], RUBBER, grain=10, blotches=5)
    for center, radii, color in (
        ((70, 196), (44, 18), (64, 128, 168)),
        ((232, 168), (38, 14), (92, 152, 84)),
        ((290, 224), (34, 12), (222, 176, 62)),
    ):
        draw_ellipse(canvas, center, radii, color, opacity=0.85)
    _speckle(canvas, rng, 132, canvas.shape[0])
    draw_box(canvas, (0, 130), (canvas.shape[1], 134), (206, 200, 190))


def _draw_swing(canvas: Canvas, x: float) -> None:
    for foot in (x - 34, x + 34):
        top = x - 26 if foot < x else x + 26
        draw_line(canvas, (foot - 8, 128), (top, 74), 2.0, (196, 52, 46))
        draw_line(canvas, (foot + 8, 126), (top, 74), 2.0, (176, 46, 42))
    draw_line(canvas, (x - 28, 74), (x + 28, 74), 2.2, (196, 52, 46))
    for seat in (x - 13, x + 13):
        draw_lines(canvas, ((seat - 4, 76), (seat - 4, 112), (seat + 4, 112), (seat + 4, 76)), 0.8,
                   (60, 60, 64))  # fmt: skip
        draw_line(canvas, (seat - 5, 113), (seat + 5, 113), 1.6, (40, 60, 120))


def _draw_slide(canvas: Canvas, x: float) -> None:
    draw_line(canvas, (x - 30, 128), (x - 26, 78), 2.0, (60, 120, 72))
    draw_line(canvas, (x - 14, 128), (x - 14, 78), 2.0, (60, 120, 72))
    for y in range(86, 126, 8):
        draw_line(canvas, (x - 29, y), (x - 14, y), 1.0, (60, 120, 72))
    draw_polygon(canvas, ((x - 28, 76), (x - 12, 76), (x - 20, 62)), (52, 104, 176))
    draw_lines(canvas, ((x - 14, 88), (x + 22, 122), (x + 36, 124)), 3.6, (240, 200, 50))
    draw_lines(canvas, ((x - 14, 88), (x + 22, 122), (x + 36, 124)), 1.4, (206, 160, 30))


def _draw_square(canvas: Canvas, rng: np.random.Generator) -> None:
    _fill(canvas, rng, 0, 120, (204, 186, 150), grain=4, blotches=5)
    for left in range(-30, canvas.shape[1], 62):  # an arcade under tall windows
        draw_box(canvas, (left + 16, 8), (left + 28, 40), (88, 96, 104))
        draw_box(canvas, (left + 40, 8), (left + 52, 40), (88, 96, 104))
        draw_ellipse(canvas, (left + 34, 78), (18, 18), (92, 78, 66))
        draw_box(canvas, (left + 16, 78), (left + 52, 118), (92, 78, 66))
    draw_box(canvas, (0, 48), (canvas.shape[1], 53), (224, 208, 176))
    _draw_cobbles(canvas, rng, top=116)
    fountain_x = rng.uniform(90, 240)
    draw_ellipse(canvas, (fountain_x, 124), (44, 9), (150, 146, 138))
    draw_ellipse(canvas, (fountain_x, 122), (38, 6), (96, 140, 160))
    draw_line(canvas, (fountain_x, 120), (fountain_x, 92), 3, (160, 156, 148))
    draw_ellipse(canvas, (fountain_x, 94), (14, 3.5), (172, 168, 160))
    for x in (30, 306):
        draw_line(canvas, (x, 130), (x, 58), 1.5, (44, 48, 50))
        draw_ellipse(canvas, (x, 56), (4.5, 6), (244, 236, 204))


def _draw_cobbles(canvas: Canvas, rng: np.random.Generator, top: int) -> None:
    height, width = canvas.shape[:2]
    rows = np.arange(top, height)
    row = ((rows - top) / 9).astype(int)
    shifted = np.arange(width)[None] + 7 * (row % 2)[:, None]
    shade = rng.uniform(0.8, 1.15, (row[-1] + 1, width // 14 + 2))
    stones = shade[row[:, None], shifted // 14]
    is_joint = ((rows - top) % 9 < 1)[:, None] | (shifted % 14 < 1)
    stones = np.where(is_joint, 0.62, stones).astype(np.float32)
    colors = stones[..., None] * np.array([140, 136, 134], np.float32)
    grain = 5 * rng.standard_normal((height - top, width, 1), dtype=np.float32)
    canvas[top:] = to_pixels(colors + grain)


def _draw_foliage(canvas: Canvas, rng: np.random.Generator, y: float, n_crowns: int) -> None:
    for x in np.linspace(0, canvas.shape[1], n_crowns):
        shade = rng.uniform(0.75, 1.1)
        radii = (rng.uniform(16, 24), rng.uniform(18, 28))
        center = (x + rng.uniform(-6, 6), y - rng.uniform(8, 26))
        draw_ellipse(canvas, center, radii, (58 * shade, 88 * shade, 48 * shade))


def _speckle(canvas: Canvas, rng: np.random.Generator, top: int, bottom: int) -> None:
    """Scatter the crumbs of a rubber floor."""
    n_crumbs = 1800
    rows = rng.integers(top, bottom, n_crumbs)
    columns = rng.integers(0, canvas.shape[1], n_crumbs)
    crumbs = canvas[rows, columns] + rng.uniform(-42, 42, (n_crumbs, 1))
    canvas[rows, columns] = to_pixels(crumbs)


def _fill(
    canvas: Canvas,
    rng: np.random.Generator,
    top: int,
    bottom: int,
    color: Color,
    *,
    grain: float,
    blotches: float,
) -> None:
    """Fill rows with a color whose brightness varies from pixel to pixel and from spot to spot."""
    width = canvas.shape[1]
    bottom = min(bottom, canvas.shape[0])
    texture = grain * rng.standard_normal((bottom - top, width), dtype=np.float32)
    texture += blotches * smooth_noise(rng, bottom - top, width, 14)
    canvas[top:bottom] = to_pixels(np.asarray(color, np.float32) + texture[..., None])


SCENES: dict[str, Callable[[Canvas, np.random.Generator], None]] = {
    "road": _draw_road,
    "footpath": _draw_footpath,
    "playground": _draw_playground,
    "square": _draw_square,
}
