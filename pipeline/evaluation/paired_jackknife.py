"""Paired intervals of differences between frame AUCs: a jackknife over test videos, and seeds.

The frames of a video depend on each other, so what varies is the video. The AUC is computed without
each test video in turn; a variance of the difference between two arms follows from that, for the
videos with and for those without anomalous frames by themselves: they are two samples. Both arms
are measured on the same videos, so what makes a video easy or hard falls out of the difference. The
variance over seeds is a further part. Few videos and few seeds say little about a variance, so each
part has the Student quantile of its own degrees of freedom (Banerjee 1960): half the width is the
root of the sum of `quantile**2 * variance`.

Other intervals are too narrow for few videos, in simulations of arms that are equal. Percentiles of
a bootstrap told a third of them apart with two and two videos, instead of 5 %; Satterthwaite's
degrees of freedom for the sum of the parts 9 % with three and 28; the linearized AUC (DeLong's
variance, summed over each video) 10 % with twelve and twelve videos of unequal length.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

LEVEL = 0.95
MIN_VIDEOS = 2  # one says nothing about a variance
WHY_NO_INTERVAL = (
    "[-]: no interval; it needs two test videos with and two without anomalies, and frames of both "
    "classes without any one video"
)


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean AUC of an arm minus that of the reference.

    Attributes:
        mean: In [-1, 1].
        low: Lower end of the 95 % interval; None if the test videos do not allow one: it needs two
            with and two without anomalies, and frames of both classes without any one video.
        high: Its upper end; None likewise.
    """

    mean: float
    low: float | None
    high: float | None

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval and 0 is outside it."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def __str__(self) -> str:
        """In points of 100, with an asterisk if 0 is outside the interval.

        >>> str(Difference(0.05, low=0.01, high=0.1))
        '+5.0 [+1.0, +10.0] *'
        >>> str(Difference(0.05, low=None, high=None))
        '+5.0 [-]'
        """
        if self.low is None or self.high is None:
            return f"{100 * self.mean:+.1f} [-]"
        asterisk = " *" if self.excludes_zero else ""
        low, high = 100 * self.low, 100 * self.high
        return f"{100 * self.mean:+.1f} [{low:+.1f}, {high:+.1f}]{asterisk}"


@dataclass(frozen=True, slots=True, eq=False)
class JackknifedAuc:
    """The frame AUC of one training run, on all test videos and without each of them.

    Attributes:
        auc: On the test videos.
        without: (n_videos,) without the video; NaN where the other frames are of one class.
        has_anomaly: (n_videos,) True where some frames of the video are anomalous.
        video_set: Which test videos they are: the same number for the same videos.
    """

    auc: float
    without: NDArray[np.float64]
    has_anomaly: NDArray[np.bool_]
    video_set: int = 0


def jackknife_auc(
    scores: Sequence[NDArray[np.float32]],
    labels: Sequence[NDArray[np.bool_]],
    *,
    video_set: int = 0,
) -> JackknifedAuc:
    """Compute the frame AUC on the test videos, and without each of them.

    Args:
        scores: Of each video (n_frames,).
        labels: Of each video (n_frames,) True where the frame is anomalous.
        video_set: Another number for other test videos.

    Raises:
        ValueError: If all frames are of one class.
    """
    n_anomalous = np.array([of_video.sum() for of_video in labels], dtype=np.float64)
    n_normal = np.array([len(of_video) for of_video in labels]) - n_anomalous
    if not (n_anomalous.any() and n_normal.any()):
        raise ValueError("frames of both classes are needed, instead got one class")
    per_frame = _pairs_in_order(np.concatenate(scores), np.concatenate(labels))
    ends = np.cumsum([len(of_video) for of_video in labels])[:-1]
    in_order = np.array([of_video.sum() for of_video in np.split(per_frame, ends)])
    within = np.array(
        [_pairs_in_order(*video).sum() / 2 for video in zip(scores, labels, strict=True)]
    )
    total = in_order.sum() / 2  # each pair is counted at both of its frames
    n_pairs = n_anomalous.sum() * n_normal.sum()
    n_left = (n_anomalous.sum() - n_anomalous) * (n_normal.sum() - n_normal)
    without = np.full(len(labels), np.nan)
    np.divide(total - in_order + within, n_left, out=without, where=n_left > 0)
    return JackknifedAuc(float(total / n_pairs), without, n_anomalous > 0, video_set)


