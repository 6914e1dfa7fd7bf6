"""Runs on disk: `runs/<dataset>/<model>/<time>-seed<N>/`, one folder per trained seed.

    config.json              what is trained, on what: written first
    metrics.jsonl            one line per epoch
    state.safetensors        where training stands; gone when it is finished
    selected.safetensors     the best epoch so far, where held-out videos select; then the result
    epochs/0001.safetensors  every epoch, where the config asks for it
    diverged.txt             why the training ended without a result
    training.json            how many videos, which device, how far their features lie
    ensemble.json            how cross-validation weighs the members of an ensemble, where it is one
    losses.png               every loss term over the steps
    evaluation-<dataset>.json  what `pipeline evaluate` found last on a dataset
    calibration.json         the threshold that `pipeline calibrate` chose
    README.md                the model card
    checkpoint.safetensors   the result, written last: a run is finished when it has one
    .lock                    locked by the process that trains it

The seeds of one `pipeline train` are a group: the id in `config.json` by which they are found
together. Their folders are all made at the start, so that `--resume` knows of those that were not
yet begun.
"""

import json
import logging
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.atomic import replacing
from pipeline.config import TrainConfig, config_from_json, config_to_json
from pipeline.extraction.feature_file import Provenance
from pipeline.printable import describe_error
from pipeline.runs.checkpoints import CheckpointError

logger = logging.getLogger(__name__)

FORMAT = "lookaround run"
FORMAT_VERSION = 2
_RUN_NAME = re.compile(r"(\d{8}-\d{6}(?:-\d{6})?)-seed(\d+)")  # to the microsecond


@dataclass(frozen=True, slots=True)
class Run:
    """The folder of one training run. Ordered by time, then by seed, with `run_order`."""

    folder: Path

    @property
    def config_path(self) -> Path:
        """What is trained, on what."""
        return self.folder / "config.json"

    @property
    def metrics_path(self) -> Path:
        """One JSON object per epoch."""
        return self.folder / "metrics.jsonl"

    @property
    def state_path(self) -> Path:
        """The state of an unfinished training run."""
        return self.folder / "state.safetensors"

    @property
    def checkpoint_path(self) -> Path:
        """The trained model."""
        return self.folder / "checkpoint.safetensors"

    @property
    def selected_path(self) -> Path:
        """The best epoch so far of a training run that is selected by held-out videos."""
        return self.folder / "selected.safetensors"

    @property
    def diverged_path(self) -> Path:
        """Why a training run ended without a result."""
        return self.folder / "diverged.txt"

    @property
    def training_path(self) -> Path:
        """How many videos were trained on, and where."""
        return self.folder / "training.json"

    @property
    def ensemble_path(self) -> Path:
        """How cross-validation weighs the members of an ensemble."""
        return self.folder / "ensemble.json"

    @property
    def losses_plot_path(self) -> Path:
        """Every loss term over the steps."""
        return self.folder / "losses.png"

    @property
    def card_path(self) -> Path:
        """The model card."""
        return self.folder / "README.md"

    def epoch_path(self, epoch: int) -> Path:
        """The weights of an epoch, counted from 1, where all epochs are kept."""
        return self.folder / "epochs" / f"{epoch:04d}.safetensors"

    def epoch_checkpoints(self) -> list[Path]:
        """The weights of all epochs, in their order.

        Raises:
            CheckpointError: If they were not kept.
        """
        paths = sorted((self.folder / "epochs").glob("*.safetensors"))
        if not paths:
            raise CheckpointError(
                f"{self.folder}: kept no epochs to choose from; train with --set keep_epochs=true"
            )
        return paths

    def evaluation_path(self, dataset: str) -> Path:
        """What was found on a dataset's test videos."""
        return self.folder / f"evaluation-{dataset}.json"

    def evaluation_paths(self) -> list[Path]:
        """The evaluations that there are."""
        return sorted(self.folder.glob("evaluation-*.json"))

    @property
    def is_diverged(self) -> bool:
        """Whether the training ended without a result, so that there is nothing to resume."""
        return self.diverged_path.is_file()

    @property
    def is_finished(self) -> bool:
        """Whether the training came to its end."""
        return self.checkpoint_path.is_file()


@dataclass(frozen=True, slots=True)
class RunDescription:
    """What `config.json` of a run says.

    Attributes:
        dataset: Name of the dataset.
        dataset_source: What `load_dataset` takes: the name, or the absolute path of a manifest.
        features_folder: Holds `<dataset>/<video_id>.h5`; absolute.
        provenance: How the features were made.
        config: All settings, none left to a default.
        group: Id of the command that began the run; "" for a run that is alone.
        has_motion: Whether an ensemble has the distance from a video that does not move, which
            needs the extractor's weights; None if an earlier version did not say.
    """

    dataset: str
    dataset_source: str
    features_folder: Path
    provenance: Provenance
    config: TrainConfig
    group: str = ""
    has_motion: bool | None = False


def create_runs(runs_folder: Path, descriptions: Sequence[RunDescription]) -> list[Run]:
    """Make the folders of one `pipeline train`, one for each description, as one group.

    Args:
        runs_folder: Of all runs.
        descriptions: They differ in their seeds, and are of no group yet.

    Raises:
        OSError: If a folder cannot be made.
    """
    group = secrets.token_hex(8)
    runs = _make_folders(runs_folder, descriptions)
    for run, description in zip(runs, descriptions, strict=True):
        write_description(run, replace(description, group=group))
    return runs


