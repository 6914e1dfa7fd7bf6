"""CBCG: cross-batch clustering guidance.

Cao et al., "Weakly Supervised Video Anomaly Detection Based on Cross-Batch Clustering Guidance",
ICME 2023, arXiv:2212.08506. This is a reconstruction from the abstract: no code was published and
the text was not at hand, so no layer, loss or value below is known to be the paper's.

Known from the abstract: a clustering branch whose loss makes normal and anomalous snippets of a
batch two distinct clusters; clustering results of earlier batches, which make up for the imbalance
of a batch; and snippet scores that the clustering makes more accurate.

Paper is silent: every size, loss, weight and default in this file; the comments that begin so name
the choices that a reader might expect to be otherwise.

`pipeline/experiments/RESULTS.md` has what `pipeline ablate --model cbcg` showed.
"""

# Unlike the paper: features are standardized first, and a model never sees crops, so that each crop
# of a training video is a bag with a loss of its own.

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.clustering import cluster_batch, cluster_centers, cluster_loss, guidance
from models.diagnostics import per_snippet, silhouette
from models.interface import (
    AnomalyModel,
    BagBatch,
    LabeledOutputs,
    ModelConfig,
    Output,
    check_bags,
    check_fields,
)
from models.layers import in_float32
from models.losses import mean_score_bce, smoothness, sparsity, topk_weights


