"""Train every arm of an ablation with several seeds, and put what was measured in a table."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models import MODELS
from models.interface import AnomalyModel
from pipeline.config import ConfigError, TrainConfig, resolve_config, with_seed
from pipeline.datasets import load_dataset
from pipeline.evaluation.linear_baseline import (
    LabeledBag,
    fit_linear_scorers,
    load_labeled_bags,
)
from pipeline.evaluation.split_videos import TestVideo, load_test_videos
from pipeline.experiments.ablation_measures import measure, measure_scores
from pipeline.experiments.ablation_variants import ABLATIONS, Arm
from pipeline.experiments.synthetic_bags import SYNTHETIC
from pipeline.outputs import is_replaced, write_output
from pipeline.progress import Progress, ReportProgress, no_report
from pipeline.training.bag_loading import load_bags
from pipeline.training.batches import BagSet
from pipeline.training.trainer import Trainer

# Of a model that tells little elsewhere; of all others it is bursts.
DEFAULT_DATASETS = {"clav-como": "exclusive-or"}

# What is measured: what it is multiplied by for the table, and digits behind the point.
COLUMNS = {
    "AUC": (100, 1),
    "AUC abnormal": (100, 1),
    "false alarms": (100, 1),
    "gate AUC": (100, 1),
    "even gate": (100, 1),
    "context shuffled": (100, 1),
    "gap": (1, 2),
    "step gap": (1, 3),
    "step correlation": (1, 2),
    "regression AUC": (100, 1),
    "cluster AUC": (100, 1),
    "silhouette": (1, 2),
    "anomalous share": (100, 1),
    "parameters": (1e-3, 1),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One training of one arm.

    Attributes:
        arm: What was trained.
        seed: Of the weights, the draws and, where the videos are synthetic, of those.
        values: What was measured, by the names of `COLUMNS`.
        seconds: That training and measuring took.
    """

    arm: Arm
    seed: int
    values: dict[str, float]
    seconds: float


def choose_arms(model_name: str, names: Sequence[str]) -> tuple[Arm, ...]:
    """The arms of a model's ablation whose names begin so, or all where none is named.

    Raises:
        ConfigError: If the model or an arm is not known.
    """
    if model_name not in MODELS:
        raise ConfigError(f"--model must be one of {', '.join(MODELS)}, instead got {model_name!r}")
    arms = ABLATIONS.get(model_name, (Arm("default"),))
    for name in names:
        if not any(arm.name.startswith(name) for arm in arms):
            known = "; ".join(arm.name for arm in arms)
            raise ConfigError(f"--arm must begin one of {known}; instead got {name!r}")
    chosen = tuple(arm for arm in arms if any(arm.name.startswith(name) for name in names))
    return chosen or arms


def ablate(
    model_name: str,
    dataset: str,
    features: Path,
    *,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    settings: Sequence[str],
    device: torch.device,
    json_path: Path | None = None,
    report: ReportProgress = no_report,
) -> tuple[Measured, ...]:
    """Train and measure every arm with every seed, then the linear baselines on the same videos.

    A seed draws the same videos and batches for every arm.

    Args:
        model_name: Key of `MODELS`.
        dataset: Key of `SYNTHETIC`, a dataset's name or a manifest CSV.
        features: Folder of feature files.
        arms: As from `choose_arms`.
        seeds: At least one.
        settings: Each `key=value`, for all arms; the arm's own win.
        device: Where to train.
        json_path: File for every single training, written after each: hours of training end in many
            ways. A device such as /dev/stdout is written once, at the end.
        report: Called after each training.

    Returns:
        A record of each training, then of each linear scorer; of these one per seed where a seed
        draws the videos.

    Raises:
        ConfigError: If a setting is wrong, or a loss becomes infinite or NaN.
        DatasetError, FeatureFileError: If a dataset cannot be read.
        OSError: If the JSON cannot be written.
    """
    measured: list[Measured] = []
    n_trainings = len(arms) * len(seeds)
    for record in _measurements(model_name, dataset, features, arms, seeds, settings, device):
        measured.append(record)
        detail = f"{record.arm.name}: AUC {100 * record.values['AUC']:.1f}"
        n_done = min(len(measured), n_trainings)
        report(Progress("ablate", n_done, n_trainings, "trainings", detail))
        if json_path is not None and is_replaced(json_path):
            _write_json(json_path, measured, model_name, dataset)
    if json_path is not None:
        _write_json(json_path, measured, model_name, dataset)
    return tuple(measured)


