"""Extraction of small videos: resuming, failures, damaged and replaced files."""

import os
import re
import resource
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
import torch

from extractors.engine import FramesDecoded, VideoFeatures, extract_videos
from pipeline.datasets.catalog import Dataset, VideoEntry
from pipeline.extraction.extract_entries import extract_entries
from pipeline.extraction.feature_file import FeatureFileError, read_features
from pipeline.extraction.feature_folder import list_feature_files
from pipeline.extraction.status import read_failure

pytestmark = pytest.mark.usefixtures("videos_folder")


def statuses(ends):
    """How the videos a, b and c ended."""
    return [ends[name].status for name in "abc"]


def kill_decoder_at(events, video_id, find_decoders):
    """Pass events on; whenever the video's frames begin to come, its decoder is killed."""
    for event in events:
        yield event
        if isinstance(event, FramesDecoded) and event.path.stem == video_id:
            for decoder in find_decoders():
                os.kill(decoder, signal.SIGSEGV)


def status_by_id(folder):
    lines = (folder / "status.csv").read_text().splitlines()[1:]
    return {line.split(",")[0]: line.split(",")[1] for line in lines}


def test_what_is_there_is_kept_and_not_touched(
    dataset, tmp_path, brightness, extract_dataset, endings
):
    first = endings(extract_dataset(dataset, tmp_path, brightness()))
    assert {end.status for end in first.values()} == {"done"}
    files = {path: path.stat().st_mtime_ns for path in list_feature_files(tmp_path / "small")}
    again = endings(extract_dataset(dataset, tmp_path, brightness()))
    assert {end.status for end in again.values()} == {"kept"}
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert status_by_id(tmp_path / "small") == dict.fromkeys("abc", "done")


def test_a_changed_setting_is_refused_and_named_before_anything_is_extracted(
    dataset, tmp_path, brightness, extract_dataset
):
    first = Dataset("small", dataset.entries[2:])
    list(extract_dataset(first, tmp_path, brightness(crops=5, flow_method="tvl1")))
    with pytest.raises(FeatureFileError, match=r"c\.h5.*crops: 1 expected, instead got 5"):
        list(extract_dataset(dataset, tmp_path, brightness(crops=1, flow_method="tvl1")))
    assert [path.name for path in list_feature_files(tmp_path / "small")] == ["c.h5"]


def test_a_video_that_fails_is_left_alone_until_that_is_asked_for(
    dataset, tmp_path, brightness, extract_dataset, endings
):
    broken = dataset.entries[1].path
    whole = broken.read_bytes()
    broken.write_bytes(b"no video")
    ends = endings(extract_dataset(dataset, tmp_path, brightness()))
    assert statuses(ends) == ["done", "failed", "done"]
    assert not ends["b"].is_earlier
    assert status_by_id(tmp_path / "small")["b"] == "failed"
    broken.write_bytes(whole)
    again = endings(extract_dataset(dataset, tmp_path, brightness()))
    assert again["b"] == replace(ends["b"], is_earlier=True)
    last = endings(extract_dataset(dataset, tmp_path, brightness(), retry_failed=True))
    assert statuses(last) == ["kept", "done", "kept"]
    assert read_failure(tmp_path / "small", "b") is None
    assert status_by_id(tmp_path / "small")["b"] == "done"


def test_a_video_that_is_not_there_yet_is_tried_again_by_itself(
    dataset, tmp_path, brightness, extract_dataset, endings
):
    absent = dataset.entries[1].path
    away = absent.rename(tmp_path / "away.mp4")
    ends = endings(extract_dataset(dataset, tmp_path, brightness()))
    assert ends["b"].status == "failed"
    assert status_by_id(tmp_path / "small")["b"] == "missing"
    away.rename(absent)
    again = endings(extract_dataset(dataset, tmp_path, brightness()))
    assert statuses(again) == ["kept", "done", "kept"]


def test_a_video_that_crashes_its_decoder_is_quarantined_and_the_others_are_done(
    dataset, find_decoders, tmp_path, brightness, extract_dataset, endings
):
    events = extract_dataset(dataset, tmp_path, brightness())
    ends = endings(kill_decoder_at(events, "b", find_decoders))
    assert statuses(ends) == ["done", "failed", "done"]
    failure = ends["b"].failure
    assert (failure.kind, failure.is_quarantined) == ("DecoderDied", True)
    assert status_by_id(tmp_path / "small") == {"a": "done", "b": "quarantined", "c": "done"}
    again = endings(extract_dataset(dataset, tmp_path, brightness()))
    assert again["b"].status == "failed"