@dataclass(frozen=True, slots=True)
class CbcgConfig(ModelConfig):
    """Sizes, switches and loss weights of CBCG.

    Attributes:
        hidden_dim: Width of the encoder.
        embedding_dim: E, width of what both branches read.
        cluster_dim: Width in which snippets are clustered.
        dropout: Of the encoder, in [0, 1).
        top_k_divisor: The bag loss and the clustering's start take the k = n // top_k_divisor
            highest of a bag's n snippets, at least one.
        max_fraction: At most this fraction of an anomalous bag joins the anomalous cluster, its
            highest snippet first. That one always joins; 1 sets no bound.
        temperature: Of the cluster probability, in cosines.
        memory_len: Earlier batches whose centers are kept.
        memory_fraction: Of the memory in the centers of a batch; 0 clusters each batch for itself.
        memory_start: Steps before the memory is first used.
        guide_start: Steps before the cluster probability first guides the scores.
        guide_confidence: It guides where it is above this or below 1 minus this.
        fuse_scores: Whether the score is the mean of both branches' or the regression's alone.
        cluster_weight: 0 leaves the clustering branch out, and with it guidance and fusing.
        guide_weight: 0 leaves guidance out.
        smoothness_weight: Of squared steps between scores within anomalous bags.
        sparsity_weight: Of the mean score of anomalous bags.
    """

    hidden_dim: int = 512
    embedding_dim: int = 128
    cluster_dim: int = 64
    dropout: float = 0.6
    top_k_divisor: int = 10
    max_fraction: float = 0.25
    temperature: float = 0.1
    memory_len: int = 16
    memory_fraction: float = 0.5
    memory_start: int = 100
    guide_start: int = 500
    guide_confidence: float = 0.8
    fuse_scores: bool = True
    cluster_weight: float = 0.1
    guide_weight: float = 0.1
    smoothness_weight: float = 8e-4
    sparsity_weight: float = 8e-5

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        sizes = ("hidden_dim", "embedding_dim", "cluster_dim")
        weights = ("cluster", "guide", "smoothness", "sparsity")
        check_fields(
            self,
            at_least_1=(*sizes, "top_k_divisor", "memory_len"),
            at_least_0=("memory_start", "guide_start", *(f"{weight}_weight" for weight in weights)),
            below_1=("dropout", "memory_fraction"),
        )
        if not 0 < self.max_fraction <= 1:
            raise ValueError(f"max_fraction must be in (0, 1], instead got {self.max_fraction}")
        if not 1e-3 <= self.temperature <= 1e3:
            raise ValueError(
                f"temperature must be in [0.001, 1000], instead got {self.temperature}"
            )
        if not 0.5 <= self.guide_confidence < 1:
            raise ValueError(
                f"guide_confidence must be in [0.5, 1), instead got {self.guide_confidence}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class CbcgOutput(Output):
    """What CBCG says about a batch of bags; `logits` are those of the final score.

    Attributes:
        regression_logits: (B, T) of the regression branch.
        directions: (B, T, cluster_dim) of length 1, from the clustering branch; None without it.
        cluster_logits: (B, T) of the cluster probability at the centers of the memory; 0 while
            that is empty, None without the branch.
    """

    regression_logits: Tensor
    directions: Tensor | None
    cluster_logits: Tensor | None


class Cbcg(AnomalyModel):
    """An encoder, a branch that scores snippets, and a branch that clusters them.

    Attributes:
        memory: (memory_len, 2, cluster_dim) the normal and the anomalous center of the latest
            batches, the newest last; zeros where there has been none.
        n_steps: () int64, batches that were learned from.
    """

    # Paper is silent: the centers come from the weights of each step, while the weights that are
    # kept are their moving average. At the end of the cosine both hardly move any more.

    config_type = CbcgConfig
    config: CbcgConfig
    memory: Tensor
    n_steps: Tensor

    def __init__(self, config: CbcgConfig) -> None:
        super().__init__(config)
        hidden_dim, E = config.hidden_dim, config.embedding_dim
        self.stem = nn.Sequential(
            nn.Linear(config.feature_dim, hidden_dim), nn.ReLU(), nn.Dropout(config.dropout)
        )
        self.neighbours = nn.Conv1d(hidden_dim, hidden_dim, 3, padding=1)
        self.encode = nn.Sequential(nn.Linear(hidden_dim, E), nn.ReLU())
        self.scorer = nn.Linear(E, 1)
        if config.cluster_weight:
            self.cluster = nn.Sequential(
                nn.Linear(E, E), nn.ReLU(), nn.Linear(E, config.cluster_dim)
            )
            memory = torch.zeros(config.memory_len, 2, config.cluster_dim)
            self.register_buffer("memory", memory)
            self.register_buffer("n_steps", torch.zeros((), dtype=torch.int64))

    def forward(self, features: Tensor, mask: Tensor) -> CbcgOutput:
        """Score every snippet.

        Arguments and errors are those of `AnomalyModel.forward`.

        Returns:
            (B, T) logits, (B, T, E) embeddings, and the outputs of both branches.
        """
        check_bags(features, mask, self.config.feature_dim)
        hidden = self.stem(self.standardized(features)) * mask.unsqueeze(2)
        around = self.neighbours(hidden.transpose(1, 2)).transpose(1, 2)  # over T
        embeddings = self.encode(hidden + around)
        regression = in_float32(self.scorer, embeddings).squeeze(2)
        if not self.config.cluster_weight:
            return CbcgOutput(regression, embeddings, regression, None, None)
        directions = F.normalize(in_float32(self.cluster[-1], self.cluster[:-1](embeddings)), dim=2)
        centers = F.normalize(self.memory.sum(dim=0), dim=1)
        clusters = in_float32(lambda each: self._margin(each, centers), directions)
        logits = fused_logits(regression, clusters) if self.config.fuse_scores else regression
        return CbcgOutput(logits, embeddings, regression, directions, clusters)

    def losses(self, output: Output, batch: BagBatch) -> dict[str, Tensor]:
        """The terms mil, cluster, guide, smoothness and sparsity, weighted.

        In training mode the batch's centers are put into the memory.
        """
        assert isinstance(output, CbcgOutput)
        config, mask, labels = self.config, batch.mask, batch.labels
        regression = output.regression_logits
        top = topk_weights(regression, mask, top_k_divisor=config.top_k_divisor)
        losses = {"mil": mean_score_bce(regression, top, labels)}
        if output.directions is not None:
            joins = self._joins(output, batch)
            of_batch = cluster_centers(output.directions, joins, mask)
            centers = self._across_batches(of_batch)
            margin = self._margin(output.directions, centers)
            cluster = cluster_loss(margin, joins, mask) + F.relu(centers[0] @ centers[1])
            losses["cluster"] = config.cluster_weight * cluster
            if config.guide_weight:
                guide = guidance(
                    regression, margin, mask, labels, confidence=config.guide_confidence
                )
                has_begun = (self.n_steps >= config.guide_start).to(guide.dtype)
                losses["guide"] = config.guide_weight * has_begun * guide
            if self.training:
                self._remember(of_batch)
        scores = regression.sigmoid()
        losses["smoothness"] = config.smoothness_weight * smoothness(scores, mask, labels)
        losses["sparsity"] = config.sparsity_weight * sparsity(scores, mask, labels)
        return losses

    def _joins(self, output: CbcgOutput, batch: BagBatch) -> Tensor:
        """(B, T) bool, which snippets of a batch are in the anomalous cluster."""
        assert output.directions is not None
        return cluster_batch(
            output.directions,
            output.regression_logits,
            batch.mask,
            batch.labels,
            top_k_divisor=self.config.top_k_divisor,
            max_fraction=self.config.max_fraction,
        )

    def part_scores(self, output: Output) -> dict[str, Tensor]:
        """The scores of either branch: `regression`, and `cluster` where there is that branch."""
        assert isinstance(output, CbcgOutput)
        scores = {"regression": output.regression_logits.sigmoid()}
        if output.cluster_logits is not None:
            scores["cluster"] = output.cluster_logits.sigmoid()
        return scores

    def diagnostics(
        self, videos: Sequence[LabeledOutputs], training: tuple[Output, BagBatch]
    ) -> dict[str, float]:
        """How well the clustering branch separates snippets; empty without that branch.

        `silhouette` is that of the classes of test snippets; `anomalous fraction` is that of
        the snippets of anomalous training bags which are in the anomalous cluster.
        """
        if not self.config.cluster_weight:
            return {}
        output, batch = training
        assert isinstance(output, CbcgOutput)
        n_anomalous = batch.mask[batch.labels == 1].sum()
        return {
            "silhouette": silhouette(*per_snippet(videos, _directions)),
            "anomalous fraction": float(self._joins(output, batch).sum() / n_anomalous),
        }

    def _margin(self, directions: Tensor, centers: Tensor) -> Tensor:
        """(B, T) how much nearer the anomalous center is than the normal one."""
        return directions @ (centers[1] - centers[0]) / self.config.temperature

    def _across_batches(self, of_batch: Tensor) -> Tensor:
        """(2, cluster_dim) this batch's centers pulled toward those of earlier batches."""
        fraction = self.config.memory_fraction
        n_kept = self.n_steps.clamp(min=1, max=self.config.memory_len)
        earlier = self.memory.sum(dim=0) / n_kept
        mixed = F.normalize((1 - fraction) * of_batch + fraction * earlier, dim=1)
        return torch.where(self.n_steps >= self.config.memory_start, mixed, of_batch)

    @torch.no_grad()
    def _remember(self, of_batch: Tensor) -> None:
        """Put a batch's centers behind those of earlier ones; the oldest are dropped."""
        newest = of_batch.unsqueeze(0).to(self.memory.dtype)
        self.memory.copy_(torch.cat([self.memory[1:], newest]))
        self.n_steps.add_(1)


def _directions(output: Output) -> Tensor:
    assert isinstance(output, CbcgOutput)
    assert output.directions is not None
    return output.directions


def fused_logits(first: Tensor, second: Tensor) -> Tensor:
    """The logit of the mean of two probabilities given as logits, without rounding to 0 or 1.

    >>> round(float(fused_logits(torch.tensor(0.0), torch.tensor(1000.0)).sigmoid()), 4)
    0.75
    """
    anomalous = torch.logaddexp(F.logsigmoid(first), F.logsigmoid(second))
    normal = torch.logaddexp(F.logsigmoid(-first), F.logsigmoid(-second))
    return anomalous - normal
