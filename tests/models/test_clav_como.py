"""CLAV-CoMo: its size, its gate, and whether it finds the relation of context and motion."""

import math

import numpy as np
import pytest
import torch

from models.clav_como import ClavComo
from models.clav_como_blocks import context_features, motion_features
from models.clav_como_config import ClavComoConfig
from models.interface import BagBatch

N_CONTEXTS = N_MOTIONS = 4
SMALL = {"embedding_dim": 64, "class_code_dim": 16, "relation_dim": 32, "scorer_dim": 32}


@pytest.mark.parametrize(("feature_dim", "millions"), [(2048, 3.14), (1024, 2.61)])
def test_the_size_with_rgb_alone_is_that_of_the_specification(feature_dim, millions):
    model = ClavComo(ClavComoConfig(stream_dims=(("rgb", feature_dim),)))
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert n_parameters / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize("position", ["before", "after"])
def test_the_gate_is_a_distribution_over_two_classes(position):
    model = ClavComo(ClavComoConfig(stream_dims=(("rgb", 6),), ica_position=position, **SMALL))
    gate = model.eval()(torch.randn(2, 5, 6), torch.ones(2, 5).bool()).gate
    assert gate is not None
    assert gate.shape == (2, 5, 2)
    assert (gate >= 0).all()
    torch.testing.assert_close(gate.sum(dim=2), torch.ones(2, 5))


def test_without_ica_there_is_no_gate_and_without_como_no_relation():
    config = ClavComoConfig(stream_dims=(("rgb", 6),), ica="none", relation="none", **SMALL)
    model = ClavComo(config).eval()
    features, mask = torch.randn(1, 5, 6), torch.ones(1, 5).bool()
    output = model(features, mask)
    assert output.gate is None
    # Stem and scorer alone see each snippet for itself.
    alone = model(features[:, 2:3], mask[:, 2:3])
    torch.testing.assert_close(alone.logits[0, 0], output.logits[0, 2])


def test_the_context_of_the_video_itself_is_the_default():
    model = ClavComo(ClavComoConfig(stream_dims=(("rgb", 6), ("flow", 6)), **SMALL)).eval()
    features, mask = torch.randn(2, 5, 12), torch.ones(2, 5).bool()
    expected = model(features, mask).logits
    torch.testing.assert_close(model(features, mask, context=features).logits, expected)
    other = model(features, mask, context=features.flip(0)).logits
    assert not torch.allclose(other, expected)


def test_with_two_streams_the_context_path_reads_rgb_and_never_flow():
    model = ClavComo(ClavComoConfig(stream_dims=(("rgb", 6), ("flow", 6)), **SMALL)).eval()
    features, mask = torch.randn(2, 5, 12), torch.ones(2, 5).bool()
    other_flow = torch.cat([features[..., :6], torch.randn(2, 5, 6)], dim=2)
    torch.testing.assert_close(
        model(features, mask, context=other_flow).logits, model(features, mask).logits
    )


def test_context_is_the_mean_of_real_neighbors_and_of_the_whole_bag():
    x, lengths = torch.randn(3, 9, 2), [9, 4, 1]
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    found = context_features(x, mask, 5)
    assert found.isfinite().all()  # at padding too: a NaN there would spread through attention
    for bag, n in enumerate(lengths):
        for t in range(n):
            near = x[bag, max(0, t - 2) : min(n, t + 3)].mean(dim=0)
            expected = torch.cat([near, x[bag, :n].mean(dim=0)])
            torch.testing.assert_close(found[bag, t], expected)


def test_motion_is_the_steps_to_both_sides_and_their_sizes():
    x, lengths = torch.randn(3, 6, 2), [6, 3, 1]
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    found = motion_features(x, mask)
    for bag, n in enumerate(lengths):
        for t in range(n):
            before = x[bag, t] - x[bag, max(t - 1, 0)]
            after = x[bag, min(t + 1, n - 1)] - x[bag, t]
            expected = torch.cat([before, after, before.abs(), after.abs()])
            torch.testing.assert_close(found[bag, t], expected)


def n_parameters_of(relation="none", ica="none", **changes):
    config = ClavComoConfig(stream_dims=(("rgb", 64),), relation=relation, ica=ica, **changes)
    return sum(parameter.numel() for parameter in ClavComo(config).parameters())


@pytest.mark.parametrize("sizes", [{}, SMALL], ids=["default", "small"])
def test_each_control_has_as_many_parameters_as_what_it_stands_for(sizes):
    bare = n_parameters_of(**sizes)
    como = n_parameters_of("como", **sizes) - bare
    assert n_parameters_of("self-attention", **sizes) - bare == pytest.approx(como, rel=0.01)
    # One map for both classes' maps; the gate has a few more.
    ica = n_parameters_of(ica="weights", **{**sizes, "class_code_dim": 1}) - bare
    assert n_parameters_of(ica="wide", **sizes) - bare == pytest.approx(ica, rel=0.03)


