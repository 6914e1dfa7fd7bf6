"""Checks of a command's output files before it starts: none may replace an input or a run."""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.atomic import check_writable
from pipeline.outputs import STDOUT, OutputError, is_written_in_place, resolved
from pipeline.runs.run_folder import is_run_folder


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[Path | None] = ()) -> None:
    """Check the outputs of a command before it starts.

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
        if path.exists() and _identity(path) in taken and not is_written_in_place(path):
            raise OutputError(
                f"{path}: {option} must not replace an input of the command; name another file"
            )
        _check_outside_runs(option, path)
        _check_writable(path)


def check_output_folders(
    folders: Mapping[str, Path | None], files: Iterable[Path], inputs: Iterable[Path]
) -> None:
    """Check the folders that a command writes files into before it starts.

    Args:
        folders: By the option that names them; None where it was not given. One that does not
            exist is made.
        files: All files that will be written there.
        inputs: Everything that the command reads; what does not exist is passed over.

    Raises:
        OutputError: If a folder is a file or part of a training run, or a file is an input.
        OSError: If a folder cannot be made or written to.
    """
    for option, folder in folders.items():
        if folder is None:
            continue
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder}: {option} must name a folder for several videos")
        _check_outside_runs(option, folder / "any")
        folder.mkdir(parents=True, exist_ok=True)
        check_writable(resolved(folder) / "any")
    taken = {_identity(path): path for path in inputs if path.exists()}
    for file in files:
        if file.exists() and _identity(file) in taken:
            raise OutputError(f"{file}: must not be replaced, it is an input of the command")


def check_outside_frames(outputs: Mapping[str, Path | None], frame_folders: Iterable[Path]) -> None:
    """Refuse outputs in a folder of frames, where an image might become one of them.

    Args:
        outputs: Files and folders by the option that names them; None where it was not given.
        frame_folders: What the command reads.

    Raises:
        OutputError: If an output is such a folder, or lies directly in one.
    """
    taken = {resolved(folder) for folder in frame_folders}
    for option, path in outputs.items():
        if path not in (None, STDOUT) and taken & {resolved(path), resolved(path).parent}:
            raise OutputError(
                f"{path}: {option} must not write into a folder of frames; name another folder"
            )


def _check_outside_runs(option: str, path: Path) -> None:
    run = next((folder for folder in resolved(path).parents if is_run_folder(folder)), None)
    if run is not None:
        raise OutputError(f"{path}: {option} must not write into the run {run}")


def _check_different(named: Mapping[str, Path]) -> None:
    seen: dict[Path, str] = {}
    for option, path in named.items():
        # By its resolved path, because neither file needs to exist.
        where = STDOUT if path == STDOUT else resolved(path)
        if where in seen and str(where) != os.devnull:
            raise OutputError(f"{path}: is named by {seen[where]} and by {option}")
        seen[where] = option


def _check_writable(path: Path) -> None:
    if not is_written_in_place(path):
        check_writable(resolved(path))
    elif not os.access(path, os.W_OK):
        raise OutputError(f"{path}: cannot be written (permission denied)")


def _identity(path: Path) -> tuple[int, int]:
    """The same for all names of one file, hard links included."""
    status = path.stat()
    return status.st_dev, status.st_ino
