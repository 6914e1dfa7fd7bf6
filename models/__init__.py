"""From features to scores. Knows torch and nothing else, and opens no file.

Axes: bags are (B, T, D): B bags, T snippets, D feature width; E is the width of an embedding. To
add a model, write `models/<name>.py` and give it a line in `MODELS`. Choices, checks and help texts
of the command line follow from that line; torch is imported with the first model that is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.interface import AnomalyModel


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model that can be chosen by name.

    Attributes:
        path: "module:class" of the `AnomalyModel`.
        help: A few words on what it is.
    """

    path: str
    help: str


MODELS = {
    "clav-como": ModelEntry("models.clav_como:ClavComo", "context and motion, CVPR 2023"),
    "la-net": ModelEntry("models.la_net:LaNet", "locality-aware attention, ICME 2022"),
    "cbcg": ModelEntry("models.cbcg:Cbcg", "clustering guidance, ICME 2023"),
}


def model_class(name: str) -> type[AnomalyModel]:
    """Import a model.

    Args:
        name: Key of `MODELS`.
    """
    module, _, attribute = MODELS[name].path.partition(":")
    loaded: type[AnomalyModel] = getattr(import_module(module), attribute)
    return loaded