def _write_json(path: Path, measured: Sequence[Measured], model_name: str, dataset: str) -> None:
    content = as_json(measured, model_name=model_name, dataset=dataset)
    write_output(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def _measurements(
    model_name: str,
    dataset: str,
    features: Path,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    settings: Sequence[str],
    device: torch.device,
) -> Iterator[Measured]:
    name, n_videos = dataset, None  # a synthetic one has a recipe of its own
    if dataset not in SYNTHETIC:
        loaded = load_dataset(dataset, allow_outside=True)
        name, n_videos = loaded.name, len(loaded.split("train"))
    configs = [
        # The network by itself: the scorers of an ensemble would hide what its parts do.
        resolve_config(
            model_name,
            name,
            n_videos=n_videos,
            settings=["ensemble=false", *settings, *arm.settings],
        )
        for arm in arms
    ]
    for arm, config in zip(arms, configs, strict=True):
        for seed in seeds:
            started = time.perf_counter()
            seeded = with_seed(config, seed)
            bags, videos = _material(dataset, features, seeded)
            values = measure(_trained(seeded, bags, device), videos, bags, device)
            yield Measured(arm, seed, values, time.perf_counter() - started)
    for seed in seeds if dataset in SYNTHETIC else seeds[:1]:
        yield from _linear_baselines(dataset, features, with_seed(configs[0], seed))


def _linear_baselines(dataset: str, features: Path, config: TrainConfig) -> Iterator[Measured]:
    bags, videos = _material(dataset, features, config)
    if dataset in SYNTHETIC:
        drawn = SYNTHETIC[dataset](config.seed).train
        labeled = [LabeledBag(bag.features, bag.label) for bag in drawn]
    else:
        loaded = load_dataset(dataset, allow_outside=True)
        labeled = load_labeled_bags(loaded, features, bags.provenance)
    started = time.perf_counter()
    for name, scorer in fit_linear_scorers(labeled, bags.stream_dims).items():
        values = measure_scores(videos, [scorer.score(video.features) for video in videos])
        yield Measured(Arm(name), config.seed, values, time.perf_counter() - started)
        started = time.perf_counter()


def _material(
    dataset: str, features: Path, config: TrainConfig
) -> tuple[BagSet, tuple[TestVideo, ...]]:
    if dataset in SYNTHETIC:
        drawn = SYNTHETIC[dataset](config.seed)
        return drawn.bags(config), drawn.test
    loaded = load_dataset(dataset, allow_outside=True)  # no video is opened
    bags = load_bags(loaded, features, sampler=config.sampler, bag_len=config.bag_len)
    return bags, load_test_videos(loaded, features, bags.provenance)


def _trained(config: TrainConfig, bags: BagSet, device: torch.device) -> AnomalyModel:
    trainer = Trainer(config, bags, device)
    for epoch in range(trainer.config.n_epochs):
        trainer.run_epoch(epoch)
    return trainer.average


def as_table(measured: Sequence[Measured]) -> str:
    """The table for people: mean and sample standard deviation over seeds.

    AUCs, false alarms and shares are in percent, parameters in thousands.
    """
    found = dict.fromkeys(name for record in measured for name in record.values)
    names = [name for name in COLUMNS if name in found]
    names += [name for name in found if name not in COLUMNS]  # a new model's own diagnostics
    arms = list(dict.fromkeys(record.arm for record in measured))
    rows = [["", "seeds", *names]]
    for arm in arms:
        of_arm = [record for record in measured if record.arm == arm]
        rows.append([arm.name, str(len(of_arm)), *(_cell(name, of_arm) for name in names)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def _cell(name: str, of_arm: Sequence[Measured]) -> str:
    values = [record.values[name] for record in of_arm if name in record.values]
    if not values or not np.isfinite(values).all():
        return "-"
    factor, n_digits = COLUMNS.get(name, (1, 2))
    mean = f"{factor * np.mean(values):.{n_digits}f}"
    if len(values) == 1 or name == "parameters":
        return mean
    return f"{mean} ± {factor * np.std(values, ddof=1):.{n_digits}f}"


def as_json(measured: Sequence[Measured], *, model_name: str, dataset: str) -> dict[str, object]:
    """Every single training, for machines; fractions and not percent, what is not a number null."""
    return {
        "model": model_name,
        "dataset": dataset,
        "trainings": [
            {
                "arm": record.arm.name,
                "settings": list(record.arm.settings),
                "seed": record.seed,
                "seconds": record.seconds,
                "values": {
                    name: value if np.isfinite(value) else None
                    for name, value in record.values.items()
                },
            }
            for record in measured
        ],
    }
