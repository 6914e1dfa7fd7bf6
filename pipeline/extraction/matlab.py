"""The one array of numbers of a MATLAB 5 file, which is what MATLAB writes below version 7.3.

scipy.io reads these files, too, but a damaged one can end the whole process: it looks up the type
of values without a check. Here everything is checked before it is used.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 128
# Types of data elements, by their numbers in the format.
_NUMBERS = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4"},
    **{7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}
_MATRIX, _COMPRESSED = 14, 15
_FLOAT_CLASSES = (6, 7)  # double and single
_COMPLEX_FLAG = 0x800


def read_matlab_5(path: Path, max_bytes: int) -> NDArray[np.floating[Any]]:
    """Read the one array of class double or single.

    Args:
        path: The file.
        max_bytes: A file or an array of more bytes is refused before it is read.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is damaged, no such file, or holds no or several such arrays.
    """
    if path.stat().st_size > max_bytes:
        raise ValueError(f"it must have at most {max_bytes} bytes")
    content = memoryview(path.read_bytes())
    order = {b"IM": "<", b"MI": ">"}.get(bytes(content[126:128]))
    if order is None:
        raise ValueError("it is no MATLAB file of version 5")
    arrays: list[NDArray[np.floating[Any]]] = []
    for kind, data in _elements(content[HEADER_BYTES:], order):
        if kind == _COMPRESSED:
            data = _decompress(data, max_bytes)
            kind, data = next(_elements(data, order), (0, data))
        array = _read_matrix(data, order) if kind == _MATRIX else None
        if array is not None:
            arrays.append(array)
    if len(arrays) != 1:
        raise ValueError(f"it must hold one array of numbers, instead got {len(arrays)}")
    return arrays[0]


def _elements(content: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and data of the elements that follow each other."""
    position = 0
    while position + 8 <= len(content):
        kind, n_bytes = struct.unpack_from(f"{order}II", content, position)
        start = position + 8
        if kind >> 16:  # up to four bytes lie in the tag itself
            kind, n_bytes, start = kind & 0xFFFF, kind >> 16, position + 4
            end = position + 8
        else:
            end = start + n_bytes + (0 if kind == _COMPRESSED else -n_bytes % 8)
        if start + n_bytes > len(content) or (start < position + 8 and n_bytes > 4):
            raise ValueError("it is cut short or damaged")
        yield kind, content[start : start + n_bytes]
        position = end


def _decompress(data: memoryview, max_bytes: int) -> memoryview:
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, max_bytes)
    except zlib.error as error:
        raise ValueError(f"it is damaged ({error})") from error
    if not stream.eof:
        raise ValueError("it is cut short, or has an array that is too large")
    return memoryview(plain)


def _read_matrix(data: memoryview, order: str) -> NDArray[np.floating[Any]] | None:
    """An array of class double or single; None for another class."""
    parts = [part for part, _ in zip(_elements(data, order), range(4), strict=False)]
    if len(parts) < 4:
        return None
    (_, flags), (_, dims), _, (kind, values) = parts
    if len(flags) != 8 or not dims or len(dims) % 4:
        raise ValueError("it is damaged")
    flag = struct.unpack_from(f"{order}I", flags)[0]
    if flag & 0xFF not in _FLOAT_CLASSES:
        return None
    shape = struct.unpack(f"{order}{len(dims) // 4}i", dims)
    if flag & _COMPLEX_FLAG or kind not in _NUMBERS:
        raise ValueError("its values must be real numbers")
    dtype = np.dtype(f"{order}{_NUMBERS[kind]}")  # small whole numbers are stored as integers
    if min(shape) < 1 or math.prod(shape) * dtype.itemsize != len(values):
        raise ValueError(f"its array {shape} has {len(values)} bytes")
    array = np.frombuffer(values, dtype).reshape(shape, order="F")
    return array if array.dtype.kind == "f" else array.astype(np.float64)
