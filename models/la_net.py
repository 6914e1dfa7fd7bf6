"""LA-Net with DDL: locality-aware attention and discriminative dynamics learning.

Pu and Wu, "Locality-aware Attention Network with Discriminative Dynamics Learning for Weakly
Supervised Anomaly Detection", ICME 2022, arXiv:2208.05636. Neither the text nor code of this paper
was at hand.

Known from the abstract: global attention whose location preference is re-calibrated, then an MLP
with a causal convolution; a ranking loss that widens the gap between the score dynamics of
anomalous and normal bags, and an alignment loss between feature and score dynamics in a bag.

Reconstructed, with strong support: the network, from the building blocks that the same authors
published in the same months. At width 512 on 1024-d features it has 2.693 M parameters and, at
T = 200, 0.538 G multiply-adds; a later paper counted 2.69 M and 0.53 G for LA-Net.

Reconstructed from the abstract alone: the formulas of both losses, and their weights.

`pipeline/experiments/RESULTS.md` has what `pipeline ablate --model la-net` showed.
"""

# Unlike the paper: features are standardized first, and two streams are attended to side by side.
# Unlike the authors' code: padding is masked in the attention.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.interface import (
    AnomalyModel,
    BagBatch,
    LabeledOutputs,
    ModelConfig,
    Output,
    check_bags,
    check_fields,
)
from models.la_net_losses import dynamics_alignment, dynamics_rank
from models.layers import in_float32
from models.losses import is_among_highest, mean_score_bce

MEAN_STEPS = 3  # what `rank_by` takes the mean of
# Attention weights computed at a time (16 MiB in float32): memory is linear in the bag's length.
MAX_ATTENTION_ELEMENTS = 2**22


@dataclass(frozen=True, slots=True)
class LaNetConfig(ModelConfig):
    """Sizes, switches and loss weights of LA-Net with DDL.

    Attributes:
        attention_dim: Width of queries, keys and values, and hidden width of the MLP.
        embedding_dim: E, width of what the causal convolution reads.
        causal_len: Snippets that a score is computed from: its own and those before.
        dropout: Of the MLP, in [0, 1).
        use_attention: Without it, the MLP reads the features themselves.
        use_prior: Without it, the attention knows nothing of where snippets lie.
        learn_prior: Without it, the two numbers of the prior stay as they begin.
        prior_slope: Gamma of the prior exp(-|gamma (i - j)^2 + beta|), as it begins. 0.06 is the
            authors' later choice for XD-Violence; for UCF-Crime they took 0.6.
        prior_offset: Beta, as it begins: 0.02 for XD-Violence, 0.2 for UCF-Crime.
        top_k_divisor: The bag loss takes n // top_k_divisor + 1 of an anomalous bag's n snippets.
        rank_by: Whether the ranking loss looks at the largest step of a bag's scores or at the mean
            of the three largest.
        align_bags: Which bags the alignment loss looks at.
        align_temperature: Smaller asks the steps of scores to be fewer and sharper.
        rank_weight: 0 leaves the dynamics ranking loss out.
        align_weight: 0 leaves the dynamics alignment loss out.
    """

    attention_dim: int = 512
    embedding_dim: int = 128
    # Paper is silent: 7 is that of the authors' code of the same months; 3 and 9 came later.
    causal_len: int = 7
    dropout: float = 0.1
    use_attention: bool = True
    use_prior: bool = True
    learn_prior: bool = True
    prior_slope: float = 0.06
    prior_offset: float = 0.02
    top_k_divisor: int = 16
    rank_by: Literal["max", "mean"] = "max"
    # Paper is silent: "within the bag" may mean all bags. In a normal bag a camera cut is a step of
    # the features that must not become one of the scores, which is what ranking asks for.
    align_bags: Literal["anomalous", "all"] = "anomalous"
    align_temperature: float = 0.1  # Paper is silent: this value and the two weights are ours.
    rank_weight: float = 0.1
    align_weight: float = 0.1

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        check_fields(
            self,
            at_least_1=("attention_dim", "embedding_dim", "causal_len", "top_k_divisor"),
            at_least_0=("rank_weight", "align_weight", "prior_slope", "prior_offset"),
            below_1=("dropout",),
        )
        if not 1e-3 <= self.align_temperature <= 1e3:
            raise ValueError(
                f"align_temperature must be in [0.001, 1000], instead got {self.align_temperature}"
            )


