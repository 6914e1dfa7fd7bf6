"""Render the frames of a planned video of microworld."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.microworld.actors import draw_actor, make_actors
from pipeline.datasets.microworld.dataset import VideoPlan
from pipeline.datasets.microworld.drawing import to_pixels
from pipeline.datasets.microworld.scenes import HEIGHT, LANES, WIDTH, draw_scene

# Standard deviation of the camera's noise, in gray levels.
NOISE = 3.0


def render(plan: VideoPlan) -> Iterator[NDArray[np.uint8]]:
    """Draw the frames of a video, each (240, 320, 3) uint8 RGB."""
    background = draw_scene(np.random.default_rng((*plan.seeds, 1)), plan.scene)
    noise_rng = np.random.default_rng((*plan.seeds, 2 if plan.anomalies else 3))
    for act_index, act in enumerate(plan.acts):
        act_rng = np.random.default_rng((*plan.seeds, 4 + act_index))
        actors = make_actors(act_rng, act.motion, LANES)
        for n_frames_since_start in range(act.stop - act.start):
            frame = background.copy()
            for actor in actors:
                draw_actor(frame, actor, n_frames_since_start)
            noise = NOISE * noise_rng.standard_normal((HEIGHT, WIDTH, 1), dtype=np.float32)
            yield to_pixels(frame + noise)
