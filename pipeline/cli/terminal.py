"""What is drawn in a terminal: progress bars and tables. The only module that imports rich."""

import math
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from itertools import zip_longest

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from pipeline.cli.shared import is_quiet
from pipeline.printable import printable
from pipeline.progress import Progress, ReportProgress, no_report

SECONDS_BETWEEN_LINES = 10.0
MAX_TABLE_COLUMNS = 10_000  # characters: a table is never wrapped
_NUMBER = r"[-+]?(\d+(\.\d+)?|nan|inf) ?%?"
_NUMERIC_CELL = re.compile(rf"(-|{_NUMBER}( ± {_NUMBER})?)?")


@contextmanager
def show_progress() -> Iterator[ReportProgress]:
    """Draw the progress of what runs in the body, on stderr.

    A terminal gets a bar that disappears at the end; anything else, such as a log file, gets a
    plain line at most every ten seconds. Messages are lines that stay, in both. With `--quiet`
    nothing is drawn.

    >>> with show_progress() as report:
    ...     report(Progress("extract", done=3, total=8, unit="videos"))
    """
    console = Console(stderr=True, highlight=False)
    if is_quiet():
        yield no_report
    elif console.is_terminal:
        with _bars(console) as bars:
            yield _TerminalProgress(bars).report
    else:
        yield _LoggedProgress().report


def format_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table as plain text; columns of numbers are aligned to the right.

    A column is one of numbers if all its cells are empty, "-" or of a form such as "12", "-0.5",
    "nan", "7.5 %" or "72.3 ± 2.2". Characters that could change what a terminal shows are escaped.

    Args:
        title: Printed above the table; "" for none.
        header: Names of the columns.
        rows: Cells by row; a row may have fewer cells than the header.

    Returns:
        Lines without trailing spaces, separated by newlines.

    Raises:
        ValueError: If a row has more cells than the header.
    """
    longest = max(map(len, rows), default=0)
    if longest > len(header):
        raise ValueError(f"rows must have at most {len(header)} cells, instead got {longest}")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    columns = zip_longest(header, *rows, fillvalue="")
    for name, *cells in columns:
        is_numeric = any(cells) and all(map(_NUMERIC_CELL.fullmatch, cells))
        table.add_column(printable(name), justify="right" if is_numeric else "left")
    for row in rows:
        table.add_row(*map(printable, row))
    text = StringIO()
    console = Console(
        file=text, width=MAX_TABLE_COLUMNS, color_system=None, markup=False, emoji=False
    )
    console.print(table, highlight=False)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return "\n".join([*([printable(title)] if title else []), *lines])


def _bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}", markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        console=console,
        transient=True,
    )


class _TerminalProgress:
    """One bar, for the stage that was reported last."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._stage: str | None = None
        self._task: TaskID | None = None

    def report(self, progress: Progress) -> None:
        """Draw a report."""
        if progress.message:
            self._bars.console.print(printable(progress.message), markup=False, soft_wrap=True)
        if self._task is None or progress.stage != self._stage:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._stage = progress.stage
            self._task = self._bars.add_task(printable(progress.stage), count="", detail="")
        self._bars.update(
            self._task,
            completed=progress.done,
            total=progress.total,
            count=_count(progress),
            detail=printable(progress.detail),
        )


class _LoggedProgress:
    """Plain lines on stderr."""

    def __init__(self) -> None:
        self._started: dict[str, tuple[float, float]] = {}  # by stage: when, and what is done
        self._last_report = self._last_line = time.monotonic()

    def report(self, progress: Progress) -> None:
        """Write a report if it is time for one; a message always."""
        now = time.monotonic()
        started, done = self._started.get(progress.stage, (now, math.inf))
        if progress.done < done:  # it begins, perhaps again, as the overlay of the next video
            # What is done already was done since the last report of the stage before.
            started = now if progress.done == 0 else self._last_report
        self._started[progress.stage] = started, progress.done
        self._last_report = now
        if progress.message:
            _write_line(printable(progress.message))
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            _write_line(_describe(progress, now - started))


def _describe(progress: Progress, seconds: float) -> str:
    parts = [f"{progress.stage}: {_count(progress)}", progress.detail]
    if progress.done > 0:
        seconds_left = seconds * max(progress.total / progress.done - 1, 0)
        parts.append(f"{_describe_seconds(seconds_left)} left")
    return printable(", ".join(filter(None, parts)))


def _count(progress: Progress) -> str:
    return f"{int(progress.done)}/{int(progress.total)} {printable(progress.unit)}"


def _describe_seconds(seconds: float) -> str:
    """A time left, to the precision that an estimate deserves.

    >>> _describe_seconds(42.4), _describe_seconds(400), _describe_seconds(9000)
    ('42 s', '7 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _write_line(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
