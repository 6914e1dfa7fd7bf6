"""The networks that weights can be loaded into: building, renaming tensors, random weights."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from extractors.networks import raft_network
from extractors.networks.inception_i3d import IN_CHANNELS, InceptionI3D
from extractors.networks.random_weights import random_resnet_weights, random_weights
from extractors.networks.resnet_i3d import ResNetI3D

StateDict = dict[str, Tensor]

CLASSIFIER = (
    "logits.",
    "Conv3d_0c_1x1.",
    "blocks.6.",
)  # prefixes of the names of a classifier's tensors
PARALLEL_PREFIX = "module."  # of names in files that were saved with DataParallel


@dataclass(frozen=True, slots=True)
class Network:
    """A network that weights can be loaded into.

    Attributes:
        title: Its name in messages.
        build: Builds it for a stream ("rgb" or "flow").
        rename: Renames the tensors of a published file to the network's names, and removes the
            classifier, which features do not need.
        sample: Samples random weights for a stream from a seed, with their checksum; None for a
            network that is useless with them.
    """

    title: str
    build: Callable[[str], nn.Module]
    rename: Callable[[StateDict], StateDict]
    sample: Callable[[str, int], tuple[StateDict, str]] | None


def _without_classifier(content: StateDict) -> StateDict:
    """Remove the classifier, and the prefix of files that were saved with DataParallel."""
    names = {name: name.removeprefix(PARALLEL_PREFIX) for name in content}
    return {
        names[name]: tensor
        for name, tensor in content.items()
        if not names[name].startswith(CLASSIFIER)
    }


def _i3d_names(content: StateDict) -> StateDict:
    """Rename tensors from the names of hassony2/kinetics_i3d_pytorch to those of the network.

    UR-DMU and video_features ship such files. Unlike here and in the original, a normalization
    there adds 1e-5 to the variance and not 1e-3, so that features differ a little from theirs.
    """
    return _without_classifier({_i3d_name(name): tensor for name, tensor in content.items()})


def _i3d_name(name: str) -> str:
    """Return the network's name of a tensor.

    >>> _i3d_name("mixed_3b.branch_1.0.batch3d.bias"), _i3d_name("conv3d_1a_7x7.conv3d.weight")
    ('Mixed_3b.b1a.bn.bias', 'Conv3d_1a_7x7.conv3d.weight')
    """
    name = name.removeprefix(PARALLEL_PREFIX)
    match = re.fullmatch(
        r"(conv3d_|mixed_)(\w+?)(?:\.branch_([0-3])(?:\.([01]))?)?\.(conv3d|batch3d)\.(\w+)", name
    )
    if match is None:
        return name
    kind, position, branch, unit, layer, tensor = match.groups()
    parts = [f"{kind.capitalize()}{position}"]
    if branch is not None:
        parts.append(f"b{branch}" + ("" if unit is None else "ab"[int(unit)]))
    return ".".join([*parts, "bn" if layer == "batch3d" else layer, tensor])


NETWORKS = {
    "i3d": Network(
        title="Inception-I3D",
        build=lambda stream: InceptionI3D(IN_CHANNELS[stream]),
        rename=_i3d_names,
        sample=random_weights,
    ),
    "i3d_r50": Network(
        title="ResNet-50 I3D",
        build=lambda stream: ResNetI3D(),
        rename=_without_classifier,
        sample=random_resnet_weights,
    ),
    "raft-small": Network(
        title="small RAFT",
        build=lambda stream: raft_network.build("raft-small"),
        rename=raft_network.torchvision_names,
        sample=None,
    ),
    "raft-large": Network(
        title="large RAFT",
        build=lambda stream: raft_network.build("raft-large"),
        rename=raft_network.torchvision_names,
        sample=None,
    ),
}
