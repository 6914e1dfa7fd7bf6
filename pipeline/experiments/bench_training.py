"""Benchmark of training: batches and steps per second beside the field's usual data loader.

The usual loader: one NumPy file per bag and crop, read in `__getitem__`, brought to its length by a
Python loop, one `DataLoader` for normal and one for anomalous bags, as in RTFM and UR-DMU. Bags,
batch size, model and step are the same for both; only what makes the batches differs. The files
have just been written, so they are in the system's memory, which favors the usual loader: of a
dataset larger than memory it would read from the disk in every epoch.
"""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from extractors.features import Features
from models.interface import BagBatch
from pipeline.config import ConfigError, Sampler, TrainConfig
from pipeline.datasets.catalog import Dataset, VideoEntry
from pipeline.extraction.feature_file import Provenance, feature_path, write_features
from pipeline.progress import Progress, ReportProgress, no_report
from pipeline.training.bag_loading import load_bags
from pipeline.training.batches import BagSet, draw_batches
from pipeline.training.training_loop import Trainer

# XD-Violence: crops and width of its features, and the mean length of its training videos
# (16.4 million frames in 3,954 videos). The spread is a guess: a few long videos, many short ones.
N_CROPS = 5
FEATURE_DIM = 1024
MEAN_SNIPPETS = 259
LOG_SPREAD = 0.9
SNIPPET_LEN = 16
PROVENANCE: Provenance = {"extractor": "none", "is_pretrained": False}


