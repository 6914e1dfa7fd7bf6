"""Intervals of differences between AUCs, against a bootstrap in loops and on known differences."""

import math
import time

import numpy as np
import pytest

from pipeline.evaluation.paired_bootstrap import (
    N_DRAWS,
    ResampledAuc,
    draw_videos,
    paired_difference,
    resample_auc,
)

SEEDS = range(5)


def make_labels(n_videos, n_frames):
    """Of every second video the middle third is anomalous."""
    place = np.arange(n_frames)
    is_middle = (place >= n_frames // 3) & (place < 2 * n_frames // 3)
    return [is_middle & (index % 2 == 1) for index in range(n_videos)]


def make_scores(labels, seed, *, gain):
    """Noise of each video and frame, and `gain` more where it is anomalous; with many ties."""
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(0, 0.3) + rng.normal(size=len(of_video)) + gain * of_video)
        .round(1)
        .astype("float32")
        for of_video in labels
    ]


def slow_auc(scores, labels):
    """Pairs of frames that are ranked correctly; ties count half."""
    scores, labels = np.concatenate(scores), np.concatenate(labels)
    anomalous, normal = scores[labels][:, None], scores[~labels]
    return float(((anomalous > normal) + 0.5 * (anomalous == normal)).mean())


def resampled(labels, seeds, *, gain, first=0):
    return {
        seed: resample_auc(make_scores(labels, first + seed, gain=gain), labels) for seed in seeds
    }


def test_the_auc_of_each_resampled_set_is_that_of_a_loop_over_its_frames():
    labels = [of_video[:n] for of_video, n in zip(make_labels(6, 12), (9, 12) * 3, strict=True)]
    scores = make_scores(labels, 1, gain=1.0)
    found = resample_auc(scores, labels, seed=3)
    assert found.auc == pytest.approx(slow_auc(scores, labels), abs=1e-12)
    counts = draw_videos(np.array([of_video.any() for of_video in labels]), seed=3).astype(int)
    assert counts.shape == (N_DRAWS, 6)
    for draw in range(20):
        chosen = np.repeat(np.arange(6), counts[draw])
        expected = slow_auc([scores[i] for i in chosen], [labels[i] for i in chosen])
        assert found.draws[draw] == pytest.approx(expected, abs=1e-12)
    assert len(np.unique(found.draws)) > 50


def test_a_resampled_set_has_as_many_videos_with_and_without_anomalies_as_there_are():
    has_anomaly = np.array([True, False, False, True, False])
    counts = draw_videos(has_anomaly, seed=0)
    assert (counts[:, has_anomaly].sum(axis=1) == 2).all()
    assert (counts[:, ~has_anomaly].sum(axis=1) == 3).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(5), abs=0.1)
    assert np.array_equal(counts, draw_videos(has_anomaly, seed=0))
    assert not np.array_equal(counts, draw_videos(has_anomaly, seed=1))


def test_without_seeds_to_resample_the_interval_is_that_of_a_bootstrap_in_loops():
    labels = make_labels(20, 15)
    arms = [make_scores(labels, 1, gain=gain) for gain in (1.0, 0.5)]
    arm, reference = ({0: resample_auc(scores, labels)} for scores in arms)
    found = paired_difference(arm, reference)
    rng = np.random.default_rng(7)  # not that of the code
    differences = []
    for _ in range(N_DRAWS):
        chosen = [*rng.choice(range(0, 20, 2), 10), *rng.choice(range(1, 20, 2), 10)]
        of_set = [labels[i] for i in chosen]
        of_arm, of_reference = (slow_auc([scores[i] for i in chosen], of_set) for scores in arms)
        differences.append(of_arm - of_reference)
    differences.sort()
    assert found.low == pytest.approx(differences[25], abs=0.008)
    assert found.high == pytest.approx(differences[974], abs=0.008)
    assert found.mean == pytest.approx(
        slow_auc(arms[0], labels) - slow_auc(arms[1], labels), abs=1e-12
    )
    assert found.low < found.mean < found.high


