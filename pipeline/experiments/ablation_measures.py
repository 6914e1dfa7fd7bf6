"""What an ablation measures of a trained model: how well it ranks, and what is inside it.

Every measure but `parameters` reads the frame labels of the test videos, and none chooses anything.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.cbcg import Cbcg, CbcgOutput, cluster_batch
from models.clav_como import ClavComo, ClavComoOutput, ImplicitClassActivation
from models.interface import AnomalyModel, Output
from models.la_net import LaNet, LaNetOutput
from pipeline.evaluation.baselines import context_of, derangement
from pipeline.evaluation.measure import N_CONTEXT_SHUFFLES
from pipeline.evaluation.metrics import frame_metrics, silhouette
from pipeline.evaluation.split_videos import TestVideo
from pipeline.scoring.frame_scores import scores_of_video
from pipeline.scoring.snippet_scores import crop_outputs, mean_over_crops
from pipeline.training.batches import BagSet, draw_batches

CropOutputs = list[Output]  # of one video, one for each crop
FALSE_ALARM_SCORE = 0.5  # a frame of a normal video at or above this is a false alarm


def measure(
    model: AnomalyModel, videos: Sequence[TestVideo], bags: BagSet, device: torch.device
) -> dict[str, float]:
    """Measure a model on test videos.

    Args:
        model: In evaluation mode, on `device`.
        videos: Of the test split, two or more, normal and anomalous ones.
        bags: What the model was trained on.
        device: Where the model is.

    Returns:
        By name, as in `pipeline.experiments.ablate.COLUMNS`; which ones depends on the model.
    """
    outputs = _outputs(model, videos, device)
    scores = _per_frame(videos, _scores(outputs))
    metrics = frame_metrics(scores, *_labels(videos))
    is_false = scores[~_labels(videos)[1]] >= FALSE_ALARM_SCORE
    values = {
        "AUC": metrics.auc,
        "AUC abnormal": metrics.auc_abnormal,
        "false alarms": float(is_false.mean()),
    }
    if isinstance(model, ClavComo):
        values |= _of_clav_como(model, outputs, videos, device)
    elif isinstance(model, LaNet):
        values |= _of_la_net(outputs, videos)
    elif isinstance(model, Cbcg):
        values |= _of_cbcg(model, outputs, videos, bags, device)
    return values | {"parameters": sum(p.numel() for p in model.parameters())}


def _of_clav_como(
    model: ClavComo, outputs: list[CropOutputs], videos: Sequence[TestVideo], device: torch.device
) -> dict[str, float]:
    values = {"gap": _relative_gap(videos, [[o.embeddings for o in crops] for crops in outputs])}
    gates = [
        [o.gate[..., 1] for o in crops if isinstance(o, ClavComoOutput) and o.gate is not None]
        for crops in outputs
    ]
    if all(gates):
        values["gate AUC"] = _auc(videos, gates)
        even = copy.deepcopy(model)
        assert isinstance(even.ica, ImplicitClassActivation)
        nn.init.zeros_(even.ica.gate.weight)
        nn.init.zeros_(even.ica.gate.bias)
        values["even gate"] = _auc(videos, _scores(_outputs(even, videos, device)))
    if model.config.relation == "como":
        orders = [
            derangement(len(videos), np.random.default_rng(shuffle))
            for shuffle in range(N_CONTEXT_SHUFFLES)
        ]
        shuffled = [_outputs(model, videos, device, contexts=order) for order in orders]
        values["context shuffled"] = float(
            np.mean([_auc(videos, _scores(outputs)) for outputs in shuffled])
        )
    return values


def _of_la_net(outputs: list[CropOutputs], videos: Sequence[TestVideo]) -> dict[str, float]:
    """How far the largest steps of scores differ by class, and how they go with the features'."""
    largest: dict[int, list[float]] = {0: [], 1: []}
    correlations = []
    for crops, video in zip(outputs, videos, strict=True):
        score_steps = torch.cat([output.scores for output in crops]).diff(dim=1).abs()
        attended = torch.cat([o.attended for o in crops if isinstance(o, LaNetOutput)])
        directions = nn.functional.normalize(attended, dim=2)
        feature_steps = 1 - (directions[:, 1:] * directions[:, :-1]).sum(dim=2)
        if score_steps.shape[1] < 2:
            continue
        largest[video.entry.label].append(float(score_steps.amax(dim=1).mean()))
        if video.entry.label == 1:
            both = torch.stack([score_steps.mean(dim=0), feature_steps.mean(dim=0)])
            correlations.append(float(torch.corrcoef(both)[0, 1].nan_to_num()))
    return {
        "step gap": float(np.mean(largest[1]) - np.mean(largest[0])),
        "step correlation": float(np.mean(correlations)),
    }


