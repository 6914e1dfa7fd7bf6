"""How training videos are divided for cross-validation, and how scorers are weighted by it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment, minimize
from scipy.special import expit

from models.linear_mil import TOP_K_DIVISOR

MAX_FOLDS = 5

# Weights before anything was validated: the network's, and that of every other scorer.
PRIOR_OF_NETWORK = 1.0
PRIOR_OF_OTHERS = 0.25
# Cross-validation is hardest on the network: it has most to learn from the videos that are held
# out. So it never loses more than half of its weight.
LEAST_OF_NETWORK = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Fusion:
    """How the logits of M scorers become one.

    Attributes:
        weights: (M,) not negative, of logits that were divided by their scale.
        bias: Added to the sum; with it a video's score is above one half where an anomalous one is
            likelier than a normal one, if both are equally frequent.
        offsets: (M,) means of the held-out snippets' logits.
        scales: (M,) their standard deviations, positive.
    """

    weights: NDArray[np.float64]
    bias: float
    offsets: NDArray[np.float64]
    scales: NDArray[np.float64]


def can_cross_validate(labels: NDArray[np.int64]) -> bool:
    """Whether there are two videos of either class, one to learn from and one to validate on.

    Args:
        labels: (n_videos,) 0 or 1.
    """
    return bool(np.bincount(labels, minlength=2).min() >= 2)


def matched_folds(
    appearances: NDArray[np.floating], labels: NDArray[np.int64], *, seed: int
) -> NDArray[np.int64]:
    """Divide videos into folds so that no place has more of one class in a fold than elsewhere.

    Each video of the rarer class is matched with the video of the other class that looks most like
    it, and both come into one fold. Divided at random, a held-out normal video leaves a place with
    more anomalous than normal videos to learn from: a scorer that has memorized places then ranks
    held-out videos the wrong way round, far below chance.

    Args:
        appearances: (n_videos, D) mean features of each video, standardized.
        labels: (n_videos,) 0 or 1.
        seed: Of the order in which pairs are assigned to folds.

    Returns:
        (n_videos,) the fold of each, from 0 to the number of folds - 1: five, or as many as there
        are videos of the rarer class.
    """
    normal, anomalous = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
    squares = [(appearances[of_class] ** 2).sum(axis=1) for of_class in (normal, anomalous)]
    cost = squares[0][:, None] + squares[1] - 2 * appearances[normal] @ appearances[anomalous].T
    rows, columns = linear_sum_assignment(cost)
    pairs = np.stack([normal[rows], anomalous[columns]], axis=1)  # (n_pairs, 2)
    rng = np.random.default_rng(seed)
    rest = rng.permutation(np.setdiff1d(np.arange(len(labels)), pairs))
    n_folds = min(MAX_FOLDS, len(pairs))
    folds = np.empty(len(labels), dtype=np.int64)
    folds[rng.permutation(pairs)] = (np.arange(len(pairs)) % n_folds)[:, None]
    folds[rest] = (len(pairs) + np.arange(len(rest))) % n_folds
    return folds


def fuse(logits: list[NDArray[np.float64]], labels: NDArray[np.int64]) -> Fusion:
    """Weigh scorers by what they say of videos that they were not fitted to.

    Logistic regression on the videos' labels with both classes counted alike, weights that are not
    negative, and a penalty of half the squared distance from the weights above, of which the first
    is the network's. The more videos, the less the penalty counts.

    Args:
        logits: Of each video (n_snippets, M).
        labels: (n_videos,) 0 or 1, both of them.
    """
    snippets = np.concatenate(logits)
    offsets = snippets.mean(axis=0)
    spread = snippets.std(axis=0)
    scales = np.where(spread > 0, spread, 1.0)
    videos = np.stack([video_scores((of_video - offsets) / scales) for of_video in logits])
    n_scorers = videos.shape[1]
    prior = np.full(n_scorers, PRIOR_OF_OTHERS)
    prior[0] = PRIOR_OF_NETWORK
    signs = np.where(labels == 1, 1.0, -1.0)
    of_class = np.where(labels == 1, (labels == 1).sum(), (labels == 0).sum())
    video_weights = len(labels) / (2 * of_class)  # they sum to n_videos

    def objective(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights, bias = parameters[:-1], parameters[-1]
        margins = signs * (videos @ weights + bias)
        loss = (video_weights * np.logaddexp(0, -margins)).sum()
        loss += 0.5 * ((weights - prior) ** 2).sum()
        slopes = -video_weights * signs * expit(-margins)
        return loss, np.append(slopes @ videos + weights - prior, slopes.sum())

    least = [LEAST_OF_NETWORK, *[0.0] * (n_scorers - 1), None]
    bounds = [(bound, None) for bound in least]
    found = minimize(objective, np.append(prior, 0.0), jac=True, bounds=bounds, method="L-BFGS-B")
    return Fusion(found.x[:-1], float(found.x[-1]), offsets, scales)


def video_scores(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n_snippets, M) to (M,): the mean over each scorer's highest tenth, one at least."""
    k = max(1, len(logits) // TOP_K_DIVISOR)
    highest: NDArray[np.float64] = np.sort(logits, axis=0)[-k:].mean(axis=0)
    return highest
