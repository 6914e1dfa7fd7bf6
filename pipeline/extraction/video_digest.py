"""A digest that identifies a video, to notice when it was replaced under the same name."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from extractors.decoding.frame_folder import (
    FrameFolder,
    VideoSource,
    check_not_a_folder,
    list_frames,
)

SAMPLE_BYTES = 2**20  # read at the start, in the middle and at the end


@dataclass(frozen=True, slots=True)
class Source:
    """The identity of a video.

    Attributes:
        n_bytes: Its size; of a folder of frames, that of all frames together.
        sha256: Hexadecimal SHA-256 of the size and the first, the middle and the last MiB; of the
            size and the whole content where that is at most 3 MiB. Of a folder of frames: of the
            frames per second, the name and size of every frame, and the identity of the first, the
            middle and the last one.
    """

    n_bytes: int
    sha256: str


def identify_source(source: VideoSource) -> Source:
    """Compute a video's identity from at most 3 MiB of it, or three of its frames.

    The modification time is not part of it: copies have another one, and a file that was replaced
    may have the same.

    Raises:
        OSError: If the file cannot be read, or is not a regular file; if a folder has no frames or
            its frames per second are not known.
    """
    if isinstance(source, FrameFolder):
        return _identify_frames(source)
    check_not_a_folder(source)
    return _identify_file(source)


def _identify_frames(folder: FrameFolder) -> Source:
    frames = list_frames(folder.path)
    sizes = [frame.stat().st_size for frame in frames]
    digest = hashlib.sha256(f"{folder.fps:g} frames per second\n".encode())
    for frame, n_bytes in zip(frames, sizes, strict=True):
        digest.update(f"{n_bytes} bytes: {frame.name}\n".encode(errors="surrogateescape"))
    for frame in (frames[0], frames[len(frames) // 2], frames[-1]):
        digest.update(_identify_file(frame).sha256.encode())
    return Source(sum(sizes), digest.hexdigest())


def _identify_file(path: Path) -> Source:
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