def affine(layer, x):
    """What a linear layer makes of one vector, by its parameters alone."""
    return layer.weight.detach().double().numpy() @ x + layer.bias.detach().double().numpy()


def normalized(norm, x):
    standard = (x - x.mean()) / math.sqrt(x.var() + 1e-5)
    return standard * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def stem_of(model, features):
    """Embeddings of one bag (T, D) of rgb, snippet by snippet."""
    linear, norm, *_ = model.stems["rgb"]
    hidden = [normalized(norm, affine(linear, f)) for f in features.double().numpy()]
    return [x * np.array([(1 + math.erf(v / math.sqrt(2))) / 2 for v in x]) for x in hidden]


@pytest.mark.parametrize(("kind", "position"), [("weights", "after"), ("channels", "before")])
def test_each_snippet_is_mapped_by_the_mixture_that_its_class_code_says(kind, position):
    config = ClavComoConfig(
        stream_dims=(("rgb", 6),), ica=kind, ica_position=position, relation="none", **SMALL
    )
    model = ClavComo(config).eval()
    features, mask = torch.randn(1, 5, 6), torch.ones(1, 5).bool()
    output = model(features, mask)
    xs = stem_of(model, features[0])
    video_mean = sum(xs) / 5
    (ica,) = model.ica.values()
    for t, x in enumerate(xs):
        code = affine(ica.encode, np.concatenate([x, video_mean]))
        normal, anomalous = np.exp(affine(ica.gate, np.maximum(code, 0)))
        a, b = normal / (normal + anomalous), anomalous / (normal + anomalous)
        assert output.gate[0, t].tolist() == pytest.approx([a, b], rel=1e-4)
        first, second = (affine(weights, x) for weights in ica.class_weights)
        if kind == "weights":
            expected = normalized(ica.norm, x + a * first + b * second)
        else:
            expected = 2 * x * (a * sigmoid(first) + b * sigmoid(second))
        found = output.embeddings[0, t].detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("reads", "stream"), [("context", 0), ("motion", 1)])
def test_one_path_alone_without_the_residual_never_sees_the_other_stream(reads, stream):
    config = ClavComoConfig(
        stream_dims=(("rgb", 6), ("flow", 6)),
        ica="none",
        como_reads=reads,
        use_residual=False,
        **SMALL,
    )
    model = ClavComo(config).eval()
    mask = torch.ones(1, 5).bool()
    features, others = torch.randn(2, 1, 5, 12)
    half = torch.arange(12) // 6 == stream
    own = torch.where(half, features, others)
    torch.testing.assert_close(model(own, mask).logits, model(features, mask).logits)
    other = torch.where(half, others, features)
    assert not torch.allclose(model(other, mask).logits, model(features, mask).logits)


STREAMS = {
    "one stream": (("rgb", 6),),
    "two streams": (("rgb", 6), ("flow", 6)),
    "another stream beside": (("rgb", 6), ("audio", 4)),
}


@pytest.mark.parametrize("streams", list(STREAMS))
@pytest.mark.parametrize("motion_from", ["both", "flow", "steps"])
def test_both_paths_read_class_activated_features(streams, motion_from):
    config = ClavComoConfig(stream_dims=STREAMS[streams], motion_from=motion_from, **SMALL)
    model = ClavComo(config).eval()
    read = {}
    for name in ("context_path", "motion_path"):
        getattr(model.como, name).register_forward_hook(
            lambda _, inputs, output, name=name: read.setdefault(name, []).append(inputs[0])
        )
    features, mask = torch.randn(2, 5, config.feature_dim), torch.ones(2, 5).bool()
    with torch.no_grad():
        model(features, mask)
        for parameter in model.ica.parameters():
            parameter.add_(torch.randn_like(parameter))
        model(features, mask)
    for name, (before, after) in read.items():
        assert (before - after).abs().mean() > 0.1, name


def test_beside_flow_the_motion_path_reads_its_steps_and_never_rgb():
    model = ClavComo(ClavComoConfig(stream_dims=STREAMS["two streams"], **SMALL)).eval()
    read = []
    model.como.motion_path.register_forward_hook(lambda _, inputs, output: read.append(inputs[0]))
    features, mask = torch.randn(2, 5, 12), torch.ones(2, 5).bool()
    other_rgb = torch.cat([torch.randn(2, 5, 6), features[..., 6:]], dim=2)
    with torch.no_grad():
        model(features, mask)
        model(other_rgb, mask)
        flow, _ = model.ica["flow"](model.stems["flow"](features[..., 6:]), mask)
    torch.testing.assert_close(read[0], torch.cat([flow, motion_features(flow, mask)], dim=2))
    torch.testing.assert_close(read[1], read[0])


