"""Frames on their way to a GPU: who may overwrite them when."""

import numpy as np
import pytest
import torch

from extractors.decoding.decode_pool import DecodePool, SnippetDecoded, VideoEnded
from extractors.uploads import FrameUploads

CPU = torch.device("cpu")


class LateCopy:
    """A copy that ends when somebody waits for it, or after it was asked about often enough."""

    def __init__(self, frames: np.ndarray, n_queries: int) -> None:
        self.source = frames
        self.copied: np.ndarray | None = None
        self.n_queries = n_queries

    def query(self) -> bool:
        self.n_queries -= 1
        if self.n_queries < 0:
            self.synchronize()
        return self.copied is not None

    def synchronize(self) -> None:
        if self.copied is None:
            self.copied = self.source.copy()


class Pinned:
    """Notes what is pinned, as CUDA would."""

    def __init__(self) -> None:
        self.registered: list[int] = []
        self.open_copies: list[LateCopy] = []
        self.n_registered = 0

    def register(self, memory: np.ndarray):
        address = memory.ctypes.data
        assert address not in self.registered
        self.registered.append(address)
        self.n_registered += 1

        def unregister() -> None:
            assert all(copy.copied is not None for copy in self.open_copies)
            self.registered.remove(address)

        return unregister


@pytest.mark.parametrize("n_queries", [0, 3, 1000])
def test_a_slot_is_not_filled_again_before_its_copy_has_ended(
    write_clip, tmp_path, n_queries: int
) -> None:
    paths = [write_clip(tmp_path / f"{index}.mp4", n_frames=400) for index in range(2)]
    with DecodePool(1, 16) as pool:
        expected = [
            event.frames.copy() for event in pool.decode(paths) if isinstance(event, SnippetDecoded)
        ]
    pinned = Pinned()
    with DecodePool(1, 16, register=pinned.register) as pool:
        for event in pool.decode(paths):
            if isinstance(event, SnippetDecoded):
                assert event.is_pinned
                event.copy = LateCopy(event.frames, n_queries)
                pinned.open_copies.append(event.copy)
    assert not pinned.registered
    assert pinned.n_registered == 1  # the second video has frames of the same size
    assert len(expected) == len(pinned.open_copies) == 50
    for copy, frames in zip(pinned.open_copies, expected, strict=True):
        assert copy.copied is not None
        np.testing.assert_array_equal(copy.copied, frames)


def test_memory_is_unpinned_after_its_copies_where_reading_stops_halfway(
    write_clip, tmp_path
) -> None:
    path = write_clip(tmp_path / "0.mp4", n_frames=100)
    pinned = Pinned()
    with DecodePool(1, 16, register=pinned.register) as pool:
        for event in pool.decode([path]):
            assert not isinstance(event, VideoEnded)
            if isinstance(event, SnippetDecoded):
                event.copy = LateCopy(event.frames, 1000)
                pinned.open_copies.append(event.copy)
                break
    assert pinned.open_copies[0].copied is not None
    assert not pinned.registered


def test_on_a_cpu_nothing_is_pinned_and_frames_stay_where_they_are() -> None:
    uploads, frames = FrameUploads(CPU), np.zeros((2, 3), np.uint8)
    assert uploads.register(frames) is None
    given, copy = uploads.upload(frames, is_pinned=False)
    assert copy is None
    assert given.data_ptr() == frames.ctypes.data


@pytest.mark.gpu
def test_frames_reach_the_gpu_from_registered_memory_and_from_any_other() -> None:
    uploads = FrameUploads(torch.device("cuda", 0))
    frames = np.random.default_rng(0).integers(0, 256, (17, 256, 340, 3), np.uint8)
    unregister = uploads.register(frames)
    assert unregister is not None
    assert torch.from_numpy(frames).is_pinned()
    for is_pinned in (True, False):
        on_device, copy = uploads.upload(frames, is_pinned=is_pinned)
        if copy is not None:
            copy.synchronize()
        assert np.array_equal(on_device.cpu().numpy(), frames)
    unregister()
    assert not torch.from_numpy(frames).is_pinned()
