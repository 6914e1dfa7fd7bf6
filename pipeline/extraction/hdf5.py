"""Reading and writing HDF5 files that may be damaged or hostile. The only module that imports h5py.

HDF5's file locks are not used. They fail on many network file systems, and they prevent reading
while a file is written; here a file gets its final name when it is complete, and is not changed
afterwards.
"""

import math
import mmap
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
HEAP_SIGNATURE = b"GCOL\x01"
HDF5_OWN_FILTERS = {1, 2, 3}  # deflate, shuffle, checksum: none of them is a plug-in

T = TypeVar("T", bound=str | int | float)
_KINDS: dict[type, str] = {int: "iu", float: "fiu"}  # NumPy's letters


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
        if path.suffix != ".h5" and not h5py.is_hdf5(path):
            raise DamagedFileError(f"{path}: is no HDF5 file, expected a feature file")
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except PermissionError as error:
        raise FeatureFileError(
            f"{path}: cannot be read (permission denied); change its permissions, or remove it"
        ) from error
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
    """Read one scalar attribute of this type, of limited size.

    Text may be of fixed or of variable length, and an int serves as a float: ordinary h5py writes
    both.
    """
    attributes = file.attrs  # made anew by each access
    if name not in attributes:
        raise ValueError(f"attribute {name} is missing")
    stored = attributes.get_id(name)
    dtype = stored.dtype
    if kind is str and stored.shape == () and h5py.check_string_dtype(dtype) is not None:
        if dtype.kind == "O":
            _check_heaps(Path(file.filename))
        value = attributes[name]
        text = value if isinstance(value, str) else value.item().decode("utf-8")
        if len(text) <= MAX_ATTRIBUTE_BYTES and dtype.itemsize <= MAX_ATTRIBUTE_BYTES:
            return kind(text)
    elif kind is not str and stored.shape == () and dtype.kind in _KINDS[kind]:
        return kind(attributes[name].item())
    raise ValueError(f"attribute {name} must be one {kind.__name__}")


def _check_heaps(path: Path) -> None:
    """Refuse damaged heaps, where text of variable length lies: HDF5 may never return from one.

    A heap is "GCOL", version 1, three bytes, its size, and objects of (index, 2 bytes; references,
    2; reserved, 4; size, 8; data, filled up to 8). Index 0 is free space up to the end, whose size
    counts these 16 bytes, too.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(HEAP_SIGNATURE)
        while start >= 0:
            if not _is_whole_heap(content, start):
                raise ValueError("its text is damaged")
            start = content.find(HEAP_SIGNATURE, start + 1)


def _is_whole_heap(content: mmap.mmap, start: int) -> bool:
    end = start + _number(content, start + 8, 8)
    if end > len(content):
        return False
    position = start + 16
    while position + 16 <= end:
        index, n_bytes = _number(content, position, 2), _number(content, position + 8, 8)
        if index == 0:
            return position + n_bytes == end
        position += 16 + -(-n_bytes // 8) * 8
    return position <= end


def _number(content: mmap.mmap, start: int, n_bytes: int) -> int:
    return int.from_bytes(content[start : start + n_bytes], "little")


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


def read_only_array(path: Path, max_bytes: int) -> NDArray[Any]:
    """The one array of floating point numbers in the root of a file of another program.

    Args:
        path: The file, such as a MATLAB 7.3 file.
        max_bytes: A larger array, or chunk of one, is refused before it is allocated.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If there is not one such array, or it is not stored within the file.
    """
    with h5py.File(path, "r", locking=False) as file:
        arrays = [
            file[name]
            for name in file
            if isinstance(file.get(name, getlink=True), h5py.HardLink)
            and isinstance(file[name], h5py.Dataset)
            and file[name].dtype.kind == "f"
        ]
        if len(arrays) != 1:
            raise ValueError(f"it must hold one array, instead got {len(arrays)}")
        array = arrays[0]
        plan = array.id.get_create_plist()
        filters = {plan.get_filter(index)[0] for index in range(plan.get_nfilters())}
        if array.is_virtual or array.external is not None or not filters <= HDF5_OWN_FILTERS:
            raise ValueError("its array must lie within the file, plain or compressed by gzip")
        sizes = [math.prod(shape) for shape in (array.shape, array.chunks or ())]
        if array.ndim not in (2, 3) or not 1 <= sizes[0] * array.dtype.itemsize <= max_bytes:
            raise ValueError(f"its array must have 2 or 3 axes, instead got {array.shape}")
        if sizes[1] * array.dtype.itemsize > max_bytes:
            raise ValueError(f"its array must have smaller chunks, instead got {array.chunks}")
        values: NDArray[Any] = array[()]
        return values
