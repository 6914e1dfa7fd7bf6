"""The table of training runs: state, steps, loss and test metrics of each."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.reports.model_card import LIST_METRICS, read_evaluations
from pipeline.runs.epochs import read_epochs
from pipeline.runs.run_folder import Run, read_description

HEADER = ("run", "state", "steps", "loss", "test split", "AUC", "AUC abnormal", "AP trapezoid")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What the table says of a run.

    Attributes:
        run: Its folder, relative to the folder of all runs.
        state: finished, diverged, or stopped.
        n_steps_done: Steps in the log.
        n_steps: Steps of the whole training.
        loss: Of the last epoch in the log; None where there is none.
        metrics: By test dataset: this seed's AUC, AUC on abnormal videos and AP, each in [0, 1] or
            None.
    """

    run: str
    state: str
    n_steps_done: int
    n_steps: int
    loss: float | None
    metrics: dict[str, tuple[float | None, ...]]


def summarize(run: Run) -> RunSummary:
    """Summarize a run.

    Raises:
        CheckpointError: If it cannot be read.
    """
    config = read_description(run).config
    epochs = read_epochs(run)
    metrics = {}
    for evaluation in read_evaluations(run, config.seed):
        index = evaluation["seeds"].index(config.seed)
        found = evaluation["rows"][0]["metrics"]
        metrics[str(evaluation["dataset"])] = tuple(
            found[name]["per_seed"][index] for name in LIST_METRICS
        )
    state = "diverged" if run.is_diverged else "stopped"
    return RunSummary(
        run="/".join(run.folder.parts[-3:]),
        state="finished" if run.is_finished else state,
        n_steps_done=epochs[-1]["step"] if epochs else 0,
        n_steps=config.steps,
        loss=epochs[-1]["loss"] if epochs else None,
        metrics=metrics,
    )


def table_rows(summaries: Sequence[RunSummary]) -> list[tuple[str, ...]]:
    """The cells below `HEADER`: metrics in percent, one more row for each further test dataset."""
    rows: list[tuple[str, ...]] = []
    for summary in summaries:
        own = (
            summary.run,
            summary.state,
            f"{summary.n_steps_done}/{summary.n_steps}",
            "-" if summary.loss is None else f"{summary.loss:.4f}",
        )
        for dataset, values in (summary.metrics or {"-": (None,) * len(LIST_METRICS)}).items():
            percent = ("-" if value is None else f"{100 * value:.1f}" for value in values)
            rows.append((*own, dataset, *percent))
            own = ("", "", "", "")
    return rows
