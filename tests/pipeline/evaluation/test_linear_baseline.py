"""The linear baseline: what it can learn, what it reads, and that it is the same every time."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.evaluation.linear_baseline import LabeledBag, fit_linear_scorers

STREAMS = (("rgb", 5), ("flow", 3))


def make_bag(rng, label, *, n_snippets=20):
    """Noise with an offset; of an anomalous bag two snippets are shifted in the flow columns."""
    features = rng.normal(size=(n_snippets, 8)).astype("float32") * 3 + 50
    is_anomalous = np.zeros(n_snippets, dtype=bool)
    if label:
        start = int(rng.integers(n_snippets - 1))
        is_anomalous[start : start + 2] = True
        features[is_anomalous, 5:] += 15
    return features, is_anomalous


def make_bags(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return [LabeledBag(make_bag(rng, i % 2, n_snippets=10 + i)[0], i % 2) for i in range(n)]


@pytest.fixture
def as_features(features_of):
    """A function that makes features of one video of one crop."""
    return lambda values: features_of(
        {"rgb": values[:, None, :5], "flow": values[:, None, 5:]}, snippet_len=1, fps=1.0
    )


@pytest.fixture(scope="module")
def scorers():
    return fit_linear_scorers(make_bags(), STREAMS)


def auc(scorer, as_features):
    rng = np.random.default_rng(9)
    scores, labels = [], []
    for index in range(20):
        features, is_anomalous = make_bag(rng, index % 2)
        scores.append(scorer.score(as_features(features)))
        labels.append(is_anomalous)
    scores, labels = np.concatenate(scores), np.concatenate(labels)
    return float((scores[labels][:, None] > scores[~labels]).mean())


@pytest.mark.parametrize("n_anomalous", [3, 57])
def test_a_rare_class_counts_as_much_as_the_other_one(as_features, n_anomalous):
    """Counted by their bags, the many make every score near 0 or 1 and the few teach nothing."""
    rng = np.random.default_rng(1)
    bags = [
        LabeledBag(make_bag(rng, int(i < n_anomalous))[0], int(i < n_anomalous)) for i in range(60)
    ]
    scorer = fit_linear_scorers(bags, STREAMS)["linear MIL, flow"]
    assert auc(scorer, as_features) > 0.9
    scores = np.concatenate([scorer.score(as_features(bag.features)) for bag in bags])
    assert 0.2 < scores.mean() < 0.8


def test_there_is_a_scorer_for_each_stream_and_one_for_all(scorers):
    assert list(scorers) == ["linear MIL, rgb", "linear MIL, flow", "linear MIL, rgb + flow"]
    assert list(fit_linear_scorers(make_bags(4), (("rgb", 8),))) == ["linear MIL, rgb"]


def test_the_streams_that_carry_the_anomaly_rank_new_snippets_and_the_other_does_not(
    scorers, as_features
):
    assert auc(scorers["linear MIL, flow"], as_features) > 0.95
    assert auc(scorers["linear MIL, rgb + flow"], as_features) > 0.9
    assert 0.3 < auc(scorers["linear MIL, rgb"], as_features) < 0.7


def test_a_scorer_of_one_stream_never_reads_the_other(scorers, as_features):
    features = make_bag(np.random.default_rng(3), 1)[0]
    other = features.copy()
    other[:, :5] = 0
    scorer = scorers["linear MIL, flow"]
    expected = scorer.score(as_features(features))
    np.testing.assert_array_equal(scorer.score(as_features(other)), expected)
    assert expected.min() >= 0
    assert expected.max() <= 1


def test_the_fit_repeats_bit_for_bit_and_leaves_the_random_numbers_of_its_caller_alone(scorers):
    torch.manual_seed(5)
    again = fit_linear_scorers(make_bags(), STREAMS)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    for name, scorer in scorers.items():
        assert torch.equal(again[name].weights, scorer.weights)
        assert torch.equal(again[name].biases, scorer.biases)


def test_a_scorer_is_the_mean_of_three_fits_and_of_all_crops(scorers, as_features):
    features = as_features(make_bag(np.random.default_rng(4), 1)[0])
    streams = {
        name: np.concatenate([values, values + 1], axis=1)
        for name, values in features.streams.items()
    }
    two = replace(features, streams=streams)
    scorer = scorers["linear MIL, rgb"]
    assert len(scorer.weights) == 3
    assert not torch.equal(scorer.weights[0], scorer.weights[1])
    each = []
    for crop in (0, 1):
        x = (two.streams["rgb"][:, crop] - scorer.norm.mean.numpy()) / scorer.norm.std.numpy()
        for weights, bias in zip(scorer.weights.numpy(), scorer.biases.numpy(), strict=True):
            each.append(1 / (1 + np.exp(-(x @ weights + bias))))
    np.testing.assert_allclose(scorer.score(two), sum(each) / 6, rtol=1e-4)
