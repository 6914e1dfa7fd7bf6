"""Files that are published in the net: the local cache, downloads, checksums."""

import hashlib
import http.client
import os
import secrets
import shutil
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from extractors.errors import LookaroundError


class WeightsError(LookaroundError, OSError):
    """Weights cannot be had, or are not what they should be."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a publisher says of a file's content. Against damage; not a signature.

    Attributes:
        kind: "git blob": git's id of the content, the SHA-1 of `blob <size>`, a zero byte and the
            content. "sha256": the first digits of the SHA-256.
        digest: Lower-case hexadecimal digits.
    """

    kind: Literal["git blob", "sha256"]
    digest: str

    def __str__(self) -> str:
        return f"{self.kind} {self.digest}"

    def of(self, path: Path) -> str:
        """Return what a file has in its place, as many digits of it."""
        found = git_blob_id(path) if self.kind == "git blob" else sha256_of(path)
        return found[: len(self.digest)]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file in the net.

    Attributes:
        address: URL.
        checksum: None where the publisher gives none. The SHA-256 of the first download is then
            kept beside the file and holds from then on.
    """

    address: str
    checksum: Checksum | None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.address.rpartition("/")[2]

    @property
    def checksum_in_words(self) -> str:
        """What whoever gets the file by other means can compare."""
        return "its publisher gives no checksum" if self.checksum is None else str(self.checksum)


def cache_folder() -> Path:
    """Return the folder of downloads: $LOOKAROUND_CACHE, or `lookaround` in the user's cache."""
    if own := os.environ.get("LOOKAROUND_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "lookaround"
    return Path.home() / ".cache" / "lookaround"


def git_blob_id(path: Path) -> str:
    """Return what `git hash-object` prints for a file."""
    content = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            content.update(block)
    return content.hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(file: RemoteFile, path: Path) -> None:
    """Make sure that `path` holds a file: verify it, or else download it.

    A download gets its final name only when it is whole and its checksum is right; one that was
    cut off starts again. Any number of processes may fetch the same file.

    Raises:
        WeightsError: If the download fails, or the file there or downloaded is another one.
    """
    if path.exists():
        verify(file, path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
    try:
        _download(file, partial, path)
        _compare(file.checksum, partial, f"{file.address}: the download is not the expected file")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    verify(file, path)


def verify(file: RemoteFile, path: Path) -> None:
    """Check a file that is there.

    Raises:
        WeightsError: If it is not the expected one.
    """
    complaint = f"{path}: not the expected weights; remove it to download them"
    if file.checksum is not None:
        _compare(file.checksum, path, complaint)
        return
    record = path.with_name(f"{path.name}.sha256")
    if record.exists():
        first_seen = record.read_text(encoding="ascii").strip()
        _compare(Checksum("sha256", first_seen), path, f"{complaint} (with {record.name})")
    else:
        record.write_text(f"{sha256_of(path)}\n", encoding="ascii")


def _download(file: RemoteFile, partial: Path, path: Path) -> None:
    try:
        with urllib.request.urlopen(file.address, timeout=60) as response:
            with partial.open("xb") as out:
                shutil.copyfileobj(response, out)
            n_announced = response.headers.get("Content-Length")
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(
            f"{path}: not there, and {file.address} cannot be downloaded ({error}); "
            f"get it elsewhere and put it there ({file.checksum_in_words})"
        ) from error
    n_bytes = partial.stat().st_size
    if n_announced is not None and n_bytes != int(n_announced):
        raise WeightsError(
            f"{file.address}: the download was cut off ({n_announced} bytes expected, instead got "
            f"{n_bytes}); try again, or put the file at {path} ({file.checksum_in_words})"
        )


def _compare(checksum: Checksum | None, path: Path, complaint: str) -> None:
    if checksum is None:
        return
    found = checksum.of(path)
    if found != checksum.digest:
        raise WeightsError(f"{complaint} ({checksum} expected, instead got {found})")
