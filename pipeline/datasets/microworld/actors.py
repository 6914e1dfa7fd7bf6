"""The actors of microworld: people who walk, run or cycle, and cars.

An actor crosses the frame at a constant speed and enters again on the other side, so that it
moves in every frame. Lengths below are for an actor of scale 1; the nearer lanes are drawn larger.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.datasets.microworld.drawing import (
    Canvas,
    Color,
    Point,
    draw_ellipse,
    draw_line,
    draw_lines,
    draw_polygon,
    draw_ring,
)

MOTIONS = ("walk", "run", "cycle", "drive")

# Pixels per frame at scale 1; the ranges do not meet at any scale.
SPEEDS = {"walk": (1.9, 2.6), "run": (5.6, 6.6), "cycle": (8.8, 9.8), "drive": (12.8, 14.0)}

# Pixels from the first to the last point of an actor, along its path.
LENGTHS = {"walk": 24.0, "run": 32.0, "cycle": 48.0, "drive": 84.0}

# Radians per frame. A stride or a turn of the pedals takes at least four frames: at 6 frames per
# second anything faster would seem to go backwards.
CADENCES = {"walk": 0.75, "run": 1.4, "cycle": 0.95, "drive": 1.3}

PERSON_HEIGHT = 42.0

CLOTHES: tuple[Color, ...] = (
    (176, 42, 40), (36, 66, 140), (226, 196, 60), (38, 112, 70), (232, 232, 228), (44, 44, 50),
    (212, 112, 40), (122, 62, 132), (96, 148, 190), (120, 92, 66),
)  # fmt: skip
TROUSERS: tuple[Color, ...] = ((38, 42, 58), (60, 74, 108), (84, 76, 66), (28, 28, 30))
SKINS: tuple[Color, ...] = ((226, 186, 160), (190, 140, 108), (122, 84, 62))
PAINTS: tuple[Color, ...] = (
    (178, 34, 36), (40, 76, 150), (214, 216, 218), (52, 54, 60), (222, 178, 50), (60, 116, 86),
    (136, 142, 150),
)  # fmt: skip

BLACK: Color = (24, 24, 26)
STEEL: Color = (176, 180, 184)
GLASS: Color = (70, 92, 108)


@dataclass(frozen=True, slots=True)
class Actor:
    """One actor of one act.

    Attributes:
        motion: One of `MOTIONS`.
        first_place: Its position along its path in the act's first frame; 0 and 1 are the
            frame's edges, where it cannot be seen.
        ground_y: Where it touches the ground.
        speed: Pixels per frame; negative to the left.
        scale: Its size; 1 stands for a person of 42 pixels.
        first_phase: Radians in its stride or turn of the pedals.
        colors: Clothes or paint, trousers, skin.
    """

    motion: str
    first_place: float
    ground_y: float
    speed: float
    scale: float
    first_phase: float
    colors: tuple[Color, Color, Color]

    def x_at(self, n_frames_since_start: int, width: int) -> float:
        """The x of its center, some frames after its act began, in a frame of this width."""
        half_len = LENGTHS[self.motion] * self.scale / 2
        way_len = width + 2 * half_len
        way = self.first_place * way_len + self.speed * n_frames_since_start
        return way % way_len - half_len


def make_actors(
    rng: np.random.Generator, motion: str, lanes: tuple[float, float]
) -> tuple[Actor, Actor]:
    """Sample the two actors of an act, the farther one first.

    Both start well inside the frame, and when one of them comes to its edge the other one is
    far from it.

    Args:
        rng: Decides on colors, directions and places.
        motion: One of `MOTIONS`.
        lanes: The ground's farthest and nearest y.
    """
    far_direction, near_direction = rng.choice((-1, 1), 2).tolist()
    place = rng.uniform(0.12, 0.38) + rng.choice((0.0, 0.5))
    other_place = (0.5 + place if far_direction == near_direction else 0.5 - place) % 1
    return (
        _make_actor(rng, motion, lanes, rng.uniform(0.05, 0.3), place, far_direction),
        _make_actor(rng, motion, lanes, rng.uniform(0.65, 0.9), other_place, near_direction),
    )


def _make_actor(
    rng: np.random.Generator,
    motion: str,
    lanes: tuple[float, float],
    depth: float,
    place: float,
    direction: int,
) -> Actor:
    """Sample one actor; `depth` goes from 0, the far edge of the ground, to 1, the near one."""
    scale = 0.85 + 0.3 * depth
    paints = PAINTS if motion == "drive" else CLOTHES
    return Actor(
        motion=motion,
        first_place=place,
        ground_y=lanes[0] + depth * (lanes[1] - lanes[0]),
        speed=direction * scale * rng.uniform(*SPEEDS[motion]),
        scale=scale,
        first_phase=rng.uniform(0, 2 * math.pi),
        colors=(_pick(rng, paints), _pick(rng, TROUSERS), _pick(rng, SKINS)),
    )


def draw_actor(canvas: Canvas, actor: Actor, n_frames_since_start: int) -> None:
    """Draw an actor as it is some frames after its act began."""
    x = actor.x_at(n_frames_since_start, canvas.shape[1])
    half_len = LENGTHS[actor.motion] * actor.scale / 2
    phase = actor.first_phase + CADENCES[actor.motion] * n_frames_since_start
    shadow = (x + 3 * actor.scale, actor.ground_y)
    draw_ellipse(canvas, shadow, (half_len, 3.2 * actor.scale), (20, 20, 26), opacity=0.4)
    _DRAW[actor.motion](_Pen(canvas, x, actor.ground_y, actor.scale, actor.speed), actor, phase)


def _pick(rng: np.random.Generator, colors: tuple[Color, ...]) -> Color:
    return colors[rng.integers(len(colors))]


def _shade(color: Color, factor: float) -> Color:
    return (color[0] * factor, color[1] * factor, color[2] * factor)


class _Pen:
    """Draws in an actor's own frame: x forwards, y upwards from the ground, scale 1."""

    def __init__(
        self, canvas: Canvas, x: float, ground_y: float, scale: float, speed: float
    ) -> None:
        self._canvas, self._x, self._ground_y, self._scale = canvas, x, ground_y, scale
        self._forwards = math.copysign(scale, speed)

    def _place(self, point: Point) -> Point:
        return (self._x + self._forwards * point[0], self._ground_y - self._scale * point[1])

    def line(self, points: list[Point], radius: float, color: Color) -> None:
        draw_lines(self._canvas, [self._place(p) for p in points], radius * self._scale, color)

    def disc(self, center: Point, radius: float, color: Color) -> None:
        radii = (radius * self._scale, radius * self._scale)
        draw_ellipse(self._canvas, self._place(center), radii, color)

    def ring(self, center: Point, radius: float, width: float, color: Color) -> None:
        scale = self._scale
        draw_ring(self._canvas, self._place(center), radius * scale, width * scale, color)

    def polygon(self, points: list[Point], color: Color) -> None:
        draw_polygon(self._canvas, [self._place(p) for p in points], color)

    def spoke(self, center: Point, radius: float, angle: float, color: Color) -> None:
        reach = (radius * math.cos(angle), radius * math.sin(angle))
        start = self._place((center[0] - reach[0], center[1] - reach[1]))
        end = self._place((center[0] + reach[0], center[1] + reach[1]))
        draw_line(self._canvas, start, end, 0.6 * self._scale, color)


