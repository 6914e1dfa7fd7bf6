"""Standardization of features and the mean over real snippets."""

import pytest
import torch

from models.layers import Standardize, masked_mean


def test_standardized_training_snippets_have_mean_0_and_deviation_1():
    features = torch.randn(500, 6) * torch.tensor([1e-3, 1.0, 5.0, 100.0, 2.0, 1.0]) + 7
    layer = Standardize(6)
    layer.fit(features)
    standard = layer(features)
    torch.testing.assert_close(standard.mean(dim=0), torch.zeros(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(standard.std(dim=0, correction=0), torch.ones(6), atol=1e-3, rtol=0)


def test_nothing_is_changed_before_the_fit():
    features = torch.randn(2, 3, 4)
    assert torch.equal(Standardize(4)(features), features)


def test_a_feature_that_never_varies_is_only_shifted():
    layer = Standardize(2)
    layer.fit(torch.tensor([[3.0, 1.0], [3.0, 2.0]]))
    assert layer(torch.tensor([4.0, 1.5])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.ones(3, 5), r"\(at least 1, 4\), instead got \(3, 5\)"),
        (torch.ones(0, 4), r"instead got \(0, 4\)"),
        (torch.full((3, 4), torch.nan), "instead got NaN or infinity"),
    ],
)
def test_what_cannot_be_fitted_is_refused(features, message):
    with pytest.raises(ValueError, match=message):
        Standardize(4).fit(features)


def test_the_masked_mean_is_that_of_the_real_snippets():
    values, lengths = torch.randn(3, 5, 2), [5, 1, 3]
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    means = masked_mean(values, mask)
    for bag, length in enumerate(lengths):
        torch.testing.assert_close(means[bag, 0], values[bag, :length].mean(dim=0))
