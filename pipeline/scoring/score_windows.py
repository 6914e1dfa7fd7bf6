"""Overlapping windows of a video that is too long to be scored at once, and how scores are blended.

`snippet_scores.py` says why there are windows.
"""

import numpy as np
from numpy.typing import NDArray

WINDOWS_PER_SNIPPET = 4


def hop_len(window_len: int) -> int:
    """How many snippets after one window the next one begins."""
    return max(1, window_len // WINDOWS_PER_SNIPPET)


def windows(n_snippets: int, window_len: int) -> list[tuple[int, int]]:
    """Where the windows of a video begin and end.

    >>> windows(11, 8), windows(3, 8)
    ([(0, 8), (2, 10), (4, 11)], [(0, 3)])
    """
    if window_len < 1:
        raise ValueError(f"window_len must be positive, instead got {window_len}")
    hop = hop_len(window_len)
    last = max(0, -(-(n_snippets - window_len) // hop))
    return [(i * hop, min(i * hop + window_len, n_snippets)) for i in range(last + 1)]


class WindowBlender:
    """Averages the scores of overlapping windows.

    A window does not count in the eighth next to each of its ends, where it lacks surroundings, and
    counts more from there to three eighths. At the ends of the video it counts fully.

    Args:
        window_len: As in `windows`.
    """

    def __init__(self, window_len: int) -> None:
        self._window_len, self._hop = window_len, hop_len(window_len)
        self._finished: list[NDArray[np.float64]] = []
        # Of the snippets that later windows reach, too.
        self._sums, self._weights = np.zeros(0), np.zeros(0)
        self._last: NDArray[np.float32] | None = None  # counts once it is known what follows it

    def add(self, scores: NDArray[np.float32]) -> None:
        """Take the scores (n,) of the next window."""
        if self._last is not None:
            self._count(self._last, is_at_end=False)
            self._finish(self._hop)
        self._last = scores

    def scores(self) -> NDArray[np.float32]:
        """(n_snippets,) the scores of the whole video, after its last window."""
        if self._last is not None:
            self._count(self._last, is_at_end=True)
            self._finish(len(self._sums))
            self._last = None
        return np.clip(np.concatenate(self._finished), 0, 1).astype(np.float32)

    def _count(self, scores: NDArray[np.float32], *, is_at_end: bool) -> None:
        n = len(scores)
        from_start = np.arange(n) + 0.5 if self._finished else np.full(n, np.inf)
        to_end = np.full(n, np.inf) if is_at_end else n - np.arange(n) - 0.5
        distances = np.minimum(from_start, to_end) / self._window_len
        weights = np.clip(4 * distances - 0.5, 0, 1)
        n_new = n - len(self._sums)
        self._sums = np.append(self._sums, np.zeros(n_new)) + weights * scores
        self._weights = np.append(self._weights, np.zeros(n_new)) + weights

    def _finish(self, n_snippets: int) -> None:
        self._finished.append(self._sums[:n_snippets] / self._weights[:n_snippets])
        self._sums, self._weights = self._sums[n_snippets:], self._weights[n_snippets:]
