"""The feature file against h5py itself, against damage, and against files made with bad intent."""

import fcntl
import hashlib
import json
import math
import resource
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from extractors.features import Features
from extractors.snippets import DROP_TAIL
from pipeline.extraction.feature_file import (
    DEFAULTS,
    FeatureFileError,
    feature_path,
    list_feature_files,
    precision_of_folder,
    provenance_differences,
    read_features,
    read_header,
    write_features,
    write_index,
)
from pipeline.extraction.video_digest import Source

PROVENANCE = {"extractor": "i3d", "n_crops": 2, "flow_tau": 0.25, "is_pretrained": False}


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
    write_features(
        path,
        features,
        PROVENANCE,
        video_id=video_id,
        source_name="video.mp4",
        source=Source(7, "00ff"),
    )
    return features


@pytest.mark.parametrize("names", [("rgb",), ("rgb", "flow"), ("z", "a", "m")])
def test_what_was_written_is_read_back_with_the_streams_in_their_order(tmp_path, names):
    features = write(tmp_path / "v.h5", make_features(names=names))
    stored = read_features(tmp_path / "v.h5")
    assert (stored.video_id, stored.provenance) == ("some/video", PROVENANCE)
    assert list(stored.features.streams) == list(names)
    for name in names:
        assert stored.features.streams[name].dtype == np.float32
        halves = features.streams[name].astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(stored.features.streams[name], halves)
    np.testing.assert_array_equal(stored.features.timestamps, features.timestamps)
    for name in ("snippet_len", "n_frames", "n_missing", "fps", "decoder"):
        assert getattr(stored.features, name) == getattr(features, name)


def test_a_dropped_tail_is_read_back_by_the_provenance(tmp_path):
    streams = {"rgb": np.ones((2, 2, 8), np.float32)}
    features = replace(make_features(), streams=streams, tail_policy=DROP_TAIL)
    provenance = {**PROVENANCE, "tail_policy": DROP_TAIL}
    path = tmp_path / "v.h5"
    write_features(path, features, provenance, video_id="v", source_name="v.mp4")
    stored = read_features(path).features
    assert (stored.n_frames, stored.n_snippets, stored.tail_policy) == (35, 2, DROP_TAIL)
    write_features(path, features, PROVENANCE, video_id="v", source_name="v.mp4")
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
        arrays = hashlib.sha256()
        for name in ("rgb", "flow", "timestamps"):
            arrays.update(json.dumps([name, *file[name].shape]).encode() + b"\n")
            arrays.update(file[name][()].tobytes())
    covered = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in attributes.items()
        if name != "header_sha256"
    }
    header = json.dumps(covered, sort_keys=True)
    assert json.loads(attributes.pop("provenance")) == PROVENANCE
    assert json.loads(attributes.pop("streams")) == ["rgb", "flow"]
    assert attributes == {
        "format": "lookaround features",
        "format_version": 3,
        "video_id": "some/video",
        "source_name": "video.mp4",
        "source_bytes": 7,
        "source_sha256": "00ff",
        "arrays_sha256": arrays.hexdigest(),
        "header_sha256": hashlib.sha256(header.encode()).hexdigest(),
        "snippet_len": 16,
        "n_frames": 35,
        "n_missing": 3,
        "fps": 23.976,
        "decoder": "pyav 18.0.0",
    }


def test_the_provenance_is_read_on_its_own(tmp_path):
    write(tmp_path / "v.h5")
    assert read_header(tmp_path / "v.h5").provenance == PROVENANCE


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
        assert read_header(tmp_path / "v.h5").provenance == PROVENANCE


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
    for read in (read_features, read_header):
        with pytest.raises(FeatureFileError, match=rf"v\.h5: .*{text}"):
            read(tmp_path / "v.h5")


def test_a_file_of_another_format_version_is_refused(tmp_path):
    write(tmp_path / "v.h5")
    with h5py.File(tmp_path / "v.h5", "r+") as file:
        file.attrs["format_version"] = 1
    for read in (read_features, read_header):
        with pytest.raises(
            FeatureFileError, match=r"v\.h5: has format version 1, but .* 3; extract into another"
        ):
            read(tmp_path / "v.h5")


def test_features_of_another_video_are_refused_by_name(tmp_path):
    write(tmp_path / "a.h5", video_id="a")
    assert read_features(tmp_path / "a.h5", video_id="a").video_id == "a"
    shutil.copy(tmp_path / "a.h5", tmp_path / "b.h5")
    with pytest.raises(
        FeatureFileError, match=r"b\.h5: holds the features of the video 'a', expected .*'b'"
    ):
        read_features(tmp_path / "b.h5", video_id="b")


def test_the_header_says_whose_features_they_are_and_of_which_file(tmp_path):
    write(tmp_path / "v.h5")
    header = read_header(tmp_path / "v.h5")
    assert (header.video_id, header.n_missing) == ("some/video", 3)
    assert header.source == Source(7, "00ff")
    write_features(tmp_path / "v.h5", make_features(), {}, video_id="v", source_name="none")
    assert read_header(tmp_path / "v.h5").source is None