def _limb(start: Point, lens: Point, angles: Point) -> list[Point]:
    """Two joined bones; an angle of 0 hangs straight down, a positive one points forwards."""
    points = [start]
    for bone_len, angle in zip(lens, angles, strict=True):
        x, y = points[-1]
        points.append((x + bone_len * math.sin(angle), y - bone_len * math.cos(angle)))
    return points


def _draw_walker(pen: _Pen, actor: Actor, phase: float) -> None:
    _draw_person(pen, actor, phase, swing=0.5, lean=0.04, knee=0.45, elbow=0.25)


def _draw_runner(pen: _Pen, actor: Actor, phase: float) -> None:
    _draw_person(pen, actor, phase, swing=0.95, lean=0.3, knee=1.35, elbow=1.6)


def _draw_person(
    pen: _Pen, actor: Actor, phase: float, *, swing: float, lean: float, knee: float, elbow: float
) -> None:
    shirt, trousers, skin = actor.colors
    leg_len, trunk_len = 0.25 * PERSON_HEIGHT, 0.33 * PERSON_HEIGHT
    hip = (0.0, 2 * leg_len * (0.99 - 0.07 * swing * math.sin(phase) ** 2))
    neck = (hip[0] + trunk_len * math.sin(lean), hip[1] + trunk_len * math.cos(lean))
    shoulder = (neck[0], neck[1] - 2.0)
    for side, shade in ((math.pi, 0.7), (0.0, 1.0)):  # the far limbs first
        thigh = swing * math.sin(phase + side) + 0.4 * lean
        bend = knee * max(0.0, math.cos(phase + side)) + 0.08
        leg = _limb(hip, (leg_len, leg_len), (thigh, thigh - bend))
        toe = (leg[-1][0] + 3.4, leg[-1][1])
        pen.line([*leg, toe], 1.9, _shade(trousers, shade))
        upper_arm = -0.9 * swing * math.sin(phase + side)
        arm = _limb(shoulder, (0.17 * PERSON_HEIGHT,) * 2, (upper_arm, upper_arm + elbow))
        if side:
            pen.line(arm, 1.5, _shade(shirt, shade))
            pen.line([hip, (neck[0], neck[1] - 2.5)], 3.6, shirt)
        else:
            pen.line(arm, 1.5, _shade(shirt, 0.85))
    head = (neck[0] + 1.5 * lean + 0.4, neck[1] + 3.6)
    pen.disc(head, 3.5, skin)
    pen.disc((head[0] - 0.8, head[1] + 1.3), 3.0, _shade(trousers, 0.6))


