"""Loading the networks' weights: published ones by name, random ones, files of the user.

A string selects them:

- a key of `NAMED`: published weights, from the cache or downloaded.
- `random:SEED`: random, for demonstrations and tests; the features have no meaning.
- a path. A file (`.pt`, `.pth`, `.pyth`, `.safetensors`) holds the weights of one stream. A folder
  holds, for each stream, one such file named after it: `rgb.*` or `rgb_imagenet.*`, `flow.*` or
  `flow_imagenet.*`.
"""

import pickle
import struct
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from extractors.networks.downloads import DownloadError, cache_folder, fetch, sha256_of
from extractors.networks.downloads import WeightsError as WeightsError
from extractors.networks.published_weights import NAMED as NAMED
from extractors.networks.published_weights import cached_path as cached_path
from extractors.networks.published_weights import named_weights as named_weights
from extractors.networks.registry import NETWORKS, StateDict

SUFFIXES = (".pt", ".pth", ".pyth", ".safetensors")
WRAPPERS = ("model_state", "state_dict")  # keys of the weights in training checkpoints
N_NAMED = 3  # names of tensors in a message; a wrong file can have hundreds


@dataclass(frozen=True, slots=True, eq=False)
class LoadedWeights:
    """Weights in memory, checked against the network.

    Attributes:
        name: "kinetics", "random:0", or the name of the file or folder.
        state_dicts: By stream: what `InceptionI3D` loads.
        sha256: By stream: of the file's bytes, or of the recipe and values of random weights.
        license: SPDX identifier, or a description.
        source: Who published them, or the path.
        is_pretrained: False for random weights, whose features have no meaning.
    """

    name: str
    state_dicts: dict[str, dict[str, Tensor]]
    sha256: dict[str, str]
    license: str
    source: str
    is_pretrained: bool


def load_weights(
    spec: str, network: str, streams: tuple[str, ...], *, cache: Path | None = None
) -> LoadedWeights:
    """Load the weights that a string selects.

    Args:
        spec: A key of `NAMED`, "random:SEED" or a path, as in the docstring of this module.
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
        try:
            fetch(named.files[stream], paths[stream])
        except DownloadError as error:
            is_flow = NETWORKS[network].sample is None
            own = f"or name your own file or folder with --{'flow-' * is_flow}weights"
            trial = "" if is_flow else "; for a trial --weights random:0, without meaning"
            raise WeightsError(f"{error}, {own}{trial}") from error
    return _load_files(name, network, paths, named.license, named.source)


def _load_random(spec: str, network: str, streams: tuple[str, ...]) -> LoadedWeights:
    sample = NETWORKS[network].sample
    if sample is None:
        raise WeightsError(
            f"{spec}: the {NETWORKS[network].title} takes a file or {network}, no random weights"
        )
    digits = spec.removeprefix("random:")
    if not (digits.isascii() and digits.isdigit()):
        raise WeightsError(f"{spec}: expected random: and a seed of at least 0, as in random:0")
    seed = int(digits)
    sampled = {stream: sample(stream, seed) for stream in streams}
    return LoadedWeights(
        name=f"random:{seed}",
        state_dicts={stream: state_dict for stream, (state_dict, _) in sampled.items()},
        sha256={stream: sha256 for stream, (_, sha256) in sampled.items()},
        license="none needed",
        source=f"random, seed {seed}",
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
    return _load_files(path.name, network, paths, license="unknown", source=str(path))


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
    name: str, network: str, paths: dict[str, Path], license: str, source: str
) -> LoadedWeights:
    return LoadedWeights(
        name=name,
        state_dicts={
            stream: fit_network(read_tensors(path), network, stream, path)
            for stream, path in paths.items()
        },
        sha256={stream: sha256_of(path) for stream, path in paths.items()},
        license=license,
        source=source,
        is_pretrained=True,
    )


def read_tensors(path: Path) -> StateDict:
    """Read the tensors of a file of weights; no code in it is run.

    Raises:
        WeightsError: If it does not exist or is not such a file.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file of weights (known names: {', '.join(NAMED)})")
    try:
        if path.suffix == ".safetensors":
            content: object = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    # Errors of torch.load for files that are truncated or of another kind.
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
        # Without the reader's own message: torch suggests to unpickle the file unchecked.
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
    """Rename a file's tensors to the network's names, and check names, shapes and values.

    Raises:
        WeightsError: If some are missing, unknown, of another shape or not finite; the message
            names the file `path` and the first of them.
    """
    found = NETWORKS[network].rename(content)
    with torch.device("meta"):  # shapes without memory
        expected = NETWORKS[network].build(stream).state_dict()
    # Files from before torch 0.4.1 have no such counts; torch sets them to 0.
    missing = [
        name for name in expected if name not in found and not name.endswith("num_batches_tracked")
    ]
    unknown = [name for name in found if name not in expected]
    misshapen = [
        f"{name} {tuple(tensor.shape)} for {tuple(expected[name].shape)}"
        for name, tensor in found.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    infinite = [name for name, tensor in found.items() if not tensor.isfinite().all()]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:N_NAMED])}{', ...' * (len(names) > N_NAMED)})"
        for what, names in (
            ("missing", missing),
            ("unknown", unknown),
            ("of another shape", misshapen),
            ("with NaN or infinity", infinite),
        )
        if names
    ]
    if problems:
        raise WeightsError(
            f"{path}: not the {stream} weights of the {NETWORKS[network].title}: "
            f"{'; '.join(problems)}"
        )
    return found
