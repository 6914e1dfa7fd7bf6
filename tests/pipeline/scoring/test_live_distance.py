"""When a live source is named as unlike the training videos: simulated over 30 days."""

import numpy as np
from scipy.signal import lfilter
from scipy.stats import norm

from pipeline.runs.feature_distance import LIMIT_QUANTILE
from pipeline.scoring.live_distance import N_LATER_WINDOWS, UnlikeWindows
from pipeline.scoring.live_scores import LIVE_WINDOW_LEN

N_WINDOWS = 30 * 24 * 3600 * 25 // (16 * LIVE_WINDOW_LEN)  # of 30 days at 25 frames per second
CORRELATION = 0.5  # of windows that follow each other


def named_after(is_unlike):
    """The number of windows after which the source is named; None if it is not."""
    windows = UnlikeWindows()
    return next((i for i, unlike in enumerate(is_unlike, 1) if windows.add(is_unlike=unlike)), None)


def distances(rng, n_sources, between):
    """(n_sources, N_WINDOWS) in standard deviations over videos, of which a fraction is between."""
    noise = rng.standard_normal((n_sources, N_WINDOWS))
    within = lfilter([np.sqrt(1 - CORRELATION**2)], [1, -CORRELATION], noise, axis=1)
    means = rng.standard_normal((n_sources, 1))
    return np.sqrt(between) * means + np.sqrt(1 - between) * within


def test_hardly_a_source_like_the_training_is_named_within_30_days():
    rng = np.random.default_rng(0)
    limit = norm.ppf(LIMIT_QUANTILE)
    sources = np.concatenate([distances(rng, 60, between) for between in (0.0, 0.5, 0.9)]) > limit
    two_in_a_row = (sources[:, 1:] & sources[:, :-1]).any(axis=1)
    assert two_in_a_row.mean() > 0.3  # which was once enough
    named = [source for source in sources if named_after(source.tolist()) is not None]
    assert len(named) <= 0.03 * len(sources)


def test_a_source_unlike_the_training_is_named_after_two_windows():
    assert named_after([True] * 3) == 2


def test_a_source_that_becomes_unlike_the_training_is_named_later():
    assert named_after([False] * 100 + [True] * 100) == 100 + N_LATER_WINDOWS
    assert named_after([True] + [False] * 9 + [True] * 100) == 10 + N_LATER_WINDOWS
    assert named_after(([True] * (N_LATER_WINDOWS - 1) + [False]) * 9) == 2
    assert named_after([False] + ([True] * (N_LATER_WINDOWS - 1) + [False]) * 9) is None
