"""The two losses of discriminative dynamics learning (DDL): ranking and alignment of steps."""

# Unlike the paper: its abstract names both losses, the formulas are ours.

import torch
import torch.nn.functional as F
from torch import Tensor

from models.losses import is_among_highest, mean_over


def dynamics_rank(steps: Tensor, is_step: Tensor, labels: Tensor, *, n_steps: int) -> Tensor:
    """Hinge that makes the largest step of scores larger in anomalous bags than in normal ones.

    With r the mean of the n_steps largest steps of a bag: the mean over all pairs of an anomalous
    bag a and a normal bag n of [1 - r(a) + r(n)]+

    Args:
        steps: (B, T - 1) between neighboring scores, in [0, 1].
        is_step: (B, T - 1) bool, False where a step goes to padding or lies in it.
        labels: (B,) 0 for a normal bag, 1 for an anomalous one.
        n_steps: How many; a bag of fewer steps gives all of them, one of none gives 0.

    Returns:
        Scalar; 0 where the batch has bags of one class only.
    """
    k = is_step.new_full((len(steps), 1), n_steps, dtype=torch.int64)
    top = is_among_highest(steps, is_step, k).to(steps.dtype)
    largest = (steps * top).sum(dim=1) / top.sum(dim=1).clamp(min=1)  # (B,)
    hinge = F.relu(1 - largest[:, None] + largest[None, :])  # (anomalous, normal)
    is_pair = (labels == 1)[:, None] & (labels == 0)[None, :]
    return mean_over(hinge.flatten(), is_pair.flatten())


def dynamics_alignment(
    feature_steps: Tensor,
    score_steps: Tensor,
    is_step: Tensor,
    chosen: Tensor,
    *,
    temperature: float,
) -> Tensor:
    """Divergence between where in a bag the features step and where the scores do.

    KL(softmax(z) || softmax(score_steps / temperature)) with z the bag's feature steps
    standardized to mean 0 and standard deviation 1.

    Args:
        feature_steps: (B, T - 1), the target: no gradient flows back.
        score_steps: (B, T - 1) in [0, 1].
        is_step: (B, T - 1) bool, False where a step goes to padding or lies in it.
        chosen: (B,) bool, the bags that count.
        temperature: Of the scores' steps.

    Returns:
        Scalar, averaged over the chosen bags; one without any step adds 0. 0 where none is chosen.
    """
    real = is_step.to(feature_steps.dtype)
    n_steps = real.sum(dim=1, keepdim=True).clamp(min=1)
    centered = feature_steps.detach() * real
    centered = (centered - centered.sum(dim=1, keepdim=True) / n_steps) * real
    std = (centered.square().sum(dim=1, keepdim=True) / n_steps).sqrt()
    target = _log_softmax(centered / std.clamp(min=1e-6), is_step)
    found = _log_softmax(score_steps / temperature, is_step)
    divergence = (target.exp() * (target - found) * real).sum(dim=1)  # (B,)
    return mean_over(divergence, chosen)


def _log_softmax(values: Tensor, mask: Tensor) -> Tensor:
    """Over the real steps of each bag; finite at the others, in a bag of none too."""
    return values.masked_fill(~mask, torch.finfo(values.dtype).min / 2).log_softmax(dim=1)
