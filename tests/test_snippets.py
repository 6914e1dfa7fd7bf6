import pytest

from extractors.snippets import n_snippets


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
