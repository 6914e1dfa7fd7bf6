"""Snippets of a video and the tail policies."""

import numpy as np
import pytest

from extractors.snippets import DROP_TAIL, fill_snippet, n_snippets, per_frame


@pytest.mark.parametrize(
    ("n_frames", "snippet_len", "expected"),
    [(0, 16, 0), (1, 16, 1), (15, 16, 1), (16, 16, 1), (17, 16, 2), (32, 16, 2), (5, 1, 5)],
)
def test_snippets_hold_every_frame(n_frames: int, snippet_len: int, expected: int) -> None:
    assert n_snippets(n_frames, snippet_len) == expected


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="n_frames must be at least 0, instead got -1"):
        n_snippets(-1)
    with pytest.raises(ValueError, match="snippet_len must be at least 1, instead got 0"):
        n_snippets(3, 0)
    with pytest.raises(ValueError, match=r"tail_policy must be .*'repeat.*instead got 'none'"):
        n_snippets(3, tail_policy="none")


@pytest.mark.parametrize(
    ("n_frames", "expected"), [(0, 0), (1, 0), (16, 0), (17, 1), (32, 1), (33, 2), (49, 3)]
)
def test_a_dropped_tail_leaves_a_snippet_for_every_16_flows(n_frames: int, expected: int) -> None:
    assert n_snippets(n_frames, tail_policy=DROP_TAIL) == expected


def test_every_frame_has_the_value_of_its_snippet_or_of_the_last_one() -> None:
    values = np.array([0.5, 0.25, 1.0], np.float32)
    for n_frames in range(1, 20):
        expected = [values[min(i // 4, 2)] for i in range(n_frames)]
        np.testing.assert_array_equal(per_frame(values, 4, n_frames), expected)


def test_the_frame_after_a_snippet_follows_it_and_at_the_end_the_last_frame_is_repeated():
    snippet = np.zeros((4, 2, 2, 3), np.uint8)
    frames = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1) + np.ones((1, 2, 2, 3), np.uint8)
    fill_snippet(snippet, frames, np.full((2, 2, 3), 9, np.uint8))
    assert snippet[:, 0, 0, 0].tolist() == [1, 2, 3, 9]
    fill_snippet(snippet, frames, None)
    assert snippet[:, 1, 1, 2].tolist() == [1, 2, 3, 3]
    fill_snippet(snippet, frames[:1], None)
    assert snippet[:, 1, 0, 1].tolist() == [1, 1, 1, 1]
