"""CLAV-CoMo: class-activated features and a context-motion interrelation module.

Cho et al., "Look Around for Anomalies", CVPR 2023. This is a reconstruction from the abstract:
no code was published and the text was not at hand, so no layer, loss or value below is known to
be the paper's. The abstract fixes two ideas. CLAV: features come from weights that are activated
implicitly by class, and the gap between the classes is widened by relative distance learning.
CoMo: the relation between the appearance of the surroundings and the motion is modelled, instead
of temporal dependencies or motion alone.

Paper is silent: every size, loss, weight and default in this file; the marks below point at the
choices that a reader might expect to be otherwise.

What `pipeline ablate` showed (three seeds, AUC in percent; first on drawn pairs of context and
motion that are anomalous only together, then on microworld):
    - Holds: CoMo beats the baseline (95 against 73; 77 against 69), and shuffling its context hurts
      (65; 52). On microworld it needs both paths (motion alone 63, context alone 65), the product
      (71 without) and the cross-attention (72 without).
    - Holds where bags teach the gate: its class code alone ranks frames (80; 66). Fully implicit,
      with `gate_weight=0`, it is at chance (48 +- 16; 46 +- 10).
    - Holds on the drawn pairs alone: CoMo against self-attention of as many parameters is 95 +- 4
      against 75 +- 19, but 77 +- 1 against 81 +- 7 on microworld, where only the AUC over anomalous
      videos is on CoMo's side (69 against 67). Class-activated weights against one wide map are 88
      against 76, but 67 +- 9 against 74 +- 1 on microworld.
    - Does not hold: the full model is not above CoMo alone (89; 72). On the drawn pairs, whose
      context is one for the whole video, CoMo without cross-attention was the best (99.8).
    - Tried: ICA after CoMo (86; 78), there by channel (90; 74), distances on what goes into the
      relation (84; 77), symmetric (86; 76) or left out (84; 76). Where ICA stands was settled by
      5-fold cross-validation over microworld's training videos, two seeds: before 75, after 72,
      CoMo alone 75.

Differs from the paper:
    - The paper uses RGB features alone. That is `stream_dims=(("rgb", 2048),)` here; the default
      adds a flow stream, from which the motion path then reads.
    - The paper scores with ten crops. Here a model never sees crops, so each crop of a training
      video is a bag with a loss of its own, instead of scores being averaged before the loss.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.interface import (
    AnomalyModel,
    BagBatch,
    ModelConfig,
    Output,
    check_bags,
    check_fields,
)
from models.layers import in_float32, masked_mean
from models.losses import mean_score_bce, relative_distance, smoothness, sparsity, topk_weights


@dataclass(frozen=True, slots=True)
class ClavComoConfig(ModelConfig):
    """Sizes, switches and loss weights of CLAV-CoMo.

    Attributes:
        embedding_dim: E, width of the stem, of the ICA block's output and of the embeddings.
        class_code_dim: Hidden width of the ICA block's gate.
        relation_dim: Width in which context and motion meet.
        scorer_dim: Hidden width of the scorer.
        context_len: Odd number of snippets that the context path averages over.
        stem_dropout: In [0, 1).
        scorer_dropout: In [0, 1).
        ica: `weights` mixes two maps by class, `channels` two gates over channels; `wide` is the
            control, one map of as many weights without a class code; or `none`.
        ica_position: Whether the ICA block comes before or after the relation.
        relation: `como`; `self-attention`, the control of as many weights; or `none`.
        motion_from: `flow` reads motion off the flow stream, where there is one beside rgb;
            `steps` off the steps between snippets.
        como_reads: What the CoMo block is given: `both` paths, or one with zeros in the other.
        use_residual: Without it, nothing but the two paths comes out of the CoMo block.
        use_product: Without it, a snippet's own context and motion are not multiplied.
        use_cross_attention: Without it, context and motion meet within a snippet only.
        rank_by: Whether the losses take the snippets of highest score or of longest hidden vector
            in the scorer (the embeddings have all been brought to one length).
        top_k_divisor: The losses rank snippets and keep one in so many, at least one.
        margin: Of the relative distance loss, in squared distance between unit vectors.
        distance_on: Whether relative distances are taken on what comes out of the relation or on
            what goes into it.
        is_distance_symmetric: Whether the anomalous class is made compact too.
        relative_distance_weight: 0 leaves relative distance learning out.
        gate_weight: 0 leaves the gate fully implicit.
        smoothness_weight: Of squared steps between scores within anomalous bags.
        sparsity_weight: Of the mean score of anomalous bags.
    """

    embedding_dim: int = 512
    class_code_dim: int = 64
    relation_dim: int = 128
    scorer_dim: int = 128
    context_len: int = 5
    stem_dropout: float = 0.1
    scorer_dropout: float = 0.6
    ica: Literal["weights", "channels", "wide", "none"] = "weights"
    ica_position: Literal["before", "after"] = "before"
    relation: Literal["como", "self-attention", "none"] = "como"
    motion_from: Literal["flow", "steps"] = "flow"
    como_reads: Literal["both", "context", "motion"] = "both"
    use_residual: bool = True
    use_product: bool = True
    use_cross_attention: bool = True
    rank_by: Literal["score", "magnitude"] = "score"
    top_k_divisor: int = 10
    margin: float = 0.5
    distance_on: Literal["output", "input"] = "output"
    is_distance_symmetric: bool = False
    relative_distance_weight: float = 0.1
    gate_weight: float = 0.1
    smoothness_weight: float = 8e-4
    sparsity_weight: float = 8e-5

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        sizes = ("embedding_dim", "class_code_dim", "relation_dim", "scorer_dim")
        weights = ("relative_distance", "gate", "smoothness", "sparsity")
        check_fields(
            self,
            at_least_1=(*sizes, "context_len", "top_k_divisor"),
            at_least_0=("margin", *(f"{weight}_weight" for weight in weights)),
            below_1=("stem_dropout", "scorer_dropout"),
        )
        if self.context_len % 2 == 0:
            raise ValueError(f"context_len must be odd, instead got {self.context_len}")


class Stem(nn.Sequential):
    """One stream's features (B, T, D) to embeddings (B, T, E)."""

    def __init__(self, feature_dim: int, embedding_dim: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(feature_dim, embedding_dim),
            nn.LayerNorm(embedding_dim),
            nn.GELU(),
            nn.Dropout(dropout),
        )


