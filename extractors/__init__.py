"""From pixels to features. Imports neither `models` nor `pipeline`.

Axes: N clips in a batch, C channels (3 for RGB, 2 for flow: x, y), T frames, H and W pixels,
K crops of a frame (1, 5 or 10), D width of a feature vector. Frames are (T, H, W, C) as decoded and
(T, C, H, W) from the resizing on; clips are (N, C, T, H, W), features (n_snippets, K, D).
"""

from collections.abc import Callable

import torch

from extractors.features import Extractor
from extractors.i3d import I3D
from extractors.i3d_r50 import I3DR50
from extractors.snippets import REPEAT_LAST_FRAME

EXTRACTORS: dict[str, Callable[..., Extractor]] = {"i3d": I3D, "i3d_r50": I3DR50}
RGB_EXTRACTORS = ("i3d_r50",)  # those without a flow stream


def build_extractor(
    name: str,
    *,
    flow: str | None,
    crops: int,
    weights: str | None,
    device: torch.device,
    flow_weights: str | None = None,
    tail_rule: str = REPEAT_LAST_FRAME,
) -> Extractor:
    """Build an extractor by name.

    Args:
        name: A name in `EXTRACTORS`.
        flow: A name in `flow.FLOWS`; None leaves the flow stream out.
        crops: 1, 5 or 10 crops of each frame.
        weights: A name, "random:SEED" or a path (see `weights.py`); None for the extractor's
            published weights.
        device: Where it computes.
        flow_weights: Of a flow method that is a network; None for its own default.
        tail_rule: One of `snippets.TAIL_RULES`.

    Raises:
        ValueError: If there is no such extractor, flow method, number of crops or tail rule.
        WeightsError: If the weights cannot be had.
    """
    if name not in EXTRACTORS:
        raise ValueError(f"extractor must be one of {', '.join(EXTRACTORS)}, instead got {name}")
    return EXTRACTORS[name](
        flow=flow,
        crops=crops,
        weights=weights,
        device=device,
        flow_weights=flow_weights,
        tail_rule=tail_rule,
    )
