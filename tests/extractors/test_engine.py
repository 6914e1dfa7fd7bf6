"""From videos to features: which frames are in which row, whatever the batches are."""

import os
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from extractors.build import ExtractorChoice
from extractors.decoding.decode_pool import VideoLost
from extractors.engine import FramesDecoded, VideoFeatures, default_workers, extract_videos
from extractors.snippets import DROP_TAIL, REPEAT_LAST_FRAME

CPU = torch.device("cpu")


class FrameNumbers:
    """An extractor whose features are the numbers on a snippet's frames and on the next ones."""

    snippet_len = 16
    n_crops = 1
    device = CPU
    tail_policy = REPEAT_LAST_FRAME

    def __init__(self, read_number, n_snippets_per_batch=4, most_at_once=None):
        self.read_number = read_number
        self.n_snippets_per_batch = n_snippets_per_batch
        self.stream_dims = {"rgb": 16, "flow": 16}
        self.most_at_once = most_at_once
        self.batches = []

    def provenance(self):
        return {}

    def prepare(self, frames):
        assert frames.dtype == torch.uint8
        numbers = torch.tensor([self.read_number(frame) for frame in frames.numpy()]).float()
        return {"rgb": numbers[:-1], "flow": numbers[1:]}

    def embed(self, snippets):
        if self.most_at_once is not None and len(snippets) > self.most_at_once:
            raise torch.OutOfMemoryError("no room")
        self.batches.append(len(snippets))
        return {s: torch.stack([snippet[s] for snippet in snippets])[:, None] for s in snippets[0]}


def features_by_path(extractor, paths, **options):
    events = list(extract_videos(extractor, paths, **options))
    assert not any(isinstance(event, VideoLost) for event in events)
    return {event.path: event.features for event in events if isinstance(event, VideoFeatures)}


