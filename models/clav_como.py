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

import torch
from torch import Tensor, nn

from models.clav_como_blocks import (
    ContextMotion,
    ImplicitClassActivation,
    Stem,
    context_features,
    motion_features,
)
from models.clav_como_config import ClavComoConfig
from models.controls import SelfAttention, WideMap
from models.diagnostics import relative_gap
from models.interface import (
    AnomalyModel,
    BagBatch,
    LabeledOutputs,
    Output,
    check_bags,
    stream_columns,
)
from models.layers import in_float32
from models.losses import mean_score_bce, relative_distance, smoothness, sparsity, topk_weights


@dataclass(frozen=True, slots=True, eq=False)
class ClavComoOutput(Output):
    """What CLAV-CoMo says about a batch of bags.

    Attributes:
        relation_input: (B, T, E) what the relation adds to.
        magnitudes: (B, T) lengths of the scorer's hidden vectors.
        gate_logits: (B, T, 2) of the implicit class code (normal, anomalous); None without ICA.
    """

    relation_input: Tensor
    magnitudes: Tensor
    gate_logits: Tensor | None

    @property
    def gate(self) -> Tensor | None:
        """(B, T, 2) the implicit class code: not negative, sum 1."""
        return None if self.gate_logits is None else self.gate_logits.softmax(dim=2)