def _make_folders(runs_folder: Path, descriptions: Sequence[RunDescription]) -> list[Run]:
    """New folders that share a time; a later one where another command has this one."""
    while True:
        time = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
        made: list[Run] = []
        try:
            for description in descriptions:
                config = description.config
                folder = runs_folder / description.dataset / config.model_name
                run = Run(folder / f"{time}-seed{config.seed}")
                run.folder.mkdir(parents=True)
                made.append(run)
        except FileExistsError:
            for run in made:
                run.folder.rmdir()
            if not folder.is_dir():  # a file in the way stays in the way
                raise
        else:
            return made


def write_description(run: Run, description: RunDescription) -> None:
    """Write a run's `config.json`; the file appears whole or not at all."""
    values = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "dataset": description.dataset,
        "dataset_source": description.dataset_source,
        "features": str(description.features_folder),
        "provenance": description.provenance,
        "train": config_to_json(description.config),
        "has_motion": description.has_motion,
        "group": description.group,
    }
    with replacing(run.config_path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_description(run: Run) -> RunDescription:
    """Read a run's `config.json`.

    Raises:
        CheckpointError: If it is missing or cannot be understood.
    """
    path = run.config_path
    if not path.is_file():
        raise CheckpointError(f"{run.folder}: is not a run folder, it has no {path.name}")
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT or values["format_version"] != FORMAT_VERSION:
            raise ValueError("it is of another program or version")
        return RunDescription(
            dataset=str(values["dataset"]),
            dataset_source=str(values["dataset_source"]),
            features_folder=Path(values["features"]),
            provenance=dict(values["provenance"]),
            config=config_from_json(values["train"]),
            has_motion=values.get("has_motion"),
            group=str(values.get("group", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: does not describe a run of this program ({describe_error(error)}); "
            "train again"
        ) from error


def is_run_folder(folder: Path) -> bool:
    """Whether a folder is a run's, finished or not, perhaps of another version."""
    try:
        values = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and values.get("format") == FORMAT


def run_order(run: Run) -> tuple[str, int]:
    """Sort key: the time at which the training began, then its seed.

    >>> run_order(Run(Path("runs/demo/clav-como/20250102-030405-000123-seed7")))
    ('20250102-030405-000123', 7)
    """
    match = _RUN_NAME.fullmatch(run.folder.name)
    return (match[1], int(match[2])) if match else ("", 0)


def find_runs(
    runs_folder: Path, *, dataset: str | None = None, model_name: str | None = None
) -> list[Run]:
    """All runs, finished or not, the latest last.

    Args:
        runs_folder: Of all runs; may be missing.
        dataset: Only those on this dataset.
        model_name: Only those of this model.
    """
    found = (
        Run(path.parent)
        for path in runs_folder.glob("*/*/*/config.json")
        if _RUN_NAME.fullmatch(path.parent.name)
        and dataset in (None, path.parents[2].name)
        and model_name in (None, path.parents[1].name)
    )
    return sorted(found, key=lambda run: (*run_order(run), run.folder))


def descriptions_of_command(run: Run) -> dict[Run, RunDescription]:
    """All runs of the `pipeline train` that this run is of, by seed, with what each says.

    Folders with another name are alone: a copy beside a run would count its seed twice. So would
    one under the name of another seed or time: it is left out with a warning in the log.

    Raises:
        CheckpointError: If the run cannot be read, or its name is that of another seed; others that
            cannot be read are passed over.
    """
    description = read_description(run)
    if run.folder.name in ("", ".."):  # "." has neither a name nor a parent
        run = Run(run.folder.resolve())
    found = {run: description}
    if not description.group or not _RUN_NAME.fullmatch(run.folder.name):
        return found
    time, seed = run_order(run)
    if seed != description.config.seed:
        raise CheckpointError(
            f"{run.folder}: was trained with seed {description.config.seed}, instead of the {seed} "
            "in its name; if it is a copy, remove it or move it out of the folder of runs"
        )
    copies: list[Run] = []
    for other in (Run(path.parent) for path in run.folder.parent.glob("*/config.json")):
        if other == run or not _RUN_NAME.fullmatch(other.folder.name):
            continue
        with suppress(CheckpointError):
            of_other = read_description(other)
            if of_other.group != description.group:
                continue
            if run_order(other) == (time, of_other.config.seed):
                found[other] = of_other
            else:
                copies.append(other)
    if len(copies) > len(found):  # then this run is the copy
        raise CheckpointError(
            f"{run.folder}: is a copy of a seed of {copies[0].folder.name}; remove it or move it "
            "out of the folder of runs"
        )
    for copy in copies:
        logger.warning("%s: is a copy of a seed of %s, and is left out", copy.folder, run.folder)
    return dict(sorted(found.items(), key=lambda item: run_order(item[0])))


def unfinished_runs(runs_folder: Path, *, dataset: str, model_name: str) -> list[Run]:
    """What `--resume` goes on with: the unfinished seeds of the latest command that has any.

    A run that diverged is not among them: it would diverge again.

    Raises:
        CheckpointError: If no run is unfinished, or the latest such run cannot be read.
    """
    unfinished = [
        run
        for run in find_runs(runs_folder, dataset=dataset, model_name=model_name)
        if not run.is_finished and not run.is_diverged
    ]
    if not unfinished:
        raise CheckpointError(
            f"{runs_folder / dataset / model_name}: there is no unfinished run to resume; "
            "leave out --resume"
        )
    return [run for run in descriptions_of_command(unfinished[-1]) if run in unfinished]
