"""Two negative controls that a score has to beat before it means anything.

The motion-energy floor asks whether motion alone tells; the shuffled context asks whether a model
that claims to relate context and motion uses the context at all.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extractors.video import DecoderFailure, Video

ENERGY_PERCENTILE = 99.0
ENERGY_CHUNK_LEN = 64


def motion_energy(path: Path, *, smoothing_len: int) -> NDArray[np.float32]:
    """How much moves in each frame: the floor that a learned score must clear.

    The 99th percentile over the pixels of the grey difference to the frame before, smoothed by a
    centred mean. The first frame has the energy of the second.

    Args:
        path: The video.
        smoothing_len: Width of the mean in frames; a snippet's length gives the floor the same
            view in time as the model.

    Returns:
        (n_frames,) in [0, 255], unsmoothed where the video has only one frame.

    Raises:
        VideoError: If the video cannot be read.
    """
    try:
        energies = _frame_differences(Video(path))
    except DecoderFailure:
        energies = _frame_differences(Video(path, decoder="pyav"))
    energy = np.array(energies[:1] + energies or [0.0], dtype=np.float32)
    weights = np.ones(min(smoothing_len, len(energy)), dtype=np.float32)
    # Divided by the number of frames under the mean: the ends are not drawn towards zero.
    total = np.convolve(energy, weights, mode="same")
    return (total / np.convolve(np.ones_like(energy), weights, mode="same")).astype(np.float32)


def _frame_differences(video: Video) -> list[float]:
    """Of each frame but the first: the percentile of its difference to the one before."""
    differences: list[float] = []
    previous: NDArray[np.float32] | None = None
    for chunk in video.read(ENERGY_CHUNK_LEN):
        for frame in chunk.frames:
            grey = frame.mean(axis=2, dtype=np.float32)
            if previous is not None:
                differences.append(float(np.percentile(np.abs(grey - previous), ENERGY_PERCENTILE)))
            previous = grey
    return differences


def derangement(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A permutation that leaves nothing in its place, drawn evenly among all such.

    Args:
        n: At least 2.
        rng: Drawn from.

    Raises:
        ValueError: If n is less than 2.
    """
    if n < 2:
        raise ValueError(f"a context can be shuffled across 2 videos or more, instead got {n}")
    while True:  # about e draws on average
        order = rng.permutation(n)
        if not (order == np.arange(n)).any():
            return order


def stretched(features: NDArray[np.float32], n_snippets: int) -> NDArray[np.float32]:
    """Another video's snippets, repeated or skipped evenly to a given number.

    Args:
        features: (n, K, D).
        n_snippets: How many are wanted.

    Returns:
        (n_snippets, K, D).
    """
    indices = (np.arange(n_snippets) * len(features)) // n_snippets
    return features[indices]
