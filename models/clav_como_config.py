"""Sizes, switches and loss weights of CLAV-CoMo, with their defaults and ranges."""

from dataclasses import dataclass
from typing import Literal

from models.clav_como_blocks import Paths
from models.interface import ModelConfig, check_fields


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
        motion_from: What the motion path reads where there is a flow stream beside rgb: `both` flow
            and its steps between snippets, or one of them. Without flow it reads steps.
        como_reads: What the CoMo block is given: `both` paths, or one with zeros in the other.
        use_residual: Without it, nothing but the two paths comes out of the CoMo block.
        use_product: Without it, a snippet's own context and motion are not multiplied.
        use_cross_attention: Without it, context and motion meet within a snippet only.
        rank_by: Whether the losses take the snippets of highest score or of longest hidden vector
            in the scorer (the embeddings have all been brought to one length).
        top_k_divisor: The losses take the k = n // top_k_divisor highest of a bag's n snippets, at
            least one.
        margin: Of the relative distance loss, in squared distance between unit vectors.
        distance_on: Whether relative distances are taken on the output of the relation or on its
            input.
        is_distance_symmetric: Whether the anomalous class is made compact too.
        relative_distance_weight: 0 leaves relative distance learning out.
        gate_weight: 0 leaves the gate fully implicit.
        smoothness_weight: Of squared steps between scores within anomalous bags.
        sparsity_weight: Of the mean score of anomalous bags.
    """

    # Paper is silent: every size, switch, loss weight and default below is ours.
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
    motion_from: Literal["both", "flow", "steps"] = "both"
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
