"""Reading and writing HDF5 files that may be damaged or hostile. The only module that imports h5py.

HDF5's file locks are not used. They fail on many network file systems, and they prevent reading
while a file is written; here a file gets its final name when it is complete, and is not changed
afterwards.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.atomic import replacing
from pipeline.extraction.feature_paths import FeatureFileError

File = h5py.File
ExternalLink = h5py.ExternalLink
MAX_ATTRIBUTE_BYTES = 2**16

T = TypeVar("T", bound=str | int | float)
_KINDS: dict[type, str] = {str: "S", int: "i", float: "f"}  # NumPy's letters


class DamagedFileError(FeatureFileError):
    """A feature file is truncated, or its content is not what was written."""


@contextmanager
def writing(path: Path) -> Iterator[h5py.File]:
    """Open a new HDF5 file, which is moved to its path when the body ends.

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
def reading(path: Path) -> Iterator[h5py.File]:
    """Open a feature file; any error in its content becomes a `DamagedFileError` with a remedy."""
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
    except FeatureFileError:
        raise
    # What h5py raises for bytes that make no sense, and what the checks of this file raise.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise DamagedFileError(
            f"{path}: is not a whole feature file ({_first_line(error)}); "
            "remove it and extract the video again"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def attribute(file: h5py.File, name: str, kind: type[T]) -> T:
    """Read one scalar attribute of exactly this type, of limited size."""
    if name not in file.attrs:
        raise ValueError(f"attribute {name} is missing")
    stored = file.attrs.get_id(name)
    dtype = stored.dtype
    if stored.shape != () or dtype.kind != _KINDS[kind] or dtype.itemsize > MAX_ATTRIBUTE_BYTES:
        raise ValueError(f"attribute {name} must be one {kind.__name__}")
    value = file.attrs[name].item()
    return kind(value.decode("utf-8") if isinstance(value, bytes) else value)


def fixed_text(text: str) -> NDArray[np.bytes_]:
    """Encode text of fixed length, which HDF5 stores in place.

    Text of variable length is stored in a heap, and HDF5 may loop forever on a damaged heap.
    """
    encoded = text.encode("utf-8")
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(len(encoded), 1)))


def read_array(
    file: h5py.File, name: str, dtype: np.dtype[Any], n_rows: int, *, n_axes: int
) -> NDArray[Any]:
    """Read an array that is stored in the file itself, contiguous, with so many rows and axes."""
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
