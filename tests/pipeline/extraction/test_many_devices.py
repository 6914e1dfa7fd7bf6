"""A process for each device: here several on the CPU, which changes nothing but the speed."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch

from extractors.build import ExtractorChoice
from extractors.networks.weights import WeightsError
from pipeline.datasets.catalog import Dataset, VideoEntry
from pipeline.extraction.extract_records import FramesDone, VideoDone, VideoFailed
from pipeline.extraction.feature_file import read_features
from pipeline.extraction.many_devices import DeviceProcessError, extract_on_devices

CPU = torch.device("cpu")
CHOICE = ExtractorChoice("i3d", "none", 1, "random:0")


@pytest.fixture
def dataset(write_clip, tmp_path) -> Dataset:
    paths = [write_clip(tmp_path / f"{i}.mp4", n_frames=16) for i in range(3)]
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    paths.append(tmp_path / "broken.mp4")
    return Dataset("small", tuple(VideoEntry(path.stem, path, "train", 0) for path in paths))


def extract(dataset, folder, choice=CHOICE):
    return extract_on_devices(
        dataset, folder, choice, [CPU, CPU], entries=dataset.entries, retry_failed=False
    )


def test_all_videos_are_done_and_the_failed_one_is_named(dataset, tmp_path):
    records = [r for r in extract(dataset, tmp_path) if not isinstance(r, FramesDone)]
    done = {record.video_id for record in records if isinstance(record, VideoDone)}
    assert done == {"0", "1", "2"}
    (failed,) = [record for record in records if isinstance(record, VideoFailed)]
    assert failed.failure.video_id == "broken"
    for video_id in done:
        assert read_features(tmp_path / f"small/{video_id}.h5").features.n_frames == 16
    assert len((tmp_path / "small/status.csv").read_text().splitlines()) == 5
    assert (tmp_path / "small/index.h5").exists()


def test_what_stops_one_process_stops_the_run_in_its_own_words(dataset, tmp_path):
    choice = ExtractorChoice("i3d", "none", 1, str(tmp_path / "absent.pt"))
    with pytest.raises(WeightsError, match=r"absent\.pt: no such file or folder of weights"):
        list(extract(dataset, tmp_path, choice))
    assert not multiprocessing.active_children()


def test_a_process_that_dies_is_an_error_and_the_others_are_ended(dataset, tmp_path: Path):
    records = extract(dataset, tmp_path)
    next(records)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    with pytest.raises(DeviceProcessError, match=r"of cpu ended with exit code -9 .* run the comm"):
        list(records)
    assert not multiprocessing.active_children()
