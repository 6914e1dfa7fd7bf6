"""Output files of a command, at the user's paths or stdout, and never in place of an input."""

import os
import sys
from pathlib import Path

from extractors.errors import LookaroundError
from pipeline.atomic import replacing

STDOUT = Path("-")
# Names of what this process has open already: whatever is behind them is written to.
_OPEN_FILES = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")


class OutputError(LookaroundError, OSError):
    """A place that a result must not or cannot be written to."""


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
    elif is_written_in_place(path):
        # Appended to, because stdout may be a file that holds something already.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND), "wb") as file:
            file.write(content)
    else:
        with replacing(resolved(path)) as temporary:
            temporary.write_bytes(content)


def is_replaced(path: Path) -> bool:
    """Whether writing again replaces what was written; to a pipe or stdout it would be added."""
    return path != STDOUT and not is_written_in_place(path)


def is_written_in_place(path: Path) -> bool:
    """Whether it is a device, a pipe or an open file, which is written to and not replaced."""
    is_special = path.exists() and not path.is_file() and not path.is_dir()
    return is_special or str(path.absolute()).startswith(_OPEN_FILES)


def resolved(path: Path) -> Path:
    """The path without symbolic links.

    Raises:
        OutputError: If a link leads to itself.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # a link that leads to itself
        raise OutputError(f"{path}: cannot be written ({error})") from error
