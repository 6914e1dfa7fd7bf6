"""Checking a dataset: missing, unreadable, duplicate and extra videos."""

import os
from pathlib import Path

from pipeline.datasets import load_dataset
from pipeline.datasets.check import SplitCount, check_dataset
from pipeline.progress import Progress

HEADER = "path,split,label,anomalies\n"


def check(name, folder=None, *, allow_outside=False, **options):
    dataset = load_dataset(name, folder, allow_outside=allow_outside, allow_duplicates=True)
    return check_dataset(dataset, **options)


def test_a_whole_dataset_has_nothing_to_tell(tmp_path, put_videos):
    put_videos(tmp_path, "a.mp4", "day/b.mp4")
    (tmp_path / "mine.csv").write_text(HEADER + "a.mp4,train,1,\nday/b.mp4,test,0,\n")
    reports: list[Progress] = []

    checked = check(tmp_path / "mine.csv", report=reports.append)

    assert checked.is_complete
    assert checked.describe() == [
        "train     1 videos: 0 normal, 1 anomalous; 1 found",
        "val       0 videos: 0 normal, 0 anomalous; 0 found",
        "test      1 videos: 1 normal, 0 anomalous; 1 found",
    ]
    assert [(report.done, report.total) for report in reports] == [(1, 2), (2, 2)]


def test_missing_unreadable_copied_and_extra_files_are_listed(tmp_path, put_videos):
    put_videos(tmp_path, "good.mp4", "other.mp4")
    (tmp_path / "half.mp4").write_bytes((tmp_path / "good.mp4").read_bytes()[:300])
    (tmp_path / "empty.avi").touch()
    (tmp_path / "copy.mp4").write_bytes((tmp_path / "good.mp4").read_bytes())
    (tmp_path / "notes.txt").write_text("no video")
    rows = ["good.mp4,train,0,", "half.mp4,train,0,", "empty.avi,train,0,", "gone.mp4,test,1,"]
    (tmp_path / "mine.csv").write_text(HEADER + "\n".join(rows) + "\n")

    checked = check(tmp_path / "mine.csv")

    assert not checked.is_complete
    assert checked.missing == (tmp_path / "gone.mp4",)
    assert [path.name for path, _ in checked.unreadable] == ["half.mp4", "empty.avi"]
    assert checked.unreadable[1][1] == f"{tmp_path / 'empty.avi'} is empty (0 bytes); copy it again"
    assert checked.copies == ((tmp_path / "good.mp4", tmp_path / "copy.mp4"),)
    assert checked.extra == (tmp_path / "other.mp4",)
    assert checked.unannotated == (tmp_path / "gone.mp4",)
    assert checked.describe()[0] == "train     3 videos: 3 normal, 0 anomalous; 3 found"


def test_one_video_in_two_splits_under_two_names_is_called_so(tmp_path, put_videos):
    put_videos(tmp_path, "a.mp4", "b.mp4")
    for name, copied in (("test.mp4", "a.mp4"), ("again.mp4", "b.mp4"), ("unlisted.mp4", "b.mp4")):
        (tmp_path / name).write_bytes((tmp_path / copied).read_bytes())
    rows = "a.mp4,train,1,\nb.mp4,train,0,\ntest.mp4,test,0,\nagain.mp4,train,0,\n"
    (tmp_path / "mine.csv").write_text(HEADER + rows)

    checked = check(tmp_path / "mine.csv")

    assert checked.leaks == ((tmp_path / "a.mp4", tmp_path / "test.mp4"),)
    lines = [line.replace(f"{tmp_path}/", "") for line in checked.describe()[3:]]
    assert sorted(lines) == [
        "same content in different splits: a.mp4, test.mp4",
        "same content: b.mp4, again.mp4, unlisted.mp4",
    ]


def test_broken_links_and_pipes_do_not_stop_the_check(tmp_path, put_videos):
    put_videos(tmp_path, "a.mp4")
    (tmp_path / "b.mp4").symlink_to("gone")
    os.mkfifo(tmp_path / "c.mp4")
    (tmp_path / "mine.csv").write_text(HEADER + "a.mp4,train,1,\nb.mp4,train,0,\n")

    checked = check(tmp_path / "mine.csv", allow_outside=True)

    assert (checked.missing, checked.extra) == ((tmp_path / "b.mp4",), ())


def test_counts_that_differ_from_the_published_ones_show_both():
    same = SplitCount("test", 150, 140, 12, (150, 140))
    other = SplitCount("test", 150, 139, 12, (150, 140))

    assert same.describe().endswith("; 12 found; listed as published")
    assert other.describe().endswith("; 12 found; published: 150 normal, 140 anomalous")


def test_a_copy_that_comes_with_ucf_crime_is_told_and_does_no_harm(tmp_path, put_videos):
    listed = "Testing_Normal_Videos_Anomaly/Normal_Videos_015_x264.mp4"
    (original,) = put_videos(tmp_path, listed)
    copy = tmp_path / "Normal_Videos_for_Event_Recognition" / original.name
    copy.parent.mkdir()
    copy.write_bytes(original.read_bytes())

    dataset = load_dataset("ucf_crime", tmp_path)

    (entry,) = [e for e in dataset.entries if e.video_id == "Normal_Videos_015_x264"]
    assert entry.path == original
    checked = check("ucf_crime", tmp_path)
    assert checked.copies == ((original, copy),)
    assert (checked.extra, checked.ambiguous, len(checked.missing)) == ((), (), 1899)


def test_two_files_that_may_be_meant_are_listed_and_refused_elsewhere(tmp_path, put_videos):
    paths = put_videos(tmp_path, "a/Abuse001_x264.mp4", "b/Abuse001_x264.mp4")

    checked = check("ucf_crime", tmp_path)

    assert checked.ambiguous == (tuple(paths),)
    assert not checked.is_complete
    assert f"several files for one video: {paths[0]}, {paths[1]}" in checked.describe()


def test_a_folder_that_does_not_exist_has_no_videos():
    checked = check("avenue", Path("/nowhere"))
    assert (len(checked.missing), checked.extra) == (37, ())


def test_another_folder_is_one_line_that_says_how_to_get_the_videos(tmp_path):
    lines = check_dataset(load_dataset("ucf_crime", tmp_path)).describe()
    assert [line for line in lines if line.startswith("missing")] == [
        f"missing: all 1900 videos, first {tmp_path}/Abuse/Abuse001_x264.mp4; get the videos from "
        "https://www.crcv.ucf.edu/projects/real-world/ and name their folder with --videos"
    ]
