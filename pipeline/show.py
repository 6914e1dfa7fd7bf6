"""Draw what the stages yield while they work, and sum up how they ended."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from pipeline.extract import ExtractRecord, FramesDone, VideoDone, VideoFailed, VideoKept
from pipeline.frame_scores import Scores
from pipeline.progress import ProgressDisplay, Stopwatch
from pipeline.trainer import EpochRecord

MOST_FAILURES_LISTED = 20


@dataclass(frozen=True, slots=True)
class ExtractionSummary:
    """How an extraction ended.

    Attributes:
        n_done: Videos whose features were computed.
        n_kept: Videos whose features were there already.
        n_frames: Frames of the videos that were computed.
        failures: Videos that gave no features.
    """

    n_done: int
    n_kept: int
    n_frames: int
    failures: tuple[VideoFailed, ...]

    def in_words(self) -> str:
        """A line of counts, and one for each of the first failures."""
        counts = (
            f"{self.n_done} extracted ({self.n_frames} frames), {self.n_kept} there already, "
            f"{len(self.failures)} failed"
        )
        listed = [f"failed: {f.video_id}: {f.reason}" for f in self.failures[:MOST_FAILURES_LISTED]]
        n_more = len(self.failures) - len(listed)
        return "\n".join([counts, *listed, *([f"and {n_more} more failed"] if n_more else [])])


def show_extraction(records: Iterator[ExtractRecord], n_videos: int) -> ExtractionSummary:
    """Draw the progress of an extraction to its end.

    Args:
        records: As from `extract_dataset`.
        n_videos: Of the dataset.
    """
    n_done = n_kept = n_frames = 0
    failures: list[VideoFailed] = []
    watch = Stopwatch()
    with ProgressDisplay("extract", total=n_videos, unit="videos") as display:
        for record in records:
            match record:
                case FramesDone():
                    display.update(
                        n_done + n_kept + len(failures) + record.share,
                        f"{(n_frames + record.n_frames) / watch.seconds:.1f} frames/s",
                    )
                case VideoDone():
                    n_done += 1
                    n_frames += record.n_frames
                    if record.n_missing:
                        display.say(
                            f"{record.video_id}: {record.n_missing} frames could not be decoded"
                        )
                case VideoKept():
                    n_kept += 1
                case VideoFailed():
                    failures.append(record)
                    display.say(f"failed: {record.reason}")
    return ExtractionSummary(n_done, n_kept, n_frames, tuple(failures))


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


def show_scoring(progress: Generator[FramesDone, None, Scores], title: str) -> Scores:
    """Draw the progress of scoring one video; returns its scores.

    Args:
        progress: As from `score_video`.
        title: Names the video.
    """
    watch = Stopwatch()
    with ProgressDisplay(f"score {title}", total=1, unit="videos") as display:
        while True:
            try:
                done = next(progress)
            except StopIteration as finished:
                scores: Scores = finished.value
                return scores
            display.update(done.share, f"{done.n_frames / watch.seconds:.1f} frames/s")
