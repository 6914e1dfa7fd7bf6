"""One training run: epochs, saved after each, until its folder has a final checkpoint."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from pipeline.atomic import replacing
from pipeline.device import describe_device
from pipeline.extraction.feature_file import FeatureFileError, provenance_differences
from pipeline.progress import ReportProgress, no_report
from pipeline.reports.model_card import write_card
from pipeline.reports.plots import plot_losses
from pipeline.runs.checkpoints import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
)
from pipeline.runs.epochs import read_epochs
from pipeline.runs.feature_distance import LIMIT_KEY, distance_limit
from pipeline.runs.run_folder import Run, read_description
from pipeline.training.batches import BagSet
from pipeline.training.ensemble_training import fit_ensemble, write_members
from pipeline.training.training_loop import DivergedError, EpochRecord, Trainer
from pipeline.training.validation import video_auc


def train_run(
    run: Run,
    bags: BagSet,
    device: torch.device,
    *,
    held_out: BagSet | None = None,
    still_flow: Tensor | None = None,
    report: ReportProgress = no_report,
) -> Iterator[EpochRecord]:
    """Train the model of a run, from where it stands to its end.

    Args:
        run: As from `create_runs`. One that was stopped goes on; one that is finished yields
            nothing.
        bags: The training videos, brought to the length that the run's config says.
        device: Where to train.
        held_out: The videos that select an epoch; None for a fixed budget of steps.
        still_flow: For an ensemble, as from `still_flow_features`.
        report: Called with the progress of what follows the last epoch.

    Yields:
        A record after each epoch, once the state is saved.

    Raises:
        CheckpointError: If the run cannot be read, began with other videos, or diverged earlier.
        DivergedError: If the loss becomes infinite or NaN; the run then says so and is over.
        FeatureFileError: If the run began with features extracted with different settings.
        ValueError: If the bags have another length or sampler than the config says.
    """
    if run.is_finished:
        return
    if run.is_diverged:
        raise CheckpointError(f"{run.folder}: this training run diverged; train anew")
    description = read_description(run)
    differences = provenance_differences(description.provenance, bags.provenance)
    if differences:
        raise FeatureFileError(
            f"{run.folder}: began with features extracted with different settings "
            f"({'; '.join(differences)}); extract with the run's options, or train anew"
        )
    trainer = Trainer(description.config, bags, device)
    n_done = trainer.restore(run.state_path) if run.state_path.exists() else 0
    _cut_metrics(run.metrics_path, n_done)
    for epoch in range(n_done, trainer.config.n_epochs):
        try:
            record = trainer.run_epoch(epoch)
        except DivergedError as error:
            _end_diverged(run, error)
            raise
        if held_out is not None:
            record = replace(record, held_out_auc=video_auc(trainer.average, held_out, device))
        _keep_weights(run, trainer, description.dataset, record)
        with run.metrics_path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(record)) + "\n")
        # After the line: one that is there without its state is cut when the run is resumed.
        trainer.save(run.state_path, n_epochs_done=epoch + 1)
        yield record
    result = _checkpoint(trainer, description.dataset, trainer.config.steps)
    if held_out is not None:
        result = load_checkpoint(run.selected_path)
    if trainer.config.ensemble:
        try:
            model, members = fit_ensemble(
                result.model, trainer.config, bags, device, still_flow=still_flow, report=report
            )
        except DivergedError as error:
            _end_diverged(run, error)
            raise
        result = replace(result, model=model)
        write_members(run.ensemble_path, members)
    _finish(run, result, bags, held_out, device)


def _keep_weights(run: Run, trainer: Trainer, dataset: str, record: EpochRecord) -> None:
    """Keep the averaged weights of an epoch where the config wants them, or it is the best."""
    checkpoint = _checkpoint(trainer, dataset, record.step)
    if trainer.config.keep_epochs:
        save_checkpoint(run.epoch_path(record.epoch), checkpoint)
    if record.held_out_auc is None:
        return
    earlier = [line.get("held_out_auc") or 0.0 for line in read_epochs(run)]
    # The label of whole videos is soon learned: among equals the one that was trained longest.
    if record.held_out_auc >= max(earlier, default=0.0):
        save_checkpoint(run.selected_path, checkpoint)


def _checkpoint(trainer: Trainer, dataset: str, step: int) -> Checkpoint:
    return Checkpoint(
        model=trainer.average,
        model_name=trainer.config.model_name,
        provenance=trainer.provenance,
        dataset=dataset,
        seed=trainer.config.seed,
        step=step,
    )


def _finish(
    run: Run,
    result: Checkpoint,
    bags: BagSet,
    held_out: BagSet | None,
    device: torch.device,
) -> None:
    """Write what people read, and the checkpoint last: it says that the run is finished."""
    epochs = read_epochs(run)
    plot_losses(
        [epoch["losses"] for epoch in epochs],
        [epoch["step"] for epoch in epochs],
        run.losses_plot_path,
    )
    values = {
        "n_normal": len(bags.video_ids) - bags.n_anomalous,
        "n_anomalous": bags.n_anomalous,
        "n_held_out": 0 if held_out is None else len(held_out.video_ids),
        "device": describe_device(device),
        "torch": torch.__version__,
        LIMIT_KEY: distance_limit(bags.snippets, bags.snippet_videos),
    }
    with replacing(run.training_path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    write_card(run)
    save_checkpoint(run.checkpoint_path, result)
    run.selected_path.unlink(missing_ok=True)
    run.state_path.unlink()


def _end_diverged(run: Run, error: DivergedError) -> None:
    """Say in the run why it has no result; what it held is of no use."""
    with replacing(run.diverged_path) as temporary:
        temporary.write_text(f"{error}\n", encoding="utf-8")
    run.state_path.unlink(missing_ok=True)
    run.selected_path.unlink(missing_ok=True)


def _cut_metrics(path: Path, n_epochs: int) -> None:
    """Keep the lines of the epochs whose state was saved; what came after is done again."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    with replacing(path) as temporary:
        temporary.write_text("".join(lines[:n_epochs]), encoding="utf-8")
