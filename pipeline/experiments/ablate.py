"""Train every arm of an ablation with several seeds, and measure it on the same test videos."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from models import MODELS
from pipeline.config import ConfigError, TrainConfig, resolve_config, with_seed
from pipeline.datasets import load_dataset
from pipeline.datasets.catalog import Dataset
from pipeline.evaluation.linear_baseline import (
    LabeledBag,
    fit_linear_scorers,
    load_labeled_bags,
)
from pipeline.evaluation.paired_jackknife import JackknifedAuc, jackknife_auc
from pipeline.evaluation.split_videos import SplitVideo, load_test_videos
from pipeline.experiments.ablation_measures import (
    FrameScores,
    frame_scores,
    measure,
    measure_scores,
)
from pipeline.experiments.ablation_results import Ablation, Measured
from pipeline.experiments.ablation_variants import ABLATIONS, Arm
from pipeline.experiments.synthetic_bags import SYNTHETIC, synthetic_recipe
from pipeline.extraction.available_features import count_with_features
from pipeline.outputs import is_replaced, write_output
from pipeline.progress import Progress, ReportProgress, no_report
from pipeline.training.bag_loading import load_bags
from pipeline.training.batches import BagSet
from pipeline.training.training_loop import trained

# The test bed of models whose claims `bursts`, which is that of all others, does not test.
DEFAULT_DATASETS = {"clav-como": "exclusive-or"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What an ablation trains, and on what.

    Attributes:
        model_name: Key of `MODELS`.
        dataset: Key of `SYNTHETIC`, a dataset's name or a manifest CSV.
        features: Folder of feature files.
        arms: As from `choose_arms`.
        seeds: At least one.
        settings: Each `key=value`, for all arms; the arm's own win.
        device: Where to train.
    """

    model_name: str
    dataset: str
    features: Path
    arms: Sequence[Arm]
    seeds: Sequence[int]
    settings: Sequence[str]
    device: torch.device

    @property
    def is_synthetic(self) -> bool:
        """Whether every seed has its own videos."""
        return self.dataset in SYNTHETIC


@dataclass(frozen=True, slots=True, eq=False)
class _Videos:
    """What all arms are trained and tested on with one seed."""

    bags: BagSet
    test: tuple[SplitVideo, ...]
    load_labeled: Callable[[], list[LabeledBag]]  # for the linear scorers


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
    plan: Plan, *, json_path: Path | None = None, report: ReportProgress = no_report
) -> Ablation:
    """Train and measure every arm with every seed, then the linear baselines on the same videos.

    A seed samples the same videos and batches for every arm. The reference is the arm that changes
    no setting of the model's default, or the first arm where that one is not among them.

    Args:
        plan: What to train.
        json_path: File for every single run, written after each: a long ablation may be
            interrupted. A device such as /dev/stdout is written once, at the end.
        report: Called after each run.

    Returns:
        A record of each training run, then of each linear scorer; of these one per seed where each
        seed has its own videos.

    Raises:
        ConfigError: If a setting is wrong, or a loss becomes infinite or NaN.
        DatasetError, FeatureFileError: If a dataset cannot be read.
        OSError: If the JSON cannot be written.
    """
    dataset = None
    if not plan.is_synthetic:
        dataset = load_dataset(plan.dataset, allow_outside=True)  # no video is opened
    default, *configs = (_config(plan, dataset, arm) for arm in (Arm("default"), *plan.arms))
    reference = plan.arms[configs.index(default) if default in configs else 0]
    done = Ablation(plan.model_name, plan.dataset, reference, ())
    n_runs = len(plan.arms) * len(plan.seeds)
    for record in _measurements(plan, configs, _load(plan, dataset, default)):
        done = Ablation(plan.model_name, plan.dataset, reference, (*done.runs, record))
        detail = f"{record.arm.name}: AUC {100 * record.values['AUC']:.1f}"
        n_done = min(len(done.runs), n_runs)
        report(Progress("ablate", n_done, n_runs, "training runs", detail))
        if json_path is not None and is_replaced(json_path):
            _write_json(json_path, done)
    if json_path is not None:
        _write_json(json_path, done)
    return done


def _write_json(path: Path, ablation: Ablation) -> None:
    content = json.dumps(ablation.as_json(), indent=1, allow_nan=False)
    write_output(path, (content + "\n").encode())


def _config(plan: Plan, dataset: Dataset | None, arm: Arm) -> TrainConfig:
    if dataset is None:
        name, n_videos = plan.dataset, None
        recipe = synthetic_recipe(plan.model_name, name)
    else:
        name, recipe = dataset.name, None
        n_videos = count_with_features(dataset, "train", plan.features)
    config = resolve_config(
        plan.model_name,
        name,
        n_videos=n_videos,
        recipe=recipe,
        # The network by itself: the scorers of an ensemble would hide what its parts do.
        settings=["ensemble=false", *plan.settings, *arm.settings],
    )
    if config.ensemble or config.selection != "budget" or config.keep_epochs:
        raise ConfigError(
            "--set: an ablation trains the network alone for all its steps; leave out ensemble, "
            "selection and keep_epochs"
        )
    return config


def _load(plan: Plan, dataset: Dataset | None, config: TrainConfig) -> dict[int, _Videos]:
    """By seed the videos, each file read once for all arms and seeds."""
    if dataset is None:
        drawn = {seed: SYNTHETIC[plan.dataset](seed) for seed in plan.seeds}
        return {
            seed: _Videos(videos.bags(config), videos.test, videos.labeled)
            for seed, videos in drawn.items()
        }
    bags = load_bags(dataset, plan.features, sampler=config.sampler, bag_len=config.bag_len)
    test = load_test_videos(dataset, plan.features, bags.provenance)
    load_labeled = partial(load_labeled_bags, dataset, plan.features, bags.provenance)
    return dict.fromkeys(plan.seeds, _Videos(bags, test, load_labeled))


def _measurements(
    plan: Plan, configs: Sequence[TrainConfig], by_seed: Mapping[int, _Videos]
) -> Iterator[Measured]:
    for arm, config in zip(plan.arms, configs, strict=True):
        for seed, videos in by_seed.items():
            started = time.perf_counter()
            model = trained(with_seed(config, seed), videos.bags, plan.device)
            values, scores = measure(model, videos.test, videos.bags, plan.device)
            jackknifed = _jackknife(plan, seed, videos, scores)
            yield Measured(arm, seed, values, jackknifed, time.perf_counter() - started)
    for seed in plan.seeds if plan.is_synthetic else plan.seeds[:1]:
        videos = by_seed[seed]
        labeled = videos.load_labeled()
        started = time.perf_counter()
        for name, scorer in fit_linear_scorers(labeled, videos.bags.stream_dims).items():
            scores = frame_scores(videos.test, [scorer.score(v.features) for v in videos.test])
            values = measure_scores(videos.test, scores)
            jackknifed = _jackknife(plan, seed, videos, scores)
            yield Measured(Arm(name), seed, values, jackknifed, time.perf_counter() - started)
            started = time.perf_counter()


def _jackknife(plan: Plan, seed: int, videos: _Videos, scores: FrameScores) -> JackknifedAuc:
    labels = [video.labels for video in videos.test]
    # Where videos are not synthetic, all seeds are tested on the same ones.
    return jackknife_auc(scores, labels, video_set=seed if plan.is_synthetic else 0)
