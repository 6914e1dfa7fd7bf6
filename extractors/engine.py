"""Feature extraction: decoding in child processes, full batches of snippets of several videos.

Each batch has the same number of snippets, of one video or of several; the last one is padded. A
snippet's features are then the same to the bit whatever else is in its batch: a run that is killed
and resumed computes the features of one that was not.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extractors.decoding.decode_pool import (
    PATIENCE_SECONDS,
    DecodePool,
    SnippetDecoded,
    VideoEnded,
    VideoLost,
    VideoOpened,
)
from extractors.decoding.frame_folder import VideoSource
from extractors.features import Extractor, Features, Prepared
from extractors.snippets import n_snippets
from extractors.uploads import FrameUploads

logger = logging.getLogger(__name__)

MAX_WORKERS = 16
MAX_FEATURE = float(np.finfo(np.float16).max)  # as the features are stored


@dataclass(frozen=True, slots=True)
class FramesDecoded:
    """Progress of a video: frames decoded, of those that its container announces."""

    path: Path
    n_frames: int
    n_frames_expected: int

    @property
    def fraction(self) -> float:
        """Decoded fraction of the video, in [0, 1]."""
        return min(self.n_frames / max(self.n_frames_expected, 1), 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class VideoFeatures:
    """The features of a whole video."""

    path: Path
    features: Features


EngineEvent = FramesDecoded | VideoFeatures | VideoLost
# Takes the features of one snippet: by stream (K, D).
ReceiveFeatures = Callable[[Mapping[str, NDArray[np.float32]]], None]


def extract_videos(
    extractor: Extractor,
    videos: Iterable[VideoSource],
    *,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Iterator[EngineEvent]:
    """Compute the features of videos, several at a time, in bounded memory.

    Memory holds the features of the videos that are being read, the slots of the decoding processes
    and two batches.

    Args:
        extractor: Computes the features.
        videos: Files and folders of frames, consumed one by one as decoders become free. No path
            may occur twice.
        patience_seconds: Timeout of a decoder without a message.

    Yields:
        `FramesDecoded` as progress; for every video, in the order in which they end, either its
        `VideoFeatures` or a `VideoLost`.

    Raises:
        torch.OutOfMemoryError: If the device has no room for a single snippet.
        OSError: If the decoding processes cannot be started.
    """
    batcher = SnippetBatcher(extractor)
    gathered: dict[Path, _Gathered] = {}
    uploads = FrameUploads(extractor.device)
    with DecodePool(
        default_workers(extractor.device),
        extractor.snippet_len,
        patience_seconds=patience_seconds,
        register=uploads.register,
    ) as pool:
        for event in pool.decode(videos):
            match event:
                case VideoOpened(path=path):
                    gathered[path] = _Gathered(event)
                case SnippetDecoded(path=path, timestamps=timestamps):
                    video = gathered[path]
                    video.timestamps.append(timestamps)
                    video.n_frames += len(timestamps)
                    frames, event.copy = uploads.upload(event.frames, is_pinned=event.is_pinned)
                    batcher.add(video.snippets.append, extractor.prepare(frames))
                    expected = video.start.n_frames_expected
                    yield FramesDecoded(path, video.n_frames, expected)
                case VideoEnded(path=path):
                    gathered[path].end = event
                case VideoLost(path=path):
                    gathered.pop(path, None)
                    yield event
            yield from _complete(gathered, extractor)
    batcher.finish()
    yield from _complete(gathered, extractor)


def default_workers(device: torch.device) -> int:
    """Return how many decoding processes keep a device busy, limited by the number of cores.

    On a CPU the network is so much slower than a decoder that one is enough.
    """
    if device.type == "cpu":
        return 1
    return min(max(len(os.sched_getaffinity(0)) - 1, 1), MAX_WORKERS)


@dataclass(slots=True, eq=False)
class _Gathered:
    """The features of a video so far."""

    start: VideoOpened
    n_frames: int = 0
    timestamps: list[NDArray[np.float64]] = field(default_factory=list)
    snippets: list[Mapping[str, NDArray[np.float32]]] = field(default_factory=list)
    end: VideoEnded | None = None

    def is_complete(self) -> bool:
        return self.end is not None and len(self.snippets) == len(self.timestamps)


def _complete(gathered: dict[Path, _Gathered], extractor: Extractor) -> Iterator[EngineEvent]:
    """Remove and yield the videos whose features are complete."""
    for path, video in [item for item in gathered.items() if item[1].is_complete()]:
        del gathered[path]
        n_kept = n_snippets(video.n_frames, extractor.snippet_len, extractor.tail_policy)
        if n_kept:
            yield _features(path, video, extractor, n_kept)
            continue
        yield lost_as_too_short(path, video.n_frames, extractor.tail_policy)


def lost_as_too_short(path: Path, n_frames: int, tail_policy: str) -> VideoLost:
    """The loss of a video whose frames make no snippet."""
    reason = (
        f"{path}: too short: {n_frames} frames make no snippet with the tail policy {tail_policy!r}"
    )
    return VideoLost(path, "VideoError", reason, is_quarantined=False)


def _features(
    path: Path, video: _Gathered, extractor: Extractor, n_kept: int
) -> VideoFeatures | VideoLost:
    """Assemble a video's features; if they do not fit float16, only this video is lost."""
    assert video.end is not None
    streams = {
        stream: np.stack([snippet[stream] for snippet in video.snippets[:n_kept]])
        for stream in extractor.stream_dims
    }
    for stream, values in streams.items():
        # NaN is not below the limit either.
        if not (np.abs(values) <= MAX_FEATURE).all():
            reason = (
                f"{path}: {stream} features must fit float16 (finite, magnitude at most "
                f"{MAX_FEATURE:g}), instead some do not; check the video and the weights"
            )
            return VideoLost(path, "FeatureValueError", reason, is_quarantined=False)
    features = Features(
        streams=streams,
        snippet_len=extractor.snippet_len,
        n_frames=video.n_frames,
        n_missing=video.end.n_missing,
        fps=video.start.fps,
        timestamps=np.concatenate(video.timestamps),
        decoder=video.start.decoder_version,
        tail_policy=extractor.tail_policy,
    )
    return VideoFeatures(path, features)


