"""The HDF5 layout of features: one file per video, and an index over a folder of them.

The only door to h5py. A feature file `features/<dataset>/<video_id>.h5` holds one float16 array
(n_snippets, K, D) per stream, `timestamps` (n_frames,) float64 in seconds, and attributes that
say what was extracted and how. The arrays are stored whole and uncompressed: features hardly
compress, and the size of a plain array can be checked against the file before it is read.

Nothing here takes HDF5's file locks. They fail on many network file systems, and they guard
against a reader who meets a writer; here a file has its final name only once it is complete, and
is never written again.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from extractors.features import Contract as Contract
from extractors.features import Features
from extractors.snippets import REPEAT_LAST_FRAME, n_snippets
from pipeline.atomic import replacing

FORMAT = "lookaround features"
FORMAT_VERSION = 1
INDEX_NAME = "index.h5"
STREAM_DTYPE = np.dtype("<f2")
TIMESTAMP_DTYPE = np.dtype("<f8")

MAX_ATTRIBUTE_BYTES = 2**16

T = TypeVar("T", str, int, float)
_KINDS: dict[type, str] = {str: "S", int: "i", float: "f"}  # NumPy's letters


class FeatureFileError(OSError):
    """A feature file is missing, cut short, foreign, or made in another way than expected."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredFeatures:
    """What a feature file holds.

    Attributes:
        video_id: The video's name within its dataset.
        features: The video's features; values have float16 precision.
        contract: How they were made.
    """

    video_id: str
    features: Features
    contract: Contract


def feature_path(folder: Path, video_id: str) -> Path:
    """The file of a video in a dataset's folder of features.

    Args:
        folder: The dataset's, such as `features/xd_violence`.
        video_id: Relative, with `/` between its parts.

    Raises:
        FeatureFileError: If the id would lead out of the folder or take the index's name.
    """
    parts = video_id.split("/")
    if PurePosixPath(video_id).is_absolute() or {"", ".", ".."} & set(parts) or "\0" in video_id:
        raise FeatureFileError(
            f"{folder}: video id must be a relative path that stays in the folder, "
            f"instead got {video_id!r}; rename the video"
        )
    path = folder.joinpath(*parts[:-1], f"{parts[-1]}.h5")
    if path == folder / INDEX_NAME:
        raise FeatureFileError(f"{path}: is the name of the index; rename the video {video_id!r}")
    return path


def write_features(
    path: Path, features: Features, contract: Contract, *, video_id: str, source_name: str
) -> None:
    """Write one video's features; the file appears whole or not at all.

    Args:
        path: Where to, as from `feature_path`; folders are made. What is there is replaced.
        features: The video's.
        contract: How they were made.
        video_id: The video's name within its dataset.
        source_name: File name of the video.

    Raises:
        FeatureFileError: If a value is too large for float16 or the file cannot be written.
    """
    streams = {name: _as_float16(path, name, values) for name, values in features.streams.items()}
    attributes = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "video_id": video_id,
        "source_name": source_name,
        "streams": json.dumps(list(streams)),  # HDF5 lists names by the alphabet
        "snippet_len": features.snippet_len,
        "n_frames": features.n_frames,
        "n_missing": features.n_missing,
        "fps": features.fps,
        "decoder": features.decoder,
        "contract": json.dumps(contract, allow_nan=False),
    }
    with _writing(path) as file:
        for name, values in streams.items():
            file.create_dataset(name, data=values)
        file.create_dataset("timestamps", data=features.timestamps.astype(TIMESTAMP_DTYPE))
        for name, value in attributes.items():
            file.attrs[name] = _fixed_text(value) if isinstance(value, str) else value


