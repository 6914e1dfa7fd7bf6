"""The feature file against h5py itself, against damage, and against files made with bad intent."""

import fcntl
import json
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from extractors.features import Features
from extractors.snippets import DROP_TAIL
from pipeline.feature_file import (
    FeatureFileError,
    contract_differences,
    feature_path,
    list_feature_files,
    read_contract,
    read_features,
    write_features,
    write_index,
)

CONTRACT = {"extractor": "i3d", "n_crops": 2, "flow_tau": 0.25, "has_semantics": False}


def make_features(n_frames: int = 35, names: tuple[str, ...] = ("rgb", "flow")) -> Features:
    rng = np.random.default_rng(n_frames)
    n_snippets = -(-n_frames // 16)
    return Features(
        streams={name: rng.normal(size=(n_snippets, 2, 8)).astype(np.float32) for name in names},
        snippet_len=16,
        n_frames=n_frames,
        n_missing=3,
        fps=23.976,
        timestamps=np.sort(rng.uniform(0, 2, n_frames)),
        decoder="pyav 18.0.0",
    )


def write(path: Path, features: Features | None = None, video_id: str = "some/video") -> Features:
    features = features or make_features()
    write_features(path, features, CONTRACT, video_id=video_id, source_name="video.mp4")
    return features


@pytest.mark.parametrize("names", [("rgb",), ("rgb", "flow"), ("z", "a", "m")])
def test_what_was_written_is_read_back_with_the_streams_in_their_order(tmp_path, names):
    features = write(tmp_path / "v.h5", make_features(names=names))
    stored = read_features(tmp_path / "v.h5")
    assert (stored.video_id, stored.contract) == ("some/video", CONTRACT)
    assert list(stored.features.streams) == list(names)
    for name in names:
        assert stored.features.streams[name].dtype == np.float32
        halves = features.streams[name].astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(stored.features.streams[name], halves)
    np.testing.assert_array_equal(stored.features.timestamps, features.timestamps)
    for name in ("snippet_len", "n_frames", "n_missing", "fps", "decoder"):
        assert getattr(stored.features, name) == getattr(features, name)


def test_a_dropped_tail_is_read_back_by_the_contract(tmp_path):
    streams = {"rgb": np.ones((2, 2, 8), np.float32)}
    features = replace(make_features(), streams=streams, tail_rule=DROP_TAIL)
    contract = {**CONTRACT, "tail_rule": DROP_TAIL}
    path = tmp_path / "v.h5"
    write_features(path, features, contract, video_id="v", source_name="v.mp4")
    stored = read_features(path).features
    assert (stored.n_frames, stored.n_snippets, stored.tail_rule) == (35, 2, DROP_TAIL)
    write_features(path, features, CONTRACT, video_id="v", source_name="v.mp4")
    with pytest.raises(FeatureFileError, match="rgb must have 3 axes and 3 rows"):
        read_features(path)


def test_the_layout_is_what_other_programs_are_told(tmp_path):
    write(tmp_path / "v.h5")
    with h5py.File(tmp_path / "v.h5") as file:
        assert set(file) == {"rgb", "flow", "timestamps"}
        assert (file["rgb"].shape, file["rgb"].dtype) == ((3, 2, 8), np.float16)
        assert (file["timestamps"].shape, file["timestamps"].dtype) == ((35,), np.float64)
        attributes = {
            name: value.decode() if isinstance(value, bytes) else value
            for name, value in file.attrs.items()
        }
    assert json.loads(attributes.pop("contract")) == CONTRACT
    assert json.loads(attributes.pop("streams")) == ["rgb", "flow"]
    assert attributes == {
        "format": "lookaround features",
        "format_version": 1,
        "video_id": "some/video",
        "source_name": "video.mp4",
        "snippet_len": 16,
        "n_frames": 35,
        "n_missing": 3,
        "fps": 23.976,
        "decoder": "pyav 18.0.0",
    }


def test_the_contract_is_read_on_its_own(tmp_path):
    write(tmp_path / "v.h5")
    assert read_contract(tmp_path / "v.h5") == CONTRACT


def test_writing_again_replaces_the_file(tmp_path):
    write(tmp_path / "v.h5")
    write(tmp_path / "v.h5", make_features(n_frames=100))
    assert read_features(tmp_path / "v.h5").features.n_frames == 100
    assert list(tmp_path.iterdir()) == [tmp_path / "v.h5"]


def test_a_value_beyond_float16_names_the_stream_and_leaves_the_old_file(tmp_path):
    write(tmp_path / "v.h5")
    before = (tmp_path / "v.h5").read_bytes()
    features = make_features()
    features.streams["flow"][1, 0, 3] = 70_000
    with pytest.raises(FeatureFileError, match=r"v\.h5: stream flow must fit float16.*70000"):
        write(tmp_path / "v.h5", features)
    assert (tmp_path / "v.h5").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "v.h5"]


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    limit, hard_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard_limit))
    try:
        with pytest.raises(FeatureFileError, match=r"v\.h5: cannot be written \(File too large\)"):
            write(tmp_path / "v.h5", make_features(n_frames=3000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard_limit))
    assert not list(tmp_path.iterdir())


