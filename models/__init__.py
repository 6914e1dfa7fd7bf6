"""From features to scores. Knows torch and nothing else, and opens no file.

Axes: bags are (B, T, D): B bags, T snippets, D feature width; E is the width of an embedding. To
add a model, write `models/<name>.py` and give it a line in `MODELS`.
"""

from models.cbcg import Cbcg
from models.clav_como import ClavComo
from models.interface import AnomalyModel
from models.la_net import LaNet

MODELS: dict[str, type[AnomalyModel]] = {
    "clav-como": ClavComo,
    "la-net": LaNet,
    "cbcg": Cbcg,
}