def read_features(path: Path) -> StoredFeatures:
    """Read and check one feature file.

    Sizes are checked against the header and the length of the file before anything is allocated,
    and only plain arrays within the file itself are read: a file from elsewhere is only data.

    Raises:
        FeatureFileError: If the file is missing, cut short, or not such a file.
    """
    with _reading(path) as file:
        contract = _read_contract(file)
        n_frames = _attribute(file, "n_frames", int)
        snippet_len = _attribute(file, "snippet_len", int)
        if n_frames < 1 or snippet_len < 1:
            raise ValueError(f"it says {n_frames} frames in snippets of {snippet_len}")
        tail_rule = str(contract.get("tail_rule", REPEAT_LAST_FRAME))
        n_rows = n_snippets(n_frames, snippet_len, tail_rule)
        streams = {
            name: _read_array(file, name, STREAM_DTYPE, n_rows, n_axes=3).astype(np.float32)
            for name in _read_stream_names(file)
        }
        features = Features(
            streams=streams,
            snippet_len=snippet_len,
            n_frames=n_frames,
            n_missing=_attribute(file, "n_missing", int),
            fps=_attribute(file, "fps", float),
            timestamps=_read_array(file, "timestamps", TIMESTAMP_DTYPE, n_frames, n_axes=1),
            decoder=_attribute(file, "decoder", str),
            tail_rule=tail_rule,
        )
        return StoredFeatures(_attribute(file, "video_id", str), features, contract)


def read_contract(path: Path) -> Contract:
    """How a file's features were made; reads the header only.

    Raises:
        FeatureFileError: If the file is missing, cut short, or not such a file.
    """
    with _reading(path) as file:
        return _read_contract(file)


def contract_differences(expected: Contract, found: Contract) -> list[str]:
    """In words, where two contracts differ; empty where features may be mixed.

    >>> contract_differences({"flow_method": "tvl1", "n_crops": 5}, {"flow_method": "dis"})
    ['flow_method: tvl1 expected, instead got dis', 'n_crops: 5 expected, instead got nothing']
    """
    keys = dict.fromkeys([*expected, *found])  # in order, each once
    return [
        f"{key}: {expected.get(key, 'nothing')} expected, instead got {found.get(key, 'nothing')}"
        for key in keys
        if key not in expected or key not in found or expected[key] != found[key]
    ]


def list_feature_files(folder: Path) -> list[Path]:
    """The feature files of a dataset's folder, sorted; the index is none of them."""
    return sorted(path for path in folder.rglob("*.h5") if path != folder / INDEX_NAME)


def write_index(folder: Path) -> Path:
    """Write `index.h5`, through which one `h5py.File` shows all videos of a folder.

    `index["some/video"]` is the root of that video's file, attributes included, by an external
    link with a relative name: the folder may be moved.

    Args:
        folder: A dataset's folder of feature files.

    Returns:
        The path of the index.

    Raises:
        FeatureFileError: If the index cannot be written.
    """
    index_path = folder / INDEX_NAME
    names = [path.relative_to(folder).as_posix() for path in list_feature_files(folder)]
    video_ids = {name.removesuffix(".h5"): name for name in names}
    parents = {parent.as_posix() for name in names for parent in PurePosixPath(name).parents}
    with _writing(index_path) as index:
        for video_id, name in video_ids.items():
            if video_id not in parents:
                index[video_id] = h5py.ExternalLink(name, "/")
                continue
            # A video `a` beside videos `a/b`: nothing can be hung below a link, so `a` is a group
            # of its own that links to the arrays.
            with _reading(folder / name) as file:
                for array in [*_read_stream_names(file), "timestamps"]:
                    index[f"{video_id}/{array}"] = h5py.ExternalLink(name, f"/{array}")
    return index_path


