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
from pipeline.extraction.feature_file import read_features
from pipeline.extraction.feature_folder import extract_into_folder
from pipeline.extraction.many_devices import DeviceProcessError, extract_on_devices
from pipeline.extraction.shards import WHOLE
from pipeline.extraction.summary import Tally, VideoOutcome
from pipeline.progress import no_report

CPU = torch.device("cpu")
CHOICE = ExtractorChoice("i3d", "none", 1, "random:0")


@pytest.fixture
def dataset(write_clip, tmp_path) -> Dataset:
    paths = [write_clip(tmp_path / f"{i}.mp4", n_frames=16) for i in range(3)]
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    paths.append(tmp_path / "broken.mp4")
    return Dataset("small", tuple(VideoEntry(path.stem, path, "train", 0) for path in paths))


def extract(dataset, features, choice=CHOICE):
    folder = features / dataset.name
    return extract_into_folder(
        dataset,
        folder,
        lambda entries: extract_on_devices(
            entries, folder, choice, [CPU, CPU], shard=WHOLE, retry_failed=False
        ),
    )


def test_all_videos_are_done_once_and_the_failed_one_is_named(dataset, tmp_path):
    tally = Tally(dataset.entries, no_report)
    done = []
    for event in extract(dataset, tmp_path):
        tally.add(event)
        if isinstance(event, VideoOutcome) and event.status == "done":
            done.append(event.video_id)
    assert sorted(done) == ["0", "1", "2"]
    summary = tally.summary(tmp_path / "small")
    assert (summary.n_done, summary.n_kept, summary.n_taken) == (3, 0, 0)
    (failure,) = summary.failures
    assert failure.video_id == "broken"
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
    events = extract(dataset, tmp_path)
    next(events)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    with pytest.raises(DeviceProcessError, match=r"of cpu ended with exit code -9 .* run the comm"):
        list(events)
    assert not multiprocessing.active_children()
