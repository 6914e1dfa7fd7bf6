"""Each loss against a slow loop written from the formulas of the reconstruction."""

import math

import pytest
import torch

from models.losses import mean_score_bce, relative_distance, smoothness, sparsity, topk_weights

SIZES = [(2, 1, 0), (4, 7, 1), (6, 24, 2), (5, 40, 3)]


def make_bags(n_bags, n_snippets, seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, n_snippets + 1, (n_bags,), generator=generator)
    lengths[0] = n_snippets
    mask = torch.arange(n_snippets) < lengths[:, None]
    labels = torch.arange(n_bags) % 2
    logits = 3 * torch.randn(n_bags, n_snippets, generator=generator)
    embeddings = torch.randn(n_bags, n_snippets, 5, generator=generator)
    return logits, embeddings, mask, labels, lengths.tolist()


def top_indices(values, length, top_k_divisor, *, highest=True):
    k = max(1, length // top_k_divisor)
    ranked = sorted(range(length), key=lambda t: float(values[t]), reverse=highest)
    return ranked[:k]


@pytest.mark.parametrize("size", SIZES)
def test_weights_are_one_over_k_at_the_k_highest_real_snippets(size):
    logits, _, mask, _, lengths = make_bags(*size)
    weights = topk_weights(logits, mask, top_k_divisor=10)
    for bag, length in enumerate(lengths):
        top = top_indices(logits[bag], length, 10)
        expected = [1 / len(top) if t in top else 0 for t in range(logits.shape[1])]
        assert weights[bag].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("size", SIZES)
def test_the_bag_loss_is_the_cross_entropy_of_the_mean_of_the_highest_scores(size):
    logits, _, mask, labels, lengths = make_bags(*size)
    loss = mean_score_bce(logits, topk_weights(logits, mask, top_k_divisor=10), labels)
    terms = []
    for bag, length in enumerate(lengths):
        top = top_indices(logits[bag], length, 10)
        mean = sum(1 / (1 + math.exp(-float(logits[bag, t]))) for t in top) / len(top)
        terms.append(-math.log(mean if labels[bag] == 1 else 1 - mean))
    assert float(loss) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_the_bag_loss_is_finite_with_a_gradient_where_scores_round_to_0_or_1():
    logits = torch.tensor([[200.0], [-200.0]], requires_grad=True)
    loss = mean_score_bce(logits, torch.ones(2, 1), torch.tensor([0, 1]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(200.0)
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.5], [-0.5]]


@pytest.mark.parametrize("size", SIZES)
def test_smoothness_and_sparsity_sum_over_each_anomalous_bag_alone(size):
    logits, _, mask, labels, lengths = make_bags(*size)
    scores = logits.sigmoid()
    steps, means = [], []
    for bag, length in enumerate(lengths):
        if labels[bag] == 1:
            s = scores[bag, :length].tolist()
            steps.append(sum((s[t + 1] - s[t]) ** 2 for t in range(length - 1)))
            means.append(sum(s) / length)
    assert float(smoothness(scores, mask, labels)) == pytest.approx(
        sum(steps) / len(steps), rel=1e-5, abs=1e-7
    )
    assert float(sparsity(scores, mask, labels)) == pytest.approx(sum(means) / len(means), rel=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("margin", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("is_symmetric", [False, True])
def test_relative_distance_is_the_formula_over_all_pairs(size, margin, is_symmetric):
    logits, embeddings, mask, labels, lengths = make_bags(*size)
    normal, anomalous, bottom = [], [], []
    for bag, length in enumerate(lengths):
        e = [embeddings[bag, t] / embeddings[bag, t].norm() for t in range(length)]
        top = sum(e[t] for t in top_indices(logits[bag], length, 10))
        top = top / max(1, length // 10)
        if labels[bag] == 0:
            normal.append(top)
        else:
            low = top_indices(logits[bag], length, 10, highest=False)
            anomalous.append(top)
            bottom.append(sum(e[t] for t in low) / len(low))
    center = sum(normal) / len(normal)

    def distance(u):
        return float(((u - center) ** 2).sum())

    b_n, b_a = len(normal), len(anomalous)
    expected = sum(
        max(0.0, margin + distance(n) - distance(a)) for n in normal for a in anomalous
    ) / (b_n * b_a)
    expected += (
        0.5
        * sum(
            max(0.0, margin + distance(h) - distance(a))
            for h, a in zip(bottom, anomalous, strict=True)
        )
        / b_a
    )
    if is_symmetric:
        other = sum(anomalous) / b_a
        expected += sum(
            max(0.0, margin + float(((a - other) ** 2).sum()) - float(((n - other) ** 2).sum()))
            for n in normal
            for a in anomalous
        ) / (b_n * b_a)
    loss = relative_distance(
        embeddings,
        logits,
        mask,
        labels,
        margin=margin,
        top_k_divisor=10,
        is_symmetric=is_symmetric,
    )
    assert float(loss) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("label", [0, 1])
def test_bags_of_one_class_give_no_relative_distance_and_finite_gradients(label):
    embeddings = torch.randn(3, 4, 5, requires_grad=True)
    mask = torch.ones(3, 4, dtype=torch.bool)
    loss = relative_distance(
        embeddings, torch.randn(3, 4), mask, torch.full((3,), label), margin=0.5, top_k_divisor=10
    )
    loss.backward()
    assert float(loss.detach()) == 0
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()
