"""Progress of the commands that do not use `pipeline.cli.terminal.show_progress` yet."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.cli.terminal import show_progress as show_progress
from pipeline.printable import printable

SECONDS_BETWEEN_LINES = 10.0


class Stopwatch:
    """Seconds since it was made, never quite zero."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since it was made."""
        return max(time.monotonic() - self._started, 1e-9)


class ProgressDisplay:
    """A bar, or lines, with what is done, a rate and the time left.

    Args:
        title: What is being done, such as "extract".
        total: How many units there are to do.
        unit: What is counted, such as "videos".
    """

    def __init__(self, title: str, *, total: int, unit: str) -> None:
        title = printable(title)
        self._title, self._total, self._unit = title, total, unit
        self._watch = Stopwatch()
        self._last_line_seconds = 0.0
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn(f"{{task.fields[count]}} {unit}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task(title, total=total, count=f"0/{total}", detail="")

    def __enter__(self) -> Self:
        """Show the bar."""
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the bar away; what was said stays."""
        if self._console.is_terminal:
            self._bar.stop()

    def update(self, completed: float, detail: str = "") -> None:
        """Say how much is done.

        Args:
            completed: Units done so far; a fraction of a unit counts.
            detail: A few words on the present state, such as a rate or a loss.
        """
        count = f"{int(completed)}/{self._total}"
        if self._console.is_terminal:
            self._bar.update(self._task, completed=completed, count=count, detail=detail)
            return
        seconds = self._watch.seconds
        if seconds - self._last_line_seconds >= SECONDS_BETWEEN_LINES:
            self._last_line_seconds = seconds
            words = [f"{self._title}: {count} {self._unit}", detail]
            if completed > 0:
                seconds_left = seconds * (self._total / completed - 1)
                words.append(f"{_in_words(seconds_left)} left")
            self._write(", ".join(filter(None, words)))

    def say(self, line: str) -> None:
        """Write a line that stays, above the bar; line breaks and the like are escaped."""
        line = printable(line)
        if self._console.is_terminal:
            self._console.print(line, markup=False, soft_wrap=True)
        else:
            self._write(line)

    def _write(self, line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _in_words(seconds: float) -> str:
    """A time left, to the precision that an estimate deserves.

    >>> _in_words(42.4), _in_words(400), _in_words(9000)
    ('42 s', '7 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
