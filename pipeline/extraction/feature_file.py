"""Writing and reading of feature files, whose format `feature_format` documents."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extractors.features import Features
from extractors.features import Provenance as Provenance
from extractors.snippets import REPEAT_LAST_FRAME, n_snippets
from pipeline.extraction.feature_format import (
    ATTRIBUTES,
    DEFAULTS,
    FORMAT,
    FORMAT_VERSION,
    STREAM_DTYPE,
    TIMESTAMP_DTYPE,
    Header,
)
from pipeline.extraction.feature_paths import FeatureFileError as FeatureFileError
from pipeline.extraction.feature_paths import feature_path as feature_path
from pipeline.extraction.hdf5 import (
    DamagedFileError as DamagedFileError,
)
from pipeline.extraction.hdf5 import (
    File,
    attribute,
    fixed_text,
    read_array,
    reading,
    writing,
)
from pipeline.extraction.video_digest import Source


class FeatureValueError(FeatureFileError):
    """Features have values that the file cannot hold."""


@dataclass(frozen=True, slots=True)
class FeatureHeader:
    """The attributes of a feature file that are read without its arrays.

    Attributes:
        video_id: The video's name within its dataset.
        provenance: How the features were extracted.
        streams: Names of the streams, in the extractor's order.
        n_missing: Frames of the video that could not be decoded.
        source: Identity of the video file; None if the features were not extracted from a file.
    """

    video_id: str
    provenance: Provenance
    streams: tuple[str, ...]
    n_missing: int
    source: Source | None


@dataclass(frozen=True, slots=True, eq=False)
class StoredFeatures:
    """What a feature file holds.

    Attributes:
        video_id: The video's name within its dataset.
        features: The video's features; values have float16 precision.
        provenance: How they were extracted.
    """

    video_id: str
    features: Features
    provenance: Provenance


def write_features(
    path: Path,
    features: Features,
    provenance: Provenance,
    *,
    video_id: str,
    source_name: str,
    source: Source | None = None,
) -> None:
    """Write one video's features; the file gets its name only when it is complete.

    Args:
        path: The file to write or replace, as from `feature_path`; folders are made.
        features: The video's.
        provenance: How they were extracted.
        video_id: The video's name within its dataset.
        source_name: File name of the video.
        source: Identity of the video file; None if the features were not extracted from a file.

    Raises:
        FeatureValueError: If a value is too large for float16.
        FeatureFileError: If the file cannot be written.
    """
    streams = {name: _as_float16(path, name, values) for name, values in features.streams.items()}
    attributes: Header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "video_id": video_id,
        "source_name": source_name,
        "source_bytes": -1 if source is None else source.n_bytes,
        "source_sha256": "" if source is None else source.sha256,
        "streams": json.dumps(list(streams)),  # HDF5 lists names by the alphabet
        "snippet_len": int(features.snippet_len),
        "n_frames": int(features.n_frames),
        "n_missing": int(features.n_missing),
        "fps": float(features.fps),
        "decoder": features.decoder,
        "provenance": json.dumps(provenance, allow_nan=False),
    }
    arrays: dict[str, NDArray[Any]] = {
        **streams,
        "timestamps": features.timestamps.astype(TIMESTAMP_DTYPE),
    }
    attributes["arrays_sha256"] = _digest_of_arrays(arrays)
    attributes["header_sha256"] = _digest_of_header(attributes)
    with writing(path) as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values)
        for name, value in attributes.items():
            file.attrs[name] = fixed_text(value) if isinstance(value, str) else value


def read_features(path: Path, *, video_id: str | None = None) -> StoredFeatures:
    """Read and check one feature file.

    Sizes are checked against the header and the length of the file before anything is allocated,
    and only plain arrays within the file itself are read: a file from elsewhere is only data.

    Args:
        path: The file.
        video_id: Whose features it must hold; None takes any video's.

    Raises:
        FeatureFileError: If the file is missing, damaged, not such a file, or another video's.
    """
    with reading(path) as file:
        header = _read_attributes(file)
        provenance = parse_provenance(header)
        n_frames, snippet_len = int(header["n_frames"]), int(header["snippet_len"])
        if n_frames < 1 or snippet_len < 1:
            raise ValueError(f"it says {n_frames} frames in snippets of {snippet_len}")
        tail_policy = str(provenance.get("tail_policy", REPEAT_LAST_FRAME))
        n_rows = n_snippets(n_frames, snippet_len, tail_policy)
        arrays = {
            name: read_array(file, name, STREAM_DTYPE, n_rows, n_axes=3)
            for name in parse_stream_names(header)
        }
        arrays["timestamps"] = read_array(file, "timestamps", TIMESTAMP_DTYPE, n_frames, n_axes=1)
        features = Features(
            streams={
                name: values.astype(np.float32)
                for name, values in arrays.items()
                if name != "timestamps"
            },
            snippet_len=snippet_len,
            n_frames=n_frames,
            n_missing=int(header["n_missing"]),
            fps=float(header["fps"]),
            timestamps=arrays["timestamps"],
            decoder=str(header["decoder"]),
            tail_policy=tail_policy,
        )
        _check_header(header)
        if header["arrays_sha256"] not in ("", _digest_of_arrays(arrays)):
            raise ValueError("the checksum of its arrays is wrong")
        stored = StoredFeatures(str(header["video_id"]), features, provenance)
    if video_id is not None and stored.video_id != video_id:
        raise FeatureFileError(
            f"{path}: holds the features of the video {stored.video_id!r}, expected those of "
            f"{video_id!r}; remove it and extract the video again"
        )
    return stored


def read_header(path: Path) -> FeatureHeader:
    """Read a file's attributes without its arrays.

    Raises:
        FeatureFileError: If the file is missing, damaged, or not such a file.
    """
    with reading(path) as file:
        header = _read_attributes(file)
        provenance = parse_provenance(header)
        _check_header(header)
        n_bytes, sha256 = int(header["source_bytes"]), str(header["source_sha256"])
        return FeatureHeader(
            video_id=str(header["video_id"]),
            provenance=provenance,
            streams=tuple(parse_stream_names(header)),
            n_missing=int(header["n_missing"]),
            source=Source(n_bytes, sha256) if sha256 else None,
        )


def provenance_differences(expected: Provenance, found: Provenance) -> list[str]:
    """Describe where two provenances differ; empty where features may be mixed.

    >>> provenance_differences({"flow_method": "tvl1", "n_crops": 5}, {"flow_method": "dis"})
    ['flow_method: tvl1 expected, instead got dis', 'n_crops: 5 expected, instead got nothing']
    """
    keys = dict.fromkeys([*expected, *found])  # in order, each once
    return [
        f"{key}: {expected.get(key, 'nothing')} expected, instead got {found.get(key, 'nothing')}"
        for key in keys
        if key not in expected or key not in found or expected[key] != found[key]
    ]


def _as_float16(path: Path, stream: str, values: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        halves = values.astype(STREAM_DTYPE)
    if not np.isfinite(halves).all():
        raise FeatureValueError(
            f"{path}: stream {stream} must fit float16 (at most 65504), instead got "
            f"{np.abs(values).max():g}; check the weights and the range of the network's input"
        )
    return halves


def _read_attributes(file: File) -> Header:
    if attribute(file, "format", str) != FORMAT:
        raise ValueError("its format is not that of lookaround")
    version = attribute(file, "format_version", int)
    if version != FORMAT_VERSION:
        raise FeatureFileError(
            f"{file.filename}: has format version {version}, but this program reads and writes "
            f"{FORMAT_VERSION}; extract into another folder with --features, or remove the old one"
        )
    return {name: read_attribute(file, name) for name in ATTRIBUTES}


def read_attribute(file: File, name: str) -> str | int | float:
    """One of `ATTRIBUTES`; its default where it has one and the file leaves it out.

    Raises:
        ValueError: If it is missing or not of its type.
    """
    if name in DEFAULTS and name not in file.attrs:
        return DEFAULTS[name]
    return attribute(file, name, ATTRIBUTES[name])


def _check_header(header: Header) -> None:
    if header["header_sha256"] not in ("", _digest_of_header(header)):
        raise ValueError("the checksum of its header is wrong")


def _digest_of_header(header: Header) -> str:
    covered = {name: value for name, value in header.items() if name != "header_sha256"}
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()


def _digest_of_arrays(arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name, values in arrays.items():
        digest.update(f"{json.dumps([name, *values.shape])}\n".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def parse_provenance(header: Header) -> Provenance:
    """Read the provenance; a ValueError if it is not a flat JSON object of finite numbers."""
    provenance = json.loads(str(header["provenance"]))
    is_flat = isinstance(provenance, Mapping) and all(
        isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
        for value in provenance.values()
    )
    if not is_flat:
        raise ValueError("its provenance must be a flat JSON object of text and finite numbers")
    return dict(provenance)


def parse_stream_names(header: Header) -> list[str]:
    """Read the names of the streams; a ValueError if they are not a list of different names."""
    names = json.loads(str(header["streams"]))
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not is_list or len(set(names)) != len(names) or "timestamps" in names:
        raise ValueError("its streams must be a list of different names")
    return list(names)
