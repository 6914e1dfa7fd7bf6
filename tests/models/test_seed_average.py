"""The average over seeds against the mean of the scores of single models."""

import pytest
import torch

from models import model_class
from models.seed_average import SeedAverage

STREAMS = (("rgb", 6), ("flow", 4))


def make_models(n=3):
    model = model_class("clav-como")
    models = []
    for seed in range(n):
        torch.manual_seed(seed)
        models.append(model(model.config_type(stream_dims=STREAMS, embedding_dim=8)).eval())
    return models


@pytest.fixture
def bag():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 9, 10, generator=generator) * 30, torch.ones(2, 9, dtype=torch.bool)


@torch.no_grad()
def test_the_score_is_the_mean_of_the_scores(bag):
    models = make_models()
    expected = sum(model(*bag).scores for model in models) / 3
    torch.testing.assert_close(SeedAverage(models)(*bag).scores, expected)


@torch.no_grad()
def test_another_context_reaches_every_model(bag):
    models, context = make_models(), bag[0].flip(0)
    expected = sum(model(*bag, context=context).scores for model in models) / 3
    average = SeedAverage(models)
    assert average.accepts_context
    torch.testing.assert_close(average(*bag, context=context).scores, expected)


@torch.no_grad()
def test_scores_without_a_part_are_means_too(bag):
    models = make_models()
    found = SeedAverage(models).scores_without(*bag)
    for part in ("context", "motion"):
        expected = sum(model.scores_without(*bag)[part] for model in models) / 3
        torch.testing.assert_close(found[part], expected)


@torch.no_grad()
def test_scores_next_to_one_keep_their_order(bag):
    models = make_models()
    for model in models:
        model.scorer[3].bias.fill_(40.0)  # a score of 1 in float32
    logits = SeedAverage(models)(*bag).logits
    assert logits.isfinite().all()
    assert len(logits.unique()) == logits.numel()


def test_models_of_other_settings_are_refused():
    model = model_class("clav-como")
    other = model(model.config_type(stream_dims=STREAMS, embedding_dim=4))
    with pytest.raises(ValueError, match="config"):
        SeedAverage([*make_models(1), other])
    with pytest.raises(ValueError, match="at least one"):
        SeedAverage([])