@pytest.mark.parametrize("n_flips", [250, pytest.param(30_000, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_one_error_or_changes_nothing(tmp_path, n_flips):
    write(tmp_path / "whole.h5")
    whole = (tmp_path / "whole.h5").read_bytes()
    expected = read_features(tmp_path / "whole.h5")
    header = read_header(tmp_path / "whole.h5")
    path = tmp_path / "flipped.h5"
    rng = np.random.default_rng(n_flips)
    n_refused = 0
    for bit in rng.integers(8 * len(whole), size=n_flips).tolist():
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        message = str(path)
        try:
            found = read_features(path)
        except FeatureFileError as error:
            message = str(error)
            n_refused += 1
        else:
            assert (found.video_id, found.provenance) == (expected.video_id, expected.provenance)
            for name, values in expected.features.streams.items():
                np.testing.assert_array_equal(found.features.streams[name], values)
            np.testing.assert_array_equal(found.features.timestamps, expected.features.timestamps)
            for name in ("snippet_len", "n_frames", "n_missing", "fps", "decoder", "tail_policy"):
                assert getattr(found.features, name) == getattr(expected.features, name)
        assert message.startswith(str(path))
        assert "\n" not in message
        with suppress(FeatureFileError):
            assert read_header(path) == header
    assert n_refused > n_flips / 10


def test_a_folder_tells_the_precision_of_its_features(tmp_path):
    assert precision_of_folder(tmp_path) is None
    (tmp_path / "a.h5").write_bytes(b"damaged")
    write(tmp_path / "b.h5")
    provenance = {"precision": "bfloat16"}
    write_features(tmp_path / "c.h5", make_features(), provenance, video_id="c", source_name="c")
    assert precision_of_folder(tmp_path) == "bfloat16"


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
        ("provenance", "[1, 2]"),
        ("provenance", '{"a": [1]}'),
        ("provenance", "[" * 50_000),
    ],
)
def test_an_attribute_that_is_not_as_it_must_be_is_refused(tmp_path, name, value):
    write(tmp_path / "v.h5")
    with h5py.File(tmp_path / "v.h5", "r+") as file:
        del file.attrs[name]
        file.attrs[name] = np.bytes_(value) if isinstance(value, str) else value
    with pytest.raises(FeatureFileError, match=r"v\.h5: is not a whole feature file"):
        read_features(tmp_path / "v.h5")


def test_text_of_variable_length_is_read_as_ordinary_h5py_writes_it(tmp_path):
    write(tmp_path / "v.h5")
    with h5py.File(tmp_path / "v.h5", "r+") as file:
        decoder = file.attrs["decoder"].decode()
        del file.attrs["decoder"]
        file.attrs["decoder"] = decoder  # h5py's way with a str
        assert file.attrs.get_id("decoder").dtype.kind == "O"
    assert read_features(tmp_path / "v.h5").features.decoder == decoder


def test_a_damaged_heap_of_text_is_refused_before_hdf5_reads_it(tmp_path):
    """HDF5 itself never returns from the first of these."""
    path = tmp_path / "v.h5"
    write(path)
    with h5py.File(path, "r+") as file:
        del file.attrs["decoder"], file.attrs["video_id"]
        file.attrs["decoder"], file.attrs["video_id"] = "pyav 18.0.0", "v"
    content = path.read_bytes()
    heap = content.index(b"GCOL\x01")
    for position, value in ((heap + 24, 200), (heap + 15, 255), (heap + 9, 255)):
        damaged = bytearray(content)
        damaged[position] = value
        path.write_bytes(damaged)
        with pytest.raises(FeatureFileError, match="its text is damaged"):
            read_features(path)


def test_a_file_without_what_other_programs_need_not_write_is_read(tmp_path):
    write(tmp_path / "v.h5")
    before = read_features(tmp_path / "v.h5")
    with h5py.File(tmp_path / "v.h5", "r+") as file:
        for name in DEFAULTS:
            del file.attrs[name]
    after = read_features(tmp_path / "v.h5")
    assert after.features.n_missing == 0
    assert after.features.decoder == "not known"
    assert after.provenance == before.provenance
    for name, values in before.features.streams.items():
        np.testing.assert_array_equal(after.features.streams[name], values)
    assert read_header(tmp_path / "v.h5").source is None


def test_times_that_nobody_knows_are_kept_as_not_known(tmp_path):
    features = Features(
        streams={"rgb": np.ones((2, 1, 3), np.float32)},
        snippet_len=16,
        n_frames=32,
        n_missing=0,
        fps=math.nan,
        timestamps=np.full(32, math.nan),
        decoder="none",
    )
    path = tmp_path / "v.h5"
    write_features(path, features, {"extractor": "x"}, video_id="v", source_name="v.npy")
    read = read_features(path).features
    assert not read.has_times
    assert np.isnan(read.timestamps).all()
    with pytest.raises(ValueError, match="timestamps must be finite"):
        replace(features, fps=25.0)


def test_a_missing_attribute_or_array_is_named(tmp_path):
    for name in ("fps", "provenance"):
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
    assert provenance_differences(expected, found) == words


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
