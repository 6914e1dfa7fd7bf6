"""XD-Violence: the lists, and finding the videos in folders as they are downloaded."""

import hashlib
import re
from collections import Counter

import pytest

from pipeline.datasets import load_dataset
from pipeline.datasets.catalog import DatasetError, frame_labels
from pipeline.datasets.xd_violence import (
    categories_of,
    load_xd_violence,
    read_annotations,
    read_names,
)

TRAIN, TEST = read_names("train_videos.txt"), read_names("test_videos.txt")


def put(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.mp4").touch()


def found_ids(folder):
    return [e.video_id for e in load_xd_violence(folder).entries if e.path.exists()]


def test_the_lists_have_the_published_counts():
    assert (len(TRAIN), len(TEST)) == (3954, 800)
    assert len({*TRAIN, *TEST}) == 4754
    assert Counter(name.endswith("_label_A") for name in TRAIN) == {True: 2049, False: 1905}
    assert Counter(name.endswith("_label_A") for name in TEST) == {True: 300, False: 500}


def test_the_annotations_cover_the_violent_test_videos_and_no_other():
    annotations = read_annotations()

    assert set(annotations) == {name for name in TEST if not name.endswith("_label_A")}
    for intervals in annotations.values():
        assert intervals
        assert all(0 <= start < stop for start, stop in intervals)
    # 537,805 of them lie within the videos; the rest is beyond their ends.
    assert sum(b - a for intervals in annotations.values() for a, b in intervals) == 538324


def test_annotated_names_with_a_suffix_are_those_of_the_list():
    assert read_annotations()["v=U6MC8JJJZSY__#1_label_G-0-0"] == ((150, 779),)


def test_a_name_says_what_is_violent_about_the_video():
    assert categories_of("Bad.Boys.1995__#01-11-55_01-12-40_label_G-B2-B6") == (
        "explosion",
        "shooting",
        "car accident",
    )
    seen = Counter(word for name in TRAIN + TEST for word in categories_of(name))
    assert set(seen) == {"fighting", "shooting", "riot", "abuse", "car accident", "explosion"}
    assert sum(1 for name in TRAIN + TEST if not categories_of(name)) == 2349


def test_videos_are_found_anywhere_below_the_folder(tmp_path):
    normal, violent = TRAIN[0], next(name for name in TRAIN if not name.endswith("_A"))
    tested = "v=S-7rRLrxnVQ__#1_label_B4-0-0"
    put(tmp_path / "1-1004", normal)
    put(tmp_path / "deep" / "er", violent)
    put(tmp_path, tested, "a_video_of_another_dataset")
    (tmp_path / f"{TRAIN[5]}.txt").touch()

    dataset = load_xd_violence(tmp_path)

    assert dataset.name == "xd_violence"
    assert [len(dataset.split(split)) for split in ("train", "val", "test")] == [3954, 0, 800]
    assert len(dataset.missing_videos()) == 4754 - 3
    there = {entry.video_id: entry for entry in dataset.entries if entry.path.exists()}
    assert {name: (e.split, e.label) for name, e in there.items()} == {
        normal: ("train", 0),
        violent: ("train", 1),
        tested: ("test", 1),
    }
    assert there[tested].anomalies == ((0, 1517), (1970, 3038))
    assert there[tested].categories == ("riot",)
    assert frame_labels(there[tested], 3038).sum() == 1517 + 3038 - 1970
    assert not there[violent].has_frame_labels


def test_names_with_odd_characters_are_found_and_kept_as_ids(tmp_path):
    odd = [
        name
        for name in TRAIN + TEST
        if re.search(r"\.\.\.|@|v=-|__#1_|___", name)  # dots, signs, leading dashes
    ]
    assert len(odd) > 100
    put(tmp_path, *odd)

    assert found_ids(tmp_path) == odd


def test_the_order_is_that_of_the_lists_whatever_the_folders_are(tmp_path):
    for index, name in enumerate(TRAIN[:3] + TEST[:3]):
        put(tmp_path / f"folder_{9 - index}", name)

    assert [e.video_id for e in load_xd_violence(tmp_path).entries] == TRAIN + TEST


def test_links_to_folders_are_followed_and_circles_end(tmp_path):
    put(tmp_path / "disk", TRAIN[0])
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "part1").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(videos)

    assert found_ids(videos) == [TRAIN[0]]


def test_two_files_of_one_name_are_refused(tmp_path):
    put(tmp_path / "a", TRAIN[0])
    put(tmp_path / "b", TRAIN[0])

    with pytest.raises(DatasetError) as caught:
        load_dataset("xd_violence", tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: holds two videos of one name, {tmp_path / 'a' / TRAIN[0]}.mp4 and "
        f"{tmp_path / 'b' / TRAIN[0]}.mp4; remove one"
    )


def test_all_are_listed_where_no_video_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = load_dataset("xd_violence")

    assert len(dataset.entries) == len(dataset.missing_videos()) == 4754
    assert dataset.entries[0].path.as_posix() == f"data/xd_violence/{TRAIN[0]}.mp4"
    assert dataset.how_to_get == (
        "get the videos from https://roc-ng.github.io/XD-Violence/ and name their folder "
        "with --videos"
    )


@pytest.mark.real
def test_the_lists_are_those_of_the_shared_annotations(shared_folder):
    folder = shared_folder / "data/annotations/xd_violence"
    assert (folder / "train_videos.txt").read_text().split() == TRAIN
    assert (folder / "test_videos.txt").read_text().split() == TEST
    digest = hashlib.sha256((folder / "annotations.txt").read_bytes()).hexdigest()
    assert digest == "27b583ba06fe2e096d7e3d281845365c3b24de7e30797ae5c1ec771667e04c2f"
