"""What `pipeline ablate` compares: for each model the arms that test what its paper claims.

An arm is nothing but settings of the model, so that whatever is compared can also be trained with
`pipeline train --set`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arm:
    """A line of an ablation table.

    Attributes:
        name: What was changed, in a few words.
        settings: Each `key=value`, as for `pipeline train --set`. Not `sampler` or `bag_len`: all
            arms are trained on the same bags.
    """

    name: str
    settings: tuple[str, ...] = ()


def _arm(name: str, *settings: str) -> Arm:
    return Arm(name, tuple(f"model.{setting}" for setting in settings))


_NO_ICA, _NO_COMO, _NO_DISTANCE = "ica=none", "relation=none", "relative_distance_weight=0"
_COMO_ALONE = (_NO_ICA, _NO_DISTANCE)
_CLAV_COMO = (
    _arm("A0 baseline: stem and scorer", _NO_ICA, _NO_COMO, _NO_DISTANCE),
    _arm("A1 ICA, gate implicit", _NO_COMO, _NO_DISTANCE, "gate_weight=0"),
    _arm("A1 ICA, gate learns from bags", _NO_COMO, _NO_DISTANCE),
    _arm("A2 one wide map for ICA", "ica=wide", _NO_COMO, _NO_DISTANCE),
    _arm("A3 relative distance", _NO_ICA, _NO_COMO),
    _arm("A4 CLAV: ICA, relative distance", _NO_COMO),
    _arm("A5 CoMo", *_COMO_ALONE),
    _arm("A6 self-attention for CoMo", *_COMO_ALONE, "relation=self-attention"),
    _arm("A7 CoMo, motion only", *_COMO_ALONE, "como_reads=motion", "use_residual=false"),
    _arm("A7 CoMo, context only", *_COMO_ALONE, "como_reads=context", "use_residual=false"),
    _arm("A7 CoMo, both, no residual", *_COMO_ALONE, "use_residual=false"),
    _arm("A5 without the product", *_COMO_ALONE, "use_product=false"),
    _arm("A5 without cross-attention", *_COMO_ALONE, "use_cross_attention=false"),
    _arm("A5 without steps of flow", *_COMO_ALONE, "motion_from=flow"),
    _arm("A5 without flow beside its steps", *_COMO_ALONE, "motion_from=steps"),
    _arm("A5 and relative distance", _NO_ICA),
    _arm("A9 full: the default"),
    _arm("A9 full, ICA after CoMo", "ica_position=after"),
    _arm("A9 full, gate implicit", "gate_weight=0"),
    _arm("A9 full, ICA by channel", "ica=channels"),
    _arm("A9 full, no relative distance", _NO_DISTANCE),
    _arm("A9 full, distance before CoMo", "distance_on=input"),
    _arm("A9 full, symmetric distance", "is_distance_symmetric=true"),
    _arm("A9 full, ranked by magnitude", "rank_by=magnitude"),
    _arm("A9 full with self-attention", "relation=self-attention"),
)

_NO_DDL = ("rank_weight=0", "align_weight=0")
_LA_NET = (
    _arm("MLP alone", "use_attention=false", "causal_len=1", *_NO_DDL),
    _arm("and global attention", "use_prior=false", "causal_len=1", *_NO_DDL),
    _arm("and location prior", "causal_len=1", *_NO_DDL),
    _arm("and causal convolution of 3", "causal_len=3", *_NO_DDL),
    _arm("and causal convolution of 7", *_NO_DDL),
    _arm("and causal convolution of 9", "causal_len=9", *_NO_DDL),
    _arm("7, ranking", "align_weight=0"),
    _arm("7, alignment", "rank_weight=0"),
    _arm("7, both: the default"),
    _arm("both, prior not learned", "learn_prior=false"),
    _arm("both, prior of UCF-Crime", "prior_slope=0.6", "prior_offset=0.2"),
    _arm("both, ranking by three steps", "rank_by=mean"),
    _arm("both, alignment in all bags", "align_bags=all"),
)

_NO_CLUSTERS = ("cluster_weight=0", "fuse_scores=false")
_ALONE, _UNGUIDED, _UNFUSED = "memory_fraction=0", "guide_weight=0", "fuse_scores=false"


def _of_batch_size(n: int, *settings: str) -> Arm:
    what = "batch centers" if settings else "memory"
    arm = _arm(f"{n} + {n} bags, {what}", _UNGUIDED, _UNFUSED, *settings)
    return Arm(arm.name, (f"bags_per_class={n}", *arm.settings))


_CBCG = (
    _arm("regression alone", *_NO_CLUSTERS),
    _arm("and clusters, batch centers", _ALONE, _UNGUIDED, _UNFUSED),
    _arm("and memory of 1", "memory_len=1", _UNGUIDED, _UNFUSED),
    _arm("and memory of 4", "memory_len=4", _UNGUIDED, _UNFUSED),
    _arm("and memory of 16", _UNGUIDED, _UNFUSED),
    _arm("and memory of 64", "memory_len=64", _UNGUIDED, _UNFUSED),
    _arm("16, guidance", _UNFUSED),
    _arm("16, guidance, fused: the default"),
    _arm("default, no bound on the fraction", "max_fraction=1.0"),
    *(_of_batch_size(n, *alone) for n in (4, 8, 16) for alone in ((_ALONE,), ())),
)

ABLATIONS: dict[str, tuple[Arm, ...]] = {
    "clav-como": _CLAV_COMO,
    "la-net": _LA_NET,
    "cbcg": _CBCG,
}
