"""Intervals of differences between AUCs: against loops, on equal arms and on known differences."""

import math
import time

import numpy as np
import pytest

from pipeline.evaluation.paired_jackknife import (
    JackknifedAuc,
    jackknife_auc,
    mean_of,
    paired_difference,
)

SEEDS = range(5)


def make_labels(n_videos, n_frames):
    """Of every second video the middle third is anomalous."""
    place = np.arange(n_frames)
    is_middle = (place >= n_frames // 3) & (place < 2 * n_frames // 3)
    return [is_middle & (index % 2 == 1) for index in range(n_videos)]


def make_scores(labels, seed, *, gain, offset=0.3):
    """Noise of each video and frame, and `gain` more where it is anomalous; with many ties."""
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(0, offset) + rng.normal(size=len(of_video)) + gain * of_video)
        .round(1)
        .astype("float32")
        for of_video in labels
    ]


def alike(auc, *, n=6, video_set=0):
    """An AUC that no video changes; every second one has anomalous frames."""
    return JackknifedAuc(auc, np.full(n, auc), np.arange(n) % 2 == 1, video_set)


def jackknife_variances(found, divisor=1):
    """For each kind of videos (n - 1) / n times the sum of squared deviations, and n - 1."""
    parts = []
    for kind in (False, True):
        values = [v for v, has in zip(found.without, found.has_anomaly, strict=True) if has == kind]
        n, mean = len(values), sum(values) / len(values)
        parts.append(((n - 1) / n * sum((v - mean) ** 2 for v in values) / divisor, n - 1))
    return parts


def half_width(parts):
    """Each variance with the Student quantile of its own degrees of freedom, of a table."""
    quantiles = {1: 12.706, 5: 2.571}
    return math.sqrt(sum(quantiles[degrees] ** 2 * variance for variance, degrees in parts))


def slow_auc(scores, labels):
    """Pairs of frames that are ranked correctly; ties count half."""
    scores, labels = np.concatenate(scores), np.concatenate(labels)
    anomalous, normal = scores[labels][:, None], scores[~labels]
    return float(((anomalous > normal) + 0.5 * (anomalous == normal)).mean())


def jackknifed(labels, seeds, *, gain, first=0):
    return {
        seed: jackknife_auc(make_scores(labels, first + seed, gain=gain), labels) for seed in seeds
    }


@pytest.mark.parametrize("lengths", [(9, 12) * 3, (1, 30, 2, 14, 5, 6)])
def test_the_auc_without_each_video_is_that_of_a_loop_over_the_other_frames(lengths):
    labels = [of_video[:n] for of_video, n in zip(make_labels(6, 30), lengths, strict=True)]
    labels[1][-1] = True  # the first 12 frames have no anomalous one
    scores = make_scores(labels, 1, gain=1.0)
    found = jackknife_auc(scores, labels, video_set=3)
    assert found.auc == pytest.approx(slow_auc(scores, labels), abs=1e-12)
    assert found.video_set == 3
    assert found.has_anomaly.tolist() == [of_video.any() for of_video in labels]
    for left_out in range(6):
        others = [index for index in range(6) if index != left_out]
        expected = slow_auc([scores[i] for i in others], [labels[i] for i in others])
        assert found.without[left_out] == pytest.approx(expected, abs=1e-12)
    assert len(np.unique(found.without)) == 6


def test_the_mean_of_several_is_that_of_each_auc():
    labels = make_labels(6, 12)
    one, two = (jackknife_auc(make_scores(labels, seed, gain=1.0), labels) for seed in (0, 1))
    found = mean_of([one, two])
    assert found.auc == (one.auc + two.auc) / 2
    np.testing.assert_allclose(found.without, (one.without + two.without) / 2, rtol=1e-12)


def test_for_many_videos_the_interval_is_that_of_a_bootstrap_in_loops():
    labels = make_labels(40, 15)
    arms = [make_scores(labels, 1, gain=gain) for gain in (1.0, 0.5)]
    arm, reference = ({0: jackknife_auc(scores, labels)} for scores in arms)
    found = paired_difference(arm, reference)
    rng = np.random.default_rng(7)
    differences = []
    for _ in range(1000):
        chosen = [*rng.choice(range(0, 40, 2), 20), *rng.choice(range(1, 40, 2), 20)]
        of_set = [labels[i] for i in chosen]
        of_arm, of_reference = (slow_auc([scores[i] for i in chosen], of_set) for scores in arms)
        differences.append(of_arm - of_reference)
    differences.sort()
    assert found.low == pytest.approx(differences[25], abs=0.01)
    assert found.high == pytest.approx(differences[974], abs=0.01)
    assert found.mean == pytest.approx(
        slow_auc(arms[0], labels) - slow_auc(arms[1], labels), abs=1e-12
    )
    assert found.low < found.mean < found.high


