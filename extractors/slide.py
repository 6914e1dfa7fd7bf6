"""Slide an extractor along a video, in bounded memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from extractors.features import Extractor, Features
from extractors.snippets import n_snippets
from extractors.transforms import resized_dims
from extractors.video import Video, VideoError


@dataclass(frozen=True, slots=True, eq=False)
class FeatureChunk:
    """The features of some successive snippets of a video.

    Attributes:
        streams: By stream: (n_snippets, K, D) of this chunk.
        timestamps: (n_frames,) float64 seconds of the chunk's frames.
    """

    streams: dict[str, NDArray[np.float32]]
    timestamps: NDArray[np.float64]


def slide(
    extractor: Extractor, video: Video, *, n_snippets_per_batch: int = 4
) -> Iterator[FeatureChunk]:
    """Yield the features of a video's snippets in order, a batch at a time.

    No frame is left out: the last snippet is filled up with the video's last frame. The frame after
    a batch, which the flow of its last frame needs, is the next batch's first frame. At most one
    batch of frames, and one snippet of them on top, is in memory.

    Args:
        extractor: What turns frames into features.
        video: The video, read from its start.
        n_snippets_per_batch: Snippets given to the extractor at once.

    Raises:
        ValueError: If `n_snippets_per_batch` is below 1.
        VideoError: If the frames are too long for their height, or cannot be read.
    """
    if n_snippets_per_batch < 1:
        raise ValueError(
            f"n_snippets_per_batch must be at least 1, instead got {n_snippets_per_batch}"
        )
    _check_dims(video)
    batch_len = n_snippets_per_batch * extractor.snippet_len
    frames = np.empty((batch_len + 1, video.height, video.width, 3), np.uint8)
    timestamps: list[NDArray[np.float64]] = []
    n_filled = 0
    for chunk in video.read(extractor.snippet_len):
        if n_filled == batch_len:
            frames[batch_len] = chunk.frames[0]
            yield _extract(extractor, frames, timestamps)
            timestamps, n_filled = [], 0
        frames[n_filled : n_filled + len(chunk.frames)] = chunk.frames
        timestamps.append(chunk.timestamps)
        n_filled += len(chunk.frames)
    if n_filled:
        # Paper is silent: others drop the incomplete snippet; its frames would have no score.
        n_whole = n_snippets(n_filled, extractor.snippet_len) * extractor.snippet_len
        frames[n_filled : n_whole + 1] = frames[n_filled - 1]
        yield _extract(extractor, frames[: n_whole + 1], timestamps)


def join(chunks: Iterable[FeatureChunk], extractor: Extractor, video: Video) -> Features:
    """Put the chunks of one video together.

    Args:
        chunks: All that `slide` yields for the video, in order.
        extractor: The extractor that was slid.
        video: The video that was read, to its end.

    Raises:
        VideoError: If there was not one chunk, or the tail rule leaves no snippet.
    """
    pieces = list(chunks)
    if not pieces:
        raise VideoError(f"{video.path}: at least one frame expected, instead got none")
    timestamps = np.concatenate([piece.timestamps for piece in pieces])
    n_kept = n_snippets(len(timestamps), extractor.snippet_len, extractor.tail_rule)
    if n_kept == 0:
        raise VideoError(
            f"{video.path}: too short: {len(timestamps)} frames make no snippet "
            f"with the tail rule {extractor.tail_rule!r}"
        )
    return Features(
        streams={
            stream: np.concatenate([piece.streams[stream] for piece in pieces])[:n_kept]
            for stream in extractor.stream_dims
        },
        snippet_len=extractor.snippet_len,
        n_frames=len(timestamps),
        n_missing=video.n_missing,
        fps=video.fps,
        timestamps=timestamps,
        decoder=video.decoder_version,
        tail_rule=extractor.tail_rule,
    )


def _extract(
    extractor: Extractor, frames: NDArray[np.uint8], timestamps: list[NDArray[np.float64]]
) -> FeatureChunk:
    streams = extractor.extract(torch.from_numpy(frames))
    return FeatureChunk(
        streams={stream: features.numpy() for stream, features in streams.items()},
        timestamps=np.concatenate(timestamps),
    )


def _check_dims(video: Video) -> None:
    try:
        resized_dims(video.height, video.width)
    except ValueError as error:
        raise VideoError(f"{video.path}: {error}") from error