def test_a_file_that_somebody_has_locked_can_be_read(tmp_path):
    write(tmp_path / "v.h5")
    with (tmp_path / "v.h5").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            h5py.File(tmp_path / "v.h5", locking=True)
        assert read_contract(tmp_path / "v.h5") == CONTRACT


def test_a_file_cut_short_anywhere_is_refused_in_one_line(tmp_path):
    write(tmp_path / "whole.h5")
    whole = (tmp_path / "whole.h5").read_bytes()
    path = tmp_path / "cut.h5"
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(FeatureFileError, match=r"cut\.h5: .*extract the video again") as caught:
            read_features(path)
        assert "\n" not in str(caught.value)


def test_damaged_bytes_give_features_or_one_error_and_never_another(tmp_path):
    write(tmp_path / "whole.h5")
    whole = (tmp_path / "whole.h5").read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.h5"
    n_refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for position in rng.integers(len(whole), size=4):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_features(path)
        except FeatureFileError:
            n_refused += 1
    assert n_refused > 30


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path: None, "there is no such feature file; `pipeline extract` makes it"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_text("frame,score\n"), "is not a whole feature file"),
        (lambda path: h5py.File(path, "w").close(), "attribute format is missing"),
    ],
)
def test_what_is_no_feature_file_is_refused_by_name(tmp_path, make, text):
    make(tmp_path / "v.h5")
    for read in (read_features, read_contract):
        with pytest.raises(FeatureFileError, match=rf"v\.h5: .*{text}"):
            read(tmp_path / "v.h5")


def test_a_file_of_another_format_version_is_refused(tmp_path):
    write(tmp_path / "v.h5")
    with h5py.File(tmp_path / "v.h5", "r+") as file:
        file.attrs["format_version"] = 2
    with pytest.raises(FeatureFileError, match=r"version 1 expected, instead got 2.*extract"):
        read_contract(tmp_path / "v.h5")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_frames", 34 * 16),
        ("n_frames", -1),
        ("n_frames", 35.0),
        ("n_frames", np.arange(35)),
        ("n_frames", True),
        ("snippet_len", 0),
        ("snippet_len", 8),
        ("n_missing", "none"),
        ("fps", "25"),
        ("decoder", 3),
        ("decoder", b"\xff"),
        ("streams", "not JSON"),
        ("streams", '["rgb", "rgb"]'),
        ("streams", '["rgb", "../rgb"]'),
        ("streams", '["timestamps"]'),
        ("streams", "[]"),
        ("contract", "[1, 2]"),
        ("contract", '{"a": [1]}'),
        ("contract", "[" * 50_000),
    ],
)
def test_an_attribute_that_is_not_as_it_must_be_is_refused(tmp_path, name, value):
    write(tmp_path / "v.h5")
    with h5py.File(tmp_path / "v.h5", "r+") as file:
        del file.attrs[name]
        file.attrs[name] = np.bytes_(value) if isinstance(value, str) else value
    with pytest.raises(FeatureFileError, match=r"v\.h5: is not a whole feature file"):
        read_features(tmp_path / "v.h5")


def test_text_of_variable_length_is_refused_unread(tmp_path):
    write(tmp_path / "v.h5")
    with h5py.File(tmp_path / "v.h5", "r+") as file:
        del file.attrs["decoder"]
        file.attrs["decoder"] = "pyav 18.0.0"  # h5py's way with a str
    with pytest.raises(FeatureFileError, match="attribute decoder must be one str"):
        read_features(tmp_path / "v.h5")


def test_a_missing_attribute_or_array_is_named(tmp_path):
    for name in ("fps", "contract"):
        write(tmp_path / "v.h5")
        with h5py.File(tmp_path / "v.h5", "r+") as file:
            del file.attrs[name]
        with pytest.raises(FeatureFileError, match=f"attribute {name} is missing"):
            read_features(tmp_path / "v.h5")
    for name in ("flow", "timestamps"):
        write(tmp_path / "v.h5")
        with h5py.File(tmp_path / "v.h5", "r+") as file:
            del file[name]
        with pytest.raises(FeatureFileError, match=f"array {name} is missing"):
            read_features(tmp_path / "v.h5")


