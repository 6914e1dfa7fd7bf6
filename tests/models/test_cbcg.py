"""CBCG: its clustering and losses against slow loops, and its memory."""

import copy
import math

import pytest
import torch

from models.cbcg import Cbcg, CbcgConfig, fused_logits
from models.clustering import (
    N_ROUNDS,
    cluster_batch,
    cluster_centers,
    cluster_loss,
    guidance,
)
from models.interface import BagBatch

SIZES = [(2, 1, 0), (4, 7, 1), (6, 24, 2), (5, 40, 3)]
SMALL = {"hidden_dim": 16, "embedding_dim": 12, "cluster_dim": 5}


def make_bags(n_bags, n_snippets, seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, n_snippets + 1, (n_bags,), generator=generator)
    lengths[0] = n_snippets
    mask = torch.arange(n_snippets) < lengths[:, None]
    directions = torch.randn(n_bags, n_snippets, 5, generator=generator)
    directions = torch.nn.functional.normalize(directions, dim=2)
    logits = 2 * torch.randn(n_bags, n_snippets, generator=generator)
    return directions, logits, mask, torch.arange(n_bags) % 2, lengths.tolist()


def make_batch(seed=0, dim=6, n_bags=6, n_snippets=20):
    _, _, mask, labels, _ = make_bags(n_bags, n_snippets, seed)
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n_bags, n_snippets, dim, generator=generator)
    return BagBatch(features, mask, labels)


