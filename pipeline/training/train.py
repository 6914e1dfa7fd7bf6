"""Train a model from features and video-level labels: the function behind `pipeline train`."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pipeline.config import ConfigError, TrainConfig, resolve_config, with_seed, with_streams
from pipeline.datasets import DATASETS, load_dataset
from pipeline.datasets.catalog import Dataset
from pipeline.device import choose_device, describe_device
from pipeline.extraction.available_features import count_with_features
from pipeline.notes import weights_note
from pipeline.progress import Progress, ReportProgress, no_report
from pipeline.runs.checkpoints import CheckpointError
from pipeline.runs.run_folder import (
    Run,
    RunDescription,
    create_runs,
    read_description,
    unfinished_runs,
)
from pipeline.runs.run_lock import owned
from pipeline.training.batches import BagSet
from pipeline.training.cross_validation import can_cross_validate
from pipeline.training.ensemble_training import still_flow_features
from pipeline.training.run_training import train_run
from pipeline.training.tensorboard import require_tensorboard, with_tensorboard
from pipeline.training.trainer import EpochRecord
from pipeline.training.validation import training_bags

logger = logging.getLogger(__name__)

# An ensemble is trained on few videos, in a minute or two per seed.
SEEDS_OF_ENSEMBLE = 3


def train(
    dataset: str | Path,
    *,
    model: str = "clav-como",
    seed: int = 0,
    seeds: int | None = None,
    recipe: Path | None = None,
    settings: Sequence[str] = (),
    device: str = "auto",
    weights: str | None = None,
    flow_weights: str | None = None,
    features: Path | str | None = None,
    runs: Path | str = "runs",
    resume: bool = False,
    tensorboard: bool = False,
    report: ReportProgress = no_report,
) -> Run:
    """Train a model with one or several seeds.

    Args:
        dataset: A dataset's name or the path of a manifest CSV.
        model: Key of `MODELS`.
        seed: Of everything that is random.
        seeds: How many runs to train, with `seed`, `seed` + 1, ...; by default three of an
            ensemble, whose averaged scores are better than one seed's, and else one.
        recipe: TOML file of settings, which override the defaults and the package's own recipe; see
            `pipeline.config` for how the number of training videos chooses that.
        settings: Single settings, each `key=value`; they override the recipe.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        weights: A name or a path of the extractor's weights, where the features were extracted with
            a file of your own. Only an ensemble with a flow stream reads them: it asks the
            extractor for the features of a still video.
        flow_weights: The same for a flow method that is a network.
        features: Folder of feature files, as `pipeline extract` writes it; by default `features`
            or, where runs are resumed, the folder that they began with.
        runs: Folder of training runs.
        resume: Continue the latest unfinished runs of this dataset and model with the settings that
            they began with; `recipe`, `settings`, `seed` and `seeds` are then not read.
        tensorboard: Also write TensorBoard files into the run folders.
        report: Called after every epoch, and with messages.

    Returns:
        The finished run; of several seeds the one of the last.

    Raises:
        ConfigError: If a setting is not known or out of its range, the device does not exist,
            TensorBoard is not installed, or the loss becomes infinite or NaN (`DivergedError`).
        DatasetError: If the dataset is not known, or lacks normal or anomalous training videos.
        FeatureFileError: If features are missing, damaged or extracted with different settings.
        CheckpointError: If there is no run to resume, another process trains it, or it is an
            ensemble whose extractor's weights are no longer found.
        LookaroundError: If weights are named, are needed, and are not those of the features.
    """
    if seeds is not None and seeds < 1:
        raise ConfigError(f"seeds must be 1 or more, instead got {seeds}")
    loaded = load_dataset(dataset, allow_outside=True)  # no video is opened
    chosen = choose_device(device)
    if tensorboard:
        require_tensorboard()
    source = _Source(dataset, loaded, chosen, weights, flow_weights, report)
    if resume:
        named = None if features is None else Path(features)
        opened = _resumed_runs(source, model, named, Path(runs))
    else:
        folder = Path("features" if features is None else features)
        n_videos = count_with_features(loaded, "train", folder)
        config = resolve_config(
            model, loaded.name, n_videos=n_videos, recipe=recipe, settings=settings
        )
        opened = _new_runs(source, with_seed(config, seed), folder, Path(runs), seeds)
    with opened as (to_train, inputs):
        for run in to_train:
            records = train_run(
                run,
                inputs.bags,
                chosen,
                held_out=inputs.held_out,
                still_flow=inputs.still_flow,
                report=report,
            )
            _train(run, records, inputs.n_epochs, tensorboard, report)
    return to_train[-1]


@dataclass(frozen=True, slots=True, eq=False)
class _Inputs:
    """What all runs of one command are trained on, as `train_run` takes it."""

    bags: BagSet
    held_out: BagSet | None
    still_flow: Tensor | None
    n_epochs: int

    @property
    def can_be_ensemble(self) -> bool:
        """Whether simple scorers can be weighted beside a network."""
        return can_cross_validate(self.bags.labels.numpy())


@dataclass(frozen=True, slots=True)
class _Source:
    """A dataset as the caller named it and as it was loaded, and what else reading it takes."""

    name_or_csv: str | Path
    dataset: Dataset
    device: torch.device
    weights: str | None
    flow_weights: str | None
    report: ReportProgress

    def read(self, features: Path, config: TrainConfig, *, wants_still: bool) -> _Inputs:
        """Read the bags, and compute the features of a still video where they are wanted."""
        bags, held_out = training_bags(self.dataset, features, config)
        with_streams(config, bags.stream_dims)  # refuses what cannot be built
        for note in _notes(bags, self.device):
            self.report(Progress("train", 0, config.n_epochs, "epochs", message=note))
        inputs = _Inputs(bags, held_out, None, config.n_epochs)
        if config.ensemble and not inputs.can_be_ensemble:
            logger.warning(
                "%s: fewer than two training videos of a class, so that nothing can be "
                "cross-validated: the network is trained without simple scorers beside it",
                self.dataset.name,
            )
        elif wants_still:
            still_flow = still_flow_features(
                bags, self.device, weights=self.weights, flow_weights=self.flow_weights
            )
            inputs = replace(inputs, still_flow=still_flow)
        return inputs


@contextmanager
def _resumed_runs(
    source: _Source, model: str, features: Path | None, runs: Path
) -> Iterator[tuple[list[Run], _Inputs]]:
    """The unfinished runs of the latest command, and what they began with."""
    to_train = unfinished_runs(runs, dataset=source.dataset.name, model_name=model)
    with owned(to_train):  # before minutes of reading
        description = read_description(to_train[0])
        config, has_motion = description.config, description.has_motion
        wants_still = config.ensemble if has_motion is None else has_motion
        folder = features or description.features_folder
        inputs = source.read(folder, config, wants_still=wants_still)
        if has_motion and inputs.can_be_ensemble and inputs.still_flow is None:
            raise CheckpointError(
                f"{to_train[0].folder}: began with the distance from a still video, which needs "
                "the extractor's weights; name them with --weights"
            )
        yield to_train, inputs


@contextmanager
def _new_runs(
    source: _Source, config: TrainConfig, features: Path, runs: Path, n_seeds: int | None
) -> Iterator[tuple[list[Run], _Inputs]]:
    """New runs, one for each seed from the config's on, and what they are trained on."""
    inputs = source.read(features, config, wants_still=config.ensemble)
    name = source.name_or_csv
    first = RunDescription(
        dataset=source.dataset.name,
        dataset_source=str(name) if name in DATASETS else str(Path(name).absolute()),
        features_folder=features.absolute(),
        provenance=inputs.bags.provenance,
        config=config,
        has_motion=inputs.still_flow is not None,
    )
    if n_seeds is None:
        n_seeds = SEEDS_OF_ENSEMBLE if config.ensemble and inputs.can_be_ensemble else 1
    of_seeds = [
        replace(first, config=with_seed(config, seed))
        for seed in range(config.seed, config.seed + n_seeds)
    ]
    to_train = create_runs(runs, of_seeds)
    with owned(to_train):
        yield to_train, inputs


def _notes(bags: BagSet, device: torch.device) -> list[str]:
    note = weights_note(bags.provenance.get("is_pretrained"))
    return [f"device: {describe_device(device)}", *([note] if note else [])]


def _train(
    run: Run,
    records: Iterator[EpochRecord],
    n_epochs: int,
    tensorboard: bool,
    report: ReportProgress,
) -> None:
    """Train to the end, and report each epoch."""
    for record in with_tensorboard(records, run.folder) if tensorboard else records:
        detail = f"loss {record.loss:.4f}, {record.steps_per_second:.1f} steps/s"
        report(Progress(f"train {run.folder.name}", record.epoch, n_epochs, "epochs", detail))
