"""Train a model from features and video-level labels: the function behind `pipeline train`."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from pipeline.config import ConfigError, resolve_config, with_seed, with_streams
from pipeline.datasets import DATASETS, load_dataset
from pipeline.device import choose_device, describe_device
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
from pipeline.training.ensemble_training import still_flow_features
from pipeline.training.run_training import train_run
from pipeline.training.tensorboard import require_tensorboard, with_tensorboard
from pipeline.training.trainer import EpochRecord
from pipeline.training.validation import training_bags

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
    features: Path | str = "features",
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
        features: Folder of feature files, as `pipeline extract` writes it.
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
    with ExitStack() as stack:
        if resume:
            to_train = unfinished_runs(Path(runs), dataset=loaded.name, model_name=model)
            stack.enter_context(owned(to_train))  # before minutes of reading
            description = read_description(to_train[0])
            config, has_motion = description.config, description.has_motion
            needs_still = config.ensemble if has_motion is None else has_motion
        else:
            n_videos = len(loaded.split("train"))
            config = resolve_config(
                model, loaded.name, n_videos=n_videos, recipe=recipe, settings=settings
            )
            config, needs_still = with_seed(config, seed), config.ensemble
        bags, held_out = training_bags(loaded, Path(features), config)
        with_streams(config, bags.stream_dims)  # refuses what cannot be built
        for note in _notes(bags, chosen):
            report(Progress("train", 0, config.n_epochs, "epochs", message=note))
        still = None
        if needs_still:
            still = still_flow_features(bags, chosen, weights=weights, flow_weights=flow_weights)
        if not resume:
            source = str(dataset) if dataset in DATASETS else str(Path(dataset).absolute())
            folder, provenance = Path(features).absolute(), bags.provenance
            first = RunDescription(
                loaded.name, source, folder, provenance, config, has_motion=still is not None
            )
            to_train = create_runs(Path(runs), _of_seeds(first, seeds))
            stack.enter_context(owned(to_train))
        elif description.has_motion and still is None:
            raise CheckpointError(
                f"{to_train[0].folder}: began with the distance from a still video, which needs "
                "the extractor's weights; name them with --weights"
            )
        for run in to_train:
            records = train_run(
                run, bags, chosen, held_out=held_out, still_flow=still, report=report
            )
            _train(run, records, config.n_epochs, tensorboard, report)
    return to_train[-1]


def _notes(bags: BagSet, device: torch.device) -> list[str]:
    note = weights_note(bags.provenance.get("is_pretrained"))
    return [f"device: {describe_device(device)}", *([note] if note else [])]


def _of_seeds(first: RunDescription, n_seeds: int | None) -> list[RunDescription]:
    config = first.config
    if n_seeds is None:
        n_seeds = SEEDS_OF_ENSEMBLE if config.ensemble else 1
    seeds = range(config.seed, config.seed + n_seeds)
    return [replace(first, config=with_seed(config, seed)) for seed in seeds]


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