def test_a_single_video_survives_the_crash_of_its_decoder(dataset, find_decoders, brightness):
    entry = dataset.entries[0]
    events = extract_videos(brightness(), [entry.path])
    assert isinstance(next(events), FramesDecoded)
    os.kill(find_decoders()[0], signal.SIGKILL)
    (features,) = [event.features for event in events if isinstance(event, VideoFeatures)]
    assert features.n_frames == 200


def number_of(folder: Path, video_id: str) -> int:
    """The frames of a video's features."""
    return read_features(folder / f"{video_id}.h5", video_id=video_id).features.n_frames


def test_a_video_that_was_replaced_is_reported_and_extracted_anew(
    dataset, write_clip, tmp_path, brightness, extract_dataset, endings
):
    list(extract_dataset(dataset, tmp_path, brightness()))
    video = dataset.entries[1].path
    times = (video.stat().st_atime_ns, video.stat().st_mtime_ns)
    write_clip(video, n_frames=48)
    os.utime(video, ns=times)
    ends = endings(extract_dataset(dataset, tmp_path, brightness()))
    assert [bool(ends[name].replaced_because) for name in "abc"] == [False, True, False]
    reason = ends["b"].replaced_because
    assert re.search(r"b\.mp4: is not the file that \S+b\.h5 was made from", reason)
    assert statuses(ends) == ["kept", "done", "kept"]
    assert number_of(tmp_path / "small", "b") == 48
    again = endings(extract_dataset(dataset, tmp_path, brightness()))
    assert {end.status for end in again.values()} == {"kept"}


def test_two_lists_of_one_name_do_not_share_features_in_silence(
    write_clip, tmp_path, brightness, extract_dataset, endings
):
    datasets = []
    for n_frames in (32, 64):
        path = write_clip(tmp_path / f"videos/{n_frames}.mp4", n_frames=n_frames)
        datasets.append(Dataset("cameras", (VideoEntry("yard", path, "train", 0),)))
    for dataset, n_frames in zip(datasets, (32, 64), strict=True):
        ends = endings(extract_dataset(dataset, tmp_path, brightness()))
        assert ends["yard"].status == "done"
        assert number_of(tmp_path / "cameras", "yard") == n_frames


def test_features_are_kept_where_the_videos_are_not_at_hand(
    dataset, tmp_path, brightness, extract_dataset, endings
):
    list(extract_dataset(dataset, tmp_path, brightness()))
    shutil.rmtree(tmp_path / "videos")
    again = endings(extract_dataset(dataset, tmp_path, brightness()))
    assert {end.status for end in again.values()} == {"kept"}


