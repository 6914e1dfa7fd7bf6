"""CLAV-CoMo: class-activated features and a context-motion interrelation module.

Cho et al., "Look Around for Anomalies", CVPR 2023. This is a reconstruction from the abstract:
no code was published and the text was not at hand, so no layer, loss or value below is known to
be the paper's. The abstract fixes two ideas. CLAV: features come from weights that are activated
implicitly by class, and the gap between the classes is widened by relative distance learning.
CoMo: the relation between the appearance of the surroundings and the motion is modelled, instead
of temporal dependencies or motion alone.

Paper is silent: every size, loss, weight and default in this file; the marks below point at the
choices that a reader might expect to be otherwise.

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

from models.interface import AnomalyModel, BagBatch, ModelConfig, Output, check_bags
from models.layers import masked_mean
from models.losses import mean_score_bce, relative_distance, smoothness, sparsity, topk_weights


@dataclass(frozen=True, slots=True)
class ClavComoConfig(ModelConfig):
    """Sizes, switches and loss weights of CLAV-CoMo.

    Attributes:
        embedding_dim: E, width of the stem, of the ICA block's output and of the embeddings.
        input_noise: Standard deviation of the noise that training adds to standardised features. It
            is what keeps a small dataset from being learned by heart.
        class_code_dim: Hidden width of the ICA block's gate.
        relation_dim: Width in which context and motion meet.
        scorer_dim: Hidden width of the scorer.
        context_len: Odd number of snippets that the context path averages over.
        stem_dropout: In [0, 1).
        scorer_dropout: In [0, 1).
        use_ica: Without it, the class-activated weights are left out.
        use_como: Without it, the context-motion module is left out.
        ica_position: Whether the ICA block comes before or after the CoMo block.
        keep_one_in: The losses rank snippets and keep one in so many, at least one.
        margin: Of the relative distance loss, in squared distance between unit vectors.
        relative_distance_weight: 0 leaves relative distance learning out.
        gate_weight: 0 leaves the gate fully implicit.
        smoothness_weight: Of squared steps between scores within anomalous bags.
        sparsity_weight: Of the mean score of anomalous bags.
    """

    embedding_dim: int = 512
    input_noise: float = 0.0
    class_code_dim: int = 64
    relation_dim: int = 128
    scorer_dim: int = 128
    context_len: int = 5
    stem_dropout: float = 0.1
    scorer_dropout: float = 0.6
    use_ica: bool = True
    use_como: bool = True
    ica_position: Literal["before", "after"] = "before"
    keep_one_in: int = 10
    margin: float = 0.5
    relative_distance_weight: float = 0.1
    gate_weight: float = 0.1
    smoothness_weight: float = 8e-4
    sparsity_weight: float = 8e-5

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        sizes = ("embedding_dim", "class_code_dim", "relation_dim", "scorer_dim", "keep_one_in")
        for name in (*sizes, "context_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, instead got {getattr(self, name)}")
        if self.context_len % 2 == 0:
            raise ValueError(f"context_len must be odd, instead got {self.context_len}")
        for name in ("stem_dropout", "scorer_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), instead got {getattr(self, name)}")
        weights = ("relative_distance", "gate", "smoothness", "sparsity")
        for name in ("input_noise", "margin", *(f"{weight}_weight" for weight in weights)):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, instead got {getattr(self, name)}")


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
    """

    def __init__(self, embedding_dim: int, class_code_dim: int) -> None:
        super().__init__()
        self.encode = nn.Linear(2 * embedding_dim, class_code_dim)
        self.gate = nn.Linear(class_code_dim, 2)
        self.class_weights = nn.ModuleList(nn.Linear(embedding_dim, embedding_dim) for _ in "01")
        self.norm = nn.LayerNorm(embedding_dim)
        # Equal class weights would get equal gradients for ever; equal gates are a fair start.
        for weights in self.class_weights:
            assert isinstance(weights, nn.Linear)
            nn.init.xavier_uniform_(weights.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, E) to (B, T, E) and the gate's logits (B, T, 2) for normal and anomalous."""
        video = masked_mean(x, mask).expand_as(x)
        gate_logits = self.gate(F.relu(self.encode(torch.cat([x, video], dim=2))))
        gate = gate_logits.softmax(dim=2)
        weighted = torch.stack([weights(x) for weights in self.class_weights], dim=3)
        mixed = torch.einsum("btec,btc->bte", weighted, gate)
        return self.norm(x + mixed), gate_logits


