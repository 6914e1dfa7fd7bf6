"""Samplers against loops from their definition."""

from itertools import pairwise

import numpy as np
import pytest

from pipeline.training.temporal_sampling import SnippetSample, bin_means, sample_sequence


def numbered(n_snippets: int) -> np.ndarray:
    """Snippet i is filled with i."""
    return np.repeat(np.arange(n_snippets, dtype=np.float32)[:, None], 2, axis=1)


@pytest.mark.parametrize("n_snippets", [1, 2, 5, 31, 32, 33, 63, 100, 3201])
@pytest.mark.parametrize("bag_len", [1, 7, 32])
def test_bins_are_the_means_between_even_edges(n_snippets, bag_len):
    features = np.random.default_rng(n_snippets).normal(size=(n_snippets, 3)).astype("float32")
    expected = []
    for bin_index in range(bag_len):
        start = bin_index * n_snippets // bag_len
        stop = (bin_index + 1) * n_snippets // bag_len
        rows = features[start:stop] if stop > start else features[start : start + 1]
        expected.append(rows.astype("float64").mean(axis=0))
    found = bin_means(features, bag_len)
    assert (found.shape, found.dtype) == ((bag_len, 3), np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("n_snippets", "bag_len"), [(40, 32), (20, 32), (1000, 32), (65, 16)])
def test_the_edges_of_bins_are_those_of_linspace_where_that_is_exact(n_snippets, bag_len):
    edges = np.linspace(0, n_snippets, bag_len + 1, dtype=int)
    firsts = [numbered(n_snippets)[a : max(b, a + 1)].mean() for a, b in pairwise(edges)]
    np.testing.assert_allclose(bin_means(numbered(n_snippets), bag_len)[:, 0], firsts, rtol=1e-6)


@pytest.mark.parametrize(("n_snippets", "bag_len"), [(5, 4), (200, 4), (9, 9), (10, 1), (77, 20)])
def test_a_long_sequence_is_sampled_evenly_from_first_to_last(n_snippets, bag_len):
    picked = sample_sequence(numbered(n_snippets), bag_len)[:, 0]
    assert len(picked) == bag_len
    assert picked[0] == 0
    if bag_len > 1:
        assert picked[-1] == n_snippets - 1
        steps = np.diff(picked)
        assert steps.min() >= 1
        assert steps.max() - steps.min() <= 1


@pytest.mark.parametrize("n_snippets", [[5], [10], [3, 4, 100, 1], [1] * 50, [7, 0, 900]])
def test_the_sample_of_snippets_is_even_and_bounded(n_snippets):
    sample = SnippetSample(10)
    start = 0
    for video, n in enumerate(n_snippets):
        sample.add([np.arange(start, start + n, dtype="float32")[:, None]], video)
        start += n
    rows = sample.rows()[:, 0]
    videos = np.repeat(np.arange(len(n_snippets)), n_snippets)
    assert sample.videos().tolist() == videos[rows.int()].tolist()
    assert 0 < len(rows) <= 10
    assert rows[0] == 0
    if start <= 10:
        assert rows.tolist() == list(range(start))
    else:
        assert len(rows) >= 5
        assert len(set(rows.diff().tolist())) == 1
