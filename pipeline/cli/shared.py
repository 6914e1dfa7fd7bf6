"""Shared by several commands: options, messages, and errors shown as one line."""

import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from extractors.errors import LookaroundError
from models import MODELS
from pipeline.printable import printable

SOME_VIDEOS_FAILED = 3
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
QUIET = "pipeline.quiet"  # key in the context of click
OWN_PACKAGES = ("pipeline", "extractors", "models")
Command = TypeVar("Command", bound=Callable[..., Any] | click.Command)  # as click's decorators


def check_device_names(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse names that are not of devices; whether this machine has them is checked later."""
    for name in [] if value is None else value.split(","):
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,4})?", name.strip()):
            raise click.BadParameter(
                f"device must be auto, cpu, cuda or cuda:N, instead got {printable(name)!r}"
            )
    return value


def check_model_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse names that are not in `MODELS`."""
    if value is not None and value not in MODELS:
        known = ", ".join(MODELS)
        raise click.BadParameter(f"model must be one of {known}, instead got {value!r}")
    return value


def check_number(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Refuse NaN, which no range excludes."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("NaN is in no range")
    return value


def count_option(
    flag: str, name: str, *, default: int, help: str, min_count: int = 1
) -> Callable[[Command], Command]:
    """Declare an option that is a whole number of at least `min_count`."""
    return click.option(
        flag,
        name,
        type=click.IntRange(min=min_count),
        default=default,
        show_default=True,
        help=help,
    )


def folder_option(flag: str, *, help: str) -> Callable[[Command], Command]:
    """Declare an option that is a folder, by default the one of the option's name."""
    return click.option(
        flag,
        type=click.Path(path_type=Path, file_okay=False),
        default=Path(flag.removeprefix("--")),
        show_default=True,
        help=help,
    )


features_option = folder_option("--features", help="Folder of feature files.")
runs_option = folder_option("--runs", help="Folder of training runs.")
videos_option = click.option(
    "--videos",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the videos.  [default: data/DATASET, or the manifest's folder]",
)
fps_option = click.option(
    "--fps",
    type=click.FloatRange(min=0, max=1000, min_open=True),
    callback=check_number,
    help="Frames per second of videos that are folders of frames.  [default: as published]",
)
allow_outside_option = click.option(
    "--allow-outside",
    is_flag=True,
    help="Read videos of a manifest through links that lead out of the folder of the videos.",
)
device_option = click.option(
    "--device",
    callback=check_device_names,
    metavar="DEVICE",
    default="auto",
    show_default=True,
    help="auto (the first GPU, else the CPU), cpu, cuda or cuda:N.",
)
model_option = click.option(
    "--model",
    callback=check_model_name,
    metavar="NAME",
    default="clav-como",
    show_default=True,
    help="; ".join(f"{name}: {entry.help}" for name, entry in MODELS.items()) + ".",
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**63 - 1),
    default=0,
    show_default=True,
    help="Of all random numbers.",
)


def set_verbose(is_verbose: bool) -> None:
    """Log what this program does; libraries log warnings only."""
    for name in OWN_PACKAGES:
        logging.getLogger(name).setLevel(logging.INFO if is_verbose else logging.WARNING)


def _be_verbose(ctx: click.Context, param: click.Parameter, is_given: bool) -> None:
    if is_given:
        set_verbose(True)


verbose_option = click.Option(
    ["-v", "--verbose"],
    is_flag=True,
    expose_value=False,
    callback=_be_verbose,
    help="Log more of what is done.",
)


def _be_quiet(ctx: click.Context, param: click.Parameter, is_given: bool) -> None:
    if is_given:
        ctx.meta[QUIET] = True


quiet_option = click.Option(
    ["-q", "--quiet"],
    is_flag=True,
    expose_value=False,
    callback=_be_quiet,
    help="Write nothing but results, warnings and errors.",
)


def is_quiet() -> bool:
    """Whether the command that runs was given `--quiet`."""
    context = click.get_current_context(silent=True)
    return context is not None and QUIET in context.meta


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Show an error that a user can fix as one line on stderr, with exit code 1.

    Everything else is a bug and keeps its traceback.
    """
    try:
        yield
    except BrokenPipeError:
        raise  # a closed pipe: see `Commands`
    except (LookaroundError, OSError) as error:
        raise click.ClickException(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    """The message without line breaks; an operating system error names its file first."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return printable(f"{error.filename}: {error.strerror}")
    return printable(" ".join(str(error).split()))


def say(line: str) -> None:
    """Write a line that is not a result to stderr, unless the command is quiet."""
    if not is_quiet():
        click.echo(line, err=True)


def warn(line: str) -> None:
    """Write a line to stderr that a user must see, quiet or not."""
    click.echo(printable(line), err=True)
