"""Files that appear under their final name whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to, and move it into place at the end.

    The folder is made if it is missing. When the body raises, the temporary file is removed and
    what stood at `path` before is untouched. Any number of processes may write to one folder.

    Args:
        path: The final name.

    Yields:
        The name to write to.

    Raises:
        OSError: If the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(path)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def check_writable(path: Path) -> None:
    """Find out before hours of work, and not after, that a result could not be written.

    Raises:
        OSError: If `path` is a folder, or its folder is missing or does not take new files.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, expected the name of a file to write")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist; make it first")
    probe = _temporary_name(path)
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise PermissionError(f"{path}: cannot be written ({error.strerror})") from error


def _temporary_name(path: Path) -> Path:
    """A name of its own, also between machines; its ending keeps it from being read as a result."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