def _pairs_in_order(scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n_frames,) with how many frames of the other class each is in order; ties count half."""
    anomalous, normal = np.sort(scores[labels]), np.sort(scores[~labels])
    n_in_order = np.empty(len(scores))
    n_in_order[labels] = _mean_place(normal, scores[labels])
    n_in_order[~labels] = len(anomalous) - _mean_place(anomalous, scores[~labels])
    return n_in_order


def _mean_place(in_order: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float64]:
    left = np.searchsorted(in_order, values, side="left")
    place: NDArray[np.float64] = (left + np.searchsorted(in_order, values, side="right")) / 2
    return place


def mean_of(several: Sequence[JackknifedAuc]) -> JackknifedAuc:
    """The mean AUC of several measurements on the same videos, and that without each video."""
    without: NDArray[np.float64] = np.mean([each.without for each in several], axis=0)
    auc = float(np.mean([each.auc for each in several]))
    return JackknifedAuc(auc, without, several[0].has_anomaly, several[0].video_set)


def paired_difference(
    arm: Mapping[int, JackknifedAuc], reference: Mapping[int, JackknifedAuc]
) -> Difference:
    """Compare two arms that were tested on the same videos.

    With the same seeds in both, seeds are paired; else each arm's seeds vary by themselves. With
    one seed in both, the interval is that of the test videos alone. What of a seed depends on the
    videos is in both variances, so with many seeds and few videos, and where each seed has its own
    videos, the interval is a little too wide. Nothing is corrected for the number of arms in a
    table: of twenty arms that are as good as the reference, one is expected to exclude 0.

    Args:
        arm: By seed, at least one.
        reference: The same.

    Returns:
        The difference of the means over seeds, with its interval if the test videos allow one.
    """
    mean = _mean_auc(arm) - _mean_auc(reference)
    parts = np.array([*_video_variances(arm, reference), *_seed_variances(arm, reference)])
    variances, degrees_of_freedom = parts.T
    quantiles = t.ppf((1 + LEVEL) / 2, degrees_of_freedom)
    half = math.sqrt((quantiles**2 * variances).sum())
    if math.isnan(half):
        return Difference(mean, None, None)
    return Difference(mean, max(mean - half, -1.0), min(mean + half, 1.0))


def _mean_auc(by_seed: Mapping[int, JackknifedAuc]) -> float:
    return float(np.mean([by_seed[seed].auc for seed in sorted(by_seed)]))


def _video_variances(
    arm: Mapping[int, JackknifedAuc], reference: Mapping[int, JackknifedAuc]
) -> Iterator[tuple[float, int]]:
    """The variance of the difference from each sample of videos, and its degrees of freedom.

    NaN where a sample is too small.
    """
    samples = {each.video_set: each.has_anomaly for each in (*arm.values(), *reference.values())}
    for video_set, has_anomaly in samples.items():
        without = _part_of(arm, video_set) - _part_of(reference, video_set)
        for is_chosen in (has_anomaly, ~has_anomaly):
            n = int(is_chosen.sum())
            if n >= MIN_VIDEOS:
                yield (n - 1) * float(np.var(without[is_chosen])), n - 1
            elif n > 0:
                yield math.nan, 1


def _part_of(by_seed: Mapping[int, JackknifedAuc], video_set: int) -> NDArray[np.float64]:
    """(n_videos,) what the seeds of these videos add to the mean AUC without each; or () zero."""
    of_set = [each.without for each in by_seed.values() if each.video_set == video_set]
    part: NDArray[np.float64] = np.sum(of_set, axis=0) / len(by_seed)
    return part


def _seed_variances(
    arm: Mapping[int, JackknifedAuc], reference: Mapping[int, JackknifedAuc]
) -> Iterator[tuple[float, int]]:
    """The variance of the difference over seeds, and its degrees of freedom."""
    if arm.keys() == reference.keys():
        samples = [[arm[seed].auc - reference[seed].auc for seed in arm]]
    else:
        samples = [[each.auc for each in by_seed.values()] for by_seed in (arm, reference)]
    for sample in samples:
        if len(sample) > 1:
            yield float(np.var(sample, ddof=1)) / len(sample), len(sample) - 1
