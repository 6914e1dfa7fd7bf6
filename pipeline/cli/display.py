"""Draw what the stages yield while they work, and sum up how they ended."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.cli.progress import ProgressDisplay, Stopwatch
from pipeline.extraction.extract_records import (
    ExtractRecord,
    FramesDone,
    VideoDone,
    VideoFailed,
    VideoKept,
    VideoRedone,
    VideoTaken,
)
from pipeline.extraction.status import Failure
from pipeline.printable import printable
from pipeline.training.trainer import EpochRecord

MAX_FAILURES_LISTED = 20


@dataclass(frozen=True, slots=True)
class ExtractionSummary:
    """How an extraction ended.

    Attributes:
        n_done: Videos whose features were computed.
        n_kept: Videos whose features were there already.
        n_taken: Videos that another process is extracting.
        n_frames: Frames of the videos that were computed.
        failures: Videos that have no features, those of earlier runs included.
        n_earlier: How many of these were not tried again.
    """

    n_done: int
    n_kept: int
    n_taken: int
    n_frames: int
    failures: tuple[Failure, ...]
    n_earlier: int

    def describe(self) -> str:
        """A line of counts, and one for each of the first failures."""
        counts = [
            f"{self.n_done} extracted ({self.n_frames} frames)",
            f"{self.n_kept} there already",
            *([f"{self.n_taken} being extracted by another process"] if self.n_taken else []),
            f"{len(self.failures)} failed",
        ]
        listed = [_failure_line(failure) for failure in self.failures[:MAX_FAILURES_LISTED]]
        n_more = len(self.failures) - len(listed)
        return "\n".join(
            [
                ", ".join(counts),
                *listed,
                *([f"and {n_more} more failed"] if n_more else []),
                *(
                    [
                        f"{self.n_earlier} of them failed earlier and were left alone; "
                        "--retry-failed tries them again"
                    ]
                    if self.n_earlier
                    else []
                ),
            ]
        )


def _failure_line(failure: Failure) -> str:
    status = "quarantined" if failure.is_quarantined else "failed"
    return printable(f"{status}: {failure.video_id}: {failure.reason}")


def show_extraction(records: Iterator[ExtractRecord], n_videos: int) -> ExtractionSummary:
    """Draw the progress of an extraction to its end.

    Args:
        records: As from `extract_dataset`.
        n_videos: How many videos the records are about.
    """
    n_done = n_kept = n_taken = n_frames = n_earlier = 0
    failures: list[Failure] = []
    under_way: dict[str, FramesDone] = {}
    watch = Stopwatch()
    with ProgressDisplay("extract", total=n_videos, unit="videos") as display:
        for record in records:
            match record:
                case FramesDone(video_id=video_id):
                    under_way[video_id] = record
                case VideoDone(video_id=video_id, n_frames=n_more):
                    under_way.pop(video_id, None)
                    n_done += 1
                    n_frames += n_more
                    if record.n_missing:
                        display.say(f"{video_id}: {record.n_missing} frames could not be decoded")
                case VideoKept():
                    n_kept += 1
                case VideoRedone(reason=reason):
                    display.say(f"extracted anew: {reason}")
                case VideoTaken():
                    n_taken += 1
                case VideoFailed(failure=failure, is_earlier=is_earlier):
                    under_way.pop(failure.video_id, None)
                    failures.append(failure)
                    n_earlier += is_earlier
                    if not is_earlier:
                        display.say(_failure_line(failure))
            n_ended = n_done + n_kept + n_taken + len(failures)
            n_so_far = n_frames + sum(video.n_frames for video in under_way.values())
            display.update(
                n_ended + sum(video.share for video in under_way.values()),
                f"{n_so_far / watch.seconds:.1f} frames/s",
            )
    return ExtractionSummary(n_done, n_kept, n_taken, n_frames, tuple(failures), n_earlier)


def show_training(records: Iterator[EpochRecord], title: str, n_epochs: int) -> None:
    """Draw the progress of one training to its end.

    Args:
        records: As from `train`.
        title: Names the run.
        n_epochs: How many there will be.
    """
    with ProgressDisplay(f"train {title}", total=n_epochs, unit="epochs") as display:
        for record in records:
            display.update(
                record.epoch, f"loss {record.loss:.4f}, {record.steps_per_second:.1f} steps/s"
            )
