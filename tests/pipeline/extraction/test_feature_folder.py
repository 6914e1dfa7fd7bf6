"""A folder of feature files: its index, and the precision of its features."""

import shutil

import h5py
import pytest

from pipeline.extraction.feature_file import feature_path, write_features
from pipeline.extraction.feature_folder import (
    list_feature_files,
    precision_of_folder,
    write_index,
)


@pytest.mark.parametrize("video_id", ["a", "a.b", "folder/a", "folder/index", "Überfall 1"])
def test_a_video_id_names_a_file_in_the_folder(write_file, tmp_path, video_id):
    path = feature_path(tmp_path, video_id)
    assert path == tmp_path / f"{video_id}.h5"
    write_file(path, video_id=video_id)
    assert list_feature_files(tmp_path) == [path]


def test_a_folder_tells_the_precision_of_its_features(make_features, write_file, tmp_path):
    assert precision_of_folder(tmp_path) is None
    (tmp_path / "a.h5").write_bytes(b"damaged")
    write_file(tmp_path / "b.h5")
    provenance = {"precision": "bfloat16"}
    write_features(tmp_path / "c.h5", make_features(), provenance, video_id="c", source_name="c")
    assert precision_of_folder(tmp_path) == "bfloat16"


def test_the_index_shows_every_video_even_after_the_folder_was_moved(write_file, tmp_path):
    video_ids = ["plain", "a", "a/b", "a/c/d", "a/c.e"]
    for video_id in video_ids:
        write_file(feature_path(tmp_path / "set", video_id), video_id=video_id)
    (tmp_path / "set" / "a" / ".left-over.h5.123.tmp").write_bytes(b"half")
    assert write_index(tmp_path / "set") == tmp_path / "set" / "index.h5"
    shutil.move(tmp_path / "set", tmp_path / "elsewhere")
    with h5py.File(tmp_path / "elsewhere" / "index.h5") as index:
        for video_id in video_ids:
            assert index[video_id]["rgb"].shape == (3, 2, 8)
            assert index[video_id]["timestamps"].shape == (35,)
        assert index["a/b"].attrs["video_id"] == b"a/b"
        assert set(index) == {"plain", "a"}
        assert set(index["a"]) == {"rgb", "flow", "timestamps", "b", "c", "c.e"}
    assert len(list_feature_files(tmp_path / "elsewhere")) == len(video_ids)


def test_an_index_is_written_anew_when_videos_come_and_go(write_file, tmp_path):
    for video_id in ("one", "two"):
        write_file(tmp_path / f"{video_id}.h5")
    write_index(tmp_path)
    (tmp_path / "one.h5").unlink()
    write_file(tmp_path / "three.h5")
    write_index(tmp_path)
    with h5py.File(tmp_path / "index.h5") as index:
        assert set(index) == {"two", "three"}
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"index.h5", "three.h5", "two.h5"}
