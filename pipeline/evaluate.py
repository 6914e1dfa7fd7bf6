"""Runs against a test set: the table of frame-level metrics, with controls beside it."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from extractors.features import Features
from extractors.snippets import per_frame
from models.clav_como import ClavComo
from pipeline.bags import entries_with_features
from pipeline.checkpoints import Checkpoint
from pipeline.controls import derangement, motion_energy, stretched
from pipeline.datasets.catalog import Dataset, VideoEntry, frame_labels
from pipeline.feature_file import (
    Contract,
    FeatureFileError,
    contract_differences,
    feature_path,
    read_features,
)
from pipeline.metrics import FrameMetrics, frame_metrics
from pipeline.score import score_features

N_CONTEXT_SHUFFLES = 5


@dataclass(frozen=True, slots=True, eq=False)
class TestVideo:
    """One video of the test split.

    Attributes:
        entry: What the dataset says of it.
        features: What stage 1 made of it.
        labels: (n_frames,) True where the frame is anomalous.
    """

    __test__ = False  # not a test class, whatever pytest thinks of its name

    entry: VideoEntry
    features: Features
    labels: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: one system, measured once per seed."""

    name: str
    per_seed: tuple[FrameMetrics, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a table says, and of what.

    Attributes:
        dataset: The dataset's name.
        n_videos: Test videos that were scored.
        n_absent: Test videos that have no features.
        n_frames: Frames of all test videos together.
        n_anomalous: Those that are anomalous.
        rows: One per system.
    """

    dataset: str
    n_videos: int
    n_absent: int
    n_frames: int
    n_anomalous: int
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class RowStarted:
    """The next line of the table is being computed; `index` of `n_rows`."""

    name: str
    index: int
    n_rows: int


def load_test_videos(
    dataset: Dataset, features_folder: Path, contract: Contract
) -> tuple[TestVideo, ...]:
    """Read the test split's features and frame labels.

    Args:
        dataset: Its `test` split is read.
        features_folder: Holds `<dataset>/<video_id>.h5`.
        contract: How the run's features were made.

    Raises:
        DatasetError: If there is no test video, or one's anomalous frames are not known.
        FeatureFileError: If features are missing or were made in another way than the run's.
    """
    videos = []
    for entry in entries_with_features(dataset, "test", features_folder):
        path = feature_path(features_folder / dataset.name, entry.video_id)
        stored = read_features(path)
        differences = contract_differences(contract, stored.contract)
        if differences:
            raise FeatureFileError(
                f"{path}: was made in another way than the run's features "
                f"({'; '.join(differences)}); extract with the run's options, or name another run"
            )
        videos.append(
            TestVideo(entry, stored.features, frame_labels(entry, stored.features.n_frames))
        )
    return tuple(videos)


def evaluate(
    checkpoints: Sequence[Checkpoint],
    dataset: Dataset,
    features_folder: Path,
    device: torch.device,
    *,
    controls: bool,
) -> Iterator[RowStarted | Evaluation]:
    """Measure one model, trained with one or more seeds, on a dataset's test split.

    Args:
        checkpoints: The same model and features, one per seed.
        dataset: Any dataset with a test split; need not be the one the model was trained on.
        features_folder: Holds the dataset's features.
        device: Where the model runs.
        controls: Also measure the motion-energy floor and, for CLAV-CoMo, the model with the
            context path fed from other videos.

    Yields:
        A `RowStarted` before each line, and the `Evaluation` at the end.

    Raises:
        DatasetError, FeatureFileError: As `load_test_videos`.
        VideoError: If the floor cannot read a video.
    """
    first = checkpoints[0]
    videos = load_test_videos(dataset, features_folder, first.contract)
    models = [checkpoint.model.to(device).eval() for checkpoint in checkpoints]

    def model_row() -> tuple[FrameMetrics, ...]:
        return tuple(
            _metrics(videos, [score_features(model, v.features, device=device) for v in videos])
            for model in models
        )

    def floor_row() -> tuple[FrameMetrics, ...]:
        snippet_len = videos[0].features.snippet_len
        return (
            _frame_level_metrics(
                videos, [motion_energy(v.entry.path, smoothing_len=snippet_len) for v in videos]
            ),
        )

    def shuffled_row() -> tuple[FrameMetrics, ...]:
        return tuple(
            _mean_metrics(list(_with_shuffled_context(model, videos, device)))
            for model in models
            if isinstance(model, ClavComo)
        )

    plan: list[tuple[str, Callable[[], tuple[FrameMetrics, ...]]]] = [(first.model_name, model_row)]
    if controls:
        plan.append(("motion energy (floor)", floor_row))
        if isinstance(models[0], ClavComo) and len(videos) > 1:
            plan.append((f"{first.model_name}, context shuffled", shuffled_row))
    rows = []
    for index, (name, measure) in enumerate(plan):
        yield RowStarted(name, index, len(plan))
        rows.append(Row(name, measure()))
    labels = np.concatenate([video.labels for video in videos])
    n_absent = len(dataset.split("test")) - len(videos)
    yield Evaluation(
        dataset.name, len(videos), n_absent, labels.size, int(labels.sum()), tuple(rows)
    )


def as_table(evaluation: Evaluation) -> str:
    """The table for people: metrics in percent, mean and sample standard deviation over seeds."""
    names = [field.name for field in fields(FrameMetrics)]
    heads = [
        {"auc": "AUC", "auc_abnormal": "AUC abnormal", "ap_trapezoid": "AP trapezoid"}.get(
            name, "AP step"
        )
        for name in names
    ]
    width = max(len(row.name) for row in evaluation.rows)
    absent = f" ({evaluation.n_absent} more have no features)" if evaluation.n_absent else ""
    share = evaluation.n_anomalous / evaluation.n_frames
    lines = [
        f"{evaluation.dataset}: {evaluation.n_videos} test videos{absent}, "
        f"{evaluation.n_frames} frames, "
        f"{evaluation.n_anomalous} of them anomalous ({share:.1%})",
        f"{'':{width}}  seeds" + "".join(f"  {head:>13}" for head in heads),
    ]
    for row in evaluation.rows:
        cells = [_mean_and_spread([getattr(m, name) for m in row.per_seed]) for name in names]
        lines.append(
            f"{row.name:{width}}  {len(row.per_seed):>5}" + "".join(f"  {c:>13}" for c in cells)
        )
    return "\n".join(lines)


def _mean_and_spread(values: list[float]) -> str:
    """Percent, with the spread where there is more than one value."""
    if any(math.isnan(value) for value in values):
        return "-"
    mean = f"{100 * np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * np.std(values, ddof=1):.1f}"


def _metrics(
    videos: Sequence[TestVideo], per_snippet: Sequence[NDArray[np.float32]]
) -> FrameMetrics:
    """Metrics of snippet scores: each frame has its snippet's score, cut to the true length."""
    return _frame_level_metrics(
        videos,
        [
            per_frame(scores, video.features.snippet_len, video.features.n_frames)
            for video, scores in zip(videos, per_snippet, strict=True)
        ],
    )


def _frame_level_metrics(
    videos: Sequence[TestVideo], per_frame: Sequence[NDArray[np.float32]]
) -> FrameMetrics:
    return frame_metrics(
        np.concatenate(per_frame),
        np.concatenate([video.labels for video in videos]),
        np.concatenate([np.full(len(v.labels), v.entry.label == 1) for v in videos]),
    )


def _with_shuffled_context(
    model: ClavComo, videos: Sequence[TestVideo], device: torch.device
) -> Iterator[FrameMetrics]:
    """Metrics when each video's context path sees another video, for several shuffles."""
    for shuffle in range(N_CONTEXT_SHUFFLES):
        order = derangement(len(videos), np.random.default_rng(shuffle))
        per_snippet = []
        for video, other in zip(videos, order, strict=True):
            context = {
                stream: stretched(values, video.features.n_snippets)
                for stream, values in videos[other].features.streams.items()
            }
            per_snippet.append(
                score_features(model, video.features, device=device, context=context)
            )
        yield _metrics(videos, per_snippet)


def _mean_metrics(several: Sequence[FrameMetrics]) -> FrameMetrics:
    return FrameMetrics(
        **{
            field.name: float(np.mean([getattr(metrics, field.name) for metrics in several]))
            for field in fields(FrameMetrics)
        }
    )
