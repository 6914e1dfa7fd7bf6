"""Notes on failures, and the table of what became of every video."""

import csv
from pathlib import Path

import pytest

from pipeline.datasets.catalog import Dataset, VideoEntry
from pipeline.extraction_status import (
    Failure,
    forget_failure,
    note_failure,
    read_failure,
    write_status,
)
from pipeline.feature_file import FeatureFileError

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
def test_a_note_that_is_none_is_an_error_with_its_remedy(tmp_path: Path, note: bytes) -> None:
    (tmp_path / "a.failed.json").write_bytes(note)
    with pytest.raises(FeatureFileError, match=r"a.failed.json: is not a note .* remove it"):
        read_failure(tmp_path, "a")


@pytest.mark.parametrize("video_id", ["../a", "/a", "a/../../b"])
def test_no_note_leaves_its_folder(tmp_path: Path, video_id: str) -> None:
    with pytest.raises(FeatureFileError, match="must be a relative path that stays in the folder"):
        note_failure(tmp_path / "features", Failure(video_id, "VideoError", "", False))


def test_the_table_says_of_every_video_what_became_of_it(tmp_path: Path) -> None:
    ids = ("done", "broken", "day/a.b", "waits", "absent")
    entries = tuple(VideoEntry(i, tmp_path / f"{i}.mp4", "train", 0) for i in ids)
    for video_id in ("done", "broken", "waits"):
        (tmp_path / f"{video_id}.mp4").touch()
    folder = tmp_path / "features"
    folder.mkdir()
    (folder / "done.h5").touch()
    note_failure(folder, Failure("broken", "VideoError", "no video", is_quarantined=False))
    note_failure(folder, CRASH)
    with write_status(folder, Dataset("some", entries)).open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["video_id", "status", "error", "message"],
        ["done", "done", "", ""],
        ["broken", "failed", "VideoError", "no video"],
        ["day/a.b", "quarantined", "DecoderDied", CRASH.reason],
        ["waits", "waiting", "", ""],
        ["absent", "missing", "", ""],
    ]
