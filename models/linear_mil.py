"""A linear scorer fitted to labels of whole bags (multiple instance learning), and nothing more.

One weight per feature, fitted by the cross-entropy of the mean score of the highest tenth of a
bag's snippets, averaged over each class and then over both. The fit is fixed and has no setting:
noise of standard deviation 2 on standardized features, 200 steps of Adam with a cosine, three
seeds.
"""

import math

import torch
from torch import Tensor

from models.layers import Standardize
from models.losses import mean_score_bce, topk_weights

N_SEEDS = 3
N_STEPS = 200
BAGS_PER_CLASS = 32
INPUT_NOISE = 2.0
LEARNING_RATE = 1e-2  # at 1e-3 the weights are still growing after 200 steps
TOP_K_DIVISOR = 10


def fit_linear_mil(
    features: Tensor, mask: Tensor, labels: Tensor, norm: Standardize
) -> tuple[Tensor, Tensor]:
    """Fit the scorer on the CPU, whatever the model is trained on.

    Args:
        features: (n_bags, T, D) of any floating-point dtype.
        mask: (n_bags, T) True where the snippet is real.
        labels: (n_bags,) 0 normal, 1 anomalous; there must be both.
        norm: Standardizes the features, a batch at a time.

    Returns:
        (N_SEEDS, D) weights and (N_SEEDS,) biases: the logits of standardized features.
    """
    fits = [_fit_seed(features, mask, labels, norm, seed) for seed in range(N_SEEDS)]
    weights, biases = zip(*fits, strict=True)
    return torch.stack(weights), torch.stack(biases)


def _fit_seed(
    features: Tensor, mask: Tensor, labels: Tensor, norm: Standardize, seed: int
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.zeros(features.shape[2], requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.Adam([weights, bias], lr=LEARNING_RATE)
    of_class = [torch.nonzero(labels == label).flatten() for label in (0, 1)]
    for step in range(N_STEPS):
        sampled = torch.cat([_draw(members, generator) for members in of_class])
        clean = norm(features[sampled].float())
        noisy = clean + INPUT_NOISE * torch.randn(clean.shape, generator=generator)
        logits = noisy @ weights + bias
        top = topk_weights(logits, mask[sampled], top_k_divisor=TOP_K_DIVISOR)
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * _cosine(step)
        optimizer.zero_grad()
        torch.autograd.backward(_balanced_loss(logits, top, labels[sampled]))
        optimizer.step()
    return weights.detach(), bias.detach()


def _balanced_loss(logits: Tensor, weights: Tensor, labels: Tensor) -> Tensor:
    """The mean over both classes, each counting the same however few bags it has."""
    of_classes = [
        mean_score_bce(logits[chosen], weights[chosen], labels[chosen])
        for chosen in (labels == 0, labels == 1)
    ]
    return torch.stack(of_classes).mean()


def _draw(members: Tensor, generator: torch.Generator) -> Tensor:
    """Bags of one class without repetition, as many as there are or `BAGS_PER_CLASS`."""
    return members[torch.randperm(len(members), generator=generator)[:BAGS_PER_CLASS]]


def _cosine(step: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / N_STEPS))