class LocalityAwareAttention(nn.Module):
    """Attention over the whole bag, to which nearness is added before the softmax.

    Args:
        config: Sizes and switches.
    """

    def __init__(self, config: LaNetConfig) -> None:
        super().__init__()
        D, A = config.feature_dim, config.attention_dim
        self.query, self.key, self.value = nn.Linear(D, A), nn.Linear(D, A), nn.Linear(D, A)
        self.out = nn.Linear(A, D)
        self.norm = nn.LayerNorm(D)
        self._use_prior = config.use_prior
        if config.use_prior:
            values = torch.tensor([config.prior_slope, config.prior_offset])
            self.prior = nn.Parameter(values, requires_grad=config.learn_prior)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        query, key, value = self.query(x), self.key(x), self.value(x)
        B, T, _ = x.shape
        block_len = max(1, MAX_ATTENTION_ELEMENTS // (B * T))
        # Into one block of memory: kept pieces between large temporary ones would fragment it.
        read = torch.empty_like(value)
        for first in range(0, T, block_len):
            queries = slice(first, first + block_len)
            read[:, queries] = self._attend(query[:, queries], first, key, value, mask)
        attended: Tensor = self.norm(x + self.out(read))
        return attended

    def _attend(
        self, query: Tensor, first: int, key: Tensor, value: Tensor, mask: Tensor
    ) -> Tensor:
        """(B, n, A) what the n queries from place `first` on read of all values."""
        nearness = query @ key.transpose(1, 2) / query.shape[2] ** 0.5  # (B, n, T)
        if self._use_prior:
            queries = slice(first, first + query.shape[1])
            nearness = nearness + self.location_prior(key.shape[1], queries)
        attention = nearness.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(dim=2)
        read: Tensor = attention @ value
        return read

    def location_prior(self, n_snippets: int, queries: slice = slice(None)) -> Tensor:
        """(n, T) in (0, 1]: exp(-|gamma (i - j)^2 + beta|), for the queries i of a slice."""
        place = torch.arange(n_snippets, device=self.prior.device, dtype=self.prior.dtype)
        slope, offset = self.prior.unbind()
        return (-(slope * (place[queries, None] - place).square() + offset).abs()).exp()


@dataclass(frozen=True, slots=True, eq=False)
class LaNetOutput(Output):
    """What LA-Net says about a batch of bags.

    Attributes:
        attended: (B, T, D) features after the attention, whose steps the scores' steps follow.
    """

    attended: Tensor


class LaNet(AnomalyModel):
    """Locality-aware attention, an MLP, and a causal convolution that scores."""

    config_type = LaNetConfig
    config: LaNetConfig

    def __init__(self, config: LaNetConfig) -> None:
        super().__init__(config)
        if config.use_attention:
            self.attention = LocalityAwareAttention(config)
        self.mlp = nn.Sequential(
            nn.Linear(config.feature_dim, config.attention_dim),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.attention_dim, config.embedding_dim),
            nn.Dropout(config.dropout),
        )
        self.scorer = nn.Conv1d(config.embedding_dim, 1, config.causal_len)
        for name, weights in self.named_parameters():
            if name.endswith("weight") and weights.dim() > 1:
                nn.init.xavier_uniform_(weights)

    def forward(self, features: Tensor, mask: Tensor) -> LaNetOutput:
        """Score every snippet from itself and those before, among all of its bag.

        Arguments and errors are those of `AnomalyModel.forward`.

        Returns:
            (B, T) logits, (B, T, E) embeddings, and the output of the attention.
        """
        check_bags(features, mask, self.config.feature_dim)
        attended = self.standardized(features)
        if self.config.use_attention:
            attended = self.attention(attended, mask)
        embeddings = self.mlp(attended)
        # Padded at its start only: the convolution never reads later snippets.
        before = F.pad(embeddings.transpose(1, 2), (self.config.causal_len - 1, 0))
        return LaNetOutput(in_float32(self.scorer, before).squeeze(1), embeddings, attended)

    def losses(self, output: Output, batch: BagBatch) -> dict[str, Tensor]:
        """The terms mil, rank and align, weighted."""
        assert isinstance(output, LaNetOutput)
        config, mask, labels = self.config, batch.mask, batch.labels
        is_anomalous = labels == 1
        k = mask.sum(dim=1, keepdim=True) // config.top_k_divisor + 1  # (B, 1)
        k = torch.where(is_anomalous.unsqueeze(1), k, 1)
        top = is_among_highest(output.logits, mask, k)
        weights = top.to(output.logits.dtype) / top.sum(dim=1, keepdim=True)
        losses = {"mil": mean_score_bce(output.logits, weights, labels)}
        is_step = mask[:, 1:] & mask[:, :-1]
        score_steps = output.scores.diff(dim=1).abs()
        if config.rank_weight:
            n_steps = 1 if config.rank_by == "max" else MEAN_STEPS
            rank = dynamics_rank(score_steps, is_step, labels, n_steps=n_steps)
            losses["rank"] = config.rank_weight * rank
        if config.align_weight:
            feature_steps = _feature_steps(output)
            chosen = is_anomalous | (config.align_bags == "all")
            align = dynamics_alignment(
                feature_steps, score_steps, is_step, chosen, temperature=config.align_temperature
            )
            losses["align"] = config.align_weight * align
        return losses

    def diagnostics(
        self, videos: Sequence[LabeledOutputs], training: tuple[Output, BagBatch]
    ) -> dict[str, float]:
        """How far the largest steps of scores differ by class, and whether features step with them.

        `step gap` is the difference between the mean largest score steps of anomalous and of normal
        videos; `step correlation` is that of score and feature steps within anomalous videos.
        """
        largest: dict[int, list[Tensor]] = {0: [], 1: []}
        correlations = []
        for video in videos:
            score_steps = torch.cat([crop.scores for crop in video.crops]).diff(dim=1).abs()
            if score_steps.shape[1] < 2:
                continue
            largest[video.label].append(score_steps.amax(dim=1).mean())
            if video.label == 1:
                steps = torch.cat([_feature_steps(crop) for crop in video.crops])
                both = torch.stack([score_steps.mean(dim=0), steps.mean(dim=0)])
                correlations.append(torch.corrcoef(both)[0, 1].nan_to_num())
        normal, anomalous = (torch.stack(largest[label]).double().mean() for label in (0, 1))
        return {
            "step gap": float(anomalous - normal),
            "step correlation": float(torch.stack(correlations).double().mean()),
        }


def _feature_steps(output: Output) -> Tensor:
    """(B, T - 1) cosine distances between neighboring features after the attention."""
    assert isinstance(output, LaNetOutput)
    directions = F.normalize(output.attended.detach(), dim=2)
    return 1 - (directions[:, 1:] * directions[:, :-1]).sum(dim=2)