@pytest.mark.parametrize(
    ("n_anomalous", "n_normal", "spread"),
    [(2, 2, 0.0), (2, 12, 1.0), (4, 4, 1.0), (8, 8, 1.0), (8, 0, 0.0)],
)
def test_of_equal_arms_with_few_videos_at_most_five_in_a_hundred_exclude_0(
    n_anomalous, n_normal, spread
):
    """Scores of two arms without any signal; `spread` is that of the videos' lengths."""
    rng = np.random.default_rng(0)
    n_excluded = 0
    for _ in range(400):
        lengths = np.ceil(12 * np.exp(rng.normal(0, spread, n_anomalous + n_normal))).astype(int)
        labels = [
            np.arange(n) < (n + 1) // 2 if index < n_anomalous else np.zeros(n, dtype=bool)
            for index, n in enumerate(lengths)
        ]
        arm, reference = (
            {0: jackknife_auc(make_scores(labels, rng, gain=0, offset=1.0), labels)}
            for _ in range(2)
        )
        n_excluded += paired_difference(arm, reference).excludes_zero
    assert 0.003 < n_excluded / 400 < 0.07


def test_with_one_video_of_a_kind_there_is_no_interval():
    labels = make_labels(3, 12)
    assert [of_video.any() for of_video in labels] == [False, True, False]
    arm, reference = (jackknifed(labels, (0,), gain=gain) for gain in (3.0, 0.0))
    found = paired_difference(arm, reference)
    assert found.mean > 0.1
    assert (found.low, found.high) == (None, None)
    assert not found.excludes_zero
    assert str(found) == f"{100 * found.mean:+.1f} [-]"
    several = paired_difference(jackknifed(labels, SEEDS, gain=3.0), reference)
    assert several.low is None


def test_where_videos_do_not_matter_the_interval_is_that_of_student_over_seeds():
    aucs = [0.61, 0.72, 0.65, 0.70, 0.68]
    arm = {seed: alike(auc) for seed, auc in enumerate(aucs)}
    found = paired_difference(arm, {seed: alike(0.5) for seed in SEEDS})
    half = 2.776 * np.std(aucs, ddof=1) / math.sqrt(5)  # of a table of Student's t
    assert found.mean == pytest.approx(np.mean(aucs) - 0.5)
    assert found.low == pytest.approx(found.mean - half, abs=1e-4)
    assert found.high == pytest.approx(found.mean + half, abs=1e-4)


def test_five_equal_arms_in_a_hundred_exclude_0():
    rng = np.random.default_rng(0)
    reference = {seed: alike(0.0) for seed in SEEDS}
    n_excluded = 0
    for _ in range(600):
        arm = {seed: alike(auc) for seed, auc in enumerate(rng.normal(0, 0.1, size=5))}
        n_excluded += paired_difference(arm, reference).excludes_zero
    assert 0.03 < n_excluded / 600 < 0.08


@pytest.mark.parametrize("has_own_videos", [False, True])
def test_of_equal_arms_with_few_videos_and_seeds_at_most_five_in_a_hundred_exclude_0(
    has_own_videos,
):
    rng = np.random.default_rng(0)
    labels = make_labels(8, 12)
    n_excluded = 0
    for _ in range(300):
        arms = []
        for _ in range(2):
            of_videos = rng.normal(size=8)  # what an arm finds easy, with every seed
            arm = {}
            for seed in range(3):
                scores = [
                    (offset + of_seed + rng.normal(size=12)).astype("float32")
                    for offset, of_seed in zip(of_videos, rng.normal(size=8), strict=True)
                ]
                video_set = seed if has_own_videos else 0
                arm[seed] = jackknife_auc(scores, labels, video_set=video_set)
            arms.append(arm)
        n_excluded += paired_difference(*arms).excludes_zero
    assert 0.003 < n_excluded / 300 < 0.08