def _draw_cyclist(pen: _Pen, actor: Actor, phase: float) -> None:
    shirt, trousers, skin = actor.colors
    rear, front, wheel_radius = (-13.0, 8.5), (13.0, 8.5), 8.0
    crank, seat, bar = (-1.0, 9.5), (-6.5, 22.0), (9.5, 24.0)
    for wheel in (rear, front):
        pen.ring(wheel, wheel_radius, 1.9, BLACK)
        for turn in (0.0, math.pi / 3, 2 * math.pi / 3):
            pen.spoke(wheel, wheel_radius - 1, turn - phase, STEEL)
    hip, neck = (-6.0, 24.5), (5.0, 36.0)
    for side in (math.pi, 0.0):
        pedal = (
            crank[0] + 4.5 * math.cos(side - phase),
            crank[1] + 4.5 * math.sin(side - phase),
        )
        knee = ((hip[0] + pedal[0]) / 2 + 6.0, (hip[1] + pedal[1]) / 2 + 2.5)
        pen.line([hip, knee, pedal], 2.0, _shade(trousers, 1.0 if side == 0 else 0.7))
        if side:
            pen.line([rear, crank, seat, rear], 0.9, shirt)
            pen.line([crank, (8.5, 21.0), seat], 0.9, shirt)
            pen.line([front, (8.5, 21.0), bar], 0.9, shirt)
    pen.line([hip, neck], 3.6, shirt)
    pen.line([(neck[0], neck[1] - 2), (8.0, 28.0), (bar[0] + 1.5, bar[1])], 1.5, _shade(shirt, 0.8))
    pen.disc((neck[0] + 3.4, neck[1] + 3.6), 3.5, skin)
    pen.disc((neck[0] + 3.0, neck[1] + 5.2), 3.2, _shade(shirt, 0.5))


def _draw_car(pen: _Pen, actor: Actor, phase: float) -> None:
    paint = actor.colors[0]
    roof = _shade(paint, 0.9)
    pen.polygon([(-30, 16), (-22, 29), (6, 29), (19, 16)], roof)
    pen.polygon([(-25.5, 17), (-19.5, 27), (-8.5, 27), (-8.5, 17)], GLASS)
    pen.polygon([(-6, 17), (-6, 27), (4.8, 27), (14.5, 17)], GLASS)
    pen.polygon([(-41, 6), (-41, 16), (-38, 18.5), (-30, 18.5), (-30, 6)], paint)
    pen.polygon([(-31, 5), (-31, 18.5), (20, 18.5), (37, 15), (41, 11), (41, 6)], paint)
    pen.line([(-40, 6.2), (40, 6.2)], 1.4, _shade(paint, 0.5))
    pen.line([(-7, 7), (-7, 17)], 0.5, _shade(paint, 0.6))
    pen.disc((39, 12), 2.0, (250, 244, 200))
    pen.disc((-40, 13.5), 1.8, (200, 30, 30))
    for wheel in ((-24.0, 6.5), (25.0, 6.5)):
        pen.disc(wheel, 7.0, BLACK)
        pen.disc(wheel, 3.8, STEEL)
        pen.spoke(wheel, 3.6, -phase, BLACK)
        pen.spoke(wheel, 3.6, math.pi / 2 - phase, BLACK)


_DRAW: dict[str, Callable[[_Pen, Actor, float], None]] = {
    "walk": _draw_walker,
    "run": _draw_runner,
    "cycle": _draw_cyclist,
    "drive": _draw_car,
}
