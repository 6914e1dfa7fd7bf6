"""The published datasets in miniature copies of their official layouts."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets import DATASETS, load_dataset
from pipeline.datasets.catalog import DatasetError, frame_labels
from pipeline.datasets.check import check_dataset
from pipeline.datasets.shanghaitech import parse_annotations as parse_shanghaitech
from pipeline.datasets.ubnormal import parse_tracks
from pipeline.datasets.ucf_crime import parse_annotations as parse_ucf
from pipeline.datasets.ucf_crime import read_test_frame_counts
from pipeline.datasets.xd_violence import parse_annotations as parse_xd
from pipeline.scoring.score_files import find_videos

# (video_id, split, label, classes) of files as they lie in the official archives.
LAYOUTS = {
    "ucf_crime": {
        "Anomaly-Videos-Part-1/Abuse/Abuse001_x264.mp4": ("Abuse001_x264", "train", 1, ("Abuse",)),
        "Anomaly-Videos-Part-1/Abuse/Abuse028_x264.mp4": ("Abuse028_x264", "test", 1, ("Abuse",)),
        "Training-Normal-Videos-Part-1/Normal_Videos001_x264.mp4": (
            *("Normal_Videos001_x264", "train", 0, ()),
        ),
        "Testing_Normal_Videos_Anomaly/Normal_Videos_003_x264.mp4": (
            *("Normal_Videos_003_x264", "test", 0, ()),
        ),
    },
    "shanghaitech": {
        "shanghaitech/training/videos/01_001.avi": ("01_001", "test", 0, ()),
        "shanghaitech/training/videos/01_002.avi": ("01_002", "train", 0, ()),
        "shanghaitech/testing/videos/01_0014.avi": ("01_0014", "train", 1, ()),
        "converted/01_0015.mp4": ("01_0015", "test", 1, ()),
    },
    "ubnormal": {
        "UBnormal/Scene11/abnormal_scene_11_scenario_3.mp4": (
            *("abnormal_scene_11_scenario_3", "train", 1, ()),
        ),
        "UBnormal/Scene1/normal_scene_1_scenario2_3.mp4": (
            *("normal_scene_1_scenario2_3", "train", 0, ()),
        ),
        "UBnormal/Scene11/normal_scene_11_scenario_6_1.mp4": (
            *("normal_scene_11_scenario_6_1", "train", 0, ()),
        ),
        "UBnormal/Scene10/abnormal_scene_10_scenario_2.mp4": (
            *("abnormal_scene_10_scenario_2", "val", 1, ()),
        ),
        "UBnormal/Scene10/abnormal_scene_10_scenario_1.mp4": (
            *("abnormal_scene_10_scenario_1", "test", 1, ()),
        ),
    },
    "avenue": {
        "Avenue Dataset/training_videos/01.avi": ("training_videos/01", "train", 0, ()),
        "Avenue Dataset/training_videos/02.avi": ("training_videos/02", "test", 0, ()),
        "Avenue Dataset/testing_videos/01.avi": ("testing_videos/01", "train", 1, ()),
        "Avenue Dataset/testing_videos/02.avi": ("testing_videos/02", "test", 1, ()),
    },
    "xd_violence": {
        "1-1004/v=-fOWSLV6Esw__#1_label_B4-0-0.mp4": (
            *("v=-fOWSLV6Esw__#1_label_B4-0-0", "test", 1, ("riot",)),
        ),
        "videos/A.Beautiful.Mind.2001__#00-01-45_00-02-50_label_A.mp4": (
            *("A.Beautiful.Mind.2001__#00-01-45_00-02-50_label_A", "train", 0, ()),
        ),
    },
}
COUNTS = {
    "ucf_crime": {"train": (800, 810), "val": (0, 0), "test": (150, 140)},
    "xd_violence": {"train": (2049, 1905), "val": (0, 0), "test": (300, 500)},
    "shanghaitech": {"train": (175, 63), "val": (0, 0), "test": (155, 44)},
    "ubnormal": {"train": (186, 82), "val": (26, 38), "test": (53, 158)},
    "avenue": {"train": (8, 11), "val": (0, 0), "test": (8, 10)},
}


def of_id(dataset):
    return {entry.video_id: entry for entry in dataset.entries}


def test_every_registered_dataset_of_the_field_has_a_miniature_copy():
    assert set(LAYOUTS) == set(COUNTS) == set(DATASETS) - {"microworld"}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_official_layout_is_read(name, tmp_path, put_videos):
    put_videos(tmp_path, *LAYOUTS[name])

    dataset = load_dataset(name, tmp_path)

    for path, (video_id, split, label, classes) in LAYOUTS[name].items():
        entry = of_id(dataset)[video_id]
        assert entry.path == tmp_path / path
        assert (entry.split, entry.label, entry.categories) == (split, label, classes)
    checked = check_dataset(dataset)
    assert (checked.unreadable, checked.extra, checked.copies) == ((), (), ())
    assert len(checked.missing) == len(dataset.entries) - len(LAYOUTS[name])


@pytest.mark.parametrize("name", COUNTS)
def test_the_lists_have_the_published_counts_and_avenue_those_of_our_split(name):
    dataset = load_dataset(name, Path("/nowhere"))
    counted = Counter((entry.split, entry.label) for entry in dataset.entries)
    for split, (n_normal, n_anomalous) in COUNTS[name].items():
        assert (counted[split, 0], counted[split, 1]) == (n_normal, n_anomalous)
        if name != "avenue":  # whose weakly supervised split is our own
            assert dataset.published_counts.get(split, (0, 0)) == (n_normal, n_anomalous)
    assert (name == "avenue") == (dataset.published_counts == {})
    assert len(of_id(dataset)) == len(dataset.entries)


@pytest.mark.parametrize("name", LAYOUTS)
def test_frame_labels_are_given_to_the_anomalous_test_videos_alone(name):
    for entry in load_dataset(name, Path("/nowhere")).entries:
        if entry.split == "test" and name != "ubnormal":
            assert entry.has_frame_labels
        if entry.label == 0:
            assert entry.anomalies == ()


def test_ucf_crime_has_13_classes_with_the_published_number_of_test_videos():
    test = load_dataset("ucf_crime", Path("/nowhere")).split("test")
    assert Counter(name for entry in test for name in entry.categories) == {
        **{"RoadAccidents": 23, "Shooting": 23, "Explosion": 21, "Shoplifting": 21},
        **{"Burglary": 13, "Arson": 9, "Arrest": 5, "Fighting": 5, "Robbery": 5, "Stealing": 5},
        **{"Vandalism": 5, "Assault": 3, "Abuse": 2},
    }


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_half_extracted_archive_is_told(name, tmp_path, put_videos):
    whole, half, *_ = put_videos(tmp_path, *LAYOUTS[name])
    half.write_bytes(half.read_bytes()[:100])

    checked = check_dataset(load_dataset(name, tmp_path))

    assert [path for path, _ in checked.unreadable] == [half]
    assert not checked.is_complete
    assert whole not in checked.missing


@pytest.mark.parametrize("suffix", [".3gp", ".ASF", ".m2ts", ".mts", ".mxf", ".ogv", ".wmv"])
def test_a_video_is_found_by_each_suffix_by_which_score_finds_it(tmp_path, suffix):
    path = tmp_path / f"copies/Abuse028_x264{suffix}"
    path.parent.mkdir()
    path.touch()
    paths = {entry.video_id: entry.path for entry in load_dataset("ucf_crime", tmp_path).entries}
    assert paths["Abuse028_x264"] == path
    (found,) = find_videos([tmp_path])
    assert found.path == path


def test_avenue_videos_outside_their_official_folders_are_not_guessed(tmp_path, put_videos):
    put_videos(tmp_path, "01.avi", "Train/02.avi")
    dataset = load_dataset("avenue", tmp_path)
    checked = check_dataset(dataset)
    assert len(checked.missing) == 37
    assert checked.extra == (tmp_path / "01.avi", tmp_path / "Train/02.avi")


def test_avenue_files_of_one_name_are_told_apart_by_their_folder(tmp_path, put_videos):
    put_videos(tmp_path, "testing_videos/03.avi")
    found = [e.video_id for e in load_dataset("avenue", tmp_path).entries if e.path.exists()]
    assert found == ["testing_videos/03"]


def test_folders_and_files_with_odd_names_are_no_obstacle(tmp_path, put_videos):
    odd = tmp_path / "-видео & 映像 #1" / ("x" * 200) / "Bad.Boys & co."
    name = "Bullet.in.the.Head.1990__#00-17-20_00-18-55_label_B1-0-0"
    put_videos(odd, f"{name}.mp4", "-ß & #映像.mp4", ".hidden.avi")

    dataset = load_dataset("xd_violence", tmp_path)

    assert of_id(dataset)[name].path == odd / f"{name}.mp4"
    checked = check_dataset(dataset)
    assert checked.unreadable == ()
    assert set(checked.extra) == {odd / "-ß & #映像.mp4", odd / ".hidden.avi"}


def test_ubnormal_reads_the_tracks_beside_a_video_with_the_last_frame_included(
    tmp_path, put_videos
):
    name = "abnormal_scene_10_scenario_1"
    (video,) = put_videos(tmp_path, f"Scene10/{name}.mp4")
    tracks = video.parent / f"{name}_annotations" / f"{name}_tracks.txt"
    tracks.parent.mkdir()
    tracks.write_text("1,3,5\n2.0,5.0,6.0\n\n")

    entry = of_id(load_dataset("ubnormal", tmp_path))[name]

    assert frame_labels(entry, 9).tolist() == [3 <= frame <= 6 for frame in range(9)]
    tracks.write_text("1,3\n")
    with pytest.raises(DatasetError) as caught:
        load_dataset("ubnormal", tmp_path)
    assert str(caught.value).startswith(f"{tracks}: is not a list of tracks (")
    tracks.write_text("1,3,5\n" * 200_000)
    with pytest.raises(DatasetError, match="has more than 1000000 bytes"):
        load_dataset("ubnormal", tmp_path)


def test_literal_annotation_lines_are_read_as_their_authors_read_them():
    assert parse_ucf(["Shooting015_x264.mp4  Shooting  855  1715  -1  -1  "]) == {
        "Shooting015_x264": ((855, 1715),)
    }
    assert parse_xd(["v=U6MC8JJJZSY__#1_label_G-0-0.mp4 150 779"]) == {
        "v=U6MC8JJJZSY__#1_label_G-0-0": ((150, 779),)
    }
    assert parse_shanghaitech(["01_0027 416 77 149 150 152"]) == {
        "01_0027": (416, ((77, 149), (150, 152)))
    }
    assert parse_tracks(["1,100,220"]) == ((100, 221),)


def test_five_intervals_of_ucf_crime_end_beyond_their_video():
    n_frames = read_test_frame_counts()
    beyond = {
        entry.video_id.removesuffix("_x264"): (entry.anomalies[-1][1], n_frames[entry.video_id])
        for entry in load_dataset("ucf_crime", Path("/nowhere")).split("test")
        if entry.anomalies and entry.anomalies[-1][1] > n_frames[entry.video_id]
    }
    assert beyond == {
        "Arson011": (1267, 1266),
        "Arson016": (1796, 1795),
        "Explosion033": (3156, 3154),
        "Fighting003": (3103, 3102),
        "Shooting015": (1715, 1713),
    }


@pytest.mark.real
def test_the_shipped_lists_are_those_of_the_official_files(shared_folder):
    folder = shared_folder / "data/annotations"
    ucf = load_dataset("ucf_crime", Path("/nowhere"))
    for file, split in (("Anomaly_Train.txt", "train"), ("Anomaly_Test.txt", "test")):
        official = (folder / "ucf_crime" / file).read_text().split()
        assert [e.path.relative_to("/nowhere").as_posix() for e in ucf.split(split)] == official
    lines = (folder / "ucf_crime/Temporal_Anomaly_Annotation.txt").read_text().splitlines()
    annotated = parse_ucf(lines)
    assert {e.video_id: e.anomalies for e in ucf.split("test")} == annotated
    assert sum(len(intervals) == 2 for intervals in annotated.values()) == 16
    shanghaitech = load_dataset("shanghaitech", Path("/nowhere"))
    for file, split in (("SH_Train.txt", "train"), ("SH_Test.txt", "test")):
        names = (folder / "shanghaitech" / file).read_text().split()
        assert {e.video_id for e in shanghaitech.split(split)} == set(names)
    ubnormal = load_dataset("ubnormal", Path("/nowhere"))
    for file, split in (("UB_validation.txt", "val"), ("UB_test.txt", "test")):
        names = (folder / "ubnormal" / file).read_text().split()
        assert {e.video_id for e in ubnormal.split(split)} == set(names)


@pytest.mark.real
def test_stray_suffixes_in_the_official_annotation_of_xd_violence_are_removed(shared_folder):
    folder = shared_folder / "data/annotations/xd_violence"
    lines = (folder / "annotations.txt").read_text().splitlines()
    annotations = parse_xd(lines)
    listed = (folder / "test_videos.txt").read_text().split()
    assert sum(line.split()[0].endswith(".mp4") for line in lines) == 14
    assert set(annotations) == {name for name in listed if not name.endswith("_label_A")}


@pytest.mark.real
def test_intervals_of_the_official_annotation_of_ucf_crime_are_cut_at_the_end(shared_folder):
    path = shared_folder / "data/annotations/ucf_crime/Temporal_Anomaly_Annotation.txt"
    annotations = parse_ucf(path.read_text().splitlines())
    dataset = load_dataset("ucf_crime", Path("/nowhere"))
    n_beyond = 0
    for entry in dataset.split("test"):
        n_frames = dataset.frame_counts[entry.video_id]
        expected = np.zeros(n_frames, bool)
        for start, stop in annotations[entry.video_id]:
            expected[[frame for frame in range(start, stop) if frame < n_frames]] = True
            n_beyond += stop > n_frames
        assert np.array_equal(frame_labels(entry, n_frames), expected)
    assert n_beyond == 5


@pytest.mark.real
def test_the_intervals_of_shanghaitech_exclude_their_stop(shared_folder):
    path = shared_folder / "data/annotations/shanghaitech/test_intervals.json"
    official = json.loads(path.read_text())
    test = load_dataset("shanghaitech", Path("/nowhere")).split("test")
    assert {entry.video_id: [list(pair) for pair in entry.anomalies] for entry in test} == {
        name: video["anomalies"] for name, video in official.items()
    }
    labels = [frame_labels(e, official[e.video_id]["n_frames"]) for e in test]
    assert sum(each.size for each in labels) == 142_912
    assert sum(int(each.sum()) for each in labels) == 8_028  # as in RTFM's file


LISTS = Path(load_dataset.__code__.co_filename).parent / "lists"


@pytest.mark.parametrize("folder", sorted(LISTS.iterdir()), ids=lambda folder: folder.name)
def test_every_list_in_the_package_names_its_source_and_its_license(folder):
    source = (folder / "SOURCE.md").read_text()
    for path in folder.iterdir():
        assert path.name == "SOURCE.md" or f"`{path.name}`" in source
    assert "http" in source
    assert "license" in source.lower()
