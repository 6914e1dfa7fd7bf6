"""An ensemble: each member against a slow computation, and the weighted sum."""

import math

import pytest
import torch

from models import model_class
from models.ensemble import Ensemble
from models.interface import BagBatch

STREAMS = (("rgb", 6), ("flow", 4))


def make_batch(n_bags=8, n_snippets=12):
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(n_bags, n_snippets, 10, generator=generator) * 4 + 20
    labels = torch.arange(n_bags) % 2
    features[labels == 1, :2, 6:] += 12  # two snippets of an anomalous bag move
    mask = torch.ones(n_bags, n_snippets, dtype=torch.bool)
    mask[2, 7:] = False
    return BagBatch(features, mask, labels)


def make_ensemble(*, still=None, fit=True):
    ensemble = Ensemble(make_networks(1), has_motion=still is not None).eval()
    if fit:
        ensemble.fit_scorers(make_batch(), still)
    return ensemble


STILL = torch.tensor([20.0, 19.0, 18.0, 17.0])


def make_networks(n):
    model = model_class("clav-como")
    networks = []
    for seed in range(n):
        torch.manual_seed(seed)
        networks.append(model(model.config_type(stream_dims=STREAMS, embedding_dim=8)).eval())
    return networks


@pytest.mark.parametrize("n_networks", [1, 3])
def test_as_built_its_logits_are_the_mean_logits_of_its_networks(n_networks):
    networks, batch = make_networks(n_networks), make_batch()
    ensemble = Ensemble(networks, has_motion=False).eval()
    assert ensemble.n_networks == n_networks
    expected = sum(network(batch.features, batch.mask).logits for network in networks) / n_networks
    torch.testing.assert_close(ensemble(batch.features, batch.mask).logits, expected)


def test_it_has_a_scorer_and_a_distance_for_each_stream():
    expected = ("network", "linear rgb", "linear flow", "distance rgb", "distance flow")
    assert make_ensemble(fit=False).members == expected
    assert make_ensemble(still=STILL, fit=False).members == (*expected, "motion")


def test_distances_are_those_of_a_loop_over_features():
    ensemble, batch = make_ensemble(still=STILL), make_batch()
    real = [batch.features[b, t] for b in range(8) for t in range(12) if batch.mask[b, t]]
    mean = sum(real) / len(real)
    std = (sum((x - mean) ** 2 for x in real) / len(real)).sqrt()
    normal = [
        (batch.features[b, t] - mean) / std
        for b in range(0, 8, 2)
        for t in range(12)
        if batch.mask[b, t]
    ]
    center = sum(normal) / len(normal)
    logits, _ = ensemble.member_logits(batch.features, batch.mask)
    z = (batch.features[1, 0] - mean) / std
    still = (STILL - mean[6:]) / std[6:]
    for member, expected in (
        ("distance rgb", sum((z[i] - center[i]) ** 2 for i in range(6)) / 6),
        ("distance flow", sum((z[i] - center[i]) ** 2 for i in range(6, 10)) / 4),
        ("motion", sum((z[6 + i] - still[i]) ** 2 for i in range(4)) / 4),
    ):
        found = float(logits.detach()[1, 0, ensemble.members.index(member)])
        assert found == pytest.approx(math.log(expected) / 2, abs=1e-4), member


def test_a_linear_scorer_reads_its_own_stream_and_finds_what_bags_tell():
    ensemble, batch = make_ensemble(), make_batch()
    logits, _ = ensemble.member_logits(batch.features, batch.mask)
    flow = logits.detach()[..., ensemble.members.index("linear flow")]
    assert float(flow[1::2, :2].min()) > float(flow[::2, :7].max())
    changed = batch.features.clone()
    changed[..., :6] += 5
    moved, _ = ensemble.member_logits(changed, batch.mask)
    assert torch.equal(moved[..., 2], logits[..., 2])
    assert not torch.equal(moved[..., 1], logits[..., 1])


def test_the_logit_is_the_weighted_sum_of_standardized_members():
    ensemble, batch = make_ensemble(still=STILL), make_batch()
    weights = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0, 3.0])
    offsets, scales = torch.arange(6.0), torch.arange(1.0, 7.0)
    ensemble.fuse(weights=weights, bias=-0.25, offsets=offsets, scales=scales)
    logits, _ = ensemble.member_logits(batch.features, batch.mask)
    expected = -0.25
    for i in range(6):
        expected += float(weights[i] * (logits[3, 4, i].detach() - offsets[i]) / scales[i])
    found = ensemble(batch.features, batch.mask).logits[3, 4]
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_another_context_reaches_the_network():
    ensemble, batch = make_ensemble(), make_batch()
    assert ensemble.accepts_context
    other = batch.features.flip(0)
    found = ensemble(batch.features, batch.mask, context=other).logits
    assert torch.equal(
        found, ensemble.networks[0](batch.features, batch.mask, context=other).logits
    )
    assert not torch.equal(found, ensemble(batch.features, batch.mask).logits)


def test_motion_needs_a_flow_stream_and_the_features_of_a_still_video():
    model = model_class("clav-como")
    network = model(model.config_type(stream_dims=(("rgb", 6),)))
    with pytest.raises(ValueError, match="flow"):
        Ensemble([network], has_motion=True)
    with pytest.raises(ValueError, match="still_flow"):
        make_ensemble(fit=False).fit_scorers(make_batch(), STILL)


def test_the_score_without_a_part_lacks_the_terms_of_its_members():
    ensemble, batch = make_ensemble(still=STILL), make_batch()
    weights = torch.tensor([1.0, 0.2, 2.0, 0.5, 0.3, 3.0])
    ones = torch.ones(6)
    ensemble.fuse(weights=weights, bias=-0.25, offsets=0 * ones, scales=ones)
    logits, _ = ensemble.member_logits(batch.features, batch.mask)
    terms = (logits * weights).detach()[3, 4].tolist()
    found = ensemble.scores_without(batch.features, batch.mask)
    removed_of = {"the network": [0], "the rgb scorers": [1, 3], "the flow scorers": [2, 4, 5]}
    for part, removed in removed_of.items():
        logit = -0.25 + sum(term for i, term in enumerate(terms) if i not in removed)
        assert found[part][3, 4].item() == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-5)
    assert set(found) == set(removed_of)
