"""The progress protocol: one report for every stage, independent of how it is drawn."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is.

    Attributes:
        stage: What is being done, such as "extract".
        done: Units done so far; a fraction of a unit counts.
        total: How many units there are to do.
        unit: What is counted, such as "videos".
        detail: A few words on the present state, such as a rate or a loss.
        message: A line that a user should keep, such as a failure; "" where there is none.
    """

    stage: str
    done: float
    total: float
    unit: str
    detail: str = ""
    message: str = ""


# What a function with long work calls as it goes. A list's `append` is one.
ReportProgress = Callable[[Progress], None]


def no_report(progress: Progress) -> None:
    """Report to nobody: the default of functions with long work."""
