"""Notes on failures, and the table of what became of every video."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from extractors.features import Features
from pipeline.datasets.catalog import Dataset, VideoEntry
from pipeline.extraction.feature_file import FeatureFileError, write_features
from pipeline.extraction.status import (
    Failure,
    StatusTable,
    forget_failure,
    note_failure,
    read_failure,
)

CRASH = Failure("day/a.b", "DecoderDied", 'it "died",\twith SIGSEGV: ü', is_quarantined=True)


def test_a_failure_is_remembered_until_it_is_forgotten(tmp_path: Path) -> None:
    assert read_failure(tmp_path, CRASH.video_id) is None
    note_failure(tmp_path, CRASH)
    assert read_failure(tmp_path, CRASH.video_id) == CRASH
    assert read_failure(tmp_path, "day/a") is None
    forget_failure(tmp_path, CRASH.video_id)
    forget_failure(tmp_path, CRASH.video_id)
    assert read_failure(tmp_path, CRASH.video_id) is None


@pytest.mark.parametrize("note", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b" " * 100_000])
def test_a_damaged_note_counts_for_nothing_with_a_warning(
    tmp_path: Path, note: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.failed.json").write_bytes(note)
    assert read_failure(tmp_path, "a") is None
    assert "a.failed.json: is not a record of a failed video and is ignored" in caplog.text


@pytest.mark.parametrize("length", [243, 244, 252])
def test_the_failure_of_a_video_with_a_long_name_is_remembered(tmp_path: Path, length: int) -> None:
    failures = [Failure(letter * length, "VideoError", letter, False) for letter in "xy"]
    for failure in failures:
        note_failure(tmp_path, failure)
    assert [read_failure(tmp_path, failure.video_id) for failure in failures] == failures


def test_a_note_that_cannot_be_written_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "day").write_text("in the way of a folder")
    note_failure(tmp_path, CRASH)
    assert "a.b.failed.json: cannot be written" in caplog.text
    assert read_failure(tmp_path, CRASH.video_id) is None


@pytest.mark.parametrize("video_id", ["../a", "/a", "a/../../b"])
def test_no_note_leaves_its_folder(tmp_path: Path, video_id: str) -> None:
    with pytest.raises(FeatureFileError, match="must be a relative path that stays in the folder"):
        note_failure(tmp_path / "features", Failure(video_id, "VideoError", "", False))


@pytest.fixture
def write_feature_file(features_of: Callable[..., Features]) -> Callable[[Path, int], None]:
    """A function that writes features of one snippet, some frames of the video missing."""

    def write(path: Path, n_missing: int) -> None:
        features = features_of({"rgb": np.ones((1, 1, 4), np.float32)}, n_missing=n_missing)
        write_features(path, features, {}, video_id=path.stem, source_name="none")

    return write


def test_the_table_says_of_every_video_what_became_of_it(
    tmp_path: Path, write_feature_file: Callable[[Path, int], None]
) -> None:
    ids = ("done", "broken", "day/a.b", "waits", "absent", "cut", "lossy", "index", "red\x1b[31m\n")
    entries = tuple(VideoEntry(i, tmp_path / f"{i}.mp4", "train", 0) for i in ids)
    for video_id in ("done", "broken", "waits"):
        (tmp_path / f"{video_id}.mp4").touch()
    folder = tmp_path / "features"
    folder.mkdir()
    write_feature_file(folder / "done.h5", 0)
    write_feature_file(folder / "lossy.h5", 7)
    (folder / "cut.h5").write_bytes((folder / "done.h5").read_bytes()[:500])
    note_failure(folder, Failure("broken", "VideoError", "no\x07 video", is_quarantined=False))
    note_failure(folder, CRASH)
    table = StatusTable(folder, Dataset("some", entries))
    for _ in range(2):
        with table.write().open(newline="") as file:
            rows = list(csv.reader(file))
        assert rows[:6] == [
            ["video_id", "status", "n_missing", "error", "message"],
            ["done", "done", "0", "", ""],
            ["broken", "failed", "", "VideoError", r"no\x07 video"],
            ["day/a.b", "quarantined", "", "DecoderDied", CRASH.reason.replace("\t", r"\t")],
            ["waits", "waiting", "", "", ""],
            ["absent", "missing", "", "", ""],
        ]
        assert [row[:4] for row in rows[6:]] == [
            ["cut", "damaged", "", "DamagedFileError"],
            ["lossy", "done", "7", ""],
            ["index", "failed", "", "FeatureFileError"],
            [r"red\x1b[31m\n", "missing", "", ""],
        ]
    write_feature_file(folder / "cut.h5", 2)
    with table.write().open(newline="") as file:
        assert list(csv.reader(file))[6][1:3] == ["done", "2"]