def _as_soft_link(file, secret):
    file["hidden"] = file["rgb"][()]
    del file["rgb"]
    file["rgb"] = h5py.SoftLink("/hidden")


def _as_external_link(file, secret):
    del file["rgb"]
    file["rgb"] = h5py.ExternalLink(str(secret), "/rgb")


def _as_virtual(file, secret):
    del file["rgb"]
    layout = h5py.VirtualLayout((3, 2, 8), "<f2")
    layout[:] = h5py.VirtualSource(str(secret), "rgb", (3, 2, 8))
    file.create_virtual_dataset("rgb", layout)


def _as_external_storage(file, secret):
    del file["rgb"]
    file.create_dataset("rgb", (3, 2, 8), "<f2", external=[(str(secret), 0, 96)])


def _as_group(file, secret):
    del file["rgb"]
    file.create_group("rgb")


def _never_written(file, secret):
    del file["rgb"]
    file.create_dataset("rgb", (3, 2, 2**40), "<f2")


def _inflated_when_read(file, secret):
    del file["rgb"]
    file.create_dataset("rgb", (3, 2, 2**40), "<f2", chunks=(1, 1, 2**20), compression="gzip")


def _other_dtype(file, secret):
    values = file["rgb"][()].astype("f8")
    del file["rgb"]
    file["rgb"] = values


@pytest.mark.parametrize(
    "change",
    [
        _as_soft_link,
        _as_external_link,
        _as_virtual,
        _as_external_storage,
        _as_group,
        _never_written,
        _inflated_when_read,
        _other_dtype,
    ],
)
def test_only_plain_arrays_within_the_file_are_read(tmp_path, change):
    write(tmp_path / "secret.h5")
    write(tmp_path / "v.h5")
    with h5py.File(tmp_path / "v.h5", "r+") as file:
        change(file, tmp_path / "secret.h5")
    with pytest.raises(FeatureFileError, match=r"v\.h5: is not a whole feature file \(.*rgb"):
        read_features(tmp_path / "v.h5")


@pytest.mark.parametrize(
    ("expected", "found", "words"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
        ({"flow": "tvl1"}, {"flow": "dis"}, ["flow: tvl1 expected, instead got dis"]),
        ({"a": 1}, {}, ["a: 1 expected, instead got nothing"]),
        ({}, {"a": 0.5}, ["a: nothing expected, instead got 0.5"]),
    ],
)
def test_differences_between_contracts_are_put_in_words(expected, found, words):
    assert contract_differences(expected, found) == words


@pytest.mark.parametrize("video_id", ["a", "a.b", "folder/a", "folder/index", "Überfall 1"])
def test_a_video_id_names_a_file_in_the_folder(tmp_path, video_id):
    path = feature_path(tmp_path, video_id)
    assert path == tmp_path / f"{video_id}.h5"
    write(path, video_id=video_id)
    assert list_feature_files(tmp_path) == [path]


@pytest.mark.parametrize("video_id", ["", "../a", "a/../../b", "/a", "a//b", "a/", "./a", "a\0b"])
def test_a_video_id_that_leaves_the_folder_is_refused(tmp_path, video_id):
    with pytest.raises(FeatureFileError, match=r"stays in the folder.*rename the video"):
        feature_path(tmp_path, video_id)


def test_a_video_cannot_take_the_name_of_the_index(tmp_path):
    with pytest.raises(FeatureFileError, match=r"index\.h5: is the name of the index"):
        feature_path(tmp_path, "index")


def test_the_index_shows_every_video_even_after_the_folder_was_moved(tmp_path):
    video_ids = ["plain", "a", "a/b", "a/c/d", "a/c.e"]
    for video_id in video_ids:
        write(feature_path(tmp_path / "set", video_id), video_id=video_id)
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


def test_an_index_is_written_anew_when_videos_come_and_go(tmp_path):
    for video_id in ("one", "two"):
        write(tmp_path / f"{video_id}.h5")
    write_index(tmp_path)
    (tmp_path / "one.h5").unlink()
    write(tmp_path / "three.h5")
    write_index(tmp_path)
    with h5py.File(tmp_path / "index.h5") as index:
        assert set(index) == {"two", "three"}
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"index.h5", "three.h5", "two.h5"}