class ImplicitClassActivation(nn.Module):
    """ICA: each snippet's weights are a mixture that its own class code chooses.

    No label enters the forward pass, so the same code runs in training and in scoring.

    Args:
        embedding_dim: E.
        class_code_dim: Hidden width of the gate.
        by_channel: Whether a class activates channels instead of whole maps.
    """

    def __init__(self, embedding_dim: int, class_code_dim: int, *, by_channel: bool) -> None:
        super().__init__()
        self._by_channel = by_channel
        self.encode = nn.Linear(2 * embedding_dim, class_code_dim)
        self.gate = nn.Linear(class_code_dim, 2)
        self.class_weights = nn.ModuleList(nn.Linear(embedding_dim, embedding_dim) for _ in "01")
        self.norm = nn.Identity() if by_channel else nn.LayerNorm(embedding_dim)
        # Equal class weights would get equal gradients for ever; equal gates are a fair start.
        for weights in self.class_weights:
            assert isinstance(weights, nn.Linear)
            nn.init.xavier_uniform_(weights.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, E) to (B, T, E) and the gate's logits (B, T, 2) for normal and anomalous."""
        gate_logits: Tensor = self.gate(F.relu(self.encode(_with_video_mean(x, mask))))
        of_class = torch.stack([weights(x) for weights in self.class_weights], dim=3)
        if self._by_channel:
            of_class = of_class.sigmoid()
        mixed = torch.einsum("btec,btc->bte", of_class, gate_logits.softmax(dim=2))
        return self.norm(2 * x * mixed if self._by_channel else x + mixed), gate_logits


