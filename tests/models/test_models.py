"""What every model of `MODELS` promises."""

import copy
import dataclasses
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from models import MODELS, model_class
from models.interface import BagBatch, Output

STREAMS = {"rgb": (("rgb", 12),), "two": (("rgb", 12), ("flow", 10))}


@pytest.fixture(params=list(MODELS))
def model_type(request):
    return model_class(request.param)


def small(model_type, streams="two", width=16, **changes):
    """A model whose layers are all that narrow."""
    names = [field.name for field in dataclasses.fields(model_type.config_type)]
    widths = {name: width for name in names if name.endswith("_dim")}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = model_type.config_type(stream_dims=STREAMS[streams], **widths, **changes)
        return model_type(config).eval()


@pytest.fixture(params=list(STREAMS))
def model(request, model_type):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model_type(model_type.config_type(stream_dims=STREAMS[request.param])).eval()


def make_batch(dim, *, n_bags=6, n_snippets=14, seed=0, gap=0.0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, n_snippets + 1, (n_bags,), generator=generator)
    lengths[0] = n_snippets
    mask = torch.arange(n_snippets) < lengths[:, None]
    labels = torch.arange(n_bags) % 2
    features = torch.randn(n_bags, n_snippets, dim, generator=generator)
    features[labels == 1, 0] += gap
    return BagBatch(features * mask[..., None], mask, labels)


def padded(batch, n_more, value):
    n_bags, _, dim = batch.features.shape
    features = torch.cat([batch.features, torch.full((n_bags, n_more, dim), value)], dim=1)
    mask = torch.cat([batch.mask, torch.zeros(n_bags, n_more, dtype=torch.bool)], dim=1)
    return BagBatch(features, mask, batch.labels)


def losses_of(model, batch):
    return model.losses(model(batch.features, batch.mask), batch)


def variants():
    """Every value of every switch of every model, one at a time."""
    for name in MODELS:
        model_type = model_class(name)
        for field, kind in get_type_hints(model_type.config_type).items():
            values = (True, False) if kind is bool else get_args(kind)
            if kind is bool or get_origin(kind) is Literal:
                yield from ((name, {field: value}) for value in values)
        for field in dataclasses.fields(model_type.config_type):
            if field.name.endswith("_weight"):
                yield name, {field.name: 0.0}


