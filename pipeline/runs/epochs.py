"""The epochs of a training run, as `metrics.jsonl` in its folder has them."""

import json
from typing import Any

from pipeline.printable import describe_error
from pipeline.runs.checkpoints import CheckpointError
from pipeline.runs.run_folder import Run


def read_epochs(run: Run) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; a last line that was cut off by a kill is left out.

    Raises:
        CheckpointError: If another line is not that of an epoch.
    """
    if not run.metrics_path.exists():
        return []
    try:
        text = run.metrics_path.read_text(encoding="utf-8")
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [_checked_epoch(json.loads(line)) for line in lines]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{run.metrics_path}: is damaged ({describe_error(error)}); train again"
        ) from error


def _checked_epoch(epoch: dict[str, Any]) -> dict[str, Any]:
    for name in ("step", "loss"):
        if not isinstance(epoch[name], int | float):
            raise ValueError(f"{name} must be a number, instead got {epoch[name]!r:.40}")
    if not all(isinstance(loss, int | float) for loss in dict(epoch["losses"]).values()):
        raise ValueError("losses must be numbers by name")
    return epoch
