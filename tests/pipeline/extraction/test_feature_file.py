"""The feature file against h5py itself, against damage, and against files made with bad intent."""

import fcntl
import hashlib
import json
import resource
from dataclasses import replace

import h5py
import numpy as np
import pytest

from extractors.snippets import DROP_TAIL
from pipeline.extraction.feature_file import (
    FeatureFileError,
    provenance_differences,
    read_features,
    read_header,
    write_features,
)
from pipeline.extraction.video_digest import Source

PROVENANCE = {"extractor": "i3d", "n_crops": 2, "flow_tau": 0.25, "is_pretrained": False}


@pytest.mark.parametrize("names", [("rgb",), ("rgb", "flow"), ("z", "a", "m")])
def test_what_was_written_is_read_back_with_the_streams_in_their_order(
    make_features, write_file, tmp_path, names
):
    features = write_file(tmp_path / "v.h5", make_features(names=names))
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


def test_a_dropped_tail_is_read_back_by_the_provenance(make_features, tmp_path):
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


def test_the_layout_is_what_other_programs_are_told(write_file, tmp_path):
    write_file(tmp_path / "v.h5")
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


def test_the_provenance_is_read_on_its_own(write_file, tmp_path):
    write_file(tmp_path / "v.h5")
    assert read_header(tmp_path / "v.h5").provenance == PROVENANCE


def test_writing_again_replaces_the_file(make_features, write_file, tmp_path):
    write_file(tmp_path / "v.h5")
    write_file(tmp_path / "v.h5", make_features(n_frames=100))
    assert read_features(tmp_path / "v.h5").features.n_frames == 100
    assert list(tmp_path.iterdir()) == [tmp_path / "v.h5"]


def test_a_value_beyond_float16_names_the_stream_and_leaves_the_old_file(
    make_features, write_file, tmp_path
):
    write_file(tmp_path / "v.h5")
    before = (tmp_path / "v.h5").read_bytes()
    features = make_features()
    features.streams["flow"][1, 0, 3] = 70_000
    with pytest.raises(FeatureFileError, match=r"v\.h5: stream flow must fit float16.*70000"):
        write_file(tmp_path / "v.h5", features)
    assert (tmp_path / "v.h5").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "v.h5"]


def test_a_full_disk_leaves_nothing_behind(make_features, write_file, tmp_path):
    limit, hard_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard_limit))
    try:
        with pytest.raises(FeatureFileError, match=r"v\.h5: cannot be written \(File too large\)"):
            write_file(tmp_path / "v.h5", make_features(n_frames=3000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard_limit))
    assert not list(tmp_path.iterdir())


def test_a_file_that_somebody_has_locked_can_be_read(write_file, tmp_path):
    write_file(tmp_path / "v.h5")
    with (tmp_path / "v.h5").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            h5py.File(tmp_path / "v.h5", locking=True)
        assert read_header(tmp_path / "v.h5").provenance == PROVENANCE


def test_the_header_says_whose_features_they_are_and_of_which_file(
    make_features, write_file, tmp_path
):
    write_file(tmp_path / "v.h5")
    header = read_header(tmp_path / "v.h5")
    assert (header.video_id, header.n_missing) == ("some/video", 3)
    assert header.source == Source(7, "00ff")
    write_features(tmp_path / "v.h5", make_features(), {}, video_id="v", source_name="none")
    assert read_header(tmp_path / "v.h5").source is None


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
def test_differences_between_provenances_are_described(expected, found, words):
    assert provenance_differences(expected, found) == words