class CrossAttention(nn.Module):
    """One head from one path to the other; never from a path to itself."""

    def __init__(self, relation_dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(relation_dim, relation_dim, bias=False)
        self.key = nn.Linear(relation_dim, relation_dim, bias=False)
        self.value = nn.Linear(relation_dim, relation_dim, bias=False)

    def forward(self, asking: Tensor, asked: Tensor, mask: Tensor) -> Tensor:
        """(B, T, r) and (B, T, r) to (B, T, r)."""
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
        embedding_dim: E.
        relation_dim: r.
        motion_dim: Width of what the motion path reads.
    """

    def __init__(self, embedding_dim: int, relation_dim: int, motion_dim: int) -> None:
        super().__init__()
        E, r = embedding_dim, relation_dim
        self.context_path = _path(2 * E, r, r)
        self.motion_path = _path(motion_dim, 2 * r, r)
        self.context_asks = CrossAttention(r)  # which motions occur in these surroundings?
        self.motion_asks = CrossAttention(r)  # in which surroundings does this motion occur?
        self.own_context = nn.Linear(r, r, bias=False)
        self.own_motion = nn.Linear(r, r, bias=False)
        self.combine = nn.Sequential(nn.Linear(5 * r, E), nn.GELU(), nn.Linear(E, E))
        self.norm = nn.LayerNorm(E)

    def forward(self, y: Tensor, context: Tensor, motion: Tensor, mask: Tensor) -> Tensor:
        """(B, T, E), (B, T, 2 E) and (B, T, motion_dim) to (B, T, E)."""
        c = self.context_path(context)
        m = self.motion_path(motion)
        o_cm = self.context_asks(c, m, mask)
        o_mc = self.motion_asks(m, c, mask)
        p = self.own_context(c) * self.own_motion(m)
        z: Tensor = self.norm(y + self.combine(torch.cat([o_cm, o_mc, p, c, m], dim=2)))
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
        gate_logits: (B, T, 2) of the implicit class code (normal, anomalous); None without ICA.
    """

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
        if config.use_ica:
            self.ica = ImplicitClassActivation(E, config.class_code_dim)
        if config.use_como:
            motion_dim = E if self._reads_flow else 4 * E
            self.como = ContextMotion(E, config.relation_dim, motion_dim)
        self.scorer = nn.Sequential(
            nn.Linear(E, config.scorer_dim),
            nn.ReLU(),
            nn.Dropout(config.scorer_dropout),
            nn.Linear(config.scorer_dim, 1),
        )

    @property
    def _reads_flow(self) -> bool:
        return {"rgb", "flow"} <= {name for name, _ in self.config.stream_dims}

    def forward(
        self, features: Tensor, mask: Tensor, *, context: Tensor | None = None
    ) -> ClavComoOutput:
        """Score every snippet.

        Args:
            features: (B, T, D), the streams side by side in the order of `config.stream_dims`.
            mask: (B, T) bool, True where the snippet is real; padding at the end of a bag only.
            context: (B, T, D) what the context path reads instead of `features`: a control that
                takes the true surroundings away (METHODS 1.6, A8). By default `features`.

        Returns:
            (B, T) logits, (B, T, E) embeddings z (without CoMo: y) and the gate.

        Raises:
            ValueError: If a shape or dtype is not as above.
        """
        check_bags(features, mask, self.config.feature_dim)
        stems, y, gate_logits = self._embed(features, mask)
        if self.config.use_como:
            source, source_y = stems, y
            if context is not None:
                check_bags(context, mask, self.config.feature_dim)
                source, source_y, _ = self._embed(context, mask)
            surroundings = source["rgb"] if self._reads_flow else source_y
            # Flow features are motion already; steps between them, accelerations, only added
            # noise in our trials.
            motion = stems["flow"] if self._reads_flow else motion_features(y, mask)
            around = context_features(surroundings, mask, self.config.context_len)
            y = self.como(y, around, motion, mask)
        if self.config.use_ica and self.config.ica_position == "after":
            y, gate_logits = self.ica(y, mask)
        return ClavComoOutput(self.scorer(y).squeeze(2), y, gate_logits)

    def _embed(
        self, features: Tensor, mask: Tensor
    ) -> tuple[dict[str, Tensor], Tensor, Tensor | None]:
        """The stems by stream, their sum after ICA where that comes first, and its gate."""
        standard = self.input_norm(features)
        if self.training and self.config.input_noise:
            standard = standard + self.config.input_noise * torch.randn_like(standard)
        parts = standard.split([dim for _, dim in self.config.stream_dims], dim=2)
        stems = {
            name: self.stems[name](part)
            for (name, _), part in zip(self.config.stream_dims, parts, strict=True)
        }
        x = torch.stack(list(stems.values())).sum(dim=0)
        if self.config.use_ica and self.config.ica_position == "before":
            return stems, *self.ica(x, mask)
        return stems, x, None

    def losses(self, output: Output, batch: BagBatch) -> dict[str, Tensor]:
        """The terms mil, relative_distance, gate, smoothness and sparsity, weighted."""
        assert isinstance(output, ClavComoOutput)
        config, mask, labels = self.config, batch.mask, batch.labels
        scores = output.scores
        top = topk_weights(output.logits, mask, keep_one_in=config.keep_one_in)
        losses = {"mil": mean_score_bce(output.logits, top, labels)}
        if config.relative_distance_weight:
            distance = relative_distance(
                output.embeddings,
                output.logits,
                mask,
                labels,
                margin=config.margin,
                keep_one_in=config.keep_one_in,
            )
            losses["relative_distance"] = config.relative_distance_weight * distance
        if output.gate_logits is not None and config.gate_weight:
            # sigmoid(a - b) is the second entry of softmax([b, a]).
            anomalous = output.gate_logits[..., 1] - output.gate_logits[..., 0]
            top = topk_weights(anomalous, mask, keep_one_in=config.keep_one_in)
            losses["gate"] = config.gate_weight * mean_score_bce(anomalous, top, labels)
        losses["smoothness"] = config.smoothness_weight * smoothness(scores, mask, labels)
        losses["sparsity"] = config.sparsity_weight * sparsity(scores, mask, labels)
        return losses
