"""What several commands share: options, notes, and errors that take one line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from pipeline.printable import printable

SOME_VIDEOS_FAILED = 3
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
RANDOM_WEIGHTS_NOTE = "random weights: no semantics"

features_option = click.option(
    "--features",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("features"),
    show_default=True,
    help="Folder of feature files.",
)
runs_option = click.option(
    "--runs",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Folder of training runs.",
)
videos_option = click.option(
    "--videos",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the videos.  [default: data/DATASET, or the manifest's folder]",
)
allow_outside_option = click.option(
    "--allow-outside",
    is_flag=True,
    help="Read videos of a manifest through links that lead out of the folder of the videos.",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto (the first GPU, else the CPU), cpu, cuda or cuda:N.",
)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turn the errors that a user can mend into one line on stderr and exit code 1.

    Everything else is a bug and keeps its traceback.
    """
    try:
        yield
    except OSError as error:
        raise click.ClickException(_one_line(error)) from error
    except ValueError as error:
        from pipeline.datasets.catalog import DatasetError

        if not isinstance(error, DatasetError):
            from extractors.build import ExtractorError  # loads torch
            from pipeline.config import ConfigError

            if not isinstance(error, (ConfigError, ExtractorError)):
                raise
        raise click.ClickException(_one_line(error)) from error


@contextmanager
def interrupt_as_exit_code() -> Iterator[None]:
    """End the command with the usual exit code after Ctrl-C, without a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _one_line(error: Exception) -> str:
    """The message without line breaks; an operating system error names its file first."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return printable(f"{error.filename}: {error.strerror}")
    return printable(" ".join(str(error).split()))


def say(line: str) -> None:
    """Write a line that is not a result: to stderr."""
    click.echo(line, err=True)
