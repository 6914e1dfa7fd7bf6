"""Arrays in the file formats of published features: npy, mat and text, read as data only.

Nothing is unpickled or executed, and sizes are checked before anything is allocated.
"""

import math
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipeline.extraction.hdf5 import read_only_array
from pipeline.extraction.matlab import read_matlab_5
from pipeline.extraction.releases import ImportFeaturesError

SUFFIXES = (".npy", ".mat", ".txt")
MAX_ARRAY_BYTES = 2**32
MAX_TEXT_BYTES = 2**26
MAX_DEFLATE_RATIO = 1100  # zlib cannot do better than 1032 to 1
_READ_ERRORS = (
    *(OSError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError),
    *(AttributeError, RuntimeError, SyntaxError, TokenError),
)


def read_published(path: Path) -> NDArray[np.floating[Any]]:
    """Read the one array of numbers of a file.

    Args:
        path: Ends in one of `SUFFIXES`.

    Returns:
        Two or three axes, in the order of the file, floating point.

    Raises:
        ImportFeaturesError: If the file cannot be read, is cut short, or holds something else.
    """
    try:
        match path.suffix.lower():
            case ".npy":
                with path.open("rb") as file:
                    return _read_npy(file, path.stat().st_size)
            case ".mat":
                return _read_mat(path)
            case _:
                return _read_text(path)
    except _READ_ERRORS as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImportFeaturesError(f"{path}: cannot be read ({reason.partition(chr(10))[0]})") from (
            error
        )


def _read_npy(file: BinaryIO, file_bytes: int) -> NDArray[np.floating[Any]]:
    version = npy.read_magic(file)
    if version == (2, 0):
        _check_header_fits(file, file_bytes)
    if version == (1, 0):
        shape, is_fortran, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, is_fortran, dtype = npy.read_array_header_2_0(file)
    else:
        raise ValueError(f"npy version must be 1.0 or 2.0, instead got {version}")
    if dtype.kind != "f":
        raise ValueError(f"its values must be floating point, instead got {dtype}")
    n_bytes = _check_size(shape, dtype.itemsize)
    n_left = file_bytes - file.tell()
    if n_left != n_bytes:
        raise ValueError(f"its header announces {n_bytes} bytes, instead got {n_left}")
    values: NDArray[np.floating[Any]] = np.fromfile(file, dtype, math.prod(shape))
    return values.reshape(shape, order="F" if is_fortran else "C")


def _check_header_fits(file: BinaryIO, file_bytes: int) -> None:
    """Refuse a header longer than the file: NumPy allocates the bytes that it announces."""
    start = file.tell()
    n_bytes = int.from_bytes(file.read(4), "little")
    file.seek(start)
    if n_bytes > file_bytes:
        raise ValueError(f"its header must fit the file of {file_bytes} bytes, not {n_bytes}")


def _read_mat(path: Path) -> NDArray[np.floating[Any]]:
    with path.open("rb") as file:
        is_hdf5 = file.read(19) == b"MATLAB 7.3 MAT-file"
    max_bytes = min(MAX_ARRAY_BYTES, MAX_DEFLATE_RATIO * path.stat().st_size)
    if is_hdf5:
        return read_only_array(path, max_bytes).T  # MATLAB counts the axes the other way around
    values = read_matlab_5(path, max_bytes)
    _check_size(values.shape, values.itemsize)
    return values


def _read_text(path: Path) -> NDArray[np.floating[Any]]:
    n_bytes = path.stat().st_size
    if not 0 < n_bytes <= MAX_TEXT_BYTES:
        raise ValueError(f"text must be 1 to {MAX_TEXT_BYTES} bytes, instead got {n_bytes}")
    values = np.loadtxt(path, dtype=np.float32, ndmin=2, encoding="utf-8")
    _check_size(values.shape, values.itemsize)
    return values


def _check_size(shape: tuple[int, ...], itemsize: int) -> int:
    """Bytes of an array, which must have two or three axes and some content."""
    n_bytes = math.prod(shape) * itemsize
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"it must have 2 or 3 axes and some content, instead got {shape}")
    if n_bytes > MAX_ARRAY_BYTES:
        raise ValueError(f"it must have at most {MAX_ARRAY_BYTES} bytes, instead got {n_bytes}")
    return n_bytes
