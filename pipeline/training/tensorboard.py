"""Training records as TensorBoard files. The only module that imports TensorBoard (optional)."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from pipeline.config import ConfigError
from pipeline.training.training_loop import EpochRecord


def require_tensorboard() -> None:
    """Find out before a training run that TensorBoard is not installed.

    Raises:
        ConfigError: If it is not.
    """
    try:
        import_module("torch.utils.tensorboard")
    except ImportError as error:
        raise ConfigError(
            "--tensorboard needs a package that is not installed; "
            "install it with: pip install tensorboard"
        ) from error


def with_tensorboard(records: Iterator[EpochRecord], folder: Path) -> Iterator[EpochRecord]:
    """Pass a training run's records on, and write each as TensorBoard scalars.

    A record of an epoch comes once, also when a run is resumed, so no step is written twice.

    Args:
        records: As from `train_run`.
        folder: Where the files go, usually the run's.

    Yields:
        The records.
    """
    with import_module("torch.utils.tensorboard").SummaryWriter(str(folder)) as writer:
        for record in records:
            scalars = {f"loss/{name}": value for name, value in record.losses.items()}
            scalars |= {
                "loss": record.loss,
                "learning_rate": record.learning_rate,
                "grad_norm": record.grad_norm,
                "steps_per_second": record.steps_per_second,
            }
            if record.held_out_auc is not None:
                scalars["held_out_auc"] = record.held_out_auc
            for name, value in scalars.items():
                writer.add_scalar(name, value, record.step)
            writer.flush()
            yield record
