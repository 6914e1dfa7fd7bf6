"""The frame scores of models on a test split beside its ground truth, and the metrics of scores.

Scores and labels are kept; features are read from their files one video at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from extractors.features import Features
from models.interface import AnomalyModel
from pipeline.evaluation.alarms import ScoredVideo, alarm_metrics
from pipeline.evaluation.metrics import (
    MACRO_AUC_DATASETS,
    FrameMetrics,
    curves,
    frame_metrics,
    macro_auc,
)
from pipeline.evaluation.paired_jackknife import JackknifedAuc, jackknife_auc
from pipeline.evaluation.results import Measurement
from pipeline.evaluation.split_videos import EvaluatedSplit, VideoTruth, check_both_classes
from pipeline.scoring.events import EventRule, n_seconds
from pipeline.scoring.frame_scores import scores_of_video
from pipeline.scoring.snippet_scores import Streams, check_streams, snippet_scores, stream_dims_of

Value = TypeVar("Value", np.float32, np.float64)
FrameScores = list[NDArray[np.float32]]  # per video (n_frames,)


@dataclass(frozen=True, slots=True, eq=False)
class ScoredSplit:
    """A test split, scored by a model that was trained with one or more seeds.

    Attributes:
        split: Reads features again.
        truths: Of each video.
        models: One per seed, on `device`.
        device: Where they are.
        per_seed: Of each model the scores of all videos.
        rule: When a score is an event.
        is_compared: Whether AUCs are compared with each other.
    """

    split: EvaluatedSplit
    truths: tuple[VideoTruth, ...]
    models: Sequence[AnomalyModel]
    device: torch.device
    per_seed: tuple[FrameScores, ...]
    rule: EventRule
    is_compared: bool

    @property
    def labels(self) -> NDArray[np.bool_]:
        """Of the frames of all videos."""
        return np.concatenate([truth.labels for truth in self.truths])

    def score(
        self,
        models: Sequence[AnomalyModel],
        context_of_video: Callable[[int, Features], Streams] | None = None,
    ) -> tuple[FrameScores, ...]:
        """Score all videos again; each features file is read once for all models.

        Args:
            models: On `device`.
            context_of_video: From the index of a video and its features, what the models' context
                path reads instead of them.
        """
        scored: tuple[FrameScores, ...] = tuple([] for _ in models)
        for index, truth in enumerate(self.truths):
            features = self.split.features(index)
            context = None if context_of_video is None else context_of_video(index, features)
            for model, scores in zip(models, scored, strict=True):
                scores.append(
                    _frame_scores(model, features, truth.labels.size, self.device, context)
                )
        return scored

    def frame_metrics(self, scores: FrameScores) -> FrameMetrics:
        """Metrics that any scores have."""
        return frame_metrics_of(self.truths, scores, self.split.dataset.name)

    def jackknife(self, scores: FrameScores) -> JackknifedAuc:
        """The AUC with and without each video."""
        return jackknife_auc(scores, [truth.labels for truth in self.truths])

    def measurement(self, scores: FrameScores) -> Measurement:
        """All metrics of scores in [0, 1]."""
        videos = [
            ScoredVideo(
                scores=of_video,
                labels=truth.labels,
                timestamps=truth.timestamps,
                duration_seconds=truth.duration_seconds,
                is_abnormal=truth.entry.label == 1,
            )
            for truth, of_video in zip(self.truths, scores, strict=True)
        ]
        return Measurement(
            frames=self.frame_metrics(scores),
            alarms=alarm_metrics(videos, self.rule),
            curves=curves(np.concatenate(scores), self.labels),
            jackknifed=self.jackknife(scores) if self.is_compared else None,
        )


def score_split(
    split: EvaluatedSplit,
    models: Sequence[AnomalyModel],
    device: torch.device,
    *,
    rule: EventRule,
    is_compared: bool,
) -> ScoredSplit:
    """Read a test split and score it with each model.

    Args:
        split: Its videos.
        models: One per seed, in evaluation mode, on `device`.
        device: Where they are.
        rule: When a score is an event.
        is_compared: Whether AUCs will be compared with each other.

    Raises:
        DatasetError: As iterating `split`, and if the frames of all videos are of one class.
        FeatureFileError: As iterating `split`, and if features have other streams than the models.
    """
    truths: list[VideoTruth] = []
    per_seed: tuple[FrameScores, ...] = tuple([] for _ in models)
    for video in split:
        features = video.features
        check_streams(models[0], stream_dims_of(features), split.path(video.entry))
        n_labels = video.labels.size
        truths.append(
            VideoTruth(
                video.entry,
                video.source,
                video.labels,
                timestamps=cut_or_continue(features.timestamps, n_labels),
                n_frames=features.n_frames,
                duration_seconds=n_seconds(features.timestamps),
                snippet_len=features.snippet_len,
            )
        )
        for model, scores in zip(models, per_seed, strict=True):
            scores.append(_frame_scores(model, features, n_labels, device))
    check_both_classes(split.dataset.name, [truth.labels for truth in truths])
    return ScoredSplit(split, tuple(truths), models, device, per_seed, rule, is_compared)


def mean_over_seeds(per_seed: Sequence[FrameScores]) -> FrameScores:
    """The mean scores of each video."""
    return [np.mean(of_seeds, axis=0) for of_seeds in zip(*per_seed, strict=True)]


def cut_or_continue(per_frame: NDArray[Value], n_labels: int) -> NDArray[Value]:
    """Values of as many frames as have labels; beyond the end the last value is repeated."""
    return per_frame[np.minimum(np.arange(n_labels), len(per_frame) - 1)]


def frame_metrics_of(
    truths: Sequence[VideoTruth], scores: Sequence[NDArray[np.float32]], dataset: str
) -> FrameMetrics:
    """Frame-level metrics of some videos; the macro AUC only where the dataset is reported by it.

    Args:
        truths: Of each video.
        scores: Of each video (n_labels,).
        dataset: Whose videos they are.
    """
    labels = [truth.labels for truth in truths]
    pooled = frame_metrics(
        np.concatenate(scores),
        np.concatenate(labels),
        np.concatenate([np.full(len(t.labels), t.entry.label == 1) for t in truths]),
    )
    if dataset not in MACRO_AUC_DATASETS:
        return pooled
    return replace(pooled, auc_macro=macro_auc(scores, labels))


def _frame_scores(
    model: AnomalyModel,
    features: Features,
    n_labels: int,
    device: torch.device,
    context: Streams | None = None,
) -> NDArray[np.float32]:
    """(n_labels,) the scores of one video."""
    per_snippet = snippet_scores(model, features, device=device, context=context)
    return cut_or_continue(scores_of_video(per_snippet, features).per_frame, n_labels)
