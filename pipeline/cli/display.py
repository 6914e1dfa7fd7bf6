"""Draw the progress of the stages that do not report it by `pipeline.progress` yet."""

from collections.abc import Generator, Iterator

from pipeline.cli.progress import ProgressDisplay, Stopwatch
from pipeline.extraction.extract_records import FramesDone
from pipeline.scoring.frame_scores import Scores
from pipeline.training.trainer import EpochRecord


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
