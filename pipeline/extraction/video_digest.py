"""A digest that identifies a video file, to notice when it was replaced under the same name."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SAMPLE_BYTES = 2**20  # read at the start, in the middle and at the end


@dataclass(frozen=True, slots=True)
class Source:
    """The identity of a video file.

    Attributes:
        n_bytes: Its size.
        sha256: Hexadecimal SHA-256 of the size and the first, the middle and the last MiB; of the
            size and the whole content where that is at most 3 MiB.
    """

    n_bytes: int
    sha256: str


def identify_source(path: Path) -> Source:
    """Compute a file's identity from at most 3 MiB of it.

    The modification time is not part of it: copies have another one, and a file that was replaced
    may have the same.

    Raises:
        OSError: If the file cannot be read, or is not a regular file.
    """
    if path.exists() and not path.is_file():
        raise OSError(f"{path}: is not a regular file, expected a video")
    with path.open("rb") as file:
        n_bytes = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(f"{n_bytes} bytes\n".encode())
        if n_bytes <= 3 * SAMPLE_BYTES:
            digest.update(file.read(3 * SAMPLE_BYTES))
        else:
            for start in (0, (n_bytes - SAMPLE_BYTES) // 2, n_bytes - SAMPLE_BYTES):
                digest.update(_sample(file, start))
    return Source(n_bytes, digest.hexdigest())


def _sample(file: BinaryIO, start: int) -> bytes:
    file.seek(start)
    return file.read(SAMPLE_BYTES)
