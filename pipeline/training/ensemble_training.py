"""From a trained network to an ensemble: cross-validation, the other networks, and the fit."""

import copy
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from extractors.errors import LookaroundError
from models.ensemble import Ensemble
from models.interface import AnomalyModel, BagBatch, Output
from pipeline.atomic import replacing
from pipeline.config import TrainConfig, with_seed
from pipeline.evaluation.metrics import ranking_auc
from pipeline.progress import Progress, ReportProgress
from pipeline.scoring.scorer import extractor_of_run
from pipeline.training.batches import BagSet
from pipeline.training.cross_validation import (
    can_cross_validate,
    fuse,
    matched_folds,
    video_scores,
)
from pipeline.training.training_loop import DivergedError, trained

logger = logging.getLogger(__name__)

# Networks that an ensemble averages, which differ in their seed: `pipeline/experiments/RESULTS.md`
# has what they gain over one.
N_NETWORKS = 5

STILL_GRAY = 128
STILL_SIDE_PX = 256


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """What cross-validation said of one member of an ensemble.

    Attributes:
        name: As in `Ensemble.members`.
        held_out_auc: How well it ranks training videos that it was not fitted to, in [0, 1].
        weight: Of its standardized logits in the sum.
    """

    name: str
    held_out_auc: float
    weight: float


def fit_ensemble(
    network: AnomalyModel,
    config: TrainConfig,
    bags: BagSet,
    device: torch.device,
    *,
    still_flow: Tensor | None,
    report: ReportProgress,
) -> tuple[AnomalyModel, list[MemberRecord]]:
    """Put trained networks beside simple scorers, with weights from cross-validation.

    A network is trained on each fold's other videos, and `N_NETWORKS` - 1 more on all videos, all
    with the same settings. No test video is read.

    Args:
        network: Trained on all of `bags`, in evaluation mode: the first of those averaged.
        config: Its settings.
        bags: The training videos.
        device: Where to train.
        still_flow: As from `still_flow_features`.
        report: Called with the progress, and at the end with what each member is worth.

    Returns:
        The ensemble in evaluation mode, on the CPU, and a record of each member. With fewer than
        two videos of a class there is nothing to validate on: the network, and no record.

    Raises:
        DivergedError: If a loss becomes infinite or NaN; it names the fold or the network.
    """
    labels = bags.labels.numpy()
    if not can_cross_validate(labels):
        return network, []
    folds = matched_folds(_appearances(bags), labels, seed=config.seed)
    n_to_train = int(folds.max()) + N_NETWORKS
    networks = _Networks(f"ensemble of seed {config.seed}", n_to_train, device, report)
    logits = _held_out_logits(networks, config, bags, folds, still_flow)
    fusion = fuse(logits, labels)
    averaged = [network]
    for index in range(1, N_NETWORKS):
        other = with_seed(config, _derived_seed(config.seed, index))
        averaged.append(networks.train(f"network {index + 1} of {N_NETWORKS}", other, bags))
    ensemble = _with_scorers(averaged, bags, still_flow)
    scales = torch.from_numpy(fusion.scales).clone()
    scales[0] *= _spread_of_mean(ensemble.networks, bags)
    ensemble.fuse(
        weights=torch.from_numpy(fusion.weights),
        bias=fusion.bias,
        offsets=torch.from_numpy(fusion.offsets),
        scales=scales,
    )
    of_videos = np.stack([video_scores(of_video) for of_video in logits])
    aucs = [ranking_auc(of_member, labels == 1) for of_member in of_videos.T]
    members = [
        MemberRecord(*member)
        for member in zip(ensemble.members, aucs, fusion.weights.tolist(), strict=True)
    ]
    networks.end(members)
    return ensemble, members


class _Networks:
    """Trains the networks of an ensemble one after the other, and reports which."""

    def __init__(
        self, stage: str, n_to_train: int, device: torch.device, report: ReportProgress
    ) -> None:
        self._stage, self._n_to_train, self._n_trained = stage, n_to_train, 0
        self._device, self._report = device, report

    def train(self, name: str, config: TrainConfig, bags: BagSet) -> AnomalyModel:
        self._report(
            Progress(self._stage, self._n_trained, self._n_to_train, "networks", detail=name)
        )
        try:
            network = trained(config, bags, self._device)
        except DivergedError as error:
            raise DivergedError(f"{self._stage}, {name}: {error}") from error
        self._n_trained += 1
        return network

    def end(self, members: Sequence[MemberRecord]) -> None:
        message = _describe(self._stage, members)
        self._report(
            Progress(self._stage, self._n_trained, self._n_to_train, "networks", message=message)
        )


def _held_out_logits(
    networks: _Networks,
    config: TrainConfig,
    bags: BagSet,
    folds: NDArray[np.int64],
    still_flow: Tensor | None,
) -> list[NDArray[np.float64]]:
    """Of each video (n_snippets, M), by members that were fitted to the videos of other folds."""
    held_out: dict[int, NDArray[np.float64]] = {}
    n_folds = int(folds.max()) + 1
    for fold in range(n_folds):
        others = bags.subset(np.flatnonzero(folds != fold))
        network = networks.train(f"fold {fold + 1} of {n_folds}", config, others)
        fitted = _with_scorers([network], others, still_flow)
        for video in np.flatnonzero(folds == fold).tolist():
            held_out[video] = _member_logits(fitted, bags, video)
    return [held_out[video] for video in range(len(bags.video_ids))]


