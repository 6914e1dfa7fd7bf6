"""Files that appear under their final name whole or not at all.

A temporary file is locked by the process that writes it. The operating system releases the lock
when the process ends, however it ends, so that a file without a lock is known to be abandoned.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY_PREFIX = ".lookaround-"
TEMPORARY_SUFFIX = ".tmp"  # keeps a temporary file from being read as a result


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to, and move it into place at the end.

    The folder is made if it is missing. When the body raises, the temporary file is removed and
    what stood at `path` before is untouched. Any number of processes may write to one folder.

    Args:
        path: The final name.

    Yields:
        The name to write to, which is short whatever the length of the final one.

    Raises:
        OSError: If the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary, descriptor = _open_temporary(path.parent)
    except OSError as error:
        error.filename = str(path)
        raise
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        _name_final_file(error, path, temporary)
        raise
    finally:
        os.close(descriptor)


def _name_final_file(error: BaseException, path: Path, temporary: Path) -> None:
    """Let an error name the file that was to be written.

    A write to a full disk names no file, and a rename the temporary one.
    """
    if not isinstance(error, OSError) or error.errno is None:
        return
    if error.filename is None or str(error.filename) == str(temporary):
        error.filename = str(path)
        del error.filename2  # the other name of a rename


def remove_abandoned(folder: Path) -> int:
    """Remove the temporary files that killed processes left in a folder and in those below it.

    A file that a process is writing, on this machine or on another, is left alone. So is every
    file where the file system has no locks.

    Returns:
        How many files were removed.
    """
    n_removed = 0
    for path in folder.rglob(f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}"):
        with suppress(OSError):  # in use, without locks, or removed by another process
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                n_removed += 1
            finally:
                os.close(descriptor)
    return n_removed


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
    """A name of its own, also between machines."""
    return path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")


def _open_temporary(folder: Path) -> tuple[Path, int]:
    """Make a temporary file and lock it; the lock holds until the descriptor is closed."""
    while True:
        temporary = _temporary_name(folder / "any")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        # `remove_abandoned` of another process may have seen it before it was locked.
        if _lock(descriptor) and temporary.exists():
            return temporary, descriptor
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock a file; False if another process has the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks, where nothing is removed either
    return True
