"""Frame-level metrics and alarms of checkpoints on a test split, and of controls.

Scores and labels are kept; features are read from their files one video at a time.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from extractors.features import Features
from models.interface import AnomalyModel
from pipeline.datasets.catalog import Dataset, DatasetError
from pipeline.evaluation.alarms import ScoredVideo, alarm_metrics
from pipeline.evaluation.baselines import (
    ControlError,
    context_of,
    energies_of,
    permutation_without_fixed_points,
)
from pipeline.evaluation.linear_baseline import LinearBaselines
from pipeline.evaluation.metrics import FrameMetrics, curves, frame_metrics, mean_metrics
from pipeline.evaluation.paired_jackknife import JackknifedAuc, jackknife_auc, mean_of
from pipeline.evaluation.results import Evaluation, LeftOut, Measurement, Row
from pipeline.evaluation.split_videos import (
    EvaluatedSplit,
    VideoTruth,
    check_both_classes,
    default_ground_truth,
)
from pipeline.extraction.releases import IMPORTED_FROM
from pipeline.progress import Progress, ReportProgress, no_report
from pipeline.runs.checkpoints import Checkpoint, load_checkpoint
from pipeline.scoring.events import EventRule, n_seconds
from pipeline.scoring.frame_scores import scores_of_video
from pipeline.scoring.snippet_scores import check_streams, snippet_scores, stream_dims_of

N_CONTEXT_SHUFFLES = 5
N_EPOCHS_AT_ONCE = 8  # whose models and scores are held together

Value = TypeVar("Value", np.float32, np.float64)
FrameScores = list[NDArray[np.float32]]  # per video (n_frames,)


def measure(
    checkpoints: Sequence[Checkpoint],
    dataset: Dataset,
    features_folder: Path,
    device: torch.device,
    *,
    controls: bool = False,
    rule: EventRule | None = None,
    epochs: Sequence[Sequence[Path]] = (),
    best_by: str = "auc",
    training: Dataset | DatasetError | None = None,
    ground_truth: str | None = None,
    report: ReportProgress = no_report,
) -> Evaluation:
    """Measure one model, trained with one or more seeds, on a dataset's test split.

    Where the dataset names classes, the model is also measured on each of them: on the abnormal
    videos of the class together with all normal ones.

    Args:
        checkpoints: The same model and features, one per seed.
        dataset: Any dataset with a test split; need not be the one the model was trained on.
        features_folder: Holds the dataset's features.
        device: Where the model runs.
        controls: Also measure motion energy, linear scorers and, if the model accepts another
            context, the model with shuffled context.
        rule: When a score is an event; the default rule if None.
        epochs: Per seed the checkpoints of its epochs, if the epoch that is best on the test videos
            is wanted too.
        best_by: The field of `FrameMetrics` that is the highest in that epoch.
        training: What the model was trained on; with `controls` linear scorers are fitted to its
            train split. `dataset` if None; why it cannot be read if an error.
        ground_truth: How frame labels are made: `annotation`, or one of the dataset's published
            conventions, to whose length scores are cut or continued. None takes what fits the
            features: the convention of their release if they were imported, else `annotation`.
        report: Called with the progress; a message says which line was left out.

    Raises:
        CheckpointError: If an epoch's checkpoint cannot be read.
        DatasetError: If there is no test video or no such convention, one's anomalous frames are
            not known, or the frames of all of them are of one class.
        FeatureFileError: If features are missing, were extracted with other settings than the
            run's, or have other streams than the model.
    """
    measuring = _Measuring(
        checkpoints, dataset, features_folder, device, rule or EventRule(), ground_truth, controls
    )
    plan: list[tuple[str, Callable[[], Row]]] = [(measuring.model_name, measuring.model_row)]
    if len(checkpoints) > 1:
        plan.append(("seeds averaged", measuring.averaged_row))
    if epochs:
        plan.append(("best on test", lambda: measuring.best_epoch_row(epochs, best_by)))
    if controls:
        plan.append(("motion energy", measuring.motion_energy_row))
        problem = training if isinstance(training, DatasetError) else None
        fitted_to = training if isinstance(training, Dataset) else dataset
        linear = LinearBaselines(fitted_to, features_folder, checkpoints[0])
        for name in linear.names:
            plan.append((name, partial(measuring.linear_row, linear, name, problem)))
        if measuring.models[0].accepts_context and len(measuring.split.entries) > 1:
            plan.append(("context shuffled", measuring.shuffled_context_row))
    rows, left_out = [], []
    for index, (name, measure_row) in enumerate(plan):
        report(Progress("evaluate", index, len(plan), "rows", detail=name))
        try:
            rows.append(measure_row())
        except ControlError as error:
            left_out.append(LeftOut(name, str(error), is_failure=not measuring.is_imported))
            message = f"{name}: left out: {error}"
            report(Progress("evaluate", index + 1, len(plan), "rows", message=message))
    return measuring.evaluation([*rows, *measuring.class_rows()], left_out)


class _Measuring:
    """The lines of an evaluation; `model_row` comes first, for it reads the labels."""

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint],
        dataset: Dataset,
        features_folder: Path,
        device: torch.device,
        rule: EventRule,
        ground_truth: str | None,
        is_compared: bool,
    ) -> None:
        first = checkpoints[0]
        ground_truth = ground_truth or default_ground_truth(dataset.name, first.provenance)
        self.is_imported = IMPORTED_FROM in first.provenance
        self.models = [checkpoint.model.to(device).eval() for checkpoint in checkpoints]
        self.split = EvaluatedSplit(
            dataset, features_folder, first.provenance, ground_truth=ground_truth
        )
        self.model_name = first.model_name
        if first.dataset != dataset.name:
            self.model_name = f"{first.model_name} ({first.dataset} -> {dataset.name})"
        self._checkpoints, self._dataset = checkpoints, dataset
        self._device, self._rule, self._ground_truth = device, rule, ground_truth
        self._truths: list[VideoTruth] = []
        self._scored: list[FrameScores] = [[] for _ in checkpoints]
        self._linear_scores: dict[str, FrameScores] = {}
        self._is_compared = is_compared

    def model_row(self) -> Row:
        """The model itself; keeps its scores and the ground truth."""
        for video in self.split:
            features = video.features
            path = self.split.path(video.entry)
            check_streams(self.models[0], stream_dims_of(features), path)
            n_labels = video.labels.size
            self._truths.append(
                VideoTruth(
                    video.entry,
                    video.source,
                    video.labels,
                    timestamps=_cut_or_continue(features.timestamps, n_labels),
                    n_frames=features.n_frames,
                    duration_seconds=n_seconds(features.timestamps),
                    snippet_len=features.snippet_len,
                )
            )
            for model, scores in zip(self.models, self._scored, strict=True):
                scores.append(self._scores(model, features, n_labels))
        check_both_classes(self._dataset.name, [truth.labels for truth in self._truths])
        measured = tuple(self._measurement(scores) for scores in self._scored)
        return Row(self.model_name, "model", measured)

    def averaged_row(self) -> Row:
        """The mean of the scores of all seeds: what `pipeline score` gives."""
        averaged = [np.mean(of_seeds, axis=0) for of_seeds in zip(*self._scored, strict=True)]
        name = f"{self.model_name}, {len(self.models)} seeds averaged"
        return Row(name, "seeds averaged", (self._measurement(averaged),))

    def best_epoch_row(self, epochs: Sequence[Sequence[Path]], best_by: str) -> Row:
        """Per seed the epoch that has the highest value of a metric on the test videos.

        An ensemble is built once, beside the final network: an epoch of one is its network alone.
        """
        best = tuple(
            max(self._epochs(paths), key=lambda measured: float(getattr(measured.frames, best_by)))
            for paths in epochs
        )
        alone = ", network alone" if self.models[0].members else ""
        return Row(f"best epoch on test{alone} (optimistic)", "best on test", best)

    def _epochs(self, paths: Sequence[Path]) -> Iterator[Measurement]:
        for first in range(0, len(paths), N_EPOCHS_AT_ONCE):
            some = paths[first : first + N_EPOCHS_AT_ONCE]
            models = [load_checkpoint(path).model.to(self._device).eval() for path in some]
            scored: list[FrameScores] = [[] for _ in models]
            for index, truth in enumerate(self._truths):
                features = self.split.features(index)
                for model, scores in zip(models, scored, strict=True):
                    scores.append(self._scores(model, features, truth.labels.size))
            yield from map(self._measurement, scored)

    def motion_energy_row(self) -> Row:
        """How well motion alone ranks frames: a baseline that a model has to beat."""
        if self.is_imported:
            raise ControlError("it needs the videos, and the features were imported without them")
        n_frames = {truth.source: truth.n_frames for truth in self._truths}
        found = energies_of(n_frames, smoothing_len=self._truths[0].snippet_len)
        energies = [
            _cut_or_continue(found[truth.entry.path], truth.labels.size) for truth in self._truths
        ]
        measured = Measurement(
            _frame_metrics(self._truths, energies),
            curves=curves(np.concatenate(energies), self._labels()),
            jackknifed=self._jackknife(energies),
        )
        return Row("motion energy (baseline)", "control", (measured,))

    def linear_row(self, linear: LinearBaselines, name: str, problem: DatasetError | None) -> Row:
        """A linear scorer of the same features, fitted to the training videos."""
        if problem is not None:
            raise ControlError(str(problem)) from problem
        if not self._linear_scores:  # of all scorers at once: features are read from their files
            scored: dict[str, FrameScores] = {each: [] for each in linear.names}
            for index, truth in enumerate(self._truths):
                features = self.split.features(index)
                for each, scores in scored.items():
                    per_frame = linear.frame_scores(each, features)
                    scores.append(_cut_or_continue(per_frame, truth.labels.size))
            self._linear_scores = scored
        return Row(name, "control", (self._measurement(self._linear_scores[name]),))

    def shuffled_context_row(self) -> Row:
        """The model when its context path reads another video: per seed the mean of several."""
        per_model: list[list[FrameMetrics]] = [[] for _ in self.models]
        jackknifed: list[list[JackknifedAuc]] = [[] for _ in self.models]
        for shuffle in range(N_CONTEXT_SHUFFLES):
            rng = np.random.default_rng(shuffle)
            order = permutation_without_fixed_points(len(self._truths), rng)
            scored: list[FrameScores] = [[] for _ in self.models]
            for index, other in enumerate(order):
                features = self.split.features(index)
                context = context_of(self.split.features(int(other)), features.n_snippets)
                n_labels = self._truths[index].labels.size
                for model, scores in zip(self.models, scored, strict=True):
                    scores.append(self._scores(model, features, n_labels, context))
            for metrics, aucs, scores in zip(per_model, jackknifed, scored, strict=True):
                metrics.append(_frame_metrics(self._truths, scores))
                aucs.append(self._jackknife(scores))
        name = f"{self._checkpoints[0].model_name}, context shuffled"
        measured = tuple(
            Measurement(mean_metrics(metrics), jackknifed=mean_of(aucs))
            for metrics, aucs in zip(per_model, jackknifed, strict=True)
        )
        return Row(name, "control", measured)

    def class_rows(self) -> Iterator[Row]:
        """The model on each class of anomalies, the most frequent first."""
        classes = [name for truth in self._truths for name in truth.entry.categories]
        for name in sorted(set(classes), key=lambda c: (-classes.count(c), c)):
            of_class = [
                index
                for index, truth in enumerate(self._truths)
                if truth.entry.label == 0 or name in truth.entry.categories
            ]
            chosen = [self._truths[index] for index in of_class]
            labels = np.concatenate([truth.labels for truth in chosen])
            if labels.all() or not labels.any():
                continue  # nothing to rank
            measured = tuple(
                Measurement(_frame_metrics(chosen, [scores[index] for index in of_class]))
                for scores in self._scored
            )
            yield Row(name, "class", measured, n_videos=classes.count(name))

    def evaluation(self, rows: Sequence[Row], left_out: Sequence[LeftOut]) -> Evaluation:
        """All lines and what they are of."""
        labels = self._labels()
        return Evaluation(
            trained_on=self._checkpoints[0].dataset,
            dataset=self._dataset.name,
            n_videos=len(self._truths),
            n_absent=len(self._dataset.split("test")) - len(self._truths),
            n_frames=labels.size,
            n_anomalous=int(labels.sum()),
            labels_sha256=hashlib.sha256(labels.tobytes()).hexdigest(),
            rule=self._rule,
            seeds=tuple(checkpoint.seed for checkpoint in self._checkpoints),
            is_pretrained=self._checkpoints[0].is_pretrained,
            rows=tuple(rows),
            left_out=tuple(left_out),
            ground_truth=self._ground_truth,
        )

    def _labels(self) -> NDArray[np.bool_]:
        return np.concatenate([truth.labels for truth in self._truths])

    def _scores(
        self,
        model: AnomalyModel,
        features: Features,
        n_labels: int,
        context: dict[str, NDArray[np.float32]] | None = None,
    ) -> NDArray[np.float32]:
        """(n_labels,) the scores of one video."""
        per_snippet = snippet_scores(model, features, device=self._device, context=context)
        return _cut_or_continue(scores_of_video(per_snippet, features).per_frame, n_labels)

    def _measurement(self, scores: FrameScores) -> Measurement:
        """All metrics of scores in [0, 1]."""
        videos = [
            ScoredVideo(
                scores=of_video,
                labels=truth.labels,
                timestamps=truth.timestamps,
                duration_seconds=truth.duration_seconds,
                is_abnormal=truth.entry.label == 1,
            )
            for truth, of_video in zip(self._truths, scores, strict=True)
        ]
        return Measurement(
            frames=_frame_metrics(self._truths, scores),
            alarms=alarm_metrics(videos, self._rule),
            curves=curves(np.concatenate(scores), self._labels()),
            jackknifed=self._jackknife(scores) if self._is_compared else None,
        )

    def _jackknife(self, scores: FrameScores) -> JackknifedAuc:
        return jackknife_auc(scores, [truth.labels for truth in self._truths])


def _cut_or_continue(per_frame: NDArray[Value], n_labels: int) -> NDArray[Value]:
    """Values of as many frames as have labels; beyond the end the last value is repeated."""
    return per_frame[np.minimum(np.arange(n_labels), len(per_frame) - 1)]


def _frame_metrics(
    truths: Sequence[VideoTruth], scores: Sequence[NDArray[np.float32]]
) -> FrameMetrics:
    return frame_metrics(
        np.concatenate(scores),
        np.concatenate([truth.labels for truth in truths]),
        np.concatenate([np.full(len(t.labels), t.entry.label == 1) for t in truths]),
    )