@dataclass(frozen=True, slots=True, eq=False)
class _Launched:
    """A batch that the device is computing; `features` are valid once `event` has occurred."""

    receivers: list[ReceiveFeatures]
    features: dict[str, Tensor]
    event: torch.cuda.Event | None


class SnippetBatcher:
    """Collects snippets of all videos and embeds them in full batches.

    Args:
        extractor: Computes the features.
    """

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor
        self._batch_len = extractor.n_snippets_per_batch
        self._waiting: list[tuple[ReceiveFeatures, Prepared]] = []
        self._launched: deque[_Launched] = deque()

    def add(self, receive: ReceiveFeatures, snippet: Prepared) -> None:
        """Take a snippet; `receive` is called with its features once its batch is through.

        The features of all snippets are received in the order in which the snippets were added.
        """
        self._waiting.append((receive, snippet))
        if len(self._waiting) >= self._batch_len:
            self._launch()

    def finish(self) -> None:
        """Embed the remaining snippets, and wait for all results."""
        while self._waiting:
            self._launch()
        while self._launched:
            self._collect()

    def _launch(self) -> None:
        batch = self._waiting[: self._batch_len]
        del self._waiting[: self._batch_len]
        snippets = [snippet for _, snippet in batch]
        snippets += [snippets[-1]] * (self._batch_len - len(snippets))
        features = self._embed(snippets)
        copies, event = _start_copy({s: f[: len(batch)] for s, f in features.items()})
        self._launched.append(_Launched([receive for receive, _ in batch], copies, event))
        # A GPU computes this batch while the one before is stored and the next one is prepared.
        while len(self._launched) > (event is not None):
            self._collect()

    def _embed(self, snippets: list[Prepared]) -> dict[str, Tensor]:
        """Embed a batch; if memory is short, in halves, and all later batches, too."""
        try:
            return self._extractor.embed(snippets)
        except torch.OutOfMemoryError:
            if len(snippets) == 1:
                raise
        half = (len(snippets) + 1) // 2
        if half < self._batch_len:
            self._batch_len = half
            logger.warning("out of memory: going on with batches of %d snippets", half)
        torch.cuda.empty_cache()
        parts = [self._embed(part) for part in (snippets[:half], snippets[half:])]
        return {stream: torch.cat([part[stream] for part in parts]) for stream in parts[0]}

    def _collect(self) -> None:
        done = self._launched.popleft()
        if done.event is not None:
            done.event.synchronize()
        arrays = {stream: features.numpy() for stream, features in done.features.items()}
        for index, receive in enumerate(done.receivers):
            # A view would keep the whole batch, and its pinned memory, allocated.
            receive({stream: array[index].copy() for stream, array in arrays.items()})


def _start_copy(
    features: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], torch.cuda.Event | None]:
    """Copy features to the CPU; from a GPU asynchronously."""
    if next(iter(features.values())).device.type == "cpu":
        return dict(features), None
    copies = {}
    for stream, values in features.items():
        copies[stream] = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        copies[stream].copy_(values, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return copies, event
