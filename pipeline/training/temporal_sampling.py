"""Temporal sampling: bags of any length to a fixed length, and a fair sample of all snippets.

The two samplers are those of the field: bins as in RTFM, index sampling as in XDVioDet. Both are
fixed functions of a bag: nothing is random.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def bin_means(features: NDArray[np.float32], bag_len: int) -> NDArray[np.float32]:
    """Means over bins of equal length; a bin without a snippet takes the one at its edge.

    Args:
        features: (n_snippets, ...), such as (n_snippets, K, D).
        bag_len: T, the number of bins.

    Returns:
        (T, ...)

    >>> bin_means(np.array([[0], [2], [4], [6]], "float32"), bag_len=2).tolist()
    [[1.0], [5.0]]
    """
    # In whole numbers: the edges of np.linspace can fall below what they should be.
    edges = np.arange(bag_len + 1) * len(features) // bag_len
    stops = np.maximum(edges[1:], edges[:-1] + 1)
    # A mean per bin over all columns at once; `np.add.reduceat` takes ten times as long.
    means = [features[a:b].mean(axis=0) for a, b in zip(edges[:-1], stops, strict=True)]
    return np.stack(means)


def sample_sequence(features: NDArray[np.float32], bag_len: int) -> NDArray[np.float32]:
    """Snippets at even distances where there are too many, first and last included.

    Args:
        features: (n_snippets, ...), such as (n_snippets, K, D).
        bag_len: T, the most that is kept.

    Returns:
        (min(n_snippets, T), ...)
    """
    if len(features) <= bag_len:
        return features
    indices = np.arange(bag_len) * (len(features) - 1) // max(bag_len - 1, 1)
    return features[indices]


SAMPLERS = {"bins": bin_means, "sequence": sample_sequence}


class SnippetSample:
    """Every s-th of a stream of snippets, where s doubles each time that the sample is full."""

    def __init__(self, max_snippets: int) -> None:
        self._max_snippets = max_snippets
        self._stride = 1
        self._n_seen = 0
        self._n_kept = 0
        self._kept: list[NDArray[np.float32]] = []
        self._videos: list[NDArray[np.int64]] = []

    def add(self, streams: list[NDArray[np.float32]], video: int) -> None:
        """Take what falls on the stride from n snippets.

        Args:
            streams: Each (n, D of the stream); side by side they make D.
            video: The number of the video that they are of.
        """
        kept = slice(-self._n_seen % self._stride, None, self._stride)
        rows = np.concatenate([stream[kept] for stream in streams], axis=1)
        self._n_seen += len(streams[0])
        self._n_kept += len(rows)
        self._kept.append(rows)
        self._videos.append(np.full(len(rows), video))
        while self._n_kept > self._max_snippets:
            self._stride *= 2
            self._kept = [np.concatenate(self._kept)[::2].copy()]
            self._videos = [np.concatenate(self._videos)[::2].copy()]
            self._n_kept = len(self._kept[0])

    def rows(self) -> Tensor:
        """(n, D) float32, n at most what was asked for."""
        return torch.from_numpy(np.concatenate(self._kept))

    def videos(self) -> NDArray[np.int64]:
        """(n,) the number of each row's video."""
        return np.concatenate(self._videos)
