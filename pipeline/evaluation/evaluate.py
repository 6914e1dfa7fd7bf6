"""Runs against a test set: frame-level metrics and alarms, with controls beside them."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from extractors.features import Features
from models.interface import AnomalyModel
from pipeline.datasets.catalog import Dataset, DatasetError, VideoEntry, frame_labels
from pipeline.evaluation.baselines import ControlError, context_of, derangement, energies_of
from pipeline.evaluation.linear_baseline import LinearBaselines
from pipeline.evaluation.metrics import FrameMetrics, curves, frame_metrics
from pipeline.evaluation.results import Evaluation, Measurement, Row
from pipeline.extraction.available_features import entries_with_features
from pipeline.extraction.feature_file import (
    FeatureFileError,
    Provenance,
    feature_path,
    read_features,
)
from pipeline.runs.checkpoints import Checkpoint, load_checkpoint
from pipeline.runs.compatibility import compare_with_run
from pipeline.scoring.events import EventRule, ScoredVideo, alarm_metrics
from pipeline.scoring.frame_scores import scores_of_video
from pipeline.scoring.snippet_scores import check_streams, snippet_scores

logger = logging.getLogger(__name__)

N_CONTEXT_SHUFFLES = 5

FrameScores = Sequence[NDArray[np.float32]]  # per video (n_frames,)


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
class RowStarted:
    """The next line of the table is being computed; `index` of `n_rows`."""

    name: str
    index: int
    n_rows: int


@dataclass(frozen=True, slots=True)
class RowLeftOut:
    """A line of the table that cannot be computed, and why."""

    name: str
    reason: str


def load_test_videos(
    dataset: Dataset, features_folder: Path, provenance: Provenance
) -> tuple[TestVideo, ...]:
    """Read the test split's features and frame labels.

    Args:
        dataset: Its `test` split is read.
        features_folder: Holds `<dataset>/<video_id>.h5`.
        provenance: How the run's features were made.

    Raises:
        DatasetError: If there is no test video, one's anomalous frames are not known, or the
            frames of all of them are of one class.
        FeatureFileError: If features are missing or were made in another way than the run's. A
            difference that only rounds is a warning in the log.
    """
    videos = []
    notices: set[str] = set()
    for entry in entries_with_features(dataset, "test", features_folder):
        path = feature_path(features_folder / dataset.name, entry.video_id)
        stored = read_features(path, video_id=entry.video_id)
        logger.info("%s: %d frames", path, stored.features.n_frames)
        differences, notice = compare_with_run(provenance, stored.provenance)
        if differences:
            raise FeatureFileError(
                f"{path}: was made in another way than the run's features "
                f"({'; '.join(differences)}); extract with the run's options, or name another run"
            )
        if notice and notice not in notices:
            notices.add(notice)
            logger.warning("%s: %s", features_folder / dataset.name, notice)
        videos.append(
            TestVideo(entry, stored.features, frame_labels(entry, stored.features.n_frames))
        )
    n_anomalous = sum(int(video.labels.sum()) for video in videos)
    n_frames = sum(video.labels.size for video in videos)
    if n_anomalous in (0, n_frames):
        raise DatasetError(
            f"{dataset.name}: an evaluation needs normal and anomalous frames in the split 'test', "
            f"instead got {n_frames - n_anomalous} normal and {n_anomalous} anomalous"
        )
    return tuple(videos)


def evaluate(
    checkpoints: Sequence[Checkpoint],
    dataset: Dataset,
    features_folder: Path,
    device: torch.device,
    *,
    controls: bool,
    rule: EventRule | None = None,
    epochs: Sequence[Sequence[Path]] = (),
    training: Dataset | None = None,
) -> Iterator[RowStarted | RowLeftOut | Evaluation]:
    """Measure one model, trained with one or more seeds, on a dataset's test split.

    Where the dataset names classes, the model is also measured on each of them: on the abnormal
    videos of the class together with all normal ones.

    Args:
        checkpoints: The same model and features, one per seed.
        dataset: Any dataset with a test split; need not be the one the model was trained on.
        features_folder: Holds the dataset's features.
        device: Where the model runs.
        controls: Also measure motion energy, linear scorers and, if accepted, shuffled context.
        rule: When a score is an event; the default rule if None.
        epochs: Per seed the checkpoints of its epochs, where the epoch that is best on the test
            videos is wanted too.
        training: What the model was trained on; with `controls` linear scorers are fitted to its
            train split. `dataset` if None.

    Yields:
        A `RowStarted` before each line, a `RowLeftOut` after it where a control's videos cannot be
        read or have changed, and the `Evaluation` of all other lines at the end.

    Raises:
        CheckpointError: If an epoch's checkpoint cannot be read.
        DatasetError: As `load_test_videos`.
        FeatureFileError: As `load_test_videos`, and if the features have other streams than the
            model.
    """
    first, rule = checkpoints[0], rule or EventRule()
    videos = load_test_videos(dataset, features_folder, first.provenance)
    models = [checkpoint.model.to(device).eval() for checkpoint in checkpoints]
    _check_streams(models[0], videos, features_folder / dataset.name)
    name = first.model_name
    if first.dataset != dataset.name:
        name = f"{name} ({first.dataset} -> {dataset.name})"
    scored: list[FrameScores] = []

    def model_row() -> Row:
        scored.extend(_model_scores(model, videos, device) for model in models)
        measured = tuple(_measure(videos, scores, rule) for scores in scored)
        return Row(name, "model", measured)

    def best_row() -> Row:
        best = tuple(_best_epoch(paths, videos, device, rule) for paths in epochs)
        return Row("best epoch on test (optimistic)", "best on test", best)

    def shuffled_row() -> Row:
        shuffled = tuple(
            Measurement(_mean_metrics(list(_with_shuffled_context(model, videos, device))))
            for model in models
        )
        return Row(f"{first.model_name}, context shuffled", "control", shuffled)

    plan: list[tuple[str, Callable[[], Row]]] = [(name, model_row)]
    if epochs:
        plan.append(("best on test", best_row))
    if controls:
        plan.append(("motion energy", lambda: _floor_row(videos)))
        linear = LinearBaselines(training or dataset, features_folder, first)
        plan += [(n, partial(_linear_row, linear, n, videos, rule)) for n in linear.names]
        if models[0].accepts_context and len(videos) > 1:
            plan.append(("context shuffled", shuffled_row))
    rows = []
    for index, (title, measure) in enumerate(plan):
        yield RowStarted(title, index, len(plan))
        try:
            rows.append(measure())
        except ControlError as error:
            yield RowLeftOut(title, str(error))
    rows.extend(_class_rows(videos, scored))
    n_absent = len(dataset.split("test")) - len(videos)
    yield _evaluation(dataset.name, checkpoints, videos, rule, rows, n_absent)


def _check_streams(model: AnomalyModel, videos: Sequence[TestVideo], folder: Path) -> None:
    for video in videos:
        check_streams(model, video.features, feature_path(folder, video.entry.video_id))


def _evaluation(
    dataset_name: str,
    checkpoints: Sequence[Checkpoint],
    videos: Sequence[TestVideo],
    rule: EventRule,
    rows: Sequence[Row],
    n_absent: int,
) -> Evaluation:
    labels = np.concatenate([video.labels for video in videos])
    return Evaluation(
        trained_on=checkpoints[0].dataset,
        dataset=dataset_name,
        n_videos=len(videos),
        n_absent=n_absent,
        n_frames=labels.size,
        n_anomalous=int(labels.sum()),
        labels_sha256=hashlib.sha256(labels.tobytes()).hexdigest(),
        rule=rule,
        seeds=tuple(checkpoint.seed for checkpoint in checkpoints),
        is_pretrained=checkpoints[0].is_pretrained,
        rows=tuple(rows),
    )


def _model_scores(
    model: AnomalyModel, videos: Sequence[TestVideo], device: torch.device
) -> FrameScores:
    return [_scores_of(model, video, device) for video in videos]


def _scores_of(
    model: AnomalyModel,
    video: TestVideo,
    device: torch.device,
    context: dict[str, NDArray[np.float32]] | None = None,
) -> NDArray[np.float32]:
    """(n_frames,) the scores of one video."""
    per_snippet = snippet_scores(model, video.features, device=device, context=context)
    return scores_of_video(per_snippet, video.features).per_frame


def _measure(videos: Sequence[TestVideo], scores: FrameScores, rule: EventRule) -> Measurement:
    """All metrics of scores in [0, 1]."""
    labels = np.concatenate([video.labels for video in videos])
    return Measurement(
        frames=_frame_metrics(videos, scores),
        alarms=alarm_metrics(
            [
                ScoredVideo(
                    scores=frame_scores,
                    labels=video.labels,
                    timestamps=video.features.timestamps,
                    duration_seconds=video.features.n_frames / video.features.fps,
                    is_abnormal=video.entry.label == 1,
                )
                for video, frame_scores in zip(videos, scores, strict=True)
            ],
            rule,
        ),
        curves=curves(np.concatenate(scores), labels),
    )


def _frame_metrics(videos: Sequence[TestVideo], scores: FrameScores) -> FrameMetrics:
    return frame_metrics(
        np.concatenate(scores),
        np.concatenate([video.labels for video in videos]),
        np.concatenate([np.full(len(v.labels), v.entry.label == 1) for v in videos]),
    )


def _best_epoch(
    paths: Sequence[Path], videos: Sequence[TestVideo], device: torch.device, rule: EventRule
) -> Measurement:
    """The measurement of the epoch whose pooled AUC on the test videos is the highest."""
    return max(
        (
            _measure(
                videos, _model_scores(load_checkpoint(p).model.to(device), videos, device), rule
            )
            for p in paths
        ),
        key=lambda measurement: measurement.frames.auc,
    )


def _floor_row(videos: Sequence[TestVideo]) -> Row:
    n_frames = {video.entry.path: video.features.n_frames for video in videos}
    found = energies_of(n_frames, smoothing_len=videos[0].features.snippet_len)
    energies = [found[video.entry.path] for video in videos]
    labels = np.concatenate([video.labels for video in videos])
    measured = Measurement(
        _frame_metrics(videos, energies), curves=curves(np.concatenate(energies), labels)
    )
    return Row("motion energy (floor)", "control", (measured,))


def _linear_row(
    linear: LinearBaselines, name: str, videos: Sequence[TestVideo], rule: EventRule
) -> Row:
    scores = [linear.frame_scores(name, video.features) for video in videos]
    return Row(name, "control", (_measure(videos, scores, rule),))


def _class_rows(videos: Sequence[TestVideo], scored: Sequence[FrameScores]) -> Iterator[Row]:
    """The model on each class of anomalies, the most frequent first."""
    classes = [name for video in videos for name in video.entry.categories]
    for name in sorted(set(classes), key=lambda c: (-classes.count(c), c)):
        of_class = [
            index
            for index, video in enumerate(videos)
            if video.entry.label == 0 or name in video.entry.categories
        ]
        chosen = [videos[index] for index in of_class]
        if all(video.labels.all() for video in chosen):
            continue  # no normal frame to rank them above
        measured = tuple(
            Measurement(_frame_metrics(chosen, [scores[index] for index in of_class]))
            for scores in scored
        )
        yield Row(name, "class", measured, n_videos=classes.count(name))


def _with_shuffled_context(
    model: AnomalyModel, videos: Sequence[TestVideo], device: torch.device
) -> Iterator[FrameMetrics]:
    """Metrics when each video's context path sees another video, for several shuffles."""
    for shuffle in range(N_CONTEXT_SHUFFLES):
        order = derangement(len(videos), np.random.default_rng(shuffle))
        scores = []
        for video, other in zip(videos, order, strict=True):
            context = context_of(videos[other].features, video.features.n_snippets)
            scores.append(_scores_of(model, video, device, context))
        yield _frame_metrics(videos, scores)


def _mean_metrics(several: Sequence[FrameMetrics]) -> FrameMetrics:
    return FrameMetrics(
        **{
            field.name: float(np.mean([getattr(metrics, field.name) for metrics in several]))
            for field in fields(FrameMetrics)
        }
    )