def test_where_videos_do_not_matter_the_interval_is_that_of_student_over_seeds():
    aucs = [0.61, 0.72, 0.65, 0.70, 0.68]
    arm = {seed: ResampledAuc(auc, np.full(N_DRAWS, auc)) for seed, auc in enumerate(aucs)}
    reference = {seed: ResampledAuc(0.5, np.full(N_DRAWS, 0.5)) for seed in SEEDS}
    found = paired_difference(arm, reference)
    half = 2.776 * np.std(aucs, ddof=1) / math.sqrt(5)  # of a table of Student's t
    assert found.mean == pytest.approx(np.mean(aucs) - 0.5)
    assert found.low == pytest.approx(found.mean - half, abs=0.15 * half)
    assert found.high == pytest.approx(found.mean + half, abs=0.15 * half)


def test_five_equal_arms_in_a_hundred_exclude_0():
    rng = np.random.default_rng(0)
    reference = {seed: ResampledAuc(0.0, np.zeros(N_DRAWS)) for seed in SEEDS}
    n_excluded = 0
    for _ in range(600):
        aucs = rng.normal(size=5)
        arm = {seed: ResampledAuc(auc, np.full(N_DRAWS, auc)) for seed, auc in enumerate(aucs)}
        n_excluded += paired_difference(arm, reference).excludes_zero
    assert 0.03 < n_excluded / 600 < 0.08


def test_two_identical_arms_differ_by_0_in_every_draw():
    labels = make_labels(20, 15)
    arm, same = (resampled(labels, SEEDS, gain=1.0) for _ in range(2))
    found = paired_difference(arm, same)
    assert (found.mean, found.low, found.high) == (0, 0, 0)
    assert not found.excludes_zero


@pytest.mark.parametrize(("gain", "sign"), [(1.6, 1), (0.4, -1)])
def test_an_arm_that_is_shifted_is_found(gain, sign):
    labels = make_labels(24, 30)
    found = paired_difference(
        resampled(labels, SEEDS, gain=gain), resampled(labels, SEEDS, gain=1.0, first=100)
    )
    assert found.excludes_zero
    assert found.mean * sign > 0.1
    assert found.low < found.mean < found.high


def test_a_tie_is_not_found():
    labels = make_labels(24, 30)
    found = paired_difference(
        resampled(labels, SEEDS, gain=1.0), resampled(labels, SEEDS, gain=1.0, first=100)
    )
    assert found.low < 0 < found.high
    assert not found.excludes_zero


def test_pairing_finds_a_difference_that_is_smaller_than_the_spread_over_seeds_and_videos():
    labels = make_labels(24, 30)
    arm, reference = {}, {}
    for seed in SEEDS:
        gain = 0.5 + 0.3 * seed  # the seeds differ a lot, and both arms alike
        reference[seed] = resample_auc(make_scores(labels, seed, gain=gain), labels)
        arm[seed] = resample_auc(make_scores(labels, seed, gain=gain + 0.2), labels)
    found = paired_difference(arm, reference)
    assert found.excludes_zero
    assert found.mean < np.std([each.auc for each in reference.values()], ddof=1)
    shifted = {seed + 1000: each for seed, each in arm.items()}  # other seeds: not paired
    alone = paired_difference(shifted, reference)
    assert alone.mean == found.mean
    assert not alone.excludes_zero


def test_a_scorer_of_one_seed_is_compared_with_five_trainings():
    labels = make_labels(24, 30)
    reference = resampled(labels, SEEDS, gain=1.0)
    found = paired_difference(
        {0: resample_auc(make_scores(labels, 9, gain=2.5), labels)}, reference
    )
    assert found.excludes_zero
    assert found.mean > 0.1


def test_a_set_whose_frames_are_all_anomalous_is_left_out():
    labels = [np.array([True, True]), np.array([True, False]), np.array([False, True])]
    scores = make_scores(labels, 0, gain=2.0)
    arm, reference = ({0: resample_auc(each, labels)} for each in (scores, [-s for s in scores]))
    assert np.isnan(arm[0].draws).any()
    found = paired_difference(arm, reference)
    assert np.isfinite([found.low, found.high]).all()
    with pytest.raises(ValueError, match="frames of both classes are needed"):
        resample_auc(scores[:1], labels[:1])


def test_a_thousand_draws_of_twenty_thousand_frames_take_seconds():
    labels = make_labels(200, 100)
    scores = make_scores(labels, 0, gain=1.0)
    started = time.process_time()
    resample_auc(scores, labels)
    assert time.process_time() - started < 10