class ClavComo(AnomalyModel):
    """Stem, class-activated features, context-motion relation, scorer.

    Both paths read class-activated features. With an RGB and a flow stream the context path reads
    RGB and the motion path reads flow; what they add to, the residual, is the sum of both. With one
    stream both paths read it: its low-pass part is context and its steps are motion.
    """

    # Unlike the paper: it uses RGB alone, which is `stream_dims=(("rgb", 2048),)` here.
    # Unlike the paper: it scores ten crops. A model never sees crops here, so each crop of a
    # training video is a bag with a loss of its own.

    config_type = ClavComoConfig
    config: ClavComoConfig

    def __init__(self, config: ClavComoConfig) -> None:
        super().__init__(config)
        E = config.embedding_dim
        self.stems = nn.ModuleDict(
            {name: Stem(dim, E, config.stem_dropout) for name, dim in config.stream_dims}
        )
        if config.ica != "none":
            # Paper is silent: it has one stream. With two, each has class-activated weights of its
            # own, so that one path of the relation never reads the stream of the other.
            is_before = config.ica_position == "before"
            names = [name for name, _ in config.stream_dims] if is_before else ["relation"]
            self.ica = nn.ModuleDict({name: self._ica() for name in names})
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

    def _ica(self) -> nn.Module:
        config = self.config
        if config.ica == "wide":
            return WideMap(config.embedding_dim)
        return ImplicitClassActivation(
            config.embedding_dim, config.class_code_dim, by_channel=config.ica == "channels"
        )

    def _como(self) -> ContextMotion:
        config = self.config
        return ContextMotion(
            config.embedding_dim,
            config.relation_dim,
            config.embedding_dim * self._motion_widths,
            reads=config.como_reads,
            use_residual=config.use_residual,
            use_product=config.use_product,
            use_cross_attention=config.use_cross_attention,
        )

    @property
    def accepts_context(self) -> bool:
        """Whether there is a context path that is read, and can read another video."""
        return self.config.relation == "como" and self.config.como_reads != "motion"

    @property
    def _has_rgb_and_flow(self) -> bool:
        return {"rgb", "flow"} <= {name for name, _ in self.config.stream_dims}

    @property
    def _motion_widths(self) -> int:
        """How many E wide the motion path's input is: flow itself, and four kinds of steps."""
        if not self._has_rgb_and_flow:
            return 4
        return {"flow": 1, "steps": 4, "both": 5}[self.config.motion_from]

    def forward(
        self,
        features: Tensor,
        mask: Tensor,
        *,
        context: Tensor | None = None,
        motion: Tensor | None = None,
    ) -> ClavComoOutput:
        """Score every snippet.

        Args:
            features: (B, T, D), the streams side by side in the order of `config.stream_dims`.
            mask: (B, T) bool, True where the snippet is real; padding at the end of a bag only.
            context: (B, T, D) what the context path reads instead of `features`: a control that
                takes the true surroundings away. By default `features`; without
                CoMo there is no such path.
            motion: The same for the motion path.

        Returns:
            (B, T) logits, (B, T, E) embeddings z (without a relation: y) and the gate.

        Raises:
            ValueError: If a shape or dtype is not as above.
        """
        streams, gate_logits = self._embed(features, mask)
        y = _sum(streams)
        z = y
        if self.config.relation == "como":
            surroundings = streams if context is None else self._embed(context, mask)[0]
            moving = streams if motion is None else self._embed(motion, mask)[0]
            appearance = surroundings["rgb"] if self._has_rgb_and_flow else _sum(surroundings)
            around = context_features(appearance, mask, self.config.context_len)
            z = self.como(y, around, self._motion(moving, mask), mask)
        elif self.config.relation == "self-attention":
            z = self.attention(y, mask)
        if self.config.ica != "none" and self.config.ica_position == "after":
            z, gate_logits = self.ica["relation"](z, mask)
        hidden = in_float32(self.scorer[:2], z)
        logits = in_float32(self.scorer[2:], hidden).squeeze(2)
        return ClavComoOutput(logits, z, y, hidden.norm(dim=2), gate_logits)

    def _motion(self, streams: dict[str, Tensor], mask: Tensor) -> Tensor:
        """(B, T, n E) what the motion path reads."""
        if not self._has_rgb_and_flow:
            return motion_features(_sum(streams), mask)
        flow = streams["flow"]
        parts = {"flow": [flow], "steps": [], "both": [flow]}[self.config.motion_from]
        if self.config.motion_from != "flow":
            parts.append(motion_features(flow, mask))
        return torch.cat(parts, dim=2)

    def _embed(self, features: Tensor, mask: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """(B, T, E) of each stream, class-activated where ICA comes first, and the gate's logits.

        The logits are the mean over streams.
        """
        check_bags(features, mask, self.config.feature_dim)
        standard = self.standardized(features)
        embedded = {
            name: self.stems[name](standard[..., columns])
            for name, columns in stream_columns(self.config.stream_dims).items()
        }
        if self.config.ica == "none" or self.config.ica_position == "after":
            return embedded, None
        activated = {name: self.ica[name](x, mask) for name, x in embedded.items()}
        gates = [gate for _, gate in activated.values() if gate is not None]
        gate_logits = torch.stack(gates).mean(dim=0) if gates else None
        return {name: y for name, (y, _) in activated.items()}, gate_logits

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
                output.embeddings if config.distance_on == "output" else output.relation_input,
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
        """`even gate`: the class gate is constant, one half for each class, in every snippet."""
        if self.config.ica not in ("weights", "channels"):
            return {}
        even = copy.deepcopy(self)
        for block in even.ica.values():
            assert isinstance(block, ImplicitClassActivation)
            nn.init.zeros_(block.gate.weight)
            nn.init.zeros_(block.gate.bias)
        return {"even gate": even}

    def diagnostics(
        self, videos: Sequence[LabeledOutputs], training: tuple[Output, BagBatch]
    ) -> dict[str, float]:
        """`gap`: how much farther anomalous embeddings are from the normal center."""
        return {"gap": relative_gap(videos)}

    def scores_without(self, features: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """`context` and `motion`: their path reads the average training snippet everywhere.

        What the paths add to stays that of `features`. A path that reads nothing anyway is not
        among them.
        """
        if self.config.relation != "como":
            return {}
        average = self.input_norm.mean.expand_as(features)
        without = {}
        if self.config.como_reads != "motion":
            without["context"] = self(features, mask, context=average).scores
        if self.config.como_reads != "context":
            without["motion"] = self(features, mask, motion=average).scores
        return without


def _sum(streams: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(streams.values())).sum(dim=0)