class WideMap(nn.Module):
    """A control for ICA: one map of width 2 E from what its gate reads, without a class code."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.weights = nn.Linear(2 * embedding_dim, embedding_dim)
        self.norm = nn.LayerNorm(embedding_dim)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, None]:
        """(B, T, E) to (B, T, E), and no gate."""
        return self.norm(x + F.gelu(self.weights(_with_video_mean(x, mask)))), None


def _with_video_mean(x: Tensor, mask: Tensor) -> Tensor:
    """(B, T, E) to (B, T, 2 E)."""
    return torch.cat([x, masked_mean(x, mask).expand_as(x)], dim=2)


class CrossAttention(nn.Module):
    """One head from one sequence to another."""

    def __init__(self, in_dim: int, head_dim: int | None = None) -> None:
        super().__init__()
        self.query = nn.Linear(in_dim, head_dim or in_dim, bias=False)
        self.key = nn.Linear(in_dim, head_dim or in_dim, bias=False)
        self.value = nn.Linear(in_dim, head_dim or in_dim, bias=False)

    def forward(self, asking: Tensor, asked: Tensor, mask: Tensor) -> Tensor:
        """(B, T, in_dim) and (B, T, in_dim) to (B, T, head_dim)."""
        return F.scaled_dot_product_attention(
            self.query(asking),
            self.key(asked),
            self.value(asked),
            attn_mask=mask.unsqueeze(1),  # (B, T) -> (B, 1, T): over the asked
        )


def context_features(x: Tensor, mask: Tensor, context_len: int) -> Tensor:
    """Low-pass part of each snippet's surroundings and the mean of the video: (B, T, 2 E)."""
    real = mask.unsqueeze(2).to(x.dtype)  # (B, T) -> (B, T, 1)
    # No window about a real snippet is empty; about padding some are, and 0 / 0 would spread.
    share = _window_mean(real, context_len).clamp(min=1 / context_len)
    local = _window_mean(x * real, context_len) / share
    return torch.cat([local, masked_mean(x, mask).expand_as(x)], dim=2)


