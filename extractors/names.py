"""Extractors and flow methods by name: help texts, weights, and the code that builds each.

Nothing here imports torch or OpenCV: the command line reads its choices, help texts and checks
from these registries, and the code of an entry is imported when it is built.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

NO_FLOW = "none"  # chosen instead of a key of `FLOWS`: no flow stream
DEFAULT_EXTRACTOR = "i3d"
DEFAULT_FLOW = "tvl1"

# Three orders are in use. A mean over crops does not depend on it; a comparison crop by crop does.
# This is the order of the XD-Violence and DeepMIL features (README of Roc-Ng/DeepMIL).
CROP_POSITIONS = ("center", "top left", "top right", "bottom left", "bottom right")
CROP_NAMES = CROP_POSITIONS + tuple(f"mirrored {position}" for position in CROP_POSITIONS)
CROP_COUNTS = (1, len(CROP_POSITIONS), len(CROP_NAMES))
DEFAULT_CROPS = 5

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class ExtractorEntry:
    """An extractor that can be chosen by name.

    Attributes:
        builder: "module:attribute" of what returns an `Extractor`. It is called with the keyword
            arguments flow (a key of `FLOWS` or None), crops, weights, precision, device,
            flow_weights and tail_policy, as `extractors.i3d.I3D` is.
        help: One line.
        default_weights: Weights that are loaded unless others are named.
        has_flow: Whether it can compute a flow stream.
    """

    builder: str
    help: str
    default_weights: str
    has_flow: bool


@dataclass(frozen=True, slots=True)
class FlowEntry:
    """A flow method that can be chosen by name.

    Attributes:
        builder: "module:attribute" of what returns a `FlowMethod`. It is called with the device;
            a method with weights also with their name or path.
        help: One line.
        weights: Names of published weights, the default first; None for a method without weights.
    """

    builder: str
    help: str
    weights: tuple[str, ...] | None = None


EXTRACTORS = {
    "i3d": ExtractorEntry("extractors.i3d:I3D", "Inception-I3D, 1024-d", "kinetics", True),
    "i3d_r50": ExtractorEntry(
        "extractors.i3d_r50:I3DR50", "ResNet-50 I3D, 2048-d, RGB only", "kinetics-r50", False
    ),
}
FLOWS = {
    "tvl1": FlowEntry("extractors.flow.tvl1:build", "TV-L1, as in the published features"),
    "raft": FlowEntry(
        "extractors.flow.raft:build", "RAFT, a network", weights=("raft-small", "raft-large")
    ),
    "dis": FlowEntry("extractors.flow.dis:build", "dense inverse search, fast without a GPU"),
}


def load_builder(entry: ExtractorEntry | FlowEntry) -> Callable[..., Any]:
    """Import the code that builds an entry.

    >>> load_builder(ExtractorEntry("fractions:Fraction", "", "", False))(2)
    Fraction(2, 1)
    """
    module, _, attribute = entry.builder.partition(":")
    builder: Callable[..., Any] = getattr(import_module(module), attribute)
    return builder