@dataclass(frozen=True, slots=True)
class Round:
    """One round of the measurement, all systems one after the other.

    Attributes:
        usual_batches: Batches per second of the usual loader, without a step.
        own_batches: The same of this program.
        usual_steps: Training steps per second with the usual loader.
        own_steps: The same of this program.
        bare_steps: Training steps per second on one batch that is there: the most that any loader
            could give.
    """

    usual_batches: float
    own_batches: float
    usual_steps: float
    own_steps: float
    bare_steps: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The speed of one system over all rounds.

    Attributes:
        unit: Batches or steps.
        system: What gave the batches.
        per_second: The median over rounds.
        ratio: The median of the rounds' ratios to the usual loader.
    """

    unit: str
    system: str
    per_second: float
    ratio: float


@dataclass(frozen=True, slots=True)
class TrainingSpeed:
    """What was measured.

    Attributes:
        n_bags: Videos times crops.
        mean_snippets: Of a video.
        n_bytes: Of the NumPy files.
        read_seconds: To read all bags into one block, once for a whole training run.
        rounds: At least one.
    """

    n_bags: int
    mean_snippets: float
    n_bytes: int
    read_seconds: float
    rounds: tuple[Round, ...]

    def comparisons(self) -> list[Comparison]:
        """Return a row for each system: batches alone, then whole steps."""
        systems = {
            "batches": {"usual loader": "usual_batches", "lookaround": "own_batches"},
            "steps": {
                "usual loader": "usual_steps",
                "lookaround": "own_steps",
                "one batch again and again": "bare_steps",
            },
        }
        found = []
        for unit, names in systems.items():
            usual = [getattr(one, names["usual loader"]) for one in self.rounds]
            for system, name in names.items():
                speeds = [getattr(one, name) for one in self.rounds]
                ratio = median(a / b for a, b in zip(speeds, usual, strict=True))
                found.append(Comparison(unit, system, median(speeds), ratio))
        return found


class UsualBags(TorchDataset[tuple[Tensor, int]]):
    """Bags of one class, each read from its file when asked for.

    Args:
        paths: NumPy files (n_snippets, D) float32, one per bag.
        sampler: `bins` or `sequence`.
        bag_len: T.
    """

    def __init__(self, paths: list[Path], sampler: Sampler, bag_len: int) -> None:
        self._paths, self._sampler, self._bag_len = paths, sampler, bag_len

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The bag (T, D), padded with zeros, and how many of its snippets are real."""
        features = np.load(self._paths[index])
        binned = np.zeros((self._bag_len, features.shape[1]), dtype=np.float32)
        if self._sampler == "sequence" and len(features) <= self._bag_len:
            binned[: len(features)] = features
            return torch.from_numpy(binned), len(features)
        if self._sampler == "sequence":
            last = len(features) - 1
            picked = [i * last // max(self._bag_len - 1, 1) for i in range(self._bag_len)]
            return torch.from_numpy(features[picked]), self._bag_len
        for bin_index in range(self._bag_len):
            start = bin_index * len(features) // self._bag_len
            stop = (bin_index + 1) * len(features) // self._bag_len
            binned[bin_index] = np.mean(features[start : max(stop, start + 1)], axis=0)
        return torch.from_numpy(binned), self._bag_len


def bench_training(
    config: TrainConfig,
    device: torch.device,
    *,
    n_videos: int,
    n_rounds: int,
    n_steps: int,
    n_workers: int,
    report: ReportProgress = no_report,
) -> TrainingSpeed:
    """Measure this program's batches and steps beside the usual loader's.

    The files lie in the folder of temporary files and are removed.

    Args:
        config: The settings of the training.
        device: Where to train.
        n_videos: How many, half of them anomalous.
        n_rounds: Rounds, in each of which every system has its turn.
        n_steps: Steps of a turn.
        n_workers: Processes of each usual `DataLoader`; 0 reads in the training's own.
        report: Gets the progress in rounds.

    Raises:
        ConfigError: If the videos do not give enough bags for a batch.
        OSError: If the files cannot be written.
    """
    n_bags = n_videos // 2 * N_CROPS
    if config.bags_per_class > n_bags:
        raise ConfigError(
            f"--videos must give {config.bags_per_class} bags of each class, instead got {n_bags}"
        )
    with tempfile.TemporaryDirectory() as name:
        dataset, paths = write_both(Path(name), n_videos)
        lengths = [len(np.load(of_video[0], mmap_mode="r")) for of_video in paths]
        n_bytes = sum(path.stat().st_size for of_video in paths for path in of_video)
        started = time.perf_counter()
        bags = load_bags(dataset, Path(name), sampler=config.sampler, bag_len=config.bag_len)
        read_seconds = time.perf_counter() - started
        rounds = []
        for one in _measure_rounds(config, device, bags, paths, n_rounds, n_steps, n_workers):
            rounds.append(one)
            report(Progress("bench-training", len(rounds), n_rounds, "rounds"))
    mean_snippets = float(np.mean(lengths))
    return TrainingSpeed(n_videos * N_CROPS, mean_snippets, n_bytes, read_seconds, tuple(rounds))


def _measure_rounds(
    config: TrainConfig,
    device: torch.device,
    bags: BagSet,
    paths: list[list[Path]],
    n_rounds: int,
    n_steps: int,
    n_workers: int,
) -> Iterator[Round]:
    trainer = Trainer(config, bags, device)
    own = _endless(trainer_batches(config, bags.moved_to(device)), device)
    usual = _endless(usual_batches(config, paths, n_workers), device)
    one = next(own)

    def per_second(do: Callable[[int], object]) -> float:
        _wait_for(device)
        started = time.perf_counter()
        for step in range(n_steps):
            do(step)
        _wait_for(device)
        return n_steps / (time.perf_counter() - started)

    for _ in range(2):  # buffers are allocated, workers are started
        trainer.step(0, next(own))
        trainer.step(0, next(usual))
    for _ in range(n_rounds):
        yield Round(
            usual_batches=per_second(lambda _: next(usual)),
            own_batches=per_second(lambda _: next(own)),
            usual_steps=per_second(lambda step: trainer.step(step, next(usual))),
            own_steps=per_second(lambda step: trainer.step(step, next(own))),
            bare_steps=per_second(lambda step: trainer.step(step, one)),
        )


def trainer_batches(config: TrainConfig, bags: BagSet) -> Iterator[BagBatch]:
    """Batches without end, as training samples them."""
    for step in itertools.count(step=config.steps_per_epoch):
        yield from draw_batches(
            bags,
            seed=config.seed,
            first_step=step,
            n_steps=config.steps_per_epoch,
            bags_per_class=config.bags_per_class,
        )


def usual_batches(
    config: TrainConfig, paths: list[list[Path]], n_workers: int
) -> Iterator[BagBatch]:
    """Batches without end from one `DataLoader` per class.

    Args:
        config: The settings of the training.
        paths: Per video the files of its crops; anomalous and normal videos in turn.
        n_workers: Processes of each loader.
    """
    loaders = [
        DataLoader(
            UsualBags(list(itertools.chain(*paths[label::2])), config.sampler, config.bag_len),
            batch_size=config.bags_per_class,
            shuffle=True,
            num_workers=n_workers,
            drop_last=True,
            persistent_workers=n_workers > 0,
        )
        for label in (0, 1)
    ]
    labels = torch.arange(2).repeat_interleave(config.bags_per_class)
    while True:
        for normal, anomalous in zip(*loaders, strict=True):
            features = torch.cat([normal[0], anomalous[0]])
            lengths = torch.cat([normal[1], anomalous[1]])
            mask = torch.arange(config.bag_len) < lengths[:, None]
            yield BagBatch(features, mask, labels)


def write_both(folder: Path, n_videos: int) -> tuple[Dataset, list[list[Path]]]:
    """Write the same random bags as feature files and as one NumPy file per bag and crop.

    Returns:
        The dataset of the feature files, and per video the NumPy files of its crops.
    """
    rng = np.random.default_rng(0)
    # The mean of exp(N(m, s)) is exp(m + s^2 / 2).
    lengths = rng.lognormal(np.log(MEAN_SNIPPETS) - LOG_SPREAD**2 / 2, LOG_SPREAD, n_videos)
    entries, paths = [], []
    for index, n_snippets in enumerate(np.clip(lengths.astype(int), 4, 4000).tolist()):
        entries.append(VideoEntry(str(index), folder / f"{index}.mp4", "train", index % 2))
        values = rng.standard_normal((n_snippets, N_CROPS, FEATURE_DIM), dtype=np.float32)
        values = values.astype(np.float16).astype(np.float32)
        _write_feature_file(feature_path(folder / "bench", str(index)), values)
        of_video = [folder / f"{index}__{crop}.npy" for crop in range(N_CROPS)]
        for crop, path in enumerate(of_video):
            np.save(path, values[:, crop])
        paths.append(of_video)
    return Dataset("bench", tuple(entries)), paths


def _write_feature_file(path: Path, values: NDArray[np.float32]) -> None:
    n_frames = SNIPPET_LEN * len(values)
    features = Features(
        streams={"rgb": values},
        snippet_len=SNIPPET_LEN,
        n_frames=n_frames,
        n_missing=0,
        fps=24.0,
        timestamps=np.arange(n_frames) / 24,
        decoder="none",
    )
    write_features(path, features, PROVENANCE, video_id=path.stem, source_name="none")


def _endless(batches: Iterator[BagBatch], device: torch.device) -> Iterator[BagBatch]:
    return (batch.to(device) for batch in batches)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
