"""LA-Net and DDL: the counts that are known, and each loss against a slow loop."""

import math

import pytest
import torch

from models import la_net
from models.interface import BagBatch
from models.la_net import LaNet, LaNetConfig, LocalityAwareAttention
from models.la_net_losses import dynamics_alignment, dynamics_rank

SIZES = [(2, 2, 0), (4, 7, 1), (6, 24, 2), (5, 40, 3)]
SMALL = {"attention_dim": 16, "embedding_dim": 8}


def make_steps(n_bags, n_snippets, seed):
    """Steps of scores and of features in bags of 1 to n_snippets snippets."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, n_snippets + 1, (n_bags,), generator=generator)
    lengths[0] = n_snippets
    is_step = torch.arange(1, n_snippets) < lengths[:, None]
    score_steps = torch.rand(n_bags, n_snippets - 1, generator=generator)
    feature_steps = torch.rand(n_bags, n_snippets - 1, generator=generator)
    return score_steps, feature_steps, is_step, torch.arange(n_bags) % 2, lengths.tolist()


def make_batch(dim=6, n_bags=6, n_snippets=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, n_snippets + 1, (n_bags,), generator=generator)
    lengths[0] = n_snippets
    mask = torch.arange(n_snippets) < lengths[:, None]
    features = torch.randn(n_bags, n_snippets, dim, generator=generator)
    return BagBatch(features, mask, torch.arange(n_bags) % 2), lengths.tolist()


def test_at_width_512_it_has_the_published_number_of_parameters():
    model = LaNet(LaNetConfig(stream_dims=(("rgb", 1024),)))
    assert model.config.attention_dim == 512
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert round(n_parameters / 1e6, 3) == 2.693


def test_at_200_snippets_its_layers_do_the_published_number_of_multiply_adds():
    model = LaNet(LaNetConfig(stream_dims=(("rgb", 1024),))).eval()
    n_multiply_adds = 0

    def count(layer, inputs, output):
        nonlocal n_multiply_adds
        n_multiply_adds += output.numel() * math.prod(layer.weight.shape[1:])

    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv1d):
            layer.register_forward_hook(count)
    model(torch.zeros(1, 200, 1024), torch.ones(1, 200).bool())
    assert round(n_multiply_adds / 1e9, 3) == 0.538


def test_the_prior_is_the_formula_and_only_a_learned_one_gets_a_gradient():
    config = {"stream_dims": (("rgb", 6),), "prior_slope": 0.3, "prior_offset": 0.1, **SMALL}
    found = LaNet(LaNetConfig(**config)).attention.location_prior(7)
    for i in range(7):
        for j in range(7):
            expected = math.exp(-abs(0.3 * (i - j) ** 2 + 0.1))
            assert float(found[i, j].detach()) == pytest.approx(expected, rel=1e-5)
    batch, _ = make_batch()
    for is_learned in (True, False):
        model = LaNet(LaNetConfig(**config, learn_prior=is_learned))
        sum(model.losses(model(batch.features, batch.mask), batch).values()).backward()
        assert (model.attention.prior.grad is not None) == is_learned


def test_the_convolution_never_reads_what_comes_later():
    config = LaNetConfig(stream_dims=(("rgb", 6),), use_attention=False, causal_len=4, **SMALL)
    model = LaNet(config).eval()
    features, mask = torch.randn(1, 12, 6), torch.ones(1, 12).bool()
    changed = features.clone()
    changed[0, 6] += 1
    difference = (model(changed, mask).logits - model(features, mask).logits)[0].abs()
    assert (difference[:6] == 0).all()
    assert (difference[6:10] > 0).all()
    assert (difference[10:] == 0).all()


def test_the_bag_loss_takes_one_snippet_of_a_normal_bag_and_more_of_an_anomalous_one():
    batch, lengths = make_batch()
    model = LaNet(LaNetConfig(stream_dims=(("rgb", 6),), **SMALL)).eval()
    output = model(batch.features, batch.mask)
    terms = []
    for bag, length in enumerate(lengths):
        k = length // 16 + 1 if batch.labels[bag] == 1 else 1
        highest = sorted(output.scores[bag, :length].tolist(), reverse=True)[:k]
        mean = sum(highest) / k
        terms.append(-math.log(mean if batch.labels[bag] == 1 else 1 - mean))
    found = float(model.losses(output, batch)["mil"].detach())
    assert found == pytest.approx(sum(terms) / len(terms), rel=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n_steps", [1, 3])
def test_ranking_is_the_formula_over_all_pairs(size, n_steps):
    steps, _, is_step, labels, lengths = make_steps(*size)
    largest = []
    for bag, length in enumerate(lengths):
        of_bag = sorted(steps[bag, : length - 1].tolist(), reverse=True)[:n_steps]
        largest.append(sum(of_bag) / len(of_bag) if of_bag else 0.0)
    hinges = [
        max(0.0, 1 - largest[a] + largest[n])
        for a in range(len(lengths))
        for n in range(len(lengths))
        if labels[a] == 1 and labels[n] == 0
    ]
    found = dynamics_rank(steps, is_step, labels, n_steps=n_steps)
    assert float(found) == pytest.approx(sum(hinges) / len(hinges), rel=1e-5)


def softmax(values):
    exponentials = [math.exp(value - max(values)) for value in values]
    return [value / sum(exponentials) for value in exponentials]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("which", ["anomalous", "all"])
def test_alignment_is_the_divergence_in_each_chosen_bag(size, which):
    score_steps, feature_steps, is_step, labels, lengths = make_steps(*size)
    chosen = labels == 1 if which == "anomalous" else torch.ones_like(labels).bool()
    divergences = []
    for bag, length in enumerate(lengths):
        if not chosen[bag]:
            continue
        f = feature_steps[bag, : length - 1].tolist()
        if not f:
            divergences.append(0.0)
            continue
        mean = sum(f) / len(f)
        std = math.sqrt(sum((value - mean) ** 2 for value in f) / len(f))
        target = softmax([(value - mean) / std if std > 1e-6 else 0.0 for value in f])
        found = softmax([value / 0.1 for value in score_steps[bag, : length - 1].tolist()])
        divergences.append(sum(p * math.log(p / q) for p, q in zip(target, found, strict=True)))
    loss = dynamics_alignment(feature_steps, score_steps, is_step, chosen, temperature=0.1)
    expected = sum(divergences) / len(divergences)
    assert float(loss) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_scores_follow_features_in_the_alignment_and_not_the_other_way():
    score_steps, feature_steps, is_step, labels, _ = make_steps(4, 7, 1)
    score_steps.requires_grad_()
    feature_steps.requires_grad_()
    dynamics_alignment(feature_steps, score_steps, is_step, labels == 1, temperature=0.1).backward()
    assert feature_steps.grad is None
    assert score_steps.grad is not None
    assert score_steps.grad.abs().sum() > 0


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("n_snippets", [1, 2, 5])
def test_bags_of_one_class_or_of_one_snippet_have_finite_gradients(label, n_snippets):
    model = LaNet(LaNetConfig(stream_dims=(("rgb", 6),), **SMALL))
    features = torch.ones(3, n_snippets, 6, requires_grad=True)  # no step anywhere
    batch = BagBatch(features.detach(), torch.ones(3, n_snippets).bool(), torch.full((3,), label))
    losses = model.losses(model(features, batch.mask), batch)
    assert float(losses["rank"].detach()) == 0
    sum(losses.values()).backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_padding_takes_no_part_in_either_dynamics_loss():
    score_steps, feature_steps, is_step, labels, _ = make_steps(6, 24, 2)
    junk = torch.full_like(score_steps, 50.0)
    changed = torch.where(is_step, score_steps, junk), torch.where(is_step, feature_steps, junk)
    for n_steps in (1, 3):
        torch.testing.assert_close(
            dynamics_rank(changed[0], is_step, labels, n_steps=n_steps),
            dynamics_rank(score_steps, is_step, labels, n_steps=n_steps),
        )
    torch.testing.assert_close(
        dynamics_alignment(changed[1], changed[0], is_step, labels == 1, temperature=0.1),
        dynamics_alignment(feature_steps, score_steps, is_step, labels == 1, temperature=0.1),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"causal_len": 0}, "causal_len must be at least 1, instead got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), instead got 1.0"),
        ({"rank_weight": -0.1}, "rank_weight must be at least 0 and finite, instead got -0.1"),
        ({"align_weight": math.inf}, "align_weight must be at least 0 and finite, instead got inf"),
        ({"align_temperature": 0.0}, r"align_temperature must be in \[0.001, 1000\]"),
        ({"input_noise": math.nan}, "input_noise must be at least 0 and finite, instead got nan"),
    ],
)
def test_a_config_out_of_range_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LaNetConfig(**changes)


@pytest.mark.parametrize("use_prior", [True, False])
def test_attention_over_blocks_of_queries_equals_attention_over_all_at_once(monkeypatch, use_prior):
    torch.manual_seed(0)
    config = LaNetConfig(stream_dims=(("rgb", 6),), attention_dim=8, use_prior=use_prior)
    attention = LocalityAwareAttention(config).eval()
    x, mask = torch.randn(3, 37, 6), torch.arange(37) < torch.tensor([37, 20, 1])[:, None]
    at_once = attention(x, mask)
    blocks = []
    softmax = torch.Tensor.softmax

    def watched(values, *args, **options):
        blocks.append(tuple(values.shape))
        return softmax(values, *args, **options)

    monkeypatch.setattr(torch.Tensor, "softmax", watched)
    monkeypatch.setattr(la_net, "MAX_ATTENTION_ELEMENTS", 3 * 37 * 5)
    in_blocks = attention(x, mask)
    torch.testing.assert_close(in_blocks, at_once)
    assert blocks == [(3, 5, 37)] * 7 + [(3, 2, 37)]  # 8 blocks of at most 5 queries


def test_attention_over_a_day_of_video_never_makes_a_square(monkeypatch):
    config = LaNetConfig(stream_dims=(("rgb", 2),), attention_dim=2, embedding_dim=2)
    model = LaNet(config).eval()
    n_snippets = 20_000
    largest = []
    softmax = torch.Tensor.softmax

    def watched(values, *args, **options):
        largest.append(values.numel())
        return softmax(values, *args, **options)

    monkeypatch.setattr(torch.Tensor, "softmax", watched)
    with torch.no_grad():
        model(torch.randn(1, n_snippets, 2), torch.ones(1, n_snippets, dtype=torch.bool))
    assert max(largest) <= la_net.MAX_ATTENTION_ELEMENTS < n_snippets**2 / 10
