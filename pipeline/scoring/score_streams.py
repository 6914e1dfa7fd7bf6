"""Score videos as they are decoded: frames to snippets, features, snippet scores, frame scores.

What is held of a video does not grow with its length, except its scores and times. With a stride of
4 frames the decoder's snippets are cut again at frames 4, 8 and 12, which makes four passes over
the video: each is a sequence of snippets that do not overlap, as the model was trained on, and is
scored by itself. The video is decoded once for all passes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extractors.decoding.decode_pool import (
    DecodePool,
    SnippetDecoded,
    VideoEnded,
    VideoLost,
    VideoOpened,
)
from extractors.decoding.frame_folder import VideoSource
from extractors.engine import (
    MAX_FEATURE,
    FramesDecoded,
    SnippetBatcher,
    default_workers,
    lost_as_too_short,
)
from extractors.features import Extractor
from extractors.snippets import n_snippets
from extractors.uploads import FrameUploads
from models.interface import AnomalyModel
from models.layers import Standardize
from pipeline.runs.feature_distance import snippet_distance
from pipeline.scoring.frame_scores import Scores
from pipeline.scoring.snippet_scores import StreamScorer


@dataclass(frozen=True, slots=True, eq=False)
class VideoScored:
    """A video was scored to its end; `n_missing` of its frames could not be decoded."""

    path: Path
    scores: Scores
    n_missing: int


ScoringEvent = FramesDecoded | VideoScored | VideoLost


def score_streams(
    videos: Iterable[VideoSource],
    extractor: Extractor,
    model: AnomalyModel,
    *,
    device: torch.device,
    stride: int,
    explain: bool = False,
) -> Iterator[ScoringEvent]:
    """Score videos, several at a time where the device is fast enough, in bounded memory.

    Args:
        videos: Files and folders of frames. No path may occur twice.
        extractor: Computes the features that the model was trained on.
        model: In evaluation mode, on `device`.
        device: Where the model is.
        stride: Frames from the beginning of one snippet to that of the next, a divisor of the
            extractor's snippet length.
        explain: As in `StreamScorer`.

    Yields:
        `FramesDecoded` on the way; for every video, in the order in which they end, either its
        `VideoScored` or a `VideoLost`.

    Raises:
        torch.OutOfMemoryError: If the device has no room for a single snippet.
        OSError: If the decoding processes cannot be started.
    """
    batcher = SnippetBatcher(extractor)
    open_videos: dict[Path, _OpenVideo] = {}
    n_passes = extractor.snippet_len // stride
    uploads = FrameUploads(extractor.device)
    with DecodePool(
        default_workers(extractor.device), extractor.snippet_len, register=uploads.register
    ) as pool:
        for event in pool.decode(videos):
            match event:
                case VideoOpened(path=path):  # perhaps again, after a decoder that failed
                    passes = [StreamScorer(model, device, explain=explain) for _ in range(n_passes)]
                    open_videos[path] = _OpenVideo(event, extractor, passes, model.input_norm)
                case SnippetDecoded(path=path):
                    video = open_videos[path]
                    frames, event.copy = uploads.upload(event.frames, is_pinned=event.is_pinned)
                    video.add(frames, event.timestamps, batcher)
                    yield FramesDecoded(path, video.n_frames, video.n_frames_expected)
                case VideoEnded(path=path):
                    open_videos[path].end(event, batcher)
                case VideoLost(path=path):
                    open_videos.pop(path, None)
                    yield event
            yield from _complete(open_videos)
    batcher.finish()
    yield from _complete(open_videos)


def _complete(open_videos: "dict[Path, _OpenVideo]") -> Iterator[VideoScored | VideoLost]:
    """Take out the videos whose features are complete, and score what is left of each."""
    for path, video in [item for item in open_videos.items() if item[1].is_complete]:
        del open_videos[path]
        yield video.result()


class FrameCutter:
    """Cuts the frames of one video into the snippets of all passes.

    Args:
        snippet_len: Frames per snippet.
        stride: Frames from the beginning of one pass to that of the next.
    """

    def __init__(self, snippet_len: int, stride: int) -> None:
        self._snippet_len = snippet_len
        self._firsts = range(0, snippet_len, stride)  # the first frame of each pass
        self._before: Tensor | None = None
        self._n_frames_before = 0

    def cut(self, frames: Tensor, n_frames: int) -> Iterator[tuple[int, Tensor]]:
        """Cut the snippets that end within the next decoded one.

        Args:
            frames: (snippet_len + 1, H, W, 3) uint8, the next snippet of the decoder, on any
                device.
            n_frames: How many of the frames are the snippet's own: the last one has fewer.

        Yields:
            The number of a pass and a snippet (snippet_len + 1, H, W, 3) of it, as an extractor
            takes it; pass 0 is the decoder's own snippet. To be read before the next is asked for.
        """
        for index, first in enumerate(self._firsts):
            if first == 0:
                yield 0, frames
            elif self._before is not None:
                yield (
                    index,
                    torch.cat([self._before[first : self._snippet_len], frames[: first + 1]]),
                )
        if len(self._firsts) > 1:
            self._before = frames.clone()  # the decoder overwrites them
            self._n_frames_before = n_frames

    def rest(self) -> Iterator[tuple[int, Tensor]]:
        """Cut the last snippets, filled up with the video's last frame; yields as `cut`."""
        for index, first in enumerate(self._firsts):
            if self._before is not None and 0 < first < self._n_frames_before:
                repeated = self._before[-1:].expand(first, -1, -1, -1)
                yield index, torch.cat([self._before[first:], repeated])