def make_model(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Cbcg(CbcgConfig(stream_dims=(("rgb", 6),), dropout=0.0, **SMALL, **changes))


def center(vectors):
    total = sum(vectors)
    return total / total.norm()


def clustered_slowly(directions, logits, labels, lengths, top_k_divisor, max_fraction):
    """The pairs (bag, snippet) in the anomalous cluster."""
    everything = [(b, t) for b, length in enumerate(lengths) for t in range(length)]

    def highest(values, bag, k):
        return sorted(range(lengths[bag]), key=lambda t: float(values[bag, t]), reverse=True)[:k]

    anomalous = [bag for bag in range(len(lengths)) if labels[bag] == 1]
    joined = {
        (b, t) for b in anomalous for t in highest(logits, b, max(1, lengths[b] // top_k_divisor))
    }
    c_n = center([directions[b, t] for b, t in everything if labels[b] == 0])
    c_a = center([directions[b, t] for b, t in joined])
    for _ in range(N_ROUNDS):
        nearness = directions @ (c_a - c_n)
        joined = set()
        for b in anomalous:
            most = max(1, math.floor(max_fraction * lengths[b]))
            (always,) = highest(logits, b, 1)
            others = [t for t in highest(nearness, b, lengths[b]) if t != always]
            joined |= {(b, t) for t in others[: most - 1] if nearness[b, t] > 0}
            joined.add((b, always))
        c_a = center([directions[b, t] for b, t in joined])
        c_n = center([directions[b, t] for b, t in everything if (b, t) not in joined])
    return joined, c_n, c_a


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("max_fraction", [0.25, 1.0])
def test_clustering_is_the_slow_loop(size, max_fraction):
    directions, logits, mask, labels, lengths = make_bags(*size)
    joins = cluster_batch(
        directions, logits, mask, labels, top_k_divisor=10, max_fraction=max_fraction
    )
    expected, c_n, c_a = clustered_slowly(directions, logits, labels, lengths, 10, max_fraction)
    assert {(int(b), int(t)) for b, t in joins.nonzero()} == expected
    torch.testing.assert_close(cluster_centers(directions, joins, mask), torch.stack([c_n, c_a]))


def test_of_four_snippets_the_highest_alone_joins_though_another_is_nearer():
    ahead, behind = [1.0, 0.0], [-1.0, 0.0]
    directions = torch.tensor([[behind] * 4, [ahead, ahead, behind, [0.6, 0.8]]])
    logits = torch.tensor([[0.0] * 4, [0.0, 1.0, 2.0, 3.0]])
    mask, labels = torch.ones(2, 4, dtype=torch.bool), torch.tensor([0, 1])
    options = {"top_k_divisor": 10}
    bounded = cluster_batch(directions, logits, mask, labels, max_fraction=0.25, **options)
    assert bounded.tolist() == [[False] * 4, [False, False, False, True]]
    half = cluster_batch(directions, logits, mask, labels, max_fraction=0.5, **options)
    assert half.tolist() == [[False] * 4, [True, False, False, True]]


def test_normal_bags_never_join_and_anomalous_ones_stay_within_their_fraction():
    directions, logits, mask, labels, lengths = make_bags(8, 40, 4)
    joins = cluster_batch(directions, logits, mask, labels, top_k_divisor=10, max_fraction=0.25)
    assert not joins[labels == 0].any()
    assert not joins[~mask].any()
    for bag in torch.nonzero(labels).flatten().tolist():
        assert 1 <= int(joins[bag].sum()) <= max(1, lengths[bag] // 4)
        assert joins[bag, int(logits[bag, : lengths[bag]].argmax())]


def slow_cluster_loss(margin, joined, lengths):
    anomalous, normal = [], []
    for bag, length in enumerate(lengths):
        for t in range(length):
            p = 1 / (1 + math.exp(-float(margin[bag, t])))
            if (bag, t) in joined:
                anomalous.append(-math.log(p))
            else:
                normal.append(-math.log(1 - p))
    return 0.5 * sum(anomalous) / len(anomalous) + 0.5 * sum(normal) / len(normal)


def slow_guidance(logits, margin, labels, lengths, confidence):
    terms = []
    for bag, length in enumerate(lengths):
        for t in range(length):
            p = 1 / (1 + math.exp(-float(margin[bag, t])))
            s = 1 / (1 + math.exp(-float(logits[bag, t])))
            if labels[bag] == 1 and (p > confidence or p < 1 - confidence):
                terms.append(-p * math.log(s) - (1 - p) * math.log(1 - s))
    return sum(terms) / len(terms) if terms else 0.0


@pytest.mark.parametrize("size", SIZES)
def test_both_clusters_weigh_alike_in_the_cluster_loss(size):
    _, margin, mask, labels, lengths = make_bags(*size)
    joins = (torch.rand(mask.shape, generator=torch.Generator().manual_seed(1)) < 0.3) & (
        labels == 1
    )[:, None]
    joins[1, 0] = True
    joined = {(int(b), int(t)) for b, t in joins.nonzero()}
    expected = slow_cluster_loss(margin, joined, lengths)
    assert float(cluster_loss(margin, joins, mask)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_only_sure_snippets_of_anomalous_bags_are_guided(size):
    _, margin, mask, labels, lengths = make_bags(*size)
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(margin.shape, generator=generator, requires_grad=True)
    margin.requires_grad_()
    loss = guidance(logits, margin, mask, labels, confidence=0.8)
    expected = slow_guidance(logits.detach(), margin.detach(), labels, lengths, 0.8)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert margin.grad is None
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_the_fused_score_is_the_mean_of_both_probabilities():
    first, second = torch.randn(2, 50, generator=torch.Generator().manual_seed(0)) * 5
    expected = (first.double().sigmoid() + second.double().sigmoid()) / 2
    found = fused_logits(first, second).double().sigmoid()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("has_fusion", [True, False])
def test_the_score_is_fused_where_the_config_says_so(has_fusion):
    model = make_model(fuse_scores=has_fusion)
    batch = make_batch()
    model.losses(model(batch.features, batch.mask), batch)  # fills the memory
    output = model.eval()(batch.features, batch.mask)
    c_n, c_a = (center(list(model.memory[:, cluster])) for cluster in (0, 1))
    p = ((output.directions @ c_a - output.directions @ c_n) / 0.1).sigmoid()
    s = output.regression_logits.sigmoid()
    expected = (s + p) / 2 if has_fusion else s
    torch.testing.assert_close(output.scores, expected, rtol=1e-4, atol=1e-5)


def centers_of(output, batch):
    """The pairs (bag, snippet) in the anomalous cluster, and both clusters' centers (2, E)."""
    joined, c_n, c_a = clustered_slowly(
        output.directions.detach(),
        output.regression_logits.detach(),
        batch.labels,
        batch.mask.sum(dim=1).tolist(),
        top_k_divisor=10,
        max_fraction=0.25,
    )
    return joined, torch.stack([c_n, c_a])


def test_the_memory_keeps_the_centers_of_the_latest_batches_and_only_of_training():
    model = make_model(memory_len=3)
    kept = []
    for seed in range(5):
        batch = make_batch(seed)
        output = model(batch.features, batch.mask)
        kept.append(centers_of(output, batch)[1])
        model.losses(output, batch)
        n = min(seed + 1, 3)
        assert int(model.n_steps) == seed + 1
        torch.testing.assert_close(model.memory[-n:], torch.stack(kept[-n:]))
        assert (model.memory[:-n] == 0).all()
    before = copy.deepcopy(model.state_dict())
    model.eval()
    model.losses(model(batch.features, batch.mask), batch)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_memory_and_guidance_begin_at_their_steps():
    model = make_model(memory_start=2, guide_start=3, guide_confidence=0.5)
    kept = []
    for step in range(5):
        batch = make_batch(step)
        lengths = batch.mask.sum(dim=1).tolist()
        output = model(batch.features, batch.mask)
        joined, centers = centers_of(output, batch)
        kept.append(centers)
        if step >= 2:
            memory = sum(kept[:-1]) / step
            mixed = 0.5 * centers + 0.5 * memory
            centers = torch.stack([vector / vector.norm() for vector in mixed])
        margin = output.directions.detach() @ (centers[1] - centers[0]) / 0.1
        expected = slow_cluster_loss(margin, joined, lengths)
        expected += max(0.0, float(centers[0] @ centers[1]))
        logits = output.regression_logits.detach()
        guide = slow_guidance(logits, margin, batch.labels, lengths, 0.5) if step >= 3 else 0.0
        losses = model.losses(output, batch)
        assert float(losses["cluster"].detach()) == pytest.approx(0.1 * expected, rel=1e-4)
        assert float(losses["guide"].detach()) == pytest.approx(0.1 * guide, rel=1e-4)


def test_padding_changes_nothing_where_the_memory_is_full():
    model = make_model(memory_start=0, guide_start=0)
    for seed in range(3):
        batch = make_batch(seed)
        model.losses(model(batch.features, batch.mask), batch)
    model.eval()
    junk = torch.full((6, 9, 6), 50.0)
    longer = BagBatch(
        torch.cat([batch.features, junk], dim=1),
        torch.cat([batch.mask, torch.zeros(6, 9).bool()], dim=1),
        batch.labels,
    )
    expected = model(batch.features, batch.mask)
    found = model(longer.features, longer.mask)
    torch.testing.assert_close(found.scores[:, :20][batch.mask], expected.scores[batch.mask])
    of_longer = model.losses(found, longer)
    for name, loss in model.losses(expected, batch).items():
        torch.testing.assert_close(of_longer[name], loss)


def test_without_clusters_there_is_neither_branch_nor_memory():
    model = make_model(cluster_weight=0.0)
    batch = make_batch()
    output = model(batch.features, batch.mask)
    assert output.directions is output.cluster_logits is None
    assert torch.equal(output.logits, output.regression_logits)
    assert set(model.losses(output, batch)) == {"mil", "smoothness", "sparsity"}
    assert not any("memory" in name for name in model.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory_len": 0}, "memory_len must be at least 1, instead got 0"),
        ({"memory_fraction": 1.0}, r"memory_fraction must be in \[0, 1\), instead got 1.0"),
        ({"max_fraction": 0.0}, r"max_fraction must be in \(0, 1\], instead got 0.0"),
        ({"temperature": 0.0}, r"temperature must be in \[0.001, 1000\], instead got 0.0"),
        ({"guide_confidence": 1.0}, r"guide_confidence must be in \[0.5, 1\), instead got 1.0"),
        ({"guide_start": -1}, "guide_start must be at least 0 and finite, instead got -1"),
        ({"cluster_weight": math.nan}, "cluster_weight must be at least 0 and finite"),
    ],
)
def test_a_config_out_of_range_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        CbcgConfig(**changes)