def _of_cbcg(
    model: Cbcg,
    outputs: list[CropOutputs],
    videos: Sequence[TestVideo],
    bags: BagSet,
    device: torch.device,
) -> dict[str, float]:
    regression, clusters, directions = [], [], []
    for crops in outputs:
        of_video = [output for output in crops if isinstance(output, CbcgOutput)]
        regression.append([output.regression_logits.sigmoid() for output in of_video])
        clusters.append(
            [o.cluster_logits.sigmoid() for o in of_video if o.cluster_logits is not None]
        )
        directions.append([o.directions for o in of_video if o.directions is not None])
    values = {"regression AUC": _auc(videos, regression)}
    if all(clusters):
        values["cluster AUC"] = _auc(videos, clusters)
        is_anomalous = np.concatenate([_per_snippet(video) for video in videos])
        values["silhouette"] = silhouette(_stacked(directions), is_anomalous)
        values["anomalous share"] = _anomalous_share(model, bags, device)
    return values


@torch.inference_mode()
def _anomalous_share(model: Cbcg, bags: BagSet, device: torch.device) -> float:
    """Share of the snippets of anomalous training bags that clustering calls anomalous."""
    half = min(bags.n_anomalous, len(bags.video_ids) - bags.n_anomalous)
    (batch,) = draw_batches(bags, seed=0, first_step=0, n_steps=1, bags_per_class=half)
    batch = batch.to(device)
    output = model(batch.features, batch.mask)
    assert isinstance(output, CbcgOutput)
    assert output.directions is not None
    joins = cluster_batch(
        output.directions,
        output.regression_logits,
        batch.mask,
        batch.labels,
        top_k_divisor=model.config.top_k_divisor,
        max_fraction=model.config.max_fraction,
    )
    return float(joins.sum() / batch.mask[batch.labels == 1].sum())


def _outputs(
    model: AnomalyModel,
    videos: Sequence[TestVideo],
    device: torch.device,
    *,
    contexts: NDArray[np.int64] | None = None,
) -> list[CropOutputs]:
    """Of each video one output for each crop; `contexts` says whose context each one is given."""
    return [
        crop_outputs(
            model,
            video.features,
            device=device,
            context=None
            if contexts is None
            else context_of(videos[contexts[index]].features, video.features.n_snippets),
        )
        for index, video in enumerate(videos)
    ]


def _labels(videos: Sequence[TestVideo]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of each frame: whether it is anomalous, and whether its video is."""
    return (
        np.concatenate([video.labels for video in videos]),
        np.concatenate([np.full(len(v.labels), v.entry.label == 1) for v in videos]),
    )


def _per_frame(
    videos: Sequence[TestVideo], values: Sequence[Sequence[Tensor]]
) -> NDArray[np.float32]:
    """(n_frames,) of all videos, from (1, n_snippets) of each crop of each, in [0, 1]."""
    return np.concatenate(
        [
            scores_of_video(mean_over_crops(each), video.features).per_frame
            for video, each in zip(videos, values, strict=True)
        ]
    )


def _scores(outputs: Sequence[CropOutputs]) -> list[list[Tensor]]:
    return [[output.scores for output in crops] for crops in outputs]


def _auc(videos: Sequence[TestVideo], values: Sequence[Sequence[Tensor]]) -> float:
    return frame_metrics(_per_frame(videos, values), *_labels(videos)).auc


def _per_snippet(video: TestVideo) -> NDArray[np.bool_]:
    """(n_snippets,) True where at least half of a snippet's own frames are anomalous."""
    features = video.features
    starts = np.arange(features.n_snippets) * features.snippet_len
    # A dropped tail is in no snippet.
    stop = min(features.n_frames, features.n_snippets * features.snippet_len)
    n_anomalous = np.add.reduceat(video.labels[:stop].astype(np.int64), starts)
    return 2 * n_anomalous >= np.diff(np.append(starts, stop))


def _stacked(vectors: Sequence[Sequence[Tensor]]) -> NDArray[np.float32]:
    """(n_snippets of all videos, E) from (1, n_snippets, E) of each crop: the mean over crops."""
    means = [torch.cat(list(crops)).mean(dim=0) for crops in vectors]
    stacked: NDArray[np.float32] = torch.cat(means).cpu().numpy()
    return stacked


def _relative_gap(videos: Sequence[TestVideo], embeddings: Sequence[Sequence[Tensor]]) -> float:
    """How much farther anomalous snippets are from the normal centre than normal ones are.

    The ratio of mean squared distances between embeddings of length 1; 1 is no gap.
    """
    directions = _stacked(
        [[nn.functional.normalize(e, dim=2) for e in crops] for crops in embeddings]
    )
    is_anomalous = np.concatenate([_per_snippet(video) for video in videos])
    center = directions[~is_anomalous].mean(axis=0)
    distances = np.square(directions - center).sum(axis=1)
    return float(distances[is_anomalous].mean() / distances[~is_anomalous].mean())
