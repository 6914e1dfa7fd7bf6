"""Paired bootstrap over test videos and seeds: intervals for differences between frame AUCs.

Every training run is measured on the same resampled sets of test videos, so what makes a set easy
or hard falls out of the difference between two arms; where both were trained with the same seeds,
the same seeds are resampled too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

N_DRAWS = 1000
LEVEL = 0.95
_VIDEOS, _SEEDS = 0, 1  # what a random generator is for


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean AUC of an arm minus that of the reference.

    Attributes:
        mean: In [-1, 1].
        low: Lower end of the 95 % percentile interval.
        high: Its upper end.
    """

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 is outside the interval."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        """In points of 100, with an asterisk if 0 is outside the interval.

        >>> str(Difference(0.05, low=0.01, high=0.1))
        '+5.0 [+1.0, +10.0] *'
        """
        asterisk = " *" if self.excludes_zero else ""
        low, high = 100 * self.low, 100 * self.high
        return f"{100 * self.mean:+.1f} [{low:+.1f}, {high:+.1f}]{asterisk}"


@dataclass(frozen=True, slots=True, eq=False)
class ResampledAuc:
    """The frame AUC of one training run.

    Attributes:
        auc: On the test videos.
        draws: (N_DRAWS,) on each resampled set of them; NaN where its frames are of one class.
    """

    auc: float
    draws: NDArray[np.float64]


def resample_auc(
    scores: Sequence[NDArray[np.float32]], labels: Sequence[NDArray[np.bool_]], *, seed: int = 0
) -> ResampledAuc:
    """Compute the frame AUC on the test videos and on resampled sets of them.

    A set has as many videos with and as many without anomalous frames as there are, drawn with
    replacement. The sets depend on the seed and on which videos have anomalous frames, and on
    nothing else: all runs that are tested on the same videos get the same sets.

    Args:
        scores: Of each video (n_frames,).
        labels: Of each video (n_frames,) True where the frame is anomalous.
        seed: Of the sets; another one for other videos.

    Raises:
        ValueError: If all frames are of one class.
    """
    has_anomaly = np.array([of_video.any() for of_video in labels])
    runs = _SortedScores(scores, labels)
    auc = runs.auc(np.ones(len(has_anomaly)))
    if np.isnan(auc):
        raise ValueError("frames of both classes are needed, instead got one class")
    draws = np.array([runs.auc(counts) for counts in draw_videos(has_anomaly, seed=seed)])
    return ResampledAuc(auc, draws)


def mean_of(several: Sequence[ResampledAuc]) -> ResampledAuc:
    """The mean AUC of several measurements on the same videos, and its draws."""
    draws: NDArray[np.float64] = np.mean([each.draws for each in several], axis=0)
    return ResampledAuc(float(np.mean([each.auc for each in several])), draws)


def draw_videos(has_anomaly: NDArray[np.bool_], *, seed: int) -> NDArray[np.float64]:
    """Resample videos with replacement, those with and those without anomalies by themselves.

    Args:
        has_anomaly: (n_videos,) True where some frames are anomalous.
        seed: Of the draws.

    Returns:
        (N_DRAWS, n_videos) how often each video is in each set.
    """
    rng = np.random.default_rng((_VIDEOS, seed))
    counts = np.zeros((N_DRAWS, len(has_anomaly)))
    for is_chosen in (has_anomaly, ~has_anomaly):
        n = int(is_chosen.sum())
        if n:
            counts[:, is_chosen] = rng.multinomial(n, np.full(n, 1 / n), size=N_DRAWS)
    return counts


def paired_difference(
    arm: Mapping[int, ResampledAuc], reference: Mapping[int, ResampledAuc]
) -> Difference:
    """Compare two arms that were tested on the same videos.

    With the same seeds in both, a draw takes the same seeds from both; else each arm's seeds are
    drawn by themselves. With one seed in both, the interval is that of the test videos alone.
    Nothing is corrected for the number of arms in a table: of twenty arms that are as good as the
    reference, one is expected to exclude 0.

    Args:
        arm: By seed, at least one.
        reference: The same.

    Returns:
        The difference of the means over seeds, with its interval.
    """
    rng = np.random.default_rng((_SEEDS, 0))
    weights = _draw_seeds(rng, len(reference))
    of_reference = _weighted(reference, weights)
    same = sorted(arm) == sorted(reference)
    of_arm = _weighted(arm, weights if same else _draw_seeds(rng, len(arm)))
    mean = _mean(arm) - _mean(reference)
    tail = 50 * (1 - LEVEL)
    low, high = np.nanpercentile(of_arm - of_reference, [tail, 100 - tail]).tolist()
    return Difference(mean, low, high)


def _draw_seeds(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """(N_DRAWS, n) the weight of each seed in each draw; each row's sum is 1.

    The percentiles of a mean of few resampled values lie too close together: five values around 0
    exclude 0 in 16 % of all cases. So the deviations from equal weights are widened, by what makes
    the variance unbiased and by Student's t over the normal quantile, which brings it to 5.5 %.
    """
    weights = rng.multinomial(n, np.full(n, 1 / n), size=N_DRAWS) / n
    if n == 1:
        return weights
    quantile = (1 + LEVEL) / 2
    factor = np.sqrt(n / (n - 1)) * t.ppf(quantile, n - 1) / norm.ppf(quantile)
    widened: NDArray[np.float64] = 1 / n + factor * (weights - 1 / n)
    return widened


def _weighted(
    by_seed: Mapping[int, ResampledAuc], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    draws = np.stack([by_seed[seed].draws for seed in sorted(by_seed)], axis=1)
    total: NDArray[np.float64] = (weights * draws).sum(axis=1)
    return total


def _mean(by_seed: Mapping[int, ResampledAuc]) -> float:
    return float(np.mean([by_seed[seed].auc for seed in sorted(by_seed)]))


class _SortedScores:
    """Frames of all videos sorted by score; equal scores of one video are one entry."""

    def __init__(
        self, scores: Sequence[NDArray[np.float32]], labels: Sequence[NDArray[np.bool_]]
    ) -> None:
        levels, videos, n_anomalous, n_normal = [], [], [], []
        for index, (of_video, is_anomalous) in enumerate(zip(scores, labels, strict=True)):
            level, place = np.unique(of_video, return_inverse=True)
            levels.append(level)
            videos.append(np.full(len(level), index))
            n_anomalous.append(np.bincount(place[is_anomalous], minlength=len(level)))
            n_normal.append(np.bincount(place[~is_anomalous], minlength=len(level)))
        joined = np.concatenate(levels)
        order = np.argsort(joined, kind="stable")
        self._video = np.concatenate(videos)[order]
        self._n_anomalous = np.concatenate(n_anomalous)[order]
        self._n_normal = np.concatenate(n_normal)[order]
        is_new = np.diff(joined[order], prepend=np.nan) != 0
        self._starts = np.flatnonzero(is_new)  # of entries with one score

    def auc(self, counts: NDArray[np.float64]) -> float:
        """The AUC where video i is there counts[i] times; NaN if all frames are of one class."""
        weights = counts[self._video]
        anomalous = np.add.reduceat(weights * self._n_anomalous, self._starts)
        normal = np.add.reduceat(weights * self._n_normal, self._starts)
        n_pairs = anomalous.sum() * normal.sum()
        n_below = normal.cumsum() - normal / 2  # ties count half
        return float((anomalous * n_below).sum() / n_pairs) if n_pairs else float("nan")
