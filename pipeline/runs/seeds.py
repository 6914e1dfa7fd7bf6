"""The latest run, the seeds of its training command, and the models of these seeds as one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from models.seed_average import SeedAverage
from pipeline.runs.checkpoints import Checkpoint, CheckpointError, load_checkpoint
from pipeline.runs.run_folder import (
    Run,
    RunDescription,
    descriptions_of_command,
    find_runs,
    read_description,
)


@dataclass(frozen=True, slots=True)
class Seeds:
    """The seeds of one `pipeline train`, of which the finished ones score together.

    Attributes:
        named: The run by which they were found.
        finished: By seed; the named run if none is finished.
        n_trained: How many seeds the command trains.
        description: What the first finished one says; None for a folder that has none.
    """

    named: Run
    finished: tuple[Run, ...]
    n_trained: int
    description: RunDescription | None

    def describe(self) -> RunDescription:
        """What the first finished run says.

        Raises:
            CheckpointError: If the folder has no description.
        """
        return self.description or read_description(self.named)


def latest_run(
    runs_folder: Path, *, dataset: str | None = None, model_name: str | None = None
) -> Run:
    """The finished run that began last; of the seeds of one command the highest.

    Raises:
        CheckpointError: If there is none.
    """
    finished = [
        run
        for run in find_runs(runs_folder, dataset=dataset, model_name=model_name)
        if run.is_finished
    ]
    if not finished:
        of_dataset = f" on {dataset}" if dataset else ""
        raise CheckpointError(
            f"{runs_folder}: there is no trained run{of_dataset}; `pipeline train` makes one"
        )
    return finished[-1]


def seeds_of(run: Run) -> Seeds:
    """The seeds of the command that trained a run; each description is read once.

    A folder without a description, such as one with a checkpoint alone, is a run by itself.

    Raises:
        CheckpointError: If the run cannot be read.
    """
    if not run.config_path.exists():
        return Seeds(run, (run,), 1, None)
    described = descriptions_of_command(run)
    finished = tuple(seed for seed in described if seed.is_finished) or (run,)
    description = described.get(finished[0], next(iter(described.values())))
    return Seeds(run, finished, len(described), description)


def load_average(seeds: Sequence[Run]) -> Checkpoint:
    """Load seeds of one training command, as the model that averages them.

    Args:
        seeds: Finished runs, at least one.

    Returns:
        The checkpoint of the first seed with the average as its model; with one seed as it is.

    Raises:
        CheckpointError: If a checkpoint cannot be read, or the seeds were trained on other videos.
    """
    checkpoints = [load_checkpoint(seed.checkpoint_path) for seed in seeds]
    if len(checkpoints) == 1:
        return checkpoints[0]
    for seed, checkpoint in zip(seeds, checkpoints, strict=True):
        if checkpoint.model.config != checkpoints[0].model.config:
            raise CheckpointError(
                f"{seed.folder}: was trained on features of other videos than {seeds[0].folder}, "
                "so their scores cannot be averaged; remove one of them, or train again"
            )
    average = SeedAverage([checkpoint.model for checkpoint in checkpoints]).eval()
    return replace(checkpoints[0], model=average, n_averaged=len(checkpoints))
