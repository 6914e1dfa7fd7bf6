"""Losses on bags that two models share; plain functions.

Every sum over snippets is a weighted sum with weights that are zero at padding, and every choice
between normal and anomalous bags is a weight from the labels. So nothing here depends on the
order of the bags or on how far they were padded, and nothing makes a GPU wait.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def topk_weights(values: Tensor, mask: Tensor, *, top_k_divisor: int) -> Tensor:
    """Weights whose sum over a bag is the mean over its k highest snippets.

    k = max(1, n // top_k_divisor) with n real snippets. For the k lowest pass `-values`.

    Args:
        values: (B, T) what to rank by. No gradient flows through the ranking.
        mask: (B, T) True where the snippet is real; padding is never among the k.
        top_k_divisor: Larger keeps fewer snippets. At least one is always kept.

    Returns:
        (B, T) 1 / k at the k highest snippets, 0 elsewhere.

    Example:
        >>> values = torch.tensor([[1.0, 3.0, 2.0, 9.0]])
        >>> mask = torch.tensor([[True, True, True, False]])
        >>> topk_weights(values, mask, top_k_divisor=2)
        tensor([[0., 1., 0., 0.]])
    """
    k = (mask.sum(dim=1, keepdim=True) // top_k_divisor).clamp(min=1)  # (B, 1)
    return is_among_highest(values, mask, k).to(values.dtype) / k


def is_among_highest(values: Tensor, mask: Tensor, k: Tensor) -> Tensor:
    """Choose the k highest real snippets of each bag.

    Args:
        values: (B, T) what to rank by. No gradient flows through the ranking.
        mask: (B, T) True where the snippet is real.
        k: (B, 1) how many; a bag that has fewer real snippets gives all of them.

    Returns:
        (B, T) bool, False at padding.
    """
    ranked = values.detach().masked_fill(~mask, -torch.inf)
    order = ranked.argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)  # (B, T) 0 for the highest
    return (rank < k) & mask


def mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean over the first axis where chosen (n,); 0, with its graph, where nothing is."""
    weights = chosen.to(values.dtype) / chosen.sum().clamp(min=1)
    mean: Tensor = torch.tensordot(weights, values, dims=1)
    return mean


def mean_score_bce(logits: Tensor, weights: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy between each bag's label and its weighted mean score.

    The mean is over scores (probabilities), not over logits. It is computed in logarithms, since
    1 - mean(sigmoid(x)) = mean(sigmoid(-x)): exact where a clamp would cut the gradient off.

    Args:
        logits: (B, T) snippet logits.
        weights: (B, T) not negative, sum 1 over each bag, as from `topk_weights`.
        labels: (B,) 0 for a normal bag, 1 for an anomalous one.

    Returns:
        Scalar, averaged over bags.
    """
    log_weights = weights.log()  # -inf where a snippet does not count
    log_anomalous = torch.logsumexp(log_weights + F.logsigmoid(logits), dim=1)
    log_normal = torch.logsumexp(log_weights + F.logsigmoid(-logits), dim=1)
    return -torch.where(labels == 1, log_anomalous, log_normal).mean()


def smoothness(scores: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """Squared steps between neighboring scores, summed over each anomalous bag.

    Args:
        scores: (B, T) in [0, 1].
        mask: (B, T) True where the snippet is real; a step into padding does not count.
        labels: (B,) 0 for a normal bag, 1 for an anomalous one.

    Returns:
        Scalar, averaged over anomalous bags; 0 where there is none.
    """
    is_step = (mask[:, 1:] & mask[:, :-1]).to(scores.dtype)
    return mean_over((scores.diff(dim=1).square() * is_step).sum(dim=1), labels == 1)


def sparsity(scores: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """Mean score of each anomalous bag.

    Args:
        scores: (B, T) in [0, 1].
        mask: (B, T) True where the snippet is real.
        labels: (B,) 0 for a normal bag, 1 for an anomalous one.

    Returns:
        Scalar, averaged over anomalous bags; 0 where there is none.
    """
    real = mask.to(scores.dtype)
    return mean_over((scores * real).sum(dim=1) / real.sum(dim=1), labels == 1)


def relative_distance(
    embeddings: Tensor,
    scores: Tensor,
    mask: Tensor,
    labels: Tensor,
    *,
    margin: float,
    top_k_divisor: int,
    is_symmetric: bool = False,
) -> Tensor:
    """Hinge that keeps anomalous embeddings farther from the normal center than normal ones.

    With e an embedding of length 1, n_j and a_i the means of e over the top-k snippets of normal
    bag j and anomalous bag i, h_i over the bottom-k of anomalous bag i, c the mean of all n_j and
    d the squared distance to c:

        mean over i, j of [margin + d(n_j) - d(a_i)]+
        + 1/2 mean over i of [margin + d(h_i) - d(a_i)]+

    Only the normal class is made compact, because anomalies are diverse. The symmetric form makes
    both so: with d' the squared distance to the mean of all a_i it adds

        mean over i, j of [margin + d'(a_i) - d'(n_j)]+

    Args:
        embeddings: (B, T, E)
        scores: (B, T) which rank the snippets; no gradient flows through the ranking.
        mask: (B, T) True where the snippet is real.
        labels: (B,) 0 for a normal bag, 1 for an anomalous one.
        margin: In squared distance between unit vectors, so at most 4 makes sense.
        top_k_divisor: As in `topk_weights`.
        is_symmetric: Whether anomalous bags gather about a center too.

    Returns:
        Scalar; 0 where the batch has bags of one class only.
    """
    directions = F.normalize(embeddings, dim=2)
    top = _pool(directions, topk_weights(scores, mask, top_k_divisor=top_k_divisor))
    bottom = _pool(directions, topk_weights(-scores, mask, top_k_divisor=top_k_divisor))
    is_anomalous = labels == 1
    across, distance = _across(top, is_anomalous, margin)
    center = mean_over(top, ~is_anomalous)  # (E,)
    within = F.relu(margin + (bottom - center).square().sum(dim=1) - distance)
    # Without a normal bag there is no center, and `within` would be a distance to the origin.
    has_center = is_anomalous & (~is_anomalous).any()
    loss = across + 0.5 * mean_over(within, has_center)
    return loss + _across(top, ~is_anomalous, margin)[0] if is_symmetric else loss


def _across(pooled: Tensor, is_far: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """The hinge over all pairs of a far and a near bag, and each bag's distance to the near."""
    distance = (pooled - mean_over(pooled, ~is_far)).square().sum(dim=1)  # (B,)
    hinge = F.relu(margin + distance[None, :] - distance[:, None])  # (far, near)
    is_pair = is_far[:, None] & ~is_far[None, :]
    return mean_over(hinge.flatten(), is_pair.flatten()), distance


def _pool(embeddings: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("bte,bt->be", embeddings, weights)