def test_features_that_are_damaged_or_of_another_video_are_made_anew(
    dataset, tmp_path, brightness, extract_dataset, endings
):
    list(extract_dataset(dataset, tmp_path, brightness()))
    folder = tmp_path / "small"
    whole = (folder / "a.h5").read_bytes()
    (folder / "a.h5").write_bytes(whole[: len(whole) // 2])
    shutil.copy(folder / "c.h5", folder / "b.h5")
    ends = endings(extract_dataset(dataset, tmp_path, brightness()))
    reasons = {name: ends[name].replaced_because for name in "abc"}
    assert "a.h5: is not a whole feature file" in reasons["a"]
    assert "b.h5: holds the features of another video, 'c'" in reasons["b"]
    assert statuses(ends) == ["done", "done", "kept"]
    assert not reasons["c"]
    for name in "abc":
        assert number_of(folder, name) == 200


def test_features_of_another_file_do_not_stay_when_the_new_one_cannot_be_read(
    dataset, tmp_path, brightness, extract_dataset, endings
):
    list(extract_dataset(dataset, tmp_path, brightness()))
    dataset.entries[1].path.write_bytes(b"no video")
    ends = endings(extract_dataset(dataset, tmp_path, brightness()))
    assert statuses(ends) == ["kept", "failed", "kept"]
    assert not (tmp_path / "small/b.h5").exists()
    assert status_by_id(tmp_path / "small")["b"] == "failed"


def test_videos_without_a_place_for_their_features_fail_and_the_others_go_on(
    write_clip, tmp_path, brightness, extract_dataset, endings
):
    clip = write_clip(tmp_path / "videos/clip.mp4", n_frames=20)
    ids = ["index", "a", "a.h5/b", "x" * 245, "y" * 255, "status.csv/d", "good"]
    paths = [tmp_path / f"videos/{index}.mp4" for index in range(len(ids))]
    for path in paths:
        shutil.copy(clip, path)
    entries = [VideoEntry(i, path, "train", 0) for i, path in zip(ids, paths, strict=True)]
    dataset = Dataset("small", tuple(entries))
    for status in ("done", "kept"):
        ends = endings(extract_dataset(dataset, tmp_path, brightness()))
        for video_id in ("index", "a", "y" * 255, "status.csv/d"):
            assert "rename the video" in ends[video_id].failure.reason
        assert {i for i, end in ends.items() if end.status == status} == {
            "a.h5/b",
            "x" * 245,
            "good",
        }
    with h5py.File(tmp_path / "small/index.h5") as index:
        assert {"good", "a.h5", "x" * 245} == set(index)
    assert status_by_id(tmp_path / "small")["a"] == "failed"


def test_a_feature_file_that_cannot_be_written_is_its_videos_failure(
    write_clip, tmp_path, brightness, extract_dataset, endings
):
    """Of an earlier list a file lies where a folder is needed, and a folder lies for a file."""
    ids = ["day/a", "b", "good"]
    entries = [
        VideoEntry(i, write_clip(tmp_path / f"videos/{n}.mp4", n_frames=20), "train", 0)
        for n, i in enumerate(ids)
    ]
    (tmp_path / "small/b.h5/deep").mkdir(parents=True)
    (tmp_path / "small/day").write_text("of the user")
    dataset = Dataset("small", tuple(entries))
    for status in ("done", "kept"):
        ends = endings(extract_dataset(dataset, tmp_path, brightness()))
        assert [ends[i].status for i in ids] == ["failed", "failed", status]
        assert not any(ends[i].is_earlier for i in ("day/a", "b"))  # nothing is remembered


def test_values_that_do_not_fit_are_their_videos_failure(
    dataset, tmp_path, brightness, extract_dataset, endings
):
    class Bright(brightness):
        def embed(self, snippets):
            features = super().embed(snippets)
            return {"rgb": torch.full_like(features["rgb"], 1e6)}

    ends = endings(extract_dataset(dataset, tmp_path, Bright()))
    assert {end.status for end in ends.values()} == {"failed"}
    assert "must fit float16" in ends["a"].failure.reason
    assert read_failure(tmp_path / "small", "a") == ends["a"].failure


def test_a_file_size_limit_is_reported_and_not_remembered(
    dataset, tmp_path, brightness, extract_dataset, endings
):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    one = Dataset("small", dataset.entries[:1])
    ends = []
    try:
        for event in extract_dataset(one, tmp_path, brightness()):
            if isinstance(event, FramesDecoded):  # the decoder has its memory by now
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
            else:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
                ends.append(event)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    (failed,) = ends
    assert "cannot be written (File too large)" in failed.failure.reason
    again = endings(extract_dataset(one, tmp_path, brightness()))
    assert again["a"].status == "done"


def test_a_decoder_without_room_for_its_frames_is_reported_and_not_remembered(
    dataset, tmp_path, brightness, endings
):
    one = Dataset("small", dataset.entries[:1])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        ends = endings(extract_entries(one.entries, tmp_path, brightness(), retry_failed=False))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in ends["a"].failure.reason
    assert read_failure(tmp_path, "a") is None


def test_a_pipe_fails_at_once_each_time(dataset, tmp_path, brightness, extract_dataset, endings):
    pipe = dataset.entries[0].path
    pipe.unlink()
    os.mkfifo(pipe)
    ends = endings(extract_dataset(dataset, tmp_path, brightness()))
    assert "is not a regular file, expected a video" in ends["a"].failure.reason
    assert [ends[name].status for name in "bc"] == ["done", "done"]


def test_a_damaged_note_on_a_failure_is_as_good_as_none(
    dataset, tmp_path, brightness, extract_dataset, endings
):
    (tmp_path / "small").mkdir()
    (tmp_path / "small/b.failed.json").write_bytes(b"{")
    ends = endings(extract_dataset(dataset, tmp_path, brightness()))
    assert {end.status for end in ends.values()} == {"done"}
    assert not (tmp_path / "small/b.failed.json").exists()


def test_features_that_may_not_be_read_fail_alone(
    dataset, tmp_path, brightness, extract_dataset, endings, monkeypatch
):
    list(extract_dataset(dataset, tmp_path, brightness()))
    (tmp_path / "small/c.h5").unlink()
    open_file = h5py.File

    def open_as_another_user(path, mode, **options):
        if Path(path).name == "a.h5" and mode == "r":
            raise PermissionError(13, "Permission denied")
        return open_file(path, mode, **options)

    monkeypatch.setattr(h5py, "File", open_as_another_user)
    ends = endings(extract_dataset(dataset, tmp_path, brightness()))
    assert {name: end.status for name, end in ends.items()} == {
        "a": "failed",
        "b": "kept",
        "c": "done",
    }
    assert ends["a"].failure.reason == (
        f"{tmp_path}/small/a.h5: cannot be read (permission denied); change its permissions, or "
        "remove it"
    )
    assert (tmp_path / "small/index.h5").is_file()
