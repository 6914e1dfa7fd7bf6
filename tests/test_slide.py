import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from extractors.features import Contract
from extractors.slide import join, slide
from extractors.snippets import DROP_TAIL, REPEAT_LAST_FRAME
from extractors.video import Video, VideoError


class NumberedVideo:
    """A `Video` in memory whose frame i has the grey value i % 256 and the time i / 10."""

    def __init__(self, n_frames: int, height: int = 2, width: int = 3) -> None:
        self.path = Path("numbered.mp4")
        self.fps = 10.0
        self.n_frames, self.height, self.width = n_frames, height, width
        self.n_missing = 0
        self.decoder_version = "memory 1.0"
        self.alive: list[weakref.ref[Any]] = []
        self.max_alive = 0

    def read(self, chunk_len: int) -> Iterator[SimpleNamespace]:
        for start in range(0, self.n_frames, chunk_len):
            numbers = np.arange(start, min(start + chunk_len, self.n_frames))
            frames = np.empty((len(numbers), self.height, self.width, 3), np.uint8)
            frames[:] = (numbers % 256)[:, None, None, None]
            self.alive.append(weakref.ref(frames))
            self.max_alive = max(self.max_alive, sum(ref() is not None for ref in self.alive))
            yield SimpleNamespace(frames=frames, timestamps=numbers / 10)
        self.n_missing = 2


def grey_value(frame: NDArray[np.uint8]) -> int:
    return int(frame[0, 0, 0])


class FrameNumbers:
    """An extractor whose features are the numbers of a snippet's frames and of the next ones."""

    def __init__(
        self, snippet_len: int = 16, read: Callable[[NDArray[np.uint8]], int] = grey_value
    ) -> None:
        self.snippet_len = snippet_len
        self.read = read
        self.n_crops = 1
        self.tail_rule = REPEAT_LAST_FRAME
        self.stream_dims = {"rgb": snippet_len, "flow": snippet_len}
        self.most_frames = 0

    def contract(self) -> Contract:
        return {}

    def extract(self, frames: Tensor) -> dict[str, Tensor]:
        assert frames.dtype == torch.uint8
        assert len(frames) % self.snippet_len == 1
        self.most_frames = max(self.most_frames, len(frames))
        numbers = torch.tensor([self.read(frame) for frame in frames.numpy()]).float()
        return {
            "rgb": numbers[:-1].reshape(-1, 1, self.snippet_len),
            "flow": numbers[1:].reshape(-1, 1, self.snippet_len),
        }


@pytest.mark.parametrize("snippet_len", [5, 16])
@pytest.mark.parametrize("n_snippets_per_batch", [1, 2, 3, 8])
def test_every_frame_is_in_its_snippet_and_the_last_one_fills_up(
    snippet_len: int, n_snippets_per_batch: int
) -> None:
    extractor: Any = FrameNumbers(snippet_len)
    for n_frames in range(1, 41):
        video: Any = NumberedVideo(n_frames)
        chunks = slide(extractor, video, n_snippets_per_batch=n_snippets_per_batch)
        features = join(chunks, extractor, video)
        n_snippets = -(-n_frames // snippet_len)
        places = np.arange(n_snippets * snippet_len)
        shape = (n_snippets, 1, snippet_len)
        np.testing.assert_array_equal(
            features.streams["rgb"], np.minimum(places, n_frames - 1).reshape(shape)
        )
        np.testing.assert_array_equal(
            features.streams["flow"], np.minimum(places + 1, n_frames - 1).reshape(shape)
        )
        np.testing.assert_array_equal(features.timestamps, np.arange(n_frames) / 10)
        assert (features.n_frames, features.n_missing) == (n_frames, 2)
        assert (features.fps, features.decoder) == (10.0, "memory 1.0")
        assert tuple(features.streams) == ("rgb", "flow")


@pytest.mark.parametrize("n_frames", [17, 31, 32, 33, 48, 49, 100])
def test_a_dropped_tail_leaves_all_frames_and_fewer_snippets(n_frames: int) -> None:
    video: Any = NumberedVideo(n_frames)
    extractor = FrameNumbers()
    extractor.tail_rule = DROP_TAIL
    features = join(slide(extractor, video, n_snippets_per_batch=2), extractor, video)
    n_snippets = (n_frames - 1) // 16
    numbers = np.arange(16 * n_snippets).reshape(n_snippets, 1, 16)
    np.testing.assert_array_equal(features.streams["rgb"], numbers)
    np.testing.assert_array_equal(features.streams["flow"], numbers + 1)
    assert (features.n_frames, features.tail_rule) == (n_frames, DROP_TAIL)


@pytest.mark.parametrize("n_frames", [1, 16])
def test_a_video_without_a_snippet_is_an_error(n_frames: int) -> None:
    video: Any = NumberedVideo(n_frames)
    extractor = FrameNumbers()
    extractor.tail_rule = DROP_TAIL
    message = rf"numbered.mp4: too short: {n_frames} frames make no snippet with the tail rule 'dro"
    with pytest.raises(VideoError, match=message):
        join(slide(extractor, video), extractor, video)


def test_chunks_carry_the_times_of_their_own_frames() -> None:
    video: Any = NumberedVideo(50)
    chunks = list(slide(FrameNumbers(), video, n_snippets_per_batch=2))
    assert [len(chunk.streams["rgb"]) for chunk in chunks] == [2, 2]
    assert [chunk.timestamps[0] for chunk in chunks] == [0.0, 3.2]
    assert [len(chunk.timestamps) for chunk in chunks] == [32, 18]


def test_memory_does_not_grow_with_the_length_of_the_video() -> None:
    extractor = FrameNumbers()
    video: Any = NumberedVideo(2000)
    for _ in slide(extractor, video, n_snippets_per_batch=3):
        pass
    assert extractor.most_frames == 3 * 16 + 1
    assert video.max_alive <= 2  # the one that is being read and the one before


def test_a_video_file_goes_through_frame_by_frame(
    counting_clip: Path, read_number: Callable[[NDArray[np.uint8]], int]
) -> None:
    extractor = FrameNumbers(read=read_number)
    video = Video(counting_clip)
    features = join(slide(extractor, video), extractor, video)
    assert features.n_frames == 40
    np.testing.assert_array_equal(features.streams["rgb"].ravel(), np.minimum(np.arange(48), 39))
    np.testing.assert_allclose(features.timestamps, np.arange(40) / 25, atol=1e-6)


def test_a_ribbon_is_the_fault_of_its_file() -> None:
    video: Any = NumberedVideo(3, height=10, width=81)
    with pytest.raises(VideoError, match=r"numbered.mp4: frames must be at most 8 times .* 81x10"):
        next(slide(FrameNumbers(), video))


def test_nothing_to_join_is_the_fault_of_the_file() -> None:
    video: Any = NumberedVideo(0)
    extractor = FrameNumbers()
    with pytest.raises(VideoError, match=r"numbered.mp4: at least one frame expected"):
        join(slide(extractor, video), extractor, video)


def test_a_batch_of_no_snippets_is_refused() -> None:
    video: Any = NumberedVideo(3)
    with pytest.raises(ValueError, match="n_snippets_per_batch must be at least 1, instead got 0"):
        next(slide(FrameNumbers(), video, n_snippets_per_batch=0))
