"""All seeds of a training run as one checkpoint."""

from dataclasses import replace

from models.seed_average import SeedAverage
from pipeline.runs.checkpoints import Checkpoint, load_checkpoint
from pipeline.runs.run_folder import Run, finished_seeds


def load_average(run: Run) -> Checkpoint:
    """Load the finished seeds that were trained with a run, as the model that averages them.

    Args:
        run: Any of them.

    Returns:
        The checkpoint of the first seed with the average as its model; with one seed as it is.

    Raises:
        CheckpointError: If a run or a checkpoint cannot be read.
    """
    checkpoints = [load_checkpoint(seed.checkpoint_path) for seed in finished_seeds(run)]
    if len(checkpoints) == 1:
        return checkpoints[0]
    average = SeedAverage([checkpoint.model for checkpoint in checkpoints]).eval()
    return replace(checkpoints[0], model=average, n_averaged=len(checkpoints))