def test_gate_and_scorer_compute_in_float32_under_autocast():
    model = ClavComo(ClavComoConfig(stream_dims=STREAMS["two streams"], **SMALL)).eval()
    features, mask = torch.randn(2, 5, 12), torch.ones(2, 5).bool()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = model(features, mask)
    assert {output.logits.dtype, output.magnitudes.dtype, output.gate_logits.dtype} == {
        torch.float32
    }
    hidden = torch.relu(model.scorer[0](output.embeddings.float()))
    torch.testing.assert_close(output.magnitudes, hidden.norm(dim=2))
    torch.testing.assert_close(output.logits, model.scorer[3](hidden).squeeze(2))


def test_motion_is_read_off_the_steps_where_the_config_says_so():
    config = ClavComoConfig(stream_dims=(("rgb", 6), ("flow", 6)), motion_from="steps", **SMALL)
    model = ClavComo(config).eval()
    assert model.como.motion_path[0].in_features == 4 * 64
    assert model(torch.randn(1, 5, 12), torch.ones(1, 5).bool()).logits.isfinite().all()


def test_the_longest_hidden_vectors_are_ranked_first_where_the_config_says_so():
    model = ClavComo(ClavComoConfig(stream_dims=(("rgb", 6),), rank_by="magnitude", **SMALL))
    features, mask, labels = torch.randn(2, 20, 6), torch.ones(2, 20).bool(), torch.tensor([0, 1])
    output = model.eval()(features, mask)
    found = model.losses(output, BagBatch(features, mask, labels))["mil"]
    terms = []
    for bag in range(2):
        hidden = torch.relu(model.scorer[0](output.embeddings[bag]))
        lengths = hidden.square().sum(dim=1).tolist()
        longest = sorted(range(20), key=lengths.__getitem__, reverse=True)[:2]
        mean = output.scores[bag, longest].mean()
        terms.append(-(mean if bag == 1 else 1 - mean).log())
    torch.testing.assert_close(found, sum(terms) / 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context_len": 4}, "context_len must be odd, instead got 4"),
        ({"embedding_dim": 0}, "embedding_dim must be at least 1, instead got 0"),
        ({"stem_dropout": 1.0}, r"stem_dropout must be in \[0, 1\), instead got 1.0"),
        ({"margin": -1.0}, "margin must be at least 0 and finite, instead got -1.0"),
        ({"stream_dims": ()}, "stream_dims must name each stream once"),
    ],
)
def test_a_config_out_of_range_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ClavComoConfig(**changes)


def exclusive_or_bags(n_bags, generator, codes, *, n_snippets=8):
    """Bags in which only certain pairs of context and motion are anomalous.

    One context per bag, one motion per snippet. Every context and every motion is anomalous in
    half of its pairs, so neither tells alone. The rgb half of the features carries the context,
    the flow half the motion, both under noise.
    """
    context_codes, motion_codes = codes
    context = torch.arange(n_bags) // 2 % N_CONTEXTS
    labels = torch.arange(n_bags) % 2
    # Of each context, motions c and c + 1 are anomalous; draw normal ones everywhere first.
    draw = torch.randint(2, (n_bags, n_snippets), generator=generator)
    motion = (context[:, None] + 2 + draw) % N_MOTIONS
    is_anomalous = torch.zeros(n_bags, n_snippets, dtype=torch.bool)
    for bag in labels.nonzero().flatten().tolist():
        start = int(torch.randint(n_snippets - 2, (1,), generator=generator))
        is_anomalous[bag, start : start + 3] = True
    motion = torch.where(is_anomalous, (context[:, None] + draw) % N_MOTIONS, motion)
    features = torch.cat(
        [context_codes[context][:, None].expand(-1, n_snippets, -1), motion_codes[motion]], dim=2
    )
    features = features + 0.5 * torch.randn(features.shape, generator=generator)
    batch = BagBatch(features, torch.ones(n_bags, n_snippets).bool(), labels)
    return batch, is_anomalous


def pairwise_auc(scores, is_anomalous):
    positive, negative = scores[is_anomalous], scores[~is_anomalous]
    return float((positive[:, None] > negative[None, :]).float().mean())