@pytest.mark.parametrize(("name", "changes"), list(variants()), ids=str)
def test_every_switch_keeps_the_provenance(name, changes):
    model = small(model_class(name), input_noise=0.5, **changes)
    batch = make_batch(22)
    longer = padded(batch, 5, 50.0)
    scores = model(batch.features, batch.mask).scores[batch.mask]
    longer_scores = model(longer.features, longer.mask).scores[:, :14][batch.mask]
    torch.testing.assert_close(longer_scores, scores, rtol=1e-4, atol=1e-5)
    found = losses_of(model, longer)
    for term, loss in losses_of(model, batch).items():
        torch.testing.assert_close(found[term], loss, rtol=1e-4, atol=1e-5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sum(losses_of(model.train(), batch).values()).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert sum(float(gradient.abs().sum()) for gradient in gradients) > 0


class NothingIsReadBack(TorchDispatchMode):
    """Fails where a GPU would have to be waited for: a value or a shape that depends on values."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique", "equal")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.partition(".")[0]
        assert not name.startswith(self.WAITING), f"{name} makes the step wait"
        if name in ("index", "index_put", "index_put_"):
            assert all(i is None or i.dtype != torch.bool for i in args[1]), "indexed by a mask"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "changes"), list(variants()), ids=str)
def test_no_step_of_training_waits_for_the_device(name, changes):
    model, batch = small(model_class(name), input_noise=0.5, **changes).train(), make_batch(22)
    with NothingIsReadBack(), torch.random.fork_rng():
        torch.stack(list(losses_of(model, batch).values())).sum().backward()


def test_what_waits_for_the_device_is_found():
    values = torch.randn(3)
    for wait in (lambda: float(values[0]), lambda: values[values > 0], lambda: values.nonzero()):
        with NothingIsReadBack(), pytest.raises(AssertionError, match=r"wait|mask"):
            wait()


def test_the_default_config_builds(model_type):
    model_type(model_type.config_type())


def test_every_snippet_gets_a_logit_and_an_embedding(model):
    batch = make_batch(model.config.feature_dim)
    output = model(batch.features, batch.mask)
    assert output.logits.shape == batch.mask.shape
    assert output.embeddings.shape[:2] == batch.mask.shape
    assert output.logits[batch.mask].isfinite().all()


@pytest.mark.parametrize("value", [0.0, 50.0])
def test_padding_changes_no_score_and_no_loss(model, value):
    batch = make_batch(model.config.feature_dim)
    longer = padded(batch, 9, value)
    scores = model(batch.features, batch.mask).scores
    longer_scores = model(longer.features, longer.mask).scores[:, : scores.shape[1]]
    torch.testing.assert_close(longer_scores[batch.mask], scores[batch.mask], rtol=1e-4, atol=1e-5)
    for name, loss in losses_of(model, batch).items():
        torch.testing.assert_close(losses_of(model, longer)[name], loss, rtol=1e-4, atol=1e-5)


def test_each_bag_is_scored_for_itself(model):
    batch = make_batch(model.config.feature_dim)
    scores = model(batch.features, batch.mask).scores
    for bag in range(len(scores)):
        n = int(batch.mask[bag].sum())
        alone = model(batch.features[bag : bag + 1, :n], batch.mask[bag : bag + 1, :n]).scores
        torch.testing.assert_close(alone[0], scores[bag, :n], rtol=1e-4, atol=1e-5)


def test_shuffling_the_batch_changes_no_loss(model):
    batch = make_batch(model.config.feature_dim)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = BagBatch(batch.features[order], batch.mask[order], batch.labels[order])
    for name, loss in losses_of(model, batch).items():
        torch.testing.assert_close(losses_of(model, shuffled)[name], loss, rtol=1e-4, atol=1e-5)


def test_every_loss_is_a_finite_scalar_and_every_parameter_gets_a_gradient(model):
    batch = make_batch(model.config.feature_dim, n_snippets=40)
    losses = losses_of(model.train(), batch)
    for name, loss in losses.items():
        assert loss.shape == (), name
        assert loss.isfinite(), name
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("label", [0, 1])
def test_bags_of_one_class_have_finite_losses(model, label):
    batch = make_batch(model.config.feature_dim)
    one_class = BagBatch(batch.features, batch.mask, torch.full_like(batch.labels, label))
    assert all(loss.isfinite() for loss in losses_of(model, one_class).values())


def test_a_bag_of_one_snippet_is_scored(model):
    score = model(torch.randn(1, 1, model.config.feature_dim), torch.ones(1, 1).bool()).scores
    assert score.isfinite().all()


def test_a_state_dict_rebuilds_the_model(model):
    model.input_norm.fit(torch.randn(50, model.config.feature_dim) * 3 + 1)
    again = type(model)(model.config).eval()
    again.load_state_dict(copy.deepcopy(model.state_dict()))
    batch = make_batch(model.config.feature_dim)
    expected, found = model(batch.features, batch.mask), again(batch.features, batch.mask)
    assert torch.equal(found.logits[batch.mask], expected.logits[batch.mask])


@pytest.mark.parametrize("streams", list(STREAMS))
def test_fifty_steps_on_separable_bags_bring_the_loss_down(model_type, streams):
    model = small(model_type, streams, width=64)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batch = make_batch(model.config.feature_dim, n_bags=16, gap=4.0)
    first = float(losses_of(model, batch)["mil"].detach())
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for _ in range(50):
            optimizer.zero_grad()
            sum(losses_of(model.train(), batch).values()).backward()
            optimizer.step()
    assert float(losses_of(model.eval(), batch)["mil"].detach()) < 0.5 * first


@pytest.mark.parametrize(
    ("shape", "mask_shape", "message"),
    [
        ((2, 3), (2, 3), r"features must be \(B, T, D\), instead got \(2, 3\)"),
        ((2, 3, 9), (2, 3), "features must have D = 22, instead got 9"),
        ((2, 3, 22), (2, 4), r"mask must be \(B, T\) = \(2, 3\), instead got \(2, 4\)"),
    ],
)
def test_wrong_shapes_are_refused(model_type, shape, mask_shape, message):
    model = model_type(model_type.config_type(stream_dims=STREAMS["two"]))
    with pytest.raises(ValueError, match=message):
        model(torch.zeros(shape), torch.ones(mask_shape).bool())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": torch.tensor([[True, False, True]])}, "real after padding"),
        ({"mask": torch.tensor([[False, True, True]])}, "must begin with a real snippet"),
        ({"labels": torch.tensor([2])}, r"labels must be 0 or 1, instead got \[2\]"),
        ({"labels": torch.tensor([1.0])}, "labels must be int64"),
        ({"features": torch.zeros(1, 3, 4, dtype=torch.float64)}, "features must be float32"),
    ],
)
def test_what_is_not_a_batch_is_refused(changes, message):
    values = {
        "features": torch.zeros(1, 3, 4),
        "mask": torch.ones(1, 3).bool(),
        "labels": torch.tensor([1]),
    }
    with pytest.raises(ValueError, match=message):
        BagBatch(**(values | changes))


def test_what_is_not_an_output_is_refused():
    with pytest.raises(ValueError, match=r"instead got \(2, 3\) and \(2, 4, 5\)"):
        Output(torch.zeros(2, 3), torch.zeros(2, 4, 5))


def test_configs_are_plain_values(model_type):
    config = model_type.config_type()
    assert model_type.config_type(**dataclasses.asdict(config)) == config


def test_neighboring_scores_differ_also_under_bfloat16_autocast(model):
    batch = make_batch(model.config.feature_dim, n_bags=1, n_snippets=200)
    features = batch.features[:, :1] + 1e-2 * batch.features  # snippets that differ little
    for name, memory in model.named_buffers():
        if name == "memory":  # of cluster centers, which is empty before training
            memory.normal_(generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = model(features, batch.mask)
    assert output.logits.dtype == torch.float32
    exact = output.logits[0].unique()
    rounded = output.logits[0].bfloat16().unique()
    assert len(exact) > 190 > 100 > len(rounded)


def test_scores_without_a_part_are_scores_that_padding_does_not_change(model):
    batch = make_batch(model.config.feature_dim)
    longer = padded(batch, 3, 7.0)
    with torch.no_grad():
        found = model.scores_without(batch.features, batch.mask)
        of_longer = model.scores_without(longer.features, longer.mask)
    assert set(found) == set(of_longer)
    for name, scores in found.items():
        assert scores.shape == batch.mask.shape
        real = scores[batch.mask]
        assert ((real >= 0) & (real <= 1)).all()
        torch.testing.assert_close(of_longer[name][longer.mask], real, atol=1e-5, rtol=1e-4)