def _as_float16(path: Path, stream: str, values: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        halves = values.astype(STREAM_DTYPE)
    if not np.isfinite(halves).all():
        raise FeatureFileError(
            f"{path}: stream {stream} must fit float16 (at most 65504), instead got "
            f"{np.abs(values).max():g}; check the weights and the range of the network's input"
        )
    return halves


@contextmanager
def _writing(path: Path) -> Iterator[h5py.File]:
    """A new HDF5 file that takes its place when the body is done.

    It is built in memory: when a disk is full, HDF5 ends the process instead of raising.
    """
    with h5py.File(path.name, "w", driver="core", backing_store=False, locking=False) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(image)
    except OSError as error:
        raise FeatureFileError(f"{path}: cannot be written ({error.strerror})") from error


@contextmanager
def _reading(path: Path) -> Iterator[h5py.File]:
    """A file of this layout; whatever is found wrong inside becomes one line with a remedy."""
    if path.is_dir():
        raise FeatureFileError(f"{path}: is a folder, expected a feature file")
    if not path.is_file():
        raise FeatureFileError(
            f"{path}: there is no such feature file; `pipeline extract` makes it"
        )
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except PermissionError as error:
        raise FeatureFileError(f"{path}: cannot be read (permission denied)") from error
    # What h5py raises for bytes that make no sense, and what the checks of this file raise.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise FeatureFileError(
            f"{path}: is not a whole feature file ({_first_line(error)}); "
            "remove it and extract the video again"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _read_contract(file: h5py.File) -> Contract:
    if _attribute(file, "format", str) != FORMAT:
        raise ValueError("it is of another program")
    version = _attribute(file, "format_version", int)
    if version != FORMAT_VERSION:
        raise ValueError(f"format version {FORMAT_VERSION} expected, instead got {version}")
    contract = json.loads(_attribute(file, "contract", str))
    is_flat = isinstance(contract, Mapping) and all(
        isinstance(value, str | int | float) for value in contract.values()
    )
    if not is_flat:
        raise ValueError("its contract must be a flat JSON object")
    return dict(contract)


def _read_stream_names(file: h5py.File) -> list[str]:
    names = json.loads(_attribute(file, "streams", str))
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not is_list or len(set(names)) != len(names) or "timestamps" in names:
        raise ValueError("its streams must be a list of different names")
    return list(names)


def _attribute(file: h5py.File, name: str, kind: type[T]) -> T:
    """One scalar attribute of exactly this type; nothing large is read."""
    if name not in file.attrs:
        raise ValueError(f"attribute {name} is missing")
    stored = file.attrs.get_id(name)
    dtype = stored.dtype
    if stored.shape != () or dtype.kind != _KINDS[kind] or dtype.itemsize > MAX_ATTRIBUTE_BYTES:
        raise ValueError(f"attribute {name} must be one {kind.__name__}")
    value = file.attrs[name].item()
    return kind(value.decode("utf-8") if isinstance(value, bytes) else value)


def _fixed_text(text: str) -> NDArray[np.bytes_]:
    """Text as HDF5 stores it in place, which is how other programs read it, too.

    Text of variable length lies in a heap, and a damaged heap can keep HDF5 busy for ever.
    """
    encoded = text.encode("utf-8")
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(len(encoded), 1)))


def _read_array(
    file: h5py.File, name: str, dtype: np.dtype[Any], n_rows: int, *, n_axes: int
) -> NDArray[Any]:
    """One array that lies within the file, plain and whole, with so many rows and axes."""
    if "/" in name or not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"array {name} is missing or lies elsewhere")
    array = file[name]
    if not isinstance(array, h5py.Dataset) or array.dtype != dtype:
        raise ValueError(f"{name} must be an array of {dtype.name}")
    if len(array.shape) != n_axes or array.shape[0] != n_rows:
        raise ValueError(f"{name} must have {n_axes} axes and {n_rows} rows, got {array.shape}")
    n_bytes = math.prod(array.shape) * dtype.itemsize
    is_plain = array.chunks is None and not array.is_virtual and array.external is None
    end = (array.id.get_offset() or 0) + n_bytes
    if not is_plain or array.id.get_storage_size() != n_bytes or end > file.id.get_filesize():
        raise ValueError(f"{name} must be stored whole")
    values: NDArray[Any] = array[()]
    return values