def _window_mean(x: Tensor, window_len: int) -> Tensor:
    pooled = F.avg_pool1d(x.transpose(1, 2), window_len, stride=1, padding=window_len // 2)
    return pooled.transpose(1, 2)


def motion_features(x: Tensor, mask: Tensor) -> Tensor:
    """Steps from the last snippet and to the next, signed and absolute: (B, T, 4 E).

    At the ends of the real part the missing neighbour is a copy of the snippet itself.
    """
    is_step = (mask[:, 1:] & mask[:, :-1]).unsqueeze(2).to(x.dtype)
    step = x.diff(dim=1) * is_step  # (B, T - 1, E)
    before = F.pad(step, (0, 0, 1, 0))
    after = F.pad(step, (0, 0, 0, 1))
    return torch.cat([before, after, before.abs(), after.abs()], dim=2)


class ContextMotion(nn.Module):
    """CoMo: relates the surroundings of each snippet to the motion in it.

    There is no attention from context to context nor from motion to motion: a relation can only be
    formed between the two.

    Args:
        config: Sizes and switches.
        motion_dim: Width of what the motion path reads.
    """

    def __init__(self, config: ClavComoConfig, motion_dim: int) -> None:
        super().__init__()
        E, r = config.embedding_dim, config.relation_dim
        self._config = config
        self.context_path = _path(2 * E, r, r)
        self.motion_path = _path(motion_dim, 2 * r, r)
        if config.use_cross_attention:
            self.context_asks = CrossAttention(r)  # which motions occur in these surroundings?
            self.motion_asks = CrossAttention(r)  # in which surroundings does this motion occur?
        if config.use_product:
            self.own_context = nn.Linear(r, r, bias=False)
            self.own_motion = nn.Linear(r, r, bias=False)
        n_parts = 2 + 2 * config.use_cross_attention + config.use_product
        self.combine = nn.Sequential(nn.Linear(n_parts * r, E), nn.GELU(), nn.Linear(E, E))
        self.norm = nn.LayerNorm(E)

    def forward(self, y: Tensor, context: Tensor, motion: Tensor, mask: Tensor) -> Tensor:
        """(B, T, E), (B, T, 2 E) and (B, T, motion_dim) to (B, T, E)."""
        reads = self._config.como_reads
        c = self.context_path(torch.zeros_like(context) if reads == "motion" else context)
        m = self.motion_path(torch.zeros_like(motion) if reads == "context" else motion)
        parts = [c, m]
        if self._config.use_product:
            parts.insert(0, self.own_context(c) * self.own_motion(m))
        if self._config.use_cross_attention:
            parts = [self.context_asks(c, m, mask), self.motion_asks(m, c, mask), *parts]
        related = self.combine(torch.cat(parts, dim=2))
        z: Tensor = self.norm(y + related if self._config.use_residual else related)
        return z


class SelfAttention(nn.Module):
    """A control for CoMo: a transformer block of one head with as many parameters."""

    def __init__(self, embedding_dim: int, n_parameters: int) -> None:
        super().__init__()
        E = embedding_dim
        self.attention = CrossAttention(E, max(1, E // 2))
        self.out = nn.Linear(max(1, E // 2), E)
        self.norms = nn.ModuleList([nn.LayerNorm(E), nn.LayerNorm(E)])
        n_left = n_parameters - sum(parameter.numel() for parameter in self.parameters()) - E
        hidden_dim = max(1, round(n_left / (2 * E + 1)))
        self.feed_forward = nn.Sequential(
            nn.Linear(E, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, E)
        )

    def forward(self, y: Tensor, mask: Tensor) -> Tensor:
        """(B, T, E) to (B, T, E)."""
        y = self.norms[0](y + self.out(self.attention(y, y, mask)))
        z: Tensor = self.norms[1](y + self.feed_forward(y))
        return z


def _path(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_dim, hidden_dim),
        nn.GELU(),
        nn.Linear(hidden_dim, out_dim),
        nn.LayerNorm(out_dim),
    )


@dataclass(frozen=True, slots=True, eq=False)
class ClavComoOutput(Output):
    """What CLAV-CoMo says about a batch of bags.

    Attributes:
        related: (B, T, E) what went into the relation.
        magnitudes: (B, T) lengths of the scorer's hidden vectors.
        gate_logits: (B, T, 2) of the implicit class code (normal, anomalous); None without ICA.
    """

    related: Tensor
    magnitudes: Tensor
    gate_logits: Tensor | None

    @property
    def gate(self) -> Tensor | None:
        """(B, T, 2) the implicit class code: not negative, sum 1."""
        return None if self.gate_logits is None else self.gate_logits.softmax(dim=2)


class ClavComo(AnomalyModel):
    """Stem, class-activated features, context-motion relation, scorer.

    With an RGB and a flow stream the context path reads RGB and the motion path reads flow; what
    they add to, the residual, is the sum of both stems. With one stream both paths read it: its
    low-pass part is context and its steps are motion.
    """

    config_type = ClavComoConfig
    config: ClavComoConfig

    def __init__(self, config: ClavComoConfig) -> None:
        super().__init__(config)
        E = config.embedding_dim
        self.stems = nn.ModuleDict(
            {name: Stem(dim, E, config.stem_dropout) for name, dim in config.stream_dims}
        )
        if config.ica == "wide":
            self.ica: nn.Module = WideMap(E)
        elif config.ica != "none":
            by_channel = config.ica == "channels"
            self.ica = ImplicitClassActivation(E, config.class_code_dim, by_channel=by_channel)
        motion_dim = E if self._reads_flow else 4 * E
        if config.relation == "como":
            self.como = ContextMotion(config, motion_dim)
        elif config.relation == "self-attention":
            with torch.device("meta"):
                como = ContextMotion(config, motion_dim)
            self.attention = SelfAttention(E, sum(p.numel() for p in como.parameters()))
        self.scorer = nn.Sequential(
            nn.Linear(E, config.scorer_dim),
            nn.ReLU(),
            nn.Dropout(config.scorer_dropout),
            nn.Linear(config.scorer_dim, 1),
        )

    @property
    def accepts_context(self) -> bool:
        """Whether there is a context path, which can read another video."""
        return self.config.relation == "como"

    @property
    def _reads_flow(self) -> bool:
        names = {name for name, _ in self.config.stream_dims}
        return {"rgb", "flow"} <= names and self.config.motion_from == "flow"

    def forward(
        self, features: Tensor, mask: Tensor, *, context: Tensor | None = None
    ) -> ClavComoOutput:
        """Score every snippet.

        Args:
            features: (B, T, D), the streams side by side in the order of `config.stream_dims`.
            mask: (B, T) bool, True where the snippet is real; padding at the end of a bag only.
            context: (B, T, D) what the context path reads instead of `features`: a control that
                takes the true surroundings away. By default `features`; without
                CoMo there is no such path.

        Returns:
            (B, T) logits, (B, T, E) embeddings z (without a relation: y) and the gate.

        Raises:
            ValueError: If a shape or dtype is not as above.
        """
        check_bags(features, mask, self.config.feature_dim)
        stems, y, gate_logits = self._embed(features, mask)
        z = y
        if self.config.relation == "como":
            source, source_y = stems, y
            if context is not None:
                check_bags(context, mask, self.config.feature_dim)
                source, source_y, _ = self._embed(context, mask)
            surroundings = source["rgb"] if self._reads_flow else source_y
            # Flow features are motion already; steps between them, accelerations, only added
            # noise in our trials.
            motion = stems["flow"] if self._reads_flow else motion_features(y, mask)
            around = context_features(surroundings, mask, self.config.context_len)
            z = self.como(y, around, motion, mask)
        elif self.config.relation == "self-attention":
            z = self.attention(y, mask)
        if self.config.ica != "none" and self.config.ica_position == "after":
            z, gate_logits = self.ica(z, mask)
        hidden = self.scorer[:2](z)
        logits = in_float32(self.scorer[2:], hidden).squeeze(2)
        return ClavComoOutput(logits, z, y, hidden.norm(dim=2), gate_logits)

    def _embed(
        self, features: Tensor, mask: Tensor
    ) -> tuple[dict[str, Tensor], Tensor, Tensor | None]:
        """The stems by stream, their sum after ICA where that comes first, and its gate."""
        widths = [dim for _, dim in self.config.stream_dims]
        parts = torch.split(self.standardized(features), widths, dim=2)
        stems = {
            name: self.stems[name](part)
            for (name, _), part in zip(self.config.stream_dims, parts, strict=True)
        }
        x = torch.stack(list(stems.values())).sum(dim=0)
        if self.config.ica != "none" and self.config.ica_position == "before":
            return stems, *self.ica(x, mask)
        return stems, x, None

    def losses(self, output: Output, batch: BagBatch) -> dict[str, Tensor]:
        """The terms mil, relative_distance, gate, smoothness and sparsity, weighted."""
        assert isinstance(output, ClavComoOutput)
        config, mask, labels = self.config, batch.mask, batch.labels
        scores, top_k_divisor = output.scores, config.top_k_divisor
        ranking = output.magnitudes if config.rank_by == "magnitude" else output.logits
        top = topk_weights(ranking, mask, top_k_divisor=top_k_divisor)
        losses = {"mil": mean_score_bce(output.logits, top, labels)}
        if config.relative_distance_weight:
            distance = relative_distance(
                output.embeddings if config.distance_on == "output" else output.related,
                ranking,
                mask,
                labels,
                margin=config.margin,
                top_k_divisor=top_k_divisor,
                is_symmetric=config.is_distance_symmetric,
            )
            losses["relative_distance"] = config.relative_distance_weight * distance
        if output.gate_logits is not None and config.gate_weight:
            # sigmoid(a - b) is the second entry of softmax([b, a]).
            anomalous = output.gate_logits[..., 1] - output.gate_logits[..., 0]
            top = topk_weights(anomalous, mask, top_k_divisor=top_k_divisor)
            losses["gate"] = config.gate_weight * mean_score_bce(anomalous, top, labels)
        losses["smoothness"] = config.smoothness_weight * smoothness(scores, mask, labels)
        losses["sparsity"] = config.sparsity_weight * sparsity(scores, mask, labels)
        return losses
