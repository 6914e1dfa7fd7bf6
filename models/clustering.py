"""Clustering of a batch's snippets into normal and anomalous ones, and the losses on it (CBCG)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from models.losses import is_among_highest, mean_over, topk_weights

N_ROUNDS = 5  # of the clustering: it changes little after the second


@torch.no_grad()
def cluster_batch(
    directions: Tensor,
    logits: Tensor,
    mask: Tensor,
    labels: Tensor,
    *,
    top_k_divisor: int,
    max_fraction: float,
) -> Tensor:
    """Divide the snippets of a batch into a normal and an anomalous cluster.

    Every snippet of a normal bag stays normal. A snippet of an anomalous bag joins the anomalous
    cluster where that center is nearer, and the bag's highest snippet always does: an anomalous bag
    holds something anomalous. Then both centers are computed again.

    Args:
        directions: (B, T, cluster_dim) of length 1.
        logits: (B, T) whose highest snippets are the initial anomalous cluster.
        mask: (B, T) True where the snippet is real.
        labels: (B,) 0 for a normal bag, 1 for an anomalous one.
        top_k_divisor: As in `topk_weights`, for the initial cluster.
        max_fraction: At most this fraction of a bag joins, though one snippet at least: the highest
            and then the nearest.

    Returns:
        (B, T) bool, which snippets are in the anomalous cluster.
    """
    is_anomalous = (labels == 1).unsqueeze(1)  # (B, 1)
    n_snippets = mask.sum(dim=1, keepdim=True)
    # Paper is silent: without a bound the cluster grew to twice the fraction of anomalous snippets.
    max_members = (n_snippets * max_fraction).long().clamp(min=1)
    highest = is_anomalous & is_among_highest(logits, mask, torch.ones_like(n_snippets))
    may_join = is_anomalous & mask & ~highest  # which joins in any case
    initial = is_anomalous & (topk_weights(logits, mask, top_k_divisor=top_k_divisor) > 0)
    normal = cluster_centers(directions, is_anomalous.expand_as(mask), mask)[0]
    centers = torch.stack([normal, cluster_centers(directions, initial, mask)[1]])
    joins = initial
    for _ in range(N_ROUNDS):
        nearness = directions @ (centers[1] - centers[0])
        near = is_among_highest(nearness, may_join, max_members - 1) & (nearness > 0)
        joins = near | highest
        centers = cluster_centers(directions, joins, mask)
    return joins


def cluster_centers(directions: Tensor, joins: Tensor, mask: Tensor) -> Tensor:
    """The centers of the normal and the anomalous cluster.

    Args:
        directions: (B, T, cluster_dim) of length 1.
        joins: (B, T) bool, which snippets are in the anomalous cluster.
        mask: (B, T) True where the snippet is real.

    Returns:
        (2, cluster_dim) normalized means of the normal cluster and of the anomalous one; 0 where
        one is empty.
    """
    members = torch.stack([mask & ~joins, mask & joins]).to(directions.dtype)
    return F.normalize(torch.einsum("btq,cbt->cq", directions, members), dim=1)


def cluster_loss(margin: Tensor, joins: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy between cluster probability and cluster, with equal weight for both clusters.

    Args:
        margin: (B, T) logits of the cluster probability.
        joins: (B, T) bool, which snippets are in the anomalous cluster.
        mask: (B, T) True where the snippet is real.

    Returns:
        Scalar: the mean over the anomalous cluster plus that over the normal one, halved.
    """
    anomalous = mean_over(-F.logsigmoid(margin).flatten(), (joins & mask).flatten())
    normal = mean_over(-F.logsigmoid(-margin).flatten(), (~joins & mask).flatten())
    return 0.5 * (anomalous + normal)


def guidance(
    logits: Tensor, margin: Tensor, mask: Tensor, labels: Tensor, *, confidence: float
) -> Tensor:
    """Cross-entropy that pulls scores toward the cluster probability where that is sure.

    Args:
        logits: (B, T) of the regression branch.
        margin: (B, T) logits of the cluster probability; gets no gradient.
        mask: (B, T) True where the snippet is real.
        labels: (B,); only the snippets of anomalous bags are guided.
        confidence: Sure is a probability above this, or below 1 minus this.

    Returns:
        Scalar, averaged over the snippets that are guided; 0 where there is none.
    """
    min_margin = math.log(confidence / (1 - confidence))
    is_guided = mask & (labels == 1).unsqueeze(1) & (margin.detach().abs() > min_margin)
    target = margin.detach().sigmoid()
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return mean_over(each.flatten(), is_guided.flatten())
