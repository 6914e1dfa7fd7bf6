"""Reading a text file that a user names, such as a manifest, within a limit of its size."""

from pathlib import Path

from extractors.errors import LookaroundError


def read_text(
    path: Path, expected: str, *, max_bytes: int, error: type[LookaroundError], layout: str = ""
) -> str:
    """Read a file of UTF-8 text, with or without a byte order mark.

    Args:
        path: The file.
        expected: What it should be, for the messages, such as "a manifest CSV".
        max_bytes: A larger file is refused.
        error: What is raised.
        layout: What it should hold, to follow `expected` in the message where it is no text.

    Raises:
        LookaroundError: `error`, if it is not a regular file of such text, is larger, or cannot be
            read.
    """
    check_is_regular(path, expected, error=error)
    try:
        n_bytes = path.stat().st_size
        if n_bytes > max_bytes:
            raise error(f"{path}: has {n_bytes} bytes, expected {expected} of at most {max_bytes}")
        content = path.read_bytes()
    except OSError as cause:
        raise error(f"{path}: cannot be read ({cause.strerror}), expected {expected}") from cause
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        layout = f" {layout}" if layout else ""
        raise error(f"{path}: is not UTF-8 text, expected {expected}{layout}") from cause


def check_is_regular(path: Path, expected: str, *, error: type[LookaroundError]) -> None:
    """Refuse what must not be opened: a device may have no end, a pipe may never begin.

    A file that is missing is not refused.

    Raises:
        LookaroundError: `error`, if the path is a folder, a device, a pipe or a socket.
    """
    if path.is_dir():
        raise error(f"{path}: is a folder, expected {expected}")
    if path.exists() and not path.is_file():
        raise error(f"{path}: is not a regular file, expected {expected}")
