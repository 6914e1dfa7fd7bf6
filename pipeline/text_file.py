"""Reading a text file that a user names, such as a manifest, within a limit of its size."""

from pathlib import Path

from pipeline.datasets.catalog import DatasetError


def read_text(path: Path, expected: str, layout: str, *, max_bytes: int) -> str:
    """Read a file of UTF-8 text, with or without a byte order mark.

    Args:
        path: The file.
        expected: What it should be, for the messages, such as "a manifest CSV".
        layout: What it should hold, to follow this in the message where it is no text.
        max_bytes: A larger file is refused.

    Raises:
        DatasetError: If it is not a regular file of such text, is larger, or cannot be read.
    """
    check_is_regular(path, expected)
    try:
        n_bytes = path.stat().st_size
        if n_bytes > max_bytes:
            raise DatasetError(
                f"{path}: has {n_bytes} bytes, expected {expected} of at most {max_bytes}"
            )
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read ({error.strerror}), expected {expected}"
        ) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: is not UTF-8 text, expected {expected} {layout}") from error


def check_is_regular(path: Path, expected: str) -> None:
    """Refuse what must not be opened: a device may have no end, a pipe may never begin.

    A file that is missing is not refused.

    Raises:
        DatasetError: If the path is a folder, a device, a pipe or a socket.
    """
    if path.is_dir():
        raise DatasetError(f"{path}: is a folder, expected {expected}")
    if path.exists() and not path.is_file():
        raise DatasetError(f"{path}: is not a regular file, expected {expected}")
