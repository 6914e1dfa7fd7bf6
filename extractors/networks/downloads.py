"""Published files: the local cache, downloads and checksums.

The only module that imports pooch and platformdirs.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs
import pooch

from extractors.errors import LookaroundError

TIMEOUT_SECONDS = 60
MAX_REASON_LEN = 100  # characters
pooch.get_logger().setLevel("WARNING")  # its notices would go between the lines of a command


class WeightsError(LookaroundError, OSError):
    """Weights cannot be found, downloaded or read, or are not the expected ones."""


class DownloadError(WeightsError):
    """A file is missing, and its download fails."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """A checksum that a publisher gives for a file: it detects damage, it is not a signature.

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
        """Return the checksum of a file in the same kind and number of digits."""
        found = git_blob_id(path) if self.kind == "git blob" else sha256_of(path)
        return found[: len(self.digest)]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A published file.

    Attributes:
        address: URL.
        checksum: None where the publisher gives none. The SHA-256 of the first download is then
            stored beside the file, which is compared with it from then on.
    """

    address: str
    checksum: Checksum | None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.address.rpartition("/")[2]

    def describe_checksum(self) -> str:
        """Return what to compare after a download by other means."""
        return "its publisher gives no checksum" if self.checksum is None else str(self.checksum)


def cache_folder() -> Path:
    """Return the folder of downloads: $LOOKAROUND_CACHE, or `lookaround` in the user's cache."""
    own = os.environ.get("LOOKAROUND_CACHE")
    return Path(own) if own else platformdirs.user_cache_path("lookaround")


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
    """Make sure that `path` is a verified file: download it unless it exists.

    A download is renamed to `path` once it is complete and its checksum is right; an interrupted
    one starts again. Any number of processes may fetch the same file.

    Raises:
        DownloadError: If the download fails.
        WeightsError: If the file there or downloaded is another one.
    """
    if not path.exists():
        pooch.retrieve(
            file.address,
            known_hash=None,  # `_Downloader` checks git's, which pooch does not know
            fname=path.name,
            path=path.parent,
            downloader=_Downloader(file, path),
        )
    verify(file, path)


def verify(file: RemoteFile, path: Path) -> None:
    """Check a file against its checksum, or against that of its first download.

    Raises:
        WeightsError: If it is not the expected one.
    """
    problem = f"{path}: not the expected weights; remove it to download them"
    if file.checksum is not None:
        _compare(file.checksum, path, problem)
        return
    record = path.with_name(f"{path.name}.sha256")
    # A process that was killed may have left the record empty.
    if record.exists() and (first_seen := record.read_text(encoding="ascii").strip()):
        _compare(Checksum("sha256", first_seen), path, f"{problem} (with {record.name})")
    else:
        record.write_text(f"{sha256_of(path)}\n", encoding="ascii")


@dataclass(frozen=True, slots=True)
class _Downloader:
    """Downloads a file under a temporary name for pooch, and checks it before pooch renames it."""

    file: RemoteFile
    path: Path

    def __call__(self, url: str, output_file: str, pooch_: object) -> None:
        try:
            pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS)(url, output_file, pooch_)
        except OSError as error:  # requests' errors are such, also that of a short download
            raise DownloadError(
                f"{self.path}: missing, and {url} cannot be downloaded ({_reason(error)}); "
                f"try again, or get it elsewhere and put it there ({self.file.describe_checksum()})"
            ) from error
        problem = f"{url}: the download is not the expected file"
        _compare(self.file.checksum, Path(output_file), problem)


def _reason(error: BaseException) -> str:
    """What went wrong first, without the retries and the address that requests adds."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.partition(" for url: ")[0].split())[:MAX_REASON_LEN]


def _compare(checksum: Checksum | None, path: Path, problem: str) -> None:
    if checksum is None:
        return
    found = checksum.of(path)
    if found != checksum.digest:
        raise WeightsError(f"{problem} ({checksum} expected, instead got {found})")
