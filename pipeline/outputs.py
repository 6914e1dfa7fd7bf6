"""What a command writes where its user says, and never in place of an input."""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.atomic import check_writable, replacing
from pipeline.runs import is_run_folder

STDOUT = Path("-")
# Names of what this process has open already: whatever is behind them is written to.
_OPEN_FILES = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")


class OutputError(OSError):
    """A place that a result must not or cannot be written to."""


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[Path | None] = ()) -> None:
    """Find out before the work, and not after, what is wrong with the outputs of a command.

    Args:
        outputs: By the option that names them; None where it was not given. `-` is stdout.
        inputs: Everything that the command reads; None and what does not exist are passed over.

    Raises:
        OutputError: If an output is an input, a part of a training run or another output, or stdout
            where it is closed.
        OSError: If an output cannot be written.
    """
    named = {option: path for option, path in outputs.items() if path is not None}
    _check_different(named)
    files = [(option, path) for option, path in named.items() if path != STDOUT]
    if len(files) < len(named) and sys.stdout is None:
        raise OutputError("-: stdout is closed; name a file with --out")
    taken = {_identity(path): path for path in inputs if path is not None and path.exists()}
    for option, path in files:
        if path.exists() and _identity(path) in taken and not _is_written_in_place(path):
            raise OutputError(
                f"{path}: {option} must not replace an input of the command; name another file"
            )
        run = next((folder for folder in _resolved(path).parents if is_run_folder(folder)), None)
        if run is not None:
            raise OutputError(f"{path}: {option} must not write into the run {run}")
        _check_writable(path)


def write_output(path: Path, content: bytes) -> None:
    """Write a result: the file appears whole or not at all.

    A symbolic link is followed. What exists and is no regular file, such as a device or a pipe, is
    written to and not replaced.

    Args:
        path: The name; `-` is stdout.
        content: All of it.

    Raises:
        OSError: If it cannot be written.
    """
    if path == STDOUT:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    elif _is_written_in_place(path):
        # Appended to, because stdout may be a file that holds something already.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND), "wb") as file:
            file.write(content)
    else:
        with replacing(_resolved(path)) as temporary:
            temporary.write_bytes(content)


def is_replaced(path: Path) -> bool:
    """Whether writing again replaces what was written; to a pipe or stdout it would be added."""
    return path != STDOUT and not _is_written_in_place(path)


def _check_different(named: Mapping[str, Path]) -> None:
    seen: dict[Path, str] = {}
    for option, path in named.items():
        # By its resolved path, because neither file needs to exist.
        where = STDOUT if path == STDOUT else _resolved(path)
        if where in seen and str(where) != os.devnull:
            raise OutputError(f"{path}: is named by {seen[where]} and by {option}")
        seen[where] = option


def _check_writable(path: Path) -> None:
    if not _is_written_in_place(path):
        check_writable(_resolved(path))
    elif not os.access(path, os.W_OK):
        raise OutputError(f"{path}: cannot be written (permission denied)")


def _is_written_in_place(path: Path) -> bool:
    is_special = path.exists() and not path.is_file() and not path.is_dir()
    return is_special or str(path.absolute()).startswith(_OPEN_FILES)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # a link that leads to itself
        raise OutputError(f"{path}: cannot be written ({error})") from error


def _identity(path: Path) -> tuple[int, int]:
    """The same for all names of one file, hard links included."""
    status = path.stat()
    return status.st_dev, status.st_ino