def test_seeds_with_the_same_videos_are_averaged_and_those_with_their_own_are_added():
    labels = make_labels(12, 20)
    scores = [make_scores(labels, seed, gain=1.0) for seed in (0, 1)]
    of_seeds = (np.var([slow_auc(each, labels) for each in scores], ddof=1) / 2, 1)
    same = {seed: jackknife_auc(scores[seed], labels) for seed in (0, 1)}
    found = paired_difference(same, {seed: alike(0.5, n=12) for seed in (0, 1)})
    expected = half_width([of_seeds, *jackknife_variances(mean_of([same[0], same[1]]))])
    assert found.mean - found.low == pytest.approx(expected, rel=1e-3)
    own = {seed: jackknife_auc(scores[seed], labels, video_set=seed) for seed in (0, 1)}
    found = paired_difference(own, {seed: alike(0.5, n=12, video_set=seed) for seed in (0, 1)})
    parts = [part for each in own.values() for part in jackknife_variances(each, divisor=4)]
    assert found.mean - found.low == pytest.approx(half_width([of_seeds, *parts]), rel=1e-3)


def test_two_identical_arms_differ_by_0_in_every_draw():
    labels = make_labels(20, 15)
    arm, same = (jackknifed(labels, SEEDS, gain=1.0) for _ in range(2))
    found = paired_difference(arm, same)
    assert (found.mean, found.low, found.high) == (0, 0, 0)
    assert not found.excludes_zero


@pytest.mark.parametrize(("gain", "sign"), [(1.6, 1), (0.4, -1)])
def test_an_arm_that_is_shifted_is_found(gain, sign):
    labels = make_labels(24, 30)
    found = paired_difference(
        jackknifed(labels, SEEDS, gain=gain), jackknifed(labels, SEEDS, gain=1.0, first=100)
    )
    assert found.excludes_zero
    assert found.mean * sign > 0.1
    assert found.low < found.mean < found.high


def test_a_tie_is_not_found():
    labels = make_labels(24, 30)
    found = paired_difference(
        jackknifed(labels, SEEDS, gain=1.0), jackknifed(labels, SEEDS, gain=1.0, first=100)
    )
    assert found.low < 0 < found.high
    assert not found.excludes_zero


def test_pairing_finds_a_difference_that_is_smaller_than_the_spread_over_seeds_and_videos():
    labels = make_labels(24, 30)
    arm, reference = {}, {}
    for seed in SEEDS:
        gain = 0.5 + 0.3 * seed  # the seeds differ a lot, and both arms alike
        reference[seed] = jackknife_auc(make_scores(labels, seed, gain=gain), labels)
        arm[seed] = jackknife_auc(make_scores(labels, seed, gain=gain + 0.2), labels)
    found = paired_difference(arm, reference)
    assert found.excludes_zero
    assert found.mean < np.std([each.auc for each in reference.values()], ddof=1)
    shifted = {seed + 1000: each for seed, each in arm.items()}  # other seeds: not paired
    alone = paired_difference(shifted, reference)
    assert alone.mean == found.mean
    assert not alone.excludes_zero


def test_a_scorer_of_one_seed_is_compared_with_five_trainings():
    labels = make_labels(24, 30)
    reference = jackknifed(labels, SEEDS, gain=1.0)
    found = paired_difference(
        {0: jackknife_auc(make_scores(labels, 9, gain=2.5), labels)}, reference
    )
    assert found.excludes_zero
    assert found.mean > 0.1


def test_where_without_one_video_all_frames_are_of_one_class_there_is_no_interval():
    labels = [np.array([True, True]), np.array([True, False]), np.array([True, True])]
    scores = make_scores(labels, 0, gain=2.0)
    arm, reference = ({0: jackknife_auc(each, labels)} for each in (scores, [-s for s in scores]))
    assert np.isnan(arm[0].without).tolist() == [False, True, False]
    found = paired_difference(arm, reference)
    assert np.isfinite(found.mean)
    assert found.low is None
    with pytest.raises(ValueError, match="frames of both classes are needed"):
        jackknife_auc(scores[:1], labels[:1])


def test_an_interval_ends_where_differences_end():
    labels = make_labels(6, 12)
    arm, reference = (jackknifed(labels, (0,), gain=gain) for gain in (1.5, -1.5))
    found = paired_difference(arm, reference)
    assert 0.5 < found.mean < found.high == 1


def test_two_million_frames_of_eight_hundred_videos_take_seconds():
    labels = make_labels(800, 2900)
    scores = make_scores(labels, 0, gain=1.0)
    started = time.process_time()
    jackknife_auc(scores, labels)
    assert time.process_time() - started < 10
