"""Which videos have features, and whether they are those of these videos."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets import load_dataset
from pipeline.datasets.catalog import Dataset, VideoEntry
from pipeline.extraction.available_features import entries_with_features
from pipeline.extraction.feature_file import FeatureFileError
from pipeline.extraction.import_features import import_features


@pytest.fixture
def extracted(tmp_path, write_file):
    """A dataset of one video of seven bytes, whose features say so."""
    video = tmp_path / "a.mp4"
    video.write_bytes(b"7 bytes")
    write_file(tmp_path / "features/cameras/a.h5", video_id="a")
    return Dataset("cameras", (VideoEntry("a", video, "train", 0),), manifest=Path("cameras.csv"))


@pytest.fixture
def three(tmp_path, write_file):
    """A dataset of three videos of seven bytes, whose features say so."""
    entries = []
    for name in "abc":
        video = tmp_path / f"{name}.mp4"
        video.write_bytes(b"7 bytes")
        write_file(tmp_path / f"features/cameras/{name}.h5", video_id=name)
        entries.append(VideoEntry(name, video, "train", 0))
    return Dataset("cameras", tuple(entries), manifest=Path("cameras.csv"))


def test_features_of_a_video_are_found_with_and_without_the_video(extracted, tmp_path):
    assert entries_with_features(extracted, "train", tmp_path / "features") == extracted.entries
    (tmp_path / "a.mp4").unlink()
    assert entries_with_features(extracted, "train", tmp_path / "features") == extracted.entries


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_features_of_a_video_that_cannot_be_reached_are_found(
    extracted, tmp_path, monkeypatch, number
):
    real_stat = Path.stat

    def stat(path, **options):
        if path == tmp_path / "a.mp4":
            raise OSError(number, "cannot be reached", str(path))
        return real_stat(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    assert entries_with_features(extracted, "train", tmp_path / "features") == extracted.entries


def test_features_of_a_video_whose_name_the_file_system_cannot_hold_are_found(extracted, tmp_path):
    entry = VideoEntry("a", tmp_path / ("x" * 300), "train", 0)
    of_long_name = replace(extracted, entries=(entry,))
    assert entries_with_features(of_long_name, "train", tmp_path / "features") == (entry,)


def test_a_manifest_without_features_is_named_by_its_path_for_the_shell(tmp_path):
    manifest = tmp_path / "my cameras.csv"
    manifest.write_text("path,split,label,anomalies\na.mp4,train,0,\n")
    with pytest.raises(FeatureFileError) as caught:
        entries_with_features(load_dataset(manifest), "train", tmp_path / "features")
    assert str(caught.value).endswith(f"make them with: pipeline extract '{manifest}'")


def test_a_manifest_with_videos_elsewhere_is_named_with_their_folder(tmp_path):
    manifest = tmp_path / "cameras.csv"
    manifest.write_text("path,split,label,anomalies\na.mp4,train,0,\n")
    dataset = load_dataset(manifest, tmp_path / "my disk")
    with pytest.raises(FeatureFileError) as caught:
        entries_with_features(dataset, "train", tmp_path / "features")
    command = f"pipeline extract {manifest} --videos '{tmp_path}/my disk'"
    assert str(caught.value).endswith(f"make them with: {command}")


@pytest.mark.parametrize(
    ("folder", "option"),
    [(None, ""), ("data/xd_violence", ""), ("elsewhere", " --videos elsewhere")],
)
def test_a_dataset_with_a_name_is_named_with_the_folder_of_its_videos(tmp_path, folder, option):
    dataset = load_dataset("xd_violence", folder)
    with pytest.raises(FeatureFileError) as caught:
        entries_with_features(dataset, "train", tmp_path / "features")
    assert str(caught.value).endswith(f"make them with: pipeline extract xd_violence{option}")


def test_a_dataset_that_was_made_in_python_is_extracted_in_python(extracted, tmp_path):
    made = replace(extracted, manifest=None)
    with pytest.raises(FeatureFileError) as caught:
        entries_with_features(made, "train", tmp_path / "elsewhere")
    assert str(caught.value).endswith("make them with: pipeline.extract(dataset)")


def test_features_of_files_that_were_all_replaced_since_are_refused(three, tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.mp4").write_bytes(b"another video")
    with pytest.raises(FeatureFileError) as caught:
        entries_with_features(three, "train", tmp_path / "features")
    assert str(caught.value) == (
        f"{tmp_path}/features/cameras/a.h5: was extracted from a file of 7 bytes, but "
        f"{tmp_path}/a.mp4 has 13; 3 of 3 compared videos, of 3 with features, are not the files "
        "that their features are of; extract them again: pipeline extract cameras.csv, or give the "
        "folder of their features with --features (datasets of one name need folders of their own)"
    )


@pytest.mark.parametrize("replaced", ["b", "bc", "ab"])
def test_some_videos_of_several_that_were_replaced_since_are_a_warning(
    three, tmp_path, caplog, replaced
):
    for name in replaced:
        (tmp_path / f"{name}.mp4").write_bytes(b"another video")
    assert entries_with_features(three, "train", tmp_path / "features") == three.entries
    assert caplog.messages == [
        f"{tmp_path}/features/cameras/{replaced[0]}.h5: was extracted from a file of 7 bytes, but "
        f"{tmp_path}/{replaced[0]}.mp4 has 13; {len(replaced)} of 3 compared videos, of 3 with "
        "features, are not the files that their features are of; extract them again: "
        "pipeline extract cameras.csv"
    ]


@pytest.mark.parametrize("left", ["c", "bc"])
def test_videos_that_differ_where_others_were_deleted_are_a_warning(three, tmp_path, caplog, left):
    for name in "abc":
        (tmp_path / f"{name}.mp4").unlink()
    for name in left:
        (tmp_path / f"{name}.mp4").write_bytes(b"placeholder")
    assert entries_with_features(three, "train", tmp_path / "features") == three.entries
    (message,) = caplog.messages
    assert f"; {len(left)} of {len(left)} compared videos, of 3 with features, are not" in message


def test_videos_without_features_do_not_count_among_those_that_differ(three, tmp_path):
    (tmp_path / "features/cameras/c.h5").unlink()
    for name in "ab":
        (tmp_path / f"{name}.mp4").write_bytes(b"another video")
    with pytest.raises(FeatureFileError, match="2 of 2 compared videos, of 2 with features"):
        entries_with_features(three, "train", tmp_path / "features")


@pytest.fixture
def fifty(extracted, tmp_path):
    """A dataset of fifty videos of seven bytes, whose features say so."""
    entries = []
    for index in range(50):
        video = tmp_path / f"{index}.mp4"
        video.write_bytes(b"7 bytes")
        shutil.copy(tmp_path / "features/cameras/a.h5", tmp_path / f"features/cameras/{index}.h5")
        entries.append(VideoEntry(str(index), video, "train", 0))
    return replace(extracted, entries=tuple(entries))


def test_of_many_videos_twenty_are_compared(fifty, tmp_path):
    for entry in fifty.entries:
        entry.path.write_bytes(b"another video")
    with pytest.raises(FeatureFileError, match="20 of 20 compared videos, of 50 with features"):
        entries_with_features(fifty, "train", tmp_path / "features")


@pytest.mark.parametrize("first", [0, 10, 20, 30, 40])
def test_the_compared_videos_are_spread_evenly_and_always_the_same(fifty, tmp_path, caplog, first):
    for entry in fifty.entries[first : first + 10]:
        entry.path.write_bytes(b"another video")
    for _ in range(2):
        assert entries_with_features(fifty, "train", tmp_path / "features") == fifty.entries
    message, again = caplog.messages
    assert "; 4 of 20 compared videos, of 50 with features, are not the files" in message
    assert again == message


def test_of_many_videos_one_that_cannot_be_compared_makes_a_warning(fifty, tmp_path, caplog):
    for entry in fifty.entries:
        entry.path.write_bytes(b"another video")
    fifty.entries[0].path.unlink()
    assert entries_with_features(fifty, "train", tmp_path / "features") == fifty.entries
    (message,) = caplog.messages
    assert "; 19 of 19 compared videos, of 50 with features, are not the files" in message


def test_a_single_video_that_was_replaced_since_is_a_warning(extracted, tmp_path, caplog):
    (tmp_path / "a.mp4").write_bytes(b"another video")
    assert entries_with_features(extracted, "train", tmp_path / "features") == extracted.entries
    (message,) = caplog.messages
    assert "; 1 of 1 compared videos, of 1 with features, are not the files" in message


def test_features_of_another_dataset_with_the_same_names_are_refused(three, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    entries = []
    for entry in three.entries:
        video = tmp_path / "elsewhere" / entry.path.name
        video.write_bytes(b"of another camera")
        entries.append(replace(entry, path=video))
    other = replace(three, entries=tuple(entries))
    with pytest.raises(FeatureFileError, match=r"a\.h5: was extracted from a file of 7 bytes"):
        entries_with_features(other, "train", tmp_path / "features")


def test_features_of_a_folder_of_frames_are_found(extracted, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    of_frames = replace(extracted, entries=(VideoEntry("a", frames, "train", 0, fps=25),))
    assert entries_with_features(of_frames, "train", tmp_path / "features") == of_frames.entries


def test_imported_features_are_found_beside_the_videos(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"a video")
    cameras = Dataset("cameras", (VideoEntry("a", tmp_path / "a.mp4", "train", 0),))
    (tmp_path / "release").mkdir()
    np.save(tmp_path / "release/a.npy", np.ones((3, 1, 8), np.float32))
    options = {"release": "other", "made_by": "somebody", "features": tmp_path / "features"}
    assert import_features(cameras, tmp_path / "release", **options).n_imported == 1
    assert entries_with_features(cameras, "train", tmp_path / "features") == cameras.entries


def test_damaged_features_are_left_to_those_who_read_them(extracted, tmp_path):
    (tmp_path / "features/cameras/a.h5").write_bytes(b"damaged")
    assert entries_with_features(extracted, "train", tmp_path / "features") == extracted.entries