class _OpenVideo:
    """A video that is being decoded and scored."""

    def __init__(
        self,
        opened: VideoOpened,
        extractor: Extractor,
        passes: list[StreamScorer],
        norm: Standardize,
    ) -> None:
        self.n_frames = 0
        self.n_frames_expected = opened.n_frames_expected
        self._path, self._extractor, self._passes = opened.path, extractor, passes
        self._norm = norm
        self._distance = _Mean()
        self._stride = extractor.snippet_len // len(passes)
        self._cutter = FrameCutter(extractor.snippet_len, self._stride)
        self._timestamps: list[NDArray[np.float64]] = []
        self._n_pending = 0  # snippets whose features are being computed
        self._error = ""
        self._end: VideoEnded | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the features of all snippets have been received."""
        return self._end is not None and not self._n_pending

    def add(self, frames: Tensor, timestamps: NDArray[np.float64], batcher: SnippetBatcher) -> None:
        """Take the next snippet of the decoder, with the times of its own frames."""
        self._timestamps.append(timestamps)
        self.n_frames += len(timestamps)
        self._extract(self._cutter.cut(frames, len(timestamps)), batcher)

    def end(self, ended: VideoEnded, batcher: SnippetBatcher) -> None:
        """Take the end of the video."""
        self._extract(self._cutter.rest(), batcher)
        self._end = ended

    def _extract(self, snippets: Iterable[tuple[int, Tensor]], batcher: SnippetBatcher) -> None:
        for index, frames in snippets:
            self._n_pending += 1
            prepared = self._extractor.prepare(frames)
            batcher.add(partial(self._receive, self._passes[index]), prepared)

    def _receive(self, scorer: StreamScorer, snippet: Mapping[str, NDArray[np.float32]]) -> None:
        self._n_pending -= 1
        # Not a number is not below the limit either.
        if all((np.abs(values) <= MAX_FEATURE).all() for values in snippet.values()):
            scorer.add(snippet)
            self._distance.add(snippet_distance(self._norm, snippet))
        else:
            self._error = (
                f"{self._path}: features must be finite and at most {MAX_FEATURE:g} in size, "
                "instead some are not; check the video and the weights"
            )

    def result(self) -> VideoScored | VideoLost:
        """The scores of the video, or why it has none."""
        snippet_len, tail_policy = self._extractor.snippet_len, self._extractor.tail_policy
        counts = [
            n_snippets(max(self.n_frames - first, 0), snippet_len, tail_policy)
            for first in range(0, snippet_len, self._stride)
        ]
        if self._error:
            return VideoLost(self._path, "FeatureValueError", self._error, is_quarantined=False)
        if not counts[0]:
            return lost_as_too_short(self._path, self.n_frames, tail_policy)
        per_pass = [
            {"": scorer.finish(count), **scorer.without()}
            for scorer, count in zip(self._passes, counts, strict=True)
            if count
        ]
        found = {name: _interleave([scores[name] for scores in per_pass]) for name in per_pass[0]}
        scores = Scores(
            found.pop(""),
            snippet_len,
            np.concatenate(self._timestamps),
            tail_policy,
            self._stride,
            found,
            self._distance.value,
        )
        assert self._end is not None
        return VideoScored(self._path, scores, self._end.n_missing)


class _Mean:
    """The mean of values that come one by one."""

    def __init__(self) -> None:
        self._total, self._count = 0.0, 0

    def add(self, value: float) -> None:
        self._total += value
        self._count += 1

    @property
    def value(self) -> float:
        return self._total / self._count


def _interleave(per_pass: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The scores of all passes in the order in which their snippets begin."""
    together = np.zeros(sum(map(len, per_pass)), dtype=np.float32)
    for index, scores in enumerate(per_pass):
        together[index :: len(per_pass)] = scores
    return together