@torch.inference_mode()
def _spread_of_mean(networks: nn.ModuleList, bags: BagSet) -> float:
    """How much less the mean logits of networks vary than those of one, on the training videos.

    Cross-validation has weighed the logits of single networks, divided by their deviation.

    Args:
        networks: On the CPU.
        bags: The training videos.

    Returns:
        The deviation of the mean logits by the mean deviation, in (0, 1]; 1 where nothing varies.
    """
    of_videos = []
    for video in range(len(bags.video_ids)):
        batch = _first_crops(bags, np.array([video]))
        outputs: list[Output] = [network(batch.features, batch.mask) for network in networks]
        of_videos.append(torch.stack([output.logits[0].double() for output in outputs]))
    logits = torch.cat(of_videos, dim=1)  # (n_networks, snippets of all videos)
    of_mean = float(logits.mean(dim=0).std(correction=0))
    return of_mean / float(logits.std(dim=1, correction=0).mean()) if of_mean else 1.0


def _derived_seed(seed: int, index: int) -> int:
    """The seed of a further network, which differs between runs and between networks."""
    return int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0] >> 1)


def _describe(stage: str, members: Sequence[MemberRecord]) -> str:
    described = [
        f"{member.name} {100 * member.held_out_auc:.0f} x {member.weight:.2f}" for member in members
    ]
    return f"{stage}: AUC over held-out videos x weight: {', '.join(described)}"


def still_flow_features(
    bags: BagSet,
    device: torch.device,
    *,
    weights: str | None = None,
    flow_weights: str | None = None,
) -> Tensor | None:
    """Compute the flow features of a gray video that does not move.

    Where they cannot be had a warning in the log says why.

    Args:
        bags: The training videos.
        device: Where to compute.
        weights: The extractor's, a name or a path; None for the name in the provenance.
        flow_weights: The same for a flow method that is a network.

    Returns:
        (D of the flow stream,) float32 on the CPU; None where there is no flow or no extractor, as
        for features that were imported.

    Raises:
        LookaroundError: If weights are named and the extractor cannot be had with them.
    """
    flow_dim = dict(bags.stream_dims).get("flow")
    if flow_dim is None:
        return None
    try:
        extractor = extractor_of_run(
            bags.provenance, weights=weights, flow_weights=flow_weights, device=device
        )
    except LookaroundError as error:
        if weights or flow_weights:
            raise
        logger.warning("the distance from a still video is left out (%s)", error)
        return None
    shape = (extractor.snippet_len + 1, STILL_SIDE_PX, STILL_SIDE_PX, 3)
    frames = torch.full(shape, STILL_GRAY, dtype=torch.uint8)
    features = extractor.embed([extractor.prepare(frames)])["flow"][0, 0].float().cpu()
    if len(features) != flow_dim:
        logger.warning(
            "the distance from a still video is left out (the training features have %d flow "
            "columns, the extractor that they name gives %d)",
            *(flow_dim, len(features)),
        )
        return None
    return features


def _appearances(bags: BagSet) -> NDArray[np.float64]:
    """(n_videos, D of the first stream) the mean features of each video, standardized."""
    width = bags.stream_dims[0][1]
    means = []
    for video in range(len(bags.video_ids)):
        batch = _first_crops(bags, np.array([video]))
        means.append(batch.features[0, :, :width].double().mean(dim=0).numpy())
    std, mean = torch.std_mean(bags.snippets[:, :width].double(), dim=0, correction=0)
    std[std == 0] = 1
    standardized: NDArray[np.float64] = (np.stack(means) - mean.numpy()) / std.numpy()
    return standardized


def _first_crops(bags: BagSet, videos: NDArray[np.int64]) -> BagBatch:
    """The bag of each video's first crop, which is the center, on the CPU."""
    return bags.batch(videos, np.zeros(len(videos))).to("cpu")


def _with_scorers(
    networks: Sequence[AnomalyModel], bags: BagSet, still_flow: Tensor | None
) -> Ensemble:
    on_cpu = [copy.deepcopy(network).cpu() for network in networks]
    ensemble = Ensemble(on_cpu, has_motion=still_flow is not None).eval().requires_grad_(False)
    ensemble.fit_scorers(_first_crops(bags, np.arange(len(bags.video_ids))), still_flow)
    return ensemble


@torch.inference_mode()
def _member_logits(ensemble: Ensemble, bags: BagSet, video: int) -> NDArray[np.float64]:
    """(n_snippets, M) of one video's first crop."""
    batch = _first_crops(bags, np.array([video]))
    logits, _ = ensemble.member_logits(batch.features, batch.mask)
    of_video: NDArray[np.float64] = logits[0].double().numpy()
    return of_video


def write_members(path: Path, members: Sequence[MemberRecord]) -> None:
    """Write the records as JSON; the file appears whole or not at all."""
    values = [asdict(member) for member in members]
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