def assert_has_all_frames(features, n_frames):
    n_snippets = -(-n_frames // 16)
    places = np.arange(n_snippets * 16)
    shape = (n_snippets, 1, 16)
    for stream, shift in (("rgb", 0), ("flow", 1)):
        np.testing.assert_array_equal(
            features.streams[stream], np.minimum(places + shift, n_frames - 1).reshape(shape)
        )
    assert list(features.streams) == ["rgb", "flow"]
    np.testing.assert_allclose(features.timestamps, np.arange(n_frames) / 25, atol=1e-6)
    assert (features.n_frames, features.n_missing, features.fps) == (n_frames, 0, 25.0)
    assert features.decoder.startswith("decord ")


@pytest.fixture(scope="module")
def clips(write_clip, tmp_path_factory):
    """Clips by path, with their numbers of frames."""
    folder = tmp_path_factory.mktemp("clips")
    lengths = (1, 5, 15, 16, 17, 31, 32, 33, 64, 100)
    return {write_clip(folder / f"{n}.mp4", n_frames=n): n for n in lengths}


@pytest.mark.parametrize("n_snippets_per_batch", [1, 2, 5, 32])
def test_every_frame_is_in_its_snippet_of_its_video(clips, read_number, n_snippets_per_batch):
    extractor = FrameNumbers(read_number, n_snippets_per_batch)
    found = features_by_path(extractor, clips)
    assert set(found) == set(clips)
    for path, n_frames in clips.items():
        assert_has_all_frames(found[path], n_frames)
    assert set(extractor.batches) == {n_snippets_per_batch}  # all are full
    n_snippets = sum(-(-n // 16) for n in clips.values())
    assert len(extractor.batches) == -(-n_snippets // n_snippets_per_batch)


def test_progress_counts_the_frames_of_each_video(clips, read_number):
    n_frames = {}
    for event in extract_videos(FrameNumbers(read_number), clips):
        if isinstance(event, FramesDecoded):
            assert event.n_frames > n_frames.get(event.path, 0)
            n_frames[event.path] = event.n_frames
            assert event.fraction == event.n_frames / clips[event.path]
    assert n_frames == clips


def test_a_dropped_tail_leaves_all_frames_and_fewer_snippets(clips, read_number):
    extractor = FrameNumbers(read_number)
    extractor.tail_policy = DROP_TAIL
    for event in extract_videos(extractor, clips):
        if isinstance(event, VideoLost):
            assert clips[event.path] <= 16
            assert f"too short: {clips[event.path]} frames make no snippet" in event.reason
        elif isinstance(event, VideoFeatures):
            n_frames = clips[event.path]
            numbers = np.arange((n_frames - 1) // 16 * 16).reshape(-1, 1, 16)
            np.testing.assert_array_equal(event.features.streams["rgb"], numbers)
            np.testing.assert_array_equal(event.features.streams["flow"], numbers + 1)
            assert (event.features.n_frames, event.features.tail_policy) == (n_frames, DROP_TAIL)


@pytest.mark.parametrize("most_at_once", [1, 3, 7])
def test_out_of_memory_halves_the_batch_and_loses_nothing(clips, read_number, most_at_once, caplog):
    extractor = FrameNumbers(read_number, n_snippets_per_batch=8, most_at_once=most_at_once)
    found = features_by_path(extractor, clips)
    for path, n_frames in clips.items():
        assert_has_all_frames(found[path], n_frames)
    assert max(extractor.batches) <= most_at_once
    assert "out of memory: going on with batches of 4 snippets" in caplog.text


def test_no_room_for_a_single_snippet_is_an_error(counting_clip, read_number):
    extractor = FrameNumbers(read_number, n_snippets_per_batch=2, most_at_once=0)
    with pytest.raises(torch.OutOfMemoryError):
        list(extract_videos(extractor, [counting_clip]))


def test_a_decoder_that_dies_in_mid_video_leaves_no_trace_in_the_features(
    write_clip, read_number, find_decoders, tmp_path
):
    paths = [write_clip(tmp_path / f"{i}.mp4", n_frames=200) for i in range(3)]
    events, is_killed = [], False
    for event in extract_videos(FrameNumbers(read_number, n_snippets_per_batch=3), paths):
        events.append(event)
        if not is_killed and event.path == paths[1]:
            (decoder,) = find_decoders()
            os.kill(decoder, signal.SIGSEGV)
            is_killed = True
    found = {event.path: event.features for event in events if isinstance(event, VideoFeatures)}
    assert found[paths[1]].decoder.startswith("pyav ")
    for path in paths:
        places = np.arange(13 * 16)
        rgb = found[path].streams["rgb"].ravel()
        np.testing.assert_array_equal(rgb, np.minimum(places, 199))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 65520.0, -1e6])
def test_bad_values_lose_the_video_that_has_them_and_no_other(clips, read_number, value):
    class OneBadValue(FrameNumbers):
        def embed(self, snippets):
            features = super().embed(snippets)
            features["flow"][features["flow"] == 77] = value  # only the longest clip has as many
            return features

    events = list(extract_videos(OneBadValue(read_number), clips))
    (lost,) = [event for event in events if isinstance(event, VideoLost)]
    assert clips[lost.path] == 100
    assert f"{lost.path}: flow features must fit float16 (finite" in lost.reason
    assert not lost.is_quarantined
    assert not lost.is_machine_error
    done = {event.path: event.features for event in events if isinstance(event, VideoFeatures)}
    assert set(done) == set(clips) - {lost.path}
    for path, features in done.items():
        assert_has_all_frames(features, clips[path])


def test_the_largest_value_of_float16_is_no_bad_value(clips, read_number):
    class Large(FrameNumbers):
        def embed(self, snippets):
            return {s: torch.full_like(f, 65504.0) for s, f in super().embed(snippets).items()}

    assert set(features_by_path(Large(read_number), clips)) == set(clips)


def test_a_video_that_goes_on_keeps_no_batch_alive(write_clip, tmp_path):
    path = write_clip(tmp_path / "long.mp4", n_frames=250)
    batches = []

    class Watched(FrameNumbers):
        def embed(self, snippets):
            array = np.zeros((len(snippets), 1, 16), np.float32)
            batches.append(weakref.ref(array))
            return dict.fromkeys(self.stream_dims, torch.from_numpy(array))

    for _ in extract_videos(Watched(lambda frame: 0, n_snippets_per_batch=2), [path]):
        assert sum(batch() is not None for batch in batches) <= 2
    assert len(batches) == 8


def test_a_snippet_has_the_same_features_to_the_bit_whatever_is_beside_it(write_clip, tmp_path):
    lengths = {"a": 40, "b": 17, "c": 5}
    paths = {
        name: write_clip(tmp_path / f"{name}.mp4", n_frames=n, width=96, height=64)
        for name, n in lengths.items()
    }
    extractor = ExtractorChoice("i3d", "dis", 1, "random:0").build(CPU)
    alone = {name: features_by_path(extractor, [paths[name]])[paths[name]] for name in paths}
    together = features_by_path(extractor, [paths[name] for name in ("b", "a", "c")])
    for name, path in paths.items():
        for stream in ("rgb", "flow"):
            found, expected = together[path].streams[stream], alone[name].streams[stream]
            assert np.array_equal(found, expected), (name, stream)


def test_a_cpu_has_one_decoding_process_and_a_gpu_one_per_core():
    assert default_workers(CPU) == 1
    assert 1 <= default_workers(torch.device("cuda")) <= 16


@pytest.mark.real
@pytest.mark.slow
def test_an_hour_of_video_peaks_no_higher_than_ten_minutes_and_its_features(
    shared_folder, tmp_path
):
    hour = shared_folder / "data/upcam/test/00.mp4"
    part = tmp_path / "part.mp4"
    _copy_packets(hour, part, n_packets=3000)
    assert _peak_mib(hour) < _peak_mib(part) + 16


def _copy_packets(source: Path, target: Path, n_packets: int) -> None:
    """Write the first packets of a video to a file of its own: ten minutes at 5 fps."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        for packet, _ in zip(reader.demux(stream), range(n_packets), strict=False):
            if packet.dts is not None:
                packet.stream = copy
                writer.mux(packet)


def _peak_mib(path: Path) -> float:
    """Peak resident memory of a whole extraction, its decoding process included."""
    code = f"""
import resource
from pathlib import Path
import torch
from extractors import transforms
from extractors.engine import extract_videos
from extractors.snippets import REPEAT_LAST_FRAME

class Means:
    snippet_len, n_crops, n_snippets_per_batch = 16, 1, 4
    tail_policy = REPEAT_LAST_FRAME
    device, stream_dims = torch.device("cpu"), dict(rgb=3)
    def prepare(self, frames):
        frames = transforms.resize_short_side(frames[:-1].permute(0, 3, 1, 2))
        return dict(rgb=frames.float().mean(dim=(0, 2, 3)))
    def embed(self, snippets):
        return dict(rgb=torch.stack([snippet["rgb"] for snippet in snippets])[:, None])

if __name__ == "__main__":
    for _ in extract_videos(Means(), [Path({str(path)!r})]):
        pass
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    print(sum(resource.getrusage(kind).ru_maxrss for kind in kinds))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    return int(done.stdout) / 1024
