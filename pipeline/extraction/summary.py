"""The outcome of each video of an extraction, its progress, and the summary at its end."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from extractors.engine import FramesDecoded
from pipeline.datasets.catalog import VideoEntry
from pipeline.extraction.status import Failure
from pipeline.printable import printable
from pipeline.progress import Progress, ReportProgress

MAX_FAILURES_LISTED = 20


@dataclass(frozen=True, slots=True)
class VideoOutcome:
    """How the extraction of one video ended.

    Attributes:
        video_id: The video's name within its dataset.
        status: "done", its features were computed and written; "kept", they were there already,
            extracted with the same settings; "taken", another process is extracting it; "failed".
        n_frames: Frames that were decoded, where it is done.
        n_missing: Frames that could not be decoded, where it is done.
        replaced_because: Why features that were there are not kept; "" where there were none.
        failure: Why there are no features, where it failed.
        is_earlier: Whether it failed before, in another run or process, and was not tried again.
    """

    video_id: str
    status: Literal["done", "kept", "taken", "failed"]
    n_frames: int = 0
    n_missing: int = 0
    replaced_because: str = ""
    failure: Failure | None = None
    is_earlier: bool = False

    def __post_init__(self) -> None:
        if (self.status == "failed") != (self.failure is not None):
            raise ValueError(f"failure must be given exactly for failed videos, got {self}")

    @property
    def rank(self) -> int:
        """Which of several processes' outcomes of one video counts: the one of highest rank."""
        if self.failure is not None:
            return 1 if self.is_earlier else 2
        return {"taken": 0, "kept": 3, "done": 4}[self.status]


# What extraction yields: frames on the way, and one outcome per video and process.
ExtractEvent = FramesDecoded | VideoOutcome


@dataclass(frozen=True, slots=True)
class ExtractionSummary:
    """How the extraction of a dataset ended.

    Attributes:
        folder: The dataset's folder of features.
        outcomes: One for each video.
    """

    folder: Path
    outcomes: tuple[VideoOutcome, ...]

    @property
    def n_done(self) -> int:
        """Videos whose features were computed."""
        return self._count("done")

    @property
    def n_kept(self) -> int:
        """Videos whose features were there already."""
        return self._count("kept")

    @property
    def n_taken(self) -> int:
        """Videos that another process is extracting."""
        return self._count("taken")

    @property
    def n_frames(self) -> int:
        """Frames of the videos whose features were computed."""
        return sum(outcome.n_frames for outcome in self.outcomes)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The videos that have no features because they failed, now or earlier."""
        failures = (outcome.failure for outcome in self.outcomes)
        return tuple(failure for failure in failures if failure is not None)

    @property
    def n_earlier(self) -> int:
        """How many of the failures are earlier ones, of videos that were not tried again."""
        return sum(outcome.is_earlier for outcome in self.outcomes)

    def describe(self) -> str:
        """Lines of counts, one for each of the first failures, and where the features are."""
        taken = [f"{self.n_taken} being extracted by another process"] if self.n_taken else []
        counts = [
            f"{self.n_done} extracted ({self.n_frames} frames)",
            f"{self.n_kept} there already",
            *taken,
            f"{len(self.failures)} failed",
        ]
        lines = [", ".join(counts)]
        damaged = [outcome.n_missing for outcome in self.outcomes if outcome.n_missing]
        if damaged:
            lines.append(
                f"{sum(damaged)} frames of {len(damaged)} videos could not be decoded; "
                "status.csv says of which"
            )
        lines += [_failure_line(failure) for failure in self.failures[:MAX_FAILURES_LISTED]]
        if len(self.failures) > MAX_FAILURES_LISTED:
            lines.append(f"and {len(self.failures) - MAX_FAILURES_LISTED} more failed")
        if self.n_earlier:
            lines.append(
                f"{self.n_earlier} of them failed earlier and were not tried again; "
                "--retry-failed tries them again"
            )
        lines.append(f"features are in {printable(str(self.folder))}")
        return "\n".join(lines)

    def _count(self, status: str) -> int:
        return sum(outcome.status == status for outcome in self.outcomes)


class Tally:
    """Collects the outcomes of a dataset's videos, and reports the progress.

    Args:
        entries: The videos.
        report: Gets a report of every event and every note.
    """

    def __init__(self, entries: Sequence[VideoEntry], report: ReportProgress) -> None:
        self._paths = {entry.video_id: entry.path for entry in entries}
        self._video_ids = {path: video_id for video_id, path in self._paths.items()}
        self._report = report
        self._outcomes: dict[str, VideoOutcome] = {}
        self._n_frames_ended = 0  # of the videos with an outcome
        self._decoding: dict[Path, FramesDecoded] = {}
        self._started = time.monotonic()

    def note(self, message: str) -> None:
        """Report a line that a user should keep."""
        self._report(self._progress(message))

    def add(self, event: ExtractEvent) -> None:
        """Take note of an event, and report it."""
        if isinstance(event, FramesDecoded):
            self._decoding[event.path] = event
            self._report(self._progress())
            return
        if event.status in ("done", "failed"):
            self._decoding.pop(self._paths[event.video_id], None)
        before = self._outcomes.get(event.video_id, event)
        after = max(before, event, key=lambda outcome: outcome.rank)
        n_frames_before = before.n_frames if event.video_id in self._outcomes else 0
        self._n_frames_ended += after.n_frames - n_frames_before
        self._outcomes[event.video_id] = after
        messages = _messages(event) or [""]
        for message in messages:
            self._report(self._progress(message))

    def summary(self, folder: Path) -> ExtractionSummary:
        """Sum up what was added, in the order of the dataset's videos."""
        ended = (self._outcomes.get(video_id) for video_id in self._paths)
        return ExtractionSummary(folder, tuple(outcome for outcome in ended if outcome is not None))

    def _progress(self, message: str = "") -> Progress:
        # Called for every snippet: only the few videos being decoded are gone through.
        decoding = self._decoding.values()
        ended = len(self._outcomes) - sum(
            self._video_ids[video.path] in self._outcomes for video in decoding
        )
        n_frames = self._n_frames_ended + sum(video.n_frames for video in decoding)
        seconds = max(time.monotonic() - self._started, 1e-9)
        return Progress(
            stage="extract",
            done=ended + sum(video.fraction for video in decoding),
            total=len(self._paths),
            unit="videos",
            detail=f"{n_frames / seconds:.1f} frames/s",
            message=message,
        )


def _messages(outcome: VideoOutcome) -> list[str]:
    """What a user should know of a video at once, in lines."""
    lines = []
    if outcome.replaced_because:
        lines.append(f"extracted again: {outcome.replaced_because}")
    if outcome.n_missing:
        lines.append(f"{outcome.video_id}: {outcome.n_missing} frames could not be decoded")
    if outcome.failure is not None and not outcome.is_earlier:
        lines.append(_failure_line(outcome.failure))
    return lines


def _failure_line(failure: Failure) -> str:
    status = "quarantined" if failure.is_quarantined else "failed"
    return printable(f"{status}: {failure.video_id}: {failure.reason}")