def trained_auc():
    generator = torch.Generator().manual_seed(3)
    codes = torch.randn(4, 32, generator=generator), torch.randn(4, 32, generator=generator)
    train, _ = exclusive_or_bags(256, generator, codes)
    test, is_anomalous = exclusive_or_bags(128, generator, codes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ClavComo(ClavComoConfig(stream_dims=(("rgb", 32), ("flow", 32)), **SMALL))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=5e-4)
        for _ in range(150):
            optimizer.zero_grad()
            sum(model.losses(model(train.features, train.mask), train).values()).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        scores = model(test.features, test.mask).scores
        # The next pair of bags has the next context: every context is another one.
        other = test.features.roll(2, dims=0)
        shuffled = model(test.features, test.mask, context=other).scores
    return pairwise_auc(scores, is_anomalous), pairwise_auc(shuffled, is_anomalous)


def test_como_finds_the_relation_from_video_level_labels_and_needs_the_context():
    auc, shuffled_auc = trained_auc()
    assert auc > 0.7  # neither context nor motion alone can rank better than chance
    assert shuffled_auc < auc - 0.1


def two_streams(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = ClavComoConfig(stream_dims=(("rgb", 6), ("flow", 5)), **SMALL, **changes)
        model = ClavComo(config).eval()
        model.input_norm.fit(torch.randn(40, 11) * 2 + 3)
        return model, torch.randn(1, 9, 11), torch.ones(1, 9).bool()


def test_without_context_the_surroundings_of_a_snippet_do_not_matter():
    model, features, mask = two_streams(motion_from="flow", ica="none")  # whose gate sees the video
    others = features.clone()
    others[:, :4, :6] += 5  # the appearance of the first snippets
    before, after = (model.scores_without(each, mask)["context"] for each in (features, others))
    torch.testing.assert_close(before[:, 4:], after[:, 4:])
    whole, changed = (model(each, mask).scores for each in (features, others))
    assert (whole[:, 4:] - changed[:, 4:]).abs().max() > 1e-3


def test_without_motion_the_flow_matters_only_as_what_the_paths_add_to():
    model, features, mask = two_streams(use_residual=False)
    others = features.clone()
    others[..., 6:] += torch.randn(1, 9, 5) * 5
    before, after = (model.scores_without(each, mask)["motion"] for each in (features, others))
    torch.testing.assert_close(before, after)
    assert (model(features, mask).scores - model(others, mask).scores).abs().max() > 1e-3


def test_a_part_is_left_out_by_the_names_of_the_streams_in_any_order():
    streams = (("flow", 5), ("audio", 3), ("rgb", 6))
    model = ClavComo(ClavComoConfig(stream_dims=streams, **SMALL)).eval()
    model.input_norm.fit(torch.randn(40, 14) * 2 + 3)
    features, mask = torch.randn(1, 9, 14), torch.ones(1, 9).bool()
    found = model.scores_without(features, mask)
    average = model.input_norm.mean.expand(1, 9, 14)
    torch.testing.assert_close(found["motion"], model(features, mask, motion=average).scores)
    torch.testing.assert_close(found["context"], model(features, mask, context=average).scores)


def test_only_the_path_that_is_left_out_reads_something_else():
    model, features, mask = two_streams()
    read = []
    model.como.register_forward_hook(lambda _, inputs, __: read.append(inputs[:3]))
    model(features, mask)
    assert list(model.scores_without(features, mask)) == ["context", "motion"]
    whole, without_context, without_motion = read
    for found, index in ((without_context, 1), (without_motion, 2)):
        differs = [not torch.equal(one, other) for one, other in zip(found, whole, strict=True)]
        assert differs == [place == index for place in range(3)]


@pytest.mark.parametrize(("reads", "expected"), [("both", True), ("motion", False)])
def test_a_model_that_reads_no_context_accepts_no_other(reads, expected):
    model, features, mask = two_streams(como_reads=reads)
    assert model.accepts_context == expected
    assert ("context" in model.scores_without(features, mask)) == expected


def test_with_one_stream_each_part_can_be_left_out_too():
    model = ClavComo(ClavComoConfig(stream_dims=(("rgb", 6),), **SMALL)).eval()
    features, mask = torch.randn(1, 9, 6), torch.ones(1, 9).bool()
    found = model.scores_without(features, mask)
    whole = model(features, mask).scores
    assert set(found) == {"context", "motion"}
    assert all((scores - whole).abs().max() > 1e-4 for scores in found.values())


def test_without_a_relation_there_are_no_parts_to_leave_out():
    model = ClavComo(ClavComoConfig(stream_dims=(("rgb", 6),), relation="none", **SMALL)).eval()
    assert model.scores_without(torch.randn(1, 9, 6), torch.ones(1, 9).bool()) == {}
