"""The features of one video, put together from the arrays of a release, and their provenance.

Crops are stacked, RGB is trimmed to the length of the flow, and it is settled which frames the
snippets are taken for.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extractors.features import Provenance
from extractors.snippets import DROP_TAIL, REPEAT_LAST_FRAME, SNIPPET_LEN
from pipeline.extraction.published_arrays import read_published
from pipeline.extraction.published_files import Crops
from pipeline.extraction.releases import (
    GROUND_TRUTH,
    IMPORTED_FROM,
    NOT_KNOWN,
    ImportFeaturesError,
    Release,
)


def trim_rgb(
    video_id: str, arrays: dict[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """Trim RGB to the length of the flow, which has a frame less and so sometimes a snippet less.

    Args:
        video_id: For the message.
        arrays: By stream (n_snippets, K, D).

    Raises:
        ImportFeaturesError: If the lengths differ otherwise.
    """
    if set(arrays) != {"rgb", "flow"}:
        return arrays
    n_rgb, n_flow = len(arrays["rgb"]), len(arrays["flow"])
    if n_rgb - n_flow not in (0, 1):
        raise ImportFeaturesError(
            f"{video_id}: flow must have as many snippets as RGB or one less, "
            f"instead got {n_flow} beside {n_rgb}"
        )
    return {"rgb": arrays["rgb"][:n_flow], "flow": arrays["flow"]}


def read_crops(crops: Crops) -> NDArray[np.float32]:
    """Read one stream from a file of all crops, or from one file for each of them.

    Args:
        crops: By crop, the file.

    Returns:
        (n_snippets, K, D).

    Raises:
        ImportFeaturesError: If a file cannot be read, or a crop is missing, there twice or of
            another shape.
    """
    if set(crops) == {None}:
        values = read_published(crops[None]).astype(np.float32, copy=False)
        return values if values.ndim == 3 else values[:, None]  # (n, D) -> (n, 1, D)
    paths = {0 if crop is None else crop: path for crop, path in crops.items()}
    if len(paths) < len(crops):
        raise ImportFeaturesError(f"{crops[None]}: is a second file of crop 0 beside {crops[0]}")
    for crop in range(max(paths)):
        if crop not in paths:
            raise ImportFeaturesError(f"{paths[max(paths)]}: crop {crop} of the video is missing")
    arrays = [read_published(paths[crop]).astype(np.float32, copy=False) for crop in sorted(paths)]
    for crop, values in enumerate(arrays):
        if values.ndim != 2 or values.shape != arrays[0].shape:
            raise ImportFeaturesError(
                f"{paths[crop]}: one crop must be (n_snippets, D) as crop 0, "
                f"{arrays[0].shape}, instead got {values.shape}"
            )
    return np.stack(arrays, axis=1)  # (n, D) of each -> (n, K, D)


def check_length(path: Path, n_snippets: int, n_frames: int) -> None:
    """Refuse snippets that can be of no video of so many frames, whatever its tail policy.

    Raises:
        ImportFeaturesError: If they cannot.
    """
    n_whole = n_frames // SNIPPET_LEN
    if not max(n_whole - 1, 1) <= n_snippets <= n_whole + 1:
        raise ImportFeaturesError(
            f"{path}: has {n_snippets} snippets, but the video has {n_frames} frames, "
            f"which make {max(n_whole - 1, 1)} to {n_whole + 1}"
        )


def covered_frames(n_snippets: int, n_frames: int | None, tail_policy: str) -> tuple[int, str]:
    """Settle how many frames the snippets are taken for.

    Args:
        n_snippets: Of the features.
        n_frames: Of the video, where the dataset knows it.
        tail_policy: Of the feature file.

    Returns:
        The number, and where it is from.
    """
    if tail_policy == DROP_TAIL:  # the fewest frames that make so many snippets
        return n_snippets * SNIPPET_LEN + 1, f"not known, {SNIPPET_LEN} for each snippet and 1"
    covered = n_snippets * SNIPPET_LEN
    if n_frames is None:
        return covered, f"not known, {SNIPPET_LEN} for each snippet"
    if covered - SNIPPET_LEN < n_frames <= covered:
        return n_frames, "the dataset's"
    return covered, f"{SNIPPET_LEN} for each snippet, of {n_frames} in the dataset"


def spread_segments(segments: NDArray[np.float32], n_frames: int) -> NDArray[np.float32]:
    """Give each snippet of a video the equal segment that its middle frame lies in.

    Segments have no length of their own; this is how their authors give scores to frames.
    """
    n_snippets = -(-n_frames // SNIPPET_LEN)
    middles = np.arange(n_snippets) * SNIPPET_LEN + SNIPPET_LEN // 2
    return segments[np.minimum(middles * len(segments) // n_frames, len(segments) - 1)]


def provenance_of(
    name: str, release: Release, dataset: str, stream_dims: Mapping[str, int], n_crops: int
) -> Provenance:
    """What imported features say about themselves.

    Args:
        name: The release's.
        release: Where they are from.
        dataset: Name of the dataset.
        stream_dims: The width of each stream that is imported.
        n_crops: How many crops there are.
    """
    ground_truth = release.ground_truth.get(dataset, NOT_KNOWN)
    return {
        IMPORTED_FROM: name,
        "made_by": release.made_by,
        "extractor": release.family,
        "streams": ", ".join(f"{stream} {dim}-d" for stream, dim in stream_dims.items()),
        "crops": n_crops,
        "crop_order": release.crop_order,
        "snippet_len": SNIPPET_LEN,
        "published_tail_policy": release.tail_policy,
        # What holds for the frames of the files: see `covered_frames`.
        "tail_policy": DROP_TAIL if ground_truth == "xdviodet" else REPEAT_LAST_FRAME,
        "fps": NOT_KNOWN,
        GROUND_TRUTH: ground_truth,
        # No release has random weights; of features of somebody else, this is their word.
        "is_pretrained": True,
    }
