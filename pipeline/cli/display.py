"""Draw the progress of the stages that do not report it by `pipeline.progress` yet."""

from collections.abc import Iterator

from pipeline.cli.progress import ProgressDisplay
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
