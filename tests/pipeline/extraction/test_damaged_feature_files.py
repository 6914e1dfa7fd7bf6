"""Files that are cut short, damaged, foreign or hostile are refused in one line."""

import math
import shutil
from contextlib import suppress
from dataclasses import replace

import h5py
import numpy as np
import pytest

from extractors.features import Features
from pipeline.extraction.feature_file import (
    DEFAULTS,
    FeatureFileError,
    read_features,
    read_header,
    write_features,
)


def test_a_file_cut_short_anywhere_is_refused_in_one_line(write_file, tmp_path):
    write_file(tmp_path / "whole.h5")
    whole = (tmp_path / "whole.h5").read_bytes()
    path = tmp_path / "cut.h5"
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(FeatureFileError, match=r"cut\.h5: .*extract the video again") as caught:
            read_features(path)
        assert "\n" not in str(caught.value)


def test_damaged_bytes_give_features_or_one_error_and_never_another(write_file, tmp_path):
    write_file(tmp_path / "whole.h5")
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


def test_a_file_of_another_format_version_is_refused(write_file, tmp_path):
    write_file(tmp_path / "v.h5")
    with h5py.File(tmp_path / "v.h5", "r+") as file:
        file.attrs["format_version"] = 1
    for read in (read_features, read_header):
        with pytest.raises(
            FeatureFileError, match=r"v\.h5: has format version 1, but .* 3; extract into another"
        ):
            read(tmp_path / "v.h5")


def test_features_of_another_video_are_refused_by_name(write_file, tmp_path):
    write_file(tmp_path / "a.h5", video_id="a")
    assert read_features(tmp_path / "a.h5", video_id="a").video_id == "a"
    shutil.copy(tmp_path / "a.h5", tmp_path / "b.h5")
    with pytest.raises(
        FeatureFileError, match=r"b\.h5: holds the features of the video 'a', expected .*'b'"
    ):
        read_features(tmp_path / "b.h5", video_id="b")


@pytest.mark.parametrize("n_flips", [250, pytest.param(30_000, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_one_error_or_changes_nothing(write_file, tmp_path, n_flips):
    write_file(tmp_path / "whole.h5")
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
def test_an_attribute_that_is_not_as_it_must_be_is_refused(write_file, tmp_path, name, value):
    write_file(tmp_path / "v.h5")
    with h5py.File(tmp_path / "v.h5", "r+") as file:
        del file.attrs[name]
        file.attrs[name] = np.bytes_(value) if isinstance(value, str) else value
    with pytest.raises(FeatureFileError, match=r"v\.h5: is not a whole feature file"):
        read_features(tmp_path / "v.h5")


def test_text_of_variable_length_is_read_as_ordinary_h5py_writes_it(write_file, tmp_path):
    write_file(tmp_path / "v.h5")
    with h5py.File(tmp_path / "v.h5", "r+") as file:
        decoder = file.attrs["decoder"].decode()
        del file.attrs["decoder"]
        file.attrs["decoder"] = decoder  # h5py's way with a str
        assert file.attrs.get_id("decoder").dtype.kind == "O"
    assert read_features(tmp_path / "v.h5").features.decoder == decoder


def test_a_damaged_heap_of_text_is_refused_before_hdf5_reads_it(write_file, tmp_path):
    """HDF5 itself never returns from the first of these."""
    path = tmp_path / "v.h5"
    write_file(path)
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


def test_a_file_without_what_other_programs_need_not_write_is_read(write_file, tmp_path):
    write_file(tmp_path / "v.h5")
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


def test_a_missing_attribute_or_array_is_named(write_file, tmp_path):
    for name in ("fps", "provenance"):
        write_file(tmp_path / "v.h5")
        with h5py.File(tmp_path / "v.h5", "r+") as file:
            del file.attrs[name]
        with pytest.raises(FeatureFileError, match=f"attribute {name} is missing"):
            read_features(tmp_path / "v.h5")
    for name in ("flow", "timestamps"):
        write_file(tmp_path / "v.h5")
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
def test_only_plain_arrays_within_the_file_are_read(write_file, tmp_path, change):
    write_file(tmp_path / "secret.h5")
    write_file(tmp_path / "v.h5")
    with h5py.File(tmp_path / "v.h5", "r+") as file:
        change(file, tmp_path / "secret.h5")
    with pytest.raises(FeatureFileError, match=r"v\.h5: is not a whole feature file \(.*rgb"):
        read_features(tmp_path / "v.h5")
