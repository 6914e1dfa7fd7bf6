"""CLAV-CoMo: class-activated features and a context-motion interrelation module.

Cho et al., "Look Around for Anomalies", CVPR 2023. This is a reconstruction from the abstract:
no code was published and the text was not available, so no layer, loss or value below is known to
be the paper's. The abstract fixes two ideas. CLAV: features come from weights that are activated
implicitly by class, and the gap between the classes is widened by relative distance learning.
CoMo: the relation between the appearance of the surroundings and the motion is modeled, instead
of temporal dependencies or motion alone. `pipeline/experiments/RESULTS.md` has what `pipeline
ablate` showed of each part.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.clav_como_blocks import (
    ContextMotion,
    ImplicitClassActivation,
    Paths,
    Stem,
    context_features,
    motion_features,
)
from models.controls import SelfAttention, WideMap
from models.diagnostics import relative_gap
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
    como_reads: Paths = "both"
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
        if config.relation == "como":
            self.como = self._como()
        elif config.relation == "self-attention":
            with torch.device("meta"):
                n_parameters = sum(parameter.numel() for parameter in self._como().parameters())
            self.attention = SelfAttention(E, n_parameters)
        self.scorer = nn.Sequential(
            nn.Linear(E, config.scorer_dim),
            nn.ReLU(),
            nn.Dropout(config.scorer_dropout),
            nn.Linear(config.scorer_dim, 1),
        )

    def _como(self) -> ContextMotion:
        config = self.config
        return ContextMotion(
            config.embedding_dim,
            config.relation_dim,
            config.embedding_dim * (1 if self._reads_flow else 4),
            reads=config.como_reads,
            use_residual=config.use_residual,
            use_product=config.use_product,
            use_cross_attention=config.use_cross_attention,
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

    def part_scores(self, output: Output) -> dict[str, Tensor]:
        """The class code's second entry, `gate`, where there is an ICA block."""
        assert isinstance(output, ClavComoOutput)
        return {} if output.gate is None else {"gate": output.gate[..., 1]}

    def controls(self) -> dict[str, AnomalyModel]:
        """`even gate`: both classes activate their weights alike in every snippet."""
        if not hasattr(self, "ica") or not hasattr(self.ica, "gate"):
            return {}
        even = copy.deepcopy(self)
        assert isinstance(even.ica, ImplicitClassActivation)
        nn.init.zeros_(even.ica.gate.weight)
        nn.init.zeros_(even.ica.gate.bias)
        return {"even gate": even}

    def diagnostics(
        self, videos: Sequence[LabeledOutputs], training: tuple[Output, BagBatch]
    ) -> dict[str, float]:
        """`gap`: how much farther anomalous embeddings are from the normal center."""
        return {"gap": relative_gap(videos)}
