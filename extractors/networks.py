"""The networks that weights are for: how each is built, named and drawn at random."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from extractors import raft_network
from extractors.inception_i3d import IN_CHANNELS, InceptionI3D
from extractors.random_weights import random_resnet_weights, random_weights
from extractors.resnet_i3d import ResNetI3D

StateDict = dict[str, Tensor]

CLASSIFIER = ("logits.", "blocks.6.")  # what the names of a classifier's tensors start with
PARALLEL_PREFIX = "module."  # of the names in files that were saved with DataParallel


@dataclass(frozen=True, slots=True)
class Network:
    """A network that weights can be loaded into.

    Attributes:
        title: Its name in messages.
        build: Makes it, by the stream ("rgb" or "flow") that it is for.
        rename: Gives the tensors of a published file the network's names, and leaves out the
            classifier, which features do not need.
        draw: Draws weights from a stream and a seed, with their checksum; None where the network
            would be of no use with them.
    """

    title: str
    build: Callable[[str], nn.Module]
    rename: Callable[[StateDict], StateDict]
    draw: Callable[[str, int], tuple[StateDict, str]] | None


def _without_classifier(content: StateDict) -> StateDict:
    """Leave out the classifier, and the prefix of files that were saved with DataParallel."""
    names = {name: name.removeprefix(PARALLEL_PREFIX) for name in content}
    return {
        names[name]: tensor
        for name, tensor in content.items()
        if not names[name].startswith(CLASSIFIER)
    }


NETWORKS = {
    "i3d": Network(
        title="Inception-I3D",
        build=lambda stream: InceptionI3D(IN_CHANNELS[stream]),
        rename=_without_classifier,
        draw=random_weights,
    ),
    "i3d_r50": Network(
        title="ResNet-50 I3D",
        build=lambda stream: ResNetI3D(),
        rename=_without_classifier,
        draw=random_resnet_weights,
    ),
    "raft-small": Network(
        title="small RAFT",
        build=lambda stream: raft_network.build("raft-small"),
        rename=raft_network.torchvision_names,
        draw=None,
    ),
    "raft-large": Network(
        title="large RAFT",
        build=lambda stream: raft_network.build("raft-large"),
        rename=raft_network.torchvision_names,
        draw=None,
    ),
}
