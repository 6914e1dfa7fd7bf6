"""Overlapping windows of a video that is too long to be scored at once, and how scores are blended.

`snippet_scores.py` says what windows change.
"""

import numpy as np
from numpy.typing import NDArray


def windows(n_snippets: int, max_window_len: int) -> list[tuple[int, int]]:
    """Where the windows of a video begin and end: each begins half a window after the one before.

    >>> windows(10, 4), windows(3, 4)
    ([(0, 4), (2, 6), (4, 8), (6, 10)], [(0, 3)])
    """
    if max_window_len < 2 or max_window_len % 2:
        raise ValueError(f"max_window_len must be even, instead got {max_window_len}")
    hop = max_window_len // 2
    last = max(0, -(-(n_snippets - max_window_len) // hop))
    return [(i * hop, min(i * hop + max_window_len, n_snippets)) for i in range(last + 1)]


class WindowBlender:
    """Puts the scores of overlapping windows together.

    Args:
        max_window_len: As in `windows`: a window begins half of it after the one before.
    """

    def __init__(self, max_window_len: int) -> None:
        self._hop = max_window_len // 2
        self._parts: list[NDArray[np.float32]] = []  # the last one is to be blended

    def add(self, scores: NDArray[np.float32]) -> None:
        """Take the scores (n,) of the next window, which has more than `hop` snippets."""
        if self._parts:
            before = self._parts[-1]
            # Neither window counts in the quarter next to its end, where it lacks surroundings.
            place = (np.arange(self._hop) + 0.5) / self._hop
            weights = np.clip(2 * place - 0.5, 0, 1).astype(np.float32)
            self._parts[-1] = (1 - weights) * before + weights * scores[: self._hop]
            self._parts.append(scores[self._hop :])
        else:
            self._parts += [scores[: self._hop], scores[self._hop :]]

    def scores(self) -> NDArray[np.float32]:
        """(n_snippets,) the scores of the whole video, after its last window."""
        return np.clip(np.concatenate(self._parts), 0, 1)
