"""Two negative controls of a score: motion energy, and the model with shuffled context.

Motion energy asks whether motion alone tells; the shuffled context asks whether a model
that claims to relate context and motion uses the context at all.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extractors.decoding.decode_pool import (
    DecodePool,
    SnippetDecoded,
    VideoEnded,
    VideoLost,
    VideoOpened,
)
from extractors.decoding.frame_folder import VideoSource, path_of
from extractors.decoding.video import VideoError
from extractors.errors import LookaroundError
from extractors.features import Features

ENERGY_PERCENTILE = 99.0
ENERGY_CHUNK_LEN = 64


class ControlError(LookaroundError):
    """A control cannot be measured, which does not stop the other lines of an evaluation."""


def energies_of(
    n_frames: Mapping[VideoSource, int], *, smoothing_len: int
) -> dict[Path, NDArray[np.float32]]:
    """The motion energy of every frame of test videos, which must be those of their features.

    Args:
        n_frames: By video, the frames that its features are of.
        smoothing_len: As in `motion_energies`.

    Returns:
        By the path of a video (n_frames,).

    Raises:
        ControlError: If a video cannot be read, or has another number of frames.
    """
    energies: dict[Path, NDArray[np.float32]] = {}
    expected = {path_of(source): n for source, n in n_frames.items()}
    try:
        for path, energy in motion_energies(n_frames, smoothing_len=smoothing_len):
            if len(energy) != expected[path]:
                raise ControlError(
                    f"{path}: has {len(energy)} frames now, its features are of {expected[path]}; "
                    "extract it again"
                )
            energies[path] = energy
    except VideoError as error:
        raise ControlError(str(error)) from error
    return energies


def motion_energies(
    videos: Iterable[VideoSource], *, smoothing_len: int
) -> Iterator[tuple[Path, NDArray[np.float32]]]:
    """How much moves in each frame of videos: a baseline that a learned score must beat.

    The 99th percentile over the pixels of the gray difference to the frame before, smoothed by a
    centered mean. The first frame has the energy of the second. The videos are decoded in another
    process, as for extraction.

    Args:
        videos: Files and folders of frames. No path may come twice.
        smoothing_len: Width of the mean in frames; a snippet's length gives it the same
            view in time as the model.

    Yields:
        For each video (n_frames,) in [0, 255], unsmoothed where it has only one frame.

    Raises:
        VideoError: If a video cannot be read.
    """
    differences: list[float] = []
    n_frames = 0
    with DecodePool(1, ENERGY_CHUNK_LEN) as pool:
        for event in pool.decode(videos):
            match event:
                case VideoOpened():  # perhaps once more, after a decoder that failed
                    differences, n_frames = [], 0
                case SnippetDecoded(frames=frames, timestamps=timestamps):
                    differences += _frame_differences(frames[: len(timestamps) + 1])
                    n_frames += len(timestamps)
                case VideoEnded(path=path):
                    # The last one is to the repeated last frame.
                    yield path, _smoothed(differences[: n_frames - 1], smoothing_len)
                case VideoLost(reason=reason):
                    raise VideoError(reason)


def _smoothed(differences: list[float], smoothing_len: int) -> NDArray[np.float32]:
    energy = np.array(differences[:1] + differences or [0.0], dtype=np.float32)
    weights = np.ones(min(smoothing_len, len(energy)), dtype=np.float32)
    # Divided by the number of frames under the mean: the ends are not pulled toward zero.
    total = np.convolve(energy, weights, mode="same")
    return (total / np.convolve(np.ones_like(energy), weights, mode="same")).astype(np.float32)


def _frame_differences(frames: NDArray[np.uint8]) -> list[float]:
    """Of each of (n, H, W, 3) frames but the first: the percentile of its difference."""
    differences = []
    previous = frames[0].mean(axis=2, dtype=np.float32)
    for frame in frames[1:]:
        gray = frame.mean(axis=2, dtype=np.float32)
        differences.append(float(np.percentile(np.abs(gray - previous), ENERGY_PERCENTILE)))
        previous = gray
    return differences


def permutation_without_fixed_points(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A permutation that moves every index, sampled uniformly from all such.

    Args:
        n: At least 2.
        rng: Random numbers.

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


def context_of(other: Features, n_snippets: int) -> dict[str, NDArray[np.float32]]:
    """Another video's streams, each stretched to (n_snippets, K, D)."""
    return {name: stretched(values, n_snippets) for name, values in other.streams.items()}
