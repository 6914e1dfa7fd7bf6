"""Frame-level AUC and average precision, each against its definition."""

import itertools

import numpy as np
import pytest

from pipeline.evaluation.metrics import MAX_CURVE_POINTS, curves, frame_metrics, macro_auc


def pairwise_auc(scores, labels):
    """The fraction of (anomalous, normal) pairs that are ranked right; ties count half."""
    wins = 0.0
    for positive in scores[labels]:
        for negative in scores[~labels]:
            wins += float(positive > negative) + 0.5 * float(positive == negative)
    return wins / (labels.sum() * (~labels).sum())


def step_ap(scores, labels):
    """Precision at each distinct threshold, weighted by the gain in recall."""
    average, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = scores >= threshold
        recall = (taken & labels).sum() / labels.sum()
        precision = (taken & labels).sum() / taken.sum()
        average += (recall - recall_before) * precision
        recall_before = recall
    return average


def trapezoid_ap(scores, labels):
    """Area under the polygon through (recall, precision), starting at (0, 1)."""
    points = [(0.0, 1.0)]
    for threshold in sorted(set(scores), reverse=True):
        taken = scores >= threshold
        points.append(((taken & labels).sum() / labels.sum(), (taken & labels).sum() / taken.sum()))
    return sum((r1 - r0) * (p0 + p1) / 2 for (r0, p0), (r1, p1) in itertools.pairwise(points))


@pytest.mark.parametrize("n_levels", [4, 1000])
def test_metrics_equal_their_definitions_with_and_without_ties(n_levels):
    rng = np.random.default_rng(n_levels)
    labels = rng.random(80) < 0.3
    scores = np.round(rng.random(80) * 0.5 + labels * 0.2, 6)
    scores = np.floor(scores * n_levels) / n_levels
    abnormal = np.arange(80) < 50
    metrics = frame_metrics(scores, labels, abnormal)
    assert metrics.auc == pytest.approx(pairwise_auc(scores, labels))
    assert metrics.auc_abnormal == pytest.approx(pairwise_auc(scores[:50], labels[:50]))
    assert metrics.ap_step == pytest.approx(step_ap(scores, labels))
    assert metrics.ap_trapezoid == pytest.approx(trapezoid_ap(scores, labels))
    assert metrics.ap_abnormal == pytest.approx(trapezoid_ap(scores[:50], labels[:50]))


@pytest.mark.parametrize("n_levels", [4, 1000])
def test_the_macro_auc_is_the_mean_of_a_loop_over_videos_with_two_more_frames(n_levels):
    rng = np.random.default_rng(n_levels)
    labels = [rng.random(n) < fraction for n, fraction in ((9, 0.4), (5, 0), (7, 1), (1, 0))]
    scores = [np.floor(rng.random(len(of_video)) * n_levels) / n_levels for of_video in labels]
    aucs = []
    for of_video, is_anomalous in zip(scores, labels, strict=True):
        wins, n_pairs = 0.0, 0
        for positive in [1.0, *of_video[is_anomalous]]:
            for negative in [0.0, *of_video[~is_anomalous]]:
                wins += float(positive > negative) + 0.5 * float(positive == negative)
                n_pairs += 1
        aucs.append(wins / n_pairs)
    assert macro_auc(scores, labels) == pytest.approx(sum(aucs) / 4)


def test_the_macro_auc_of_scores_beyond_0_and_1_is_not_defined():
    assert np.isnan(macro_auc([np.array([0.1, 7.0])], [np.array([False, True])]))


def test_auc_of_abnormal_videos_is_undefined_when_they_are_anomalous_throughout():
    labels = np.array([True, True, False, False])
    metrics = frame_metrics(np.array([0.9, 0.8, 0.1, 0.2]), labels, labels)
    assert np.isnan(metrics.auc_abnormal)
    assert np.isnan(metrics.ap_abnormal)
    assert metrics.auc == 1.0


def test_scores_that_are_not_finite_are_refused():
    labels = np.array([True, False])
    with pytest.raises(ValueError, match="scores must be finite"):
        frame_metrics(np.array([np.nan, 0.1]), labels, labels)


def test_frames_of_one_class_are_refused():
    labels = np.array([False, False])
    with pytest.raises(ValueError, match="instead got 0 anomalous among 2"):
        frame_metrics(np.array([0.3, 0.1]), labels, labels)


def test_arrays_of_different_lengths_are_refused():
    labels = np.array([True, False])
    with pytest.raises(ValueError, match="alike"):
        frame_metrics(np.array([0.3]), labels, labels)


def test_the_curves_go_through_the_rates_at_each_threshold():
    labels = np.array([True, False, True, False, False])
    found = curves(np.array([0.9, 0.8, 0.7, 0.2, 0.1]), labels)
    roc = set(zip(found.false_positive_rate, found.true_positive_rate, strict=True))
    assert {(0, 0.5), (1 / 3, 0.5), (1 / 3, 1), (1, 1)} <= roc
    pr = set(zip(found.recall, found.precision.round(6), strict=True))
    assert {(0, 1), (0.5, 1), (0.5, 0.5), (1, 0.666667), (1, 0.4)} <= pr


def test_thinned_curves_keep_their_ends_and_their_area():
    rng = np.random.default_rng(0)
    labels = rng.random(50_000) < 0.3
    scores = rng.random(50_000) + 0.5 * labels
    found = curves(scores, labels)
    assert len(found.recall) == MAX_CURVE_POINTS
    assert (found.false_positive_rate[0], found.false_positive_rate[-1]) == (0, 1)
    heights = (found.true_positive_rate[1:] + found.true_positive_rate[:-1]) / 2
    area = (heights * np.diff(found.false_positive_rate)).sum()
    assert area == pytest.approx(frame_metrics(scores, labels, labels | True).auc, abs=2e-3)
