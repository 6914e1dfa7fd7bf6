"""Stage 2: bags become a trained model in a run folder."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from pipeline.atomic import replacing
from pipeline.bag_set import BagSet
from pipeline.checkpoints import Checkpoint, save_checkpoint
from pipeline.feature_file import FeatureFileError, contract_differences
from pipeline.runs import Run, read_description
from pipeline.trainer import EpochRecord, Trainer


def train(run: Run, bags: BagSet, device: torch.device) -> Iterator[EpochRecord]:
    """Train the model of a run, from where it stands to its end.

    Args:
        run: As from `create_runs`. One that was stopped goes on; one that is finished yields
            nothing.
        bags: The training videos, brought to the length that the run's config says.
        device: Where to train.

    Yields:
        A record after each epoch, once the state is saved.

    Raises:
        CheckpointError: If the run cannot be read, or began with other videos.
        ConfigError: If the loss becomes infinite or NaN.
        FeatureFileError: If the run began with features that were made in another way.
        ValueError: If the bags have another length or sampler than the config says.
    """
    if run.is_finished:
        return
    description = read_description(run)
    differences = contract_differences(description.contract, bags.contract)
    if differences:
        raise FeatureFileError(
            f"{run.folder}: began with features that were made in another way "
            f"({'; '.join(differences)}); extract with the run's options, or train anew"
        )
    trainer = Trainer(description.config, bags, device)
    n_done = trainer.restore(run.state_path) if run.state_path.exists() else 0
    _cut_metrics(run.metrics_path, n_done)
    for epoch in range(n_done, trainer.config.n_epochs):
        record = trainer.run_epoch(epoch)
        with run.metrics_path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(record)) + "\n")
        # After the line: one that is there without its state is cut when the run is resumed.
        trainer.save(run.state_path, n_epochs_done=epoch + 1)
        yield record
    save_checkpoint(
        run.checkpoint_path,
        Checkpoint(
            model=trainer.average,
            model_name=trainer.config.model_name,
            contract=bags.contract,
            dataset=description.dataset,
            seed=trainer.config.seed,
            step=trainer.config.steps,
        ),
    )
    run.state_path.unlink()


def _cut_metrics(path: Path, n_epochs: int) -> None:
    """Keep the lines of the epochs whose state was saved; what came after is done again."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    with replacing(path) as temporary:
        temporary.write_text("".join(lines[:n_epochs]), encoding="utf-8")
