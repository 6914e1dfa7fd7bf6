"""What an ablation measures of a trained model: how well it ranks, and what is inside it.

Every measure but `parameters` reads the frame labels of the test videos, and none chooses anything.

The AUCs of the model and of its controls are of the scores that `pipeline evaluate` measures: a
video longer than the model's `window_len` is scored in windows. The AUCs of its parts and its
diagnostics are of its outputs for each video as a whole.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from models.interface import AnomalyModel, BagBatch, LabeledOutputs, Output
from pipeline.evaluation.baselines import context_of, permutation_without_fixed_points
from pipeline.evaluation.measure import N_CONTEXT_SHUFFLES
from pipeline.evaluation.metrics import frame_metrics
from pipeline.evaluation.split_videos import SplitVideo
from pipeline.scoring.frame_scores import scores_of_video
from pipeline.scoring.snippet_scores import crop_outputs, mean_over_crops, snippet_scores
from pipeline.training.batches import BagSet, draw_batches

SnippetScores = NDArray[np.float32]  # of one video (n_snippets,)
FrameScores = list[NDArray[np.float32]]  # of each video (n_frames,)
FALSE_ALARM_SCORE = 0.5  # a frame of a normal video at or above this is a false alarm


def measure(
    model: AnomalyModel, videos: Sequence[SplitVideo], bags: BagSet, device: torch.device
) -> tuple[dict[str, float], FrameScores]:
    """Measure a model on test videos.

    Args:
        model: In evaluation mode, on `device`.
        videos: Of the test split, two or more, normal and anomalous ones.
        bags: What the model was trained on.
        device: Where the model is.

    Returns:
        By name: the AUCs of the model, of its parts and of its controls, its false alarms, its own
        diagnostics and its number of parameters. And the model's scores of all frames.
    """
    scores = frame_scores(videos, _snippet_scores(model, videos, device))
    values = measure_scores(videos, scores)
    outputs = [crop_outputs(model, video.features, device=device) for video in videos]
    parts = [[model.part_scores(output) for output in crops] for crops in outputs]
    for name in parts[0][0]:
        of_part = [mean_over_crops([part[name] for part in crops]) for crops in parts]
        values[f"{name} AUC"] = _auc(videos, of_part)
    for name, control in model.controls().items():
        values[name] = _auc(videos, _snippet_scores(control, videos, device))
    if model.accepts_context:
        values["context shuffled"] = _shuffled_context_auc(model, videos, device)
    labeled = [
        LabeledOutputs(crops, video.entry.label, torch.from_numpy(_per_snippet(video)))
        for crops, video in zip(outputs, videos, strict=True)
    ]
    values |= model.diagnostics(labeled, _on_training_bags(model, bags, device))
    return values | {"parameters": sum(p.numel() for p in model.parameters())}, scores


def measure_scores(videos: Sequence[SplitVideo], per_frame: FrameScores) -> dict[str, float]:
    """AUCs and false alarms of scores.

    Args:
        videos: Of the test split.
        per_frame: Of each video (n_frames,) in [0, 1].
    """
    scores = np.concatenate(per_frame)
    labels, is_abnormal = _labels(videos)
    metrics = frame_metrics(scores, labels, is_abnormal)
    return {
        "AUC": metrics.auc,
        "AUC abnormal": metrics.auc_abnormal,
        "false alarms": float((scores[~is_abnormal] >= FALSE_ALARM_SCORE).mean()),
    }


def frame_scores(
    videos: Sequence[SplitVideo], per_snippet: Sequence[NDArray[np.float32]]
) -> FrameScores:
    """Give snippet scores to frames.

    Args:
        videos: Of the test split.
        per_snippet: Of each video (n_snippets,) in [0, 1].
    """
    return [
        scores_of_video(each, video.features).per_frame
        for video, each in zip(videos, per_snippet, strict=True)
    ]


def _shuffled_context_auc(
    model: AnomalyModel, videos: Sequence[SplitVideo], device: torch.device
) -> float:
    """The AUC where each video is scored with the context of another, mean over shuffles."""
    orders = [
        permutation_without_fixed_points(len(videos), np.random.default_rng(shuffle))
        for shuffle in range(N_CONTEXT_SHUFFLES)
    ]
    aucs = [
        _auc(videos, _snippet_scores(model, videos, device, contexts=order)) for order in orders
    ]
    return float(np.mean(aucs))


@torch.inference_mode()
def _on_training_bags(
    model: AnomalyModel, bags: BagSet, device: torch.device
) -> tuple[Output, BagBatch]:
    """The model's output for a balanced batch of as many training bags as there are."""
    half = min(bags.n_anomalous, len(bags.video_ids) - bags.n_anomalous)
    (batch,) = draw_batches(bags, seed=0, first_step=0, n_steps=1, bags_per_class=half)
    batch = batch.to(device)
    return model(batch.features, batch.mask), batch


def _snippet_scores(
    model: AnomalyModel,
    videos: Sequence[SplitVideo],
    device: torch.device,
    *,
    contexts: NDArray[np.int64] | None = None,
) -> list[SnippetScores]:
    """Of each video its scores; `contexts` says whose context each one is given."""
    return [
        snippet_scores(
            model,
            video.features,
            device=device,
            context=None
            if contexts is None
            else context_of(videos[contexts[index]].features, video.features.n_snippets),
        )
        for index, video in enumerate(videos)
    ]


def _labels(videos: Sequence[SplitVideo]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of each frame: whether it is anomalous, and whether its video is."""
    return (
        np.concatenate([video.labels for video in videos]),
        np.concatenate([np.full(len(v.labels), v.entry.label == 1) for v in videos]),
    )


def _auc(videos: Sequence[SplitVideo], per_snippet: Sequence[SnippetScores]) -> float:
    """The AUC over frames of the snippet scores of each video."""
    scores = np.concatenate(frame_scores(videos, per_snippet))
    return frame_metrics(scores, *_labels(videos)).auc


def _per_snippet(video: SplitVideo) -> NDArray[np.bool_]:
    """(n_snippets,) True where at least half of a snippet's own frames are anomalous."""
    features = video.features
    starts = np.arange(features.n_snippets) * features.snippet_len
    # A dropped tail is in no snippet.
    stop = min(features.n_frames, features.n_snippets * features.snippet_len)
    n_anomalous = np.add.reduceat(video.labels[:stop].astype(np.int64), starts)
    return 2 * n_anomalous >= np.diff(np.append(starts, stop))
