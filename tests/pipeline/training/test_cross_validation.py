"""Folds that are matched by appearance, and weights of scorers against a search over a grid."""

import numpy as np
import pytest

from pipeline.training.cross_validation import fuse, matched_folds, video_scores


def test_videos_that_look_alike_share_a_fold():
    rng = np.random.default_rng(0)
    places = rng.normal(size=(6, 5)) * 10
    appearances = np.concatenate([places, places[::-1]]) + rng.normal(size=(12, 5)) * 0.1
    labels = np.array([0] * 6 + [1] * 6)
    folds = matched_folds(appearances, labels, seed=1)
    assert all(folds[i] == folds[11 - i] for i in range(6))
    assert sorted(set(folds)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("n_normal", "n_anomalous"), [(3, 9), (9, 3), (2, 2), (40, 17)])
def test_every_fold_holds_both_classes_and_all_videos_have_one(n_normal, n_anomalous):
    rng = np.random.default_rng(2)
    labels = rng.permutation(np.array([0] * n_normal + [1] * n_anomalous))
    folds = matched_folds(rng.normal(size=(len(labels), 4)), labels, seed=0)
    n_folds = min(5, n_normal, n_anomalous)
    assert set(folds) == set(range(n_folds))
    for fold in range(n_folds):
        assert {0, 1} == set(labels[folds == fold])
    sizes = np.bincount(folds)
    assert sizes.max() - sizes.min() <= 2


def test_the_seed_deals_the_pairs_out():
    rng = np.random.default_rng(4)
    appearances, labels = rng.normal(size=(30, 4)), np.arange(30) % 2
    same = [matched_folds(appearances, labels, seed=seed) for seed in (0, 0, 1)]
    assert (same[0] == same[1]).all()
    assert (same[0] != same[2]).any()


def make_logits(n_videos=40, seed=5):
    """The first scorer knows nothing, the second knows the label, the third its opposite."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n_videos) % 2
    logits = []
    for label in labels:
        values = rng.normal(size=(int(rng.integers(5, 30)), 3))
        values[:, 1] = values[:, 1] + 3 * label
        values[:, 2] = values[:, 2] * 10 - 15 * label + 100
        logits.append(values)
    return logits, labels


def loss_of(weights, bias, logits, labels, offsets, scales):
    """The objective, video by video."""
    loss = 0.5 * ((weights[0] - 1) ** 2 + (weights[1] - 0.25) ** 2 + (weights[2] - 0.25) ** 2)
    for values, label in zip(logits, labels, strict=True):
        score = bias
        for i in range(3):
            column = sorted((values[:, i] - offsets[i]) / scales[i])
            k = max(1, len(column) // 10)
            score += weights[i] * sum(column[-k:]) / k
        weight = len(labels) / (2 * (labels == label).sum())
        loss += weight * np.log1p(np.exp(-score if label else score))
    return loss


def test_weights_are_at_the_minimum_and_none_is_negative():
    logits, labels = make_logits()
    found = fuse(logits, labels)
    least = loss_of(found.weights, found.bias, logits, labels, found.offsets, found.scales)
    assert (found.weights >= 0).all()
    for i in range(4):
        for step in (-0.05, 0.05):
            weights, bias = found.weights.copy(), found.bias
            if i < 3:
                weights[i] = max(0.5 if i == 0 else 0.0, weights[i] + step)
            else:
                bias += step
            there = loss_of(weights, bias, logits, labels, found.offsets, found.scales)
            assert there >= least - 1e-6


def test_who_knows_the_label_counts_and_who_says_the_opposite_does_not():
    weights = fuse(*make_logits()).weights
    assert weights[1] > 1
    assert weights[1] > weights[0]
    assert weights[2] == 0


def test_the_more_videos_the_less_the_prior_counts():
    logits, labels = make_logits()
    few = fuse(logits[:4], labels[:4]).weights
    many = fuse(*make_logits(200)).weights
    assert few[0] > 0.7
    assert few[1] < 1.5
    assert many[1] > 2


def test_the_network_keeps_half_of_its_weight_whatever_it_says():
    logits, labels = make_logits(200)
    reversed_order = [values[:, ::-1] for values in logits]  # the first one says the opposite
    assert fuse(reversed_order, labels).weights[0] == 0.5


def test_logits_are_standardized_over_all_snippets():
    logits, labels = make_logits()
    found = fuse(logits, labels)
    together = np.concatenate(logits)
    assert found.offsets == pytest.approx(together.mean(axis=0))
    assert found.scales == pytest.approx(together.std(axis=0))


def test_a_scorer_that_always_says_the_same_does_no_harm():
    logits, labels = make_logits()
    constant = [np.concatenate([values, np.zeros((len(values), 1))], axis=1) for values in logits]
    found = fuse(constant, labels)
    assert np.isfinite(found.weights).all()
    assert found.weights[3] == pytest.approx(0.25)  # of a logit that is always 0


def test_a_videos_score_is_the_mean_of_its_highest_tenth():
    values = np.arange(40.0).reshape(20, 2)
    assert video_scores(values).tolist() == [37, 38]
    assert video_scores(values[:3]).tolist() == [4, 5]
