"""Video entries, datasets and frame labels; and the ways to load a dataset."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pipeline
from pipeline.datasets import DATASETS, load_dataset
from pipeline.datasets.catalog import (
    Dataset,
    DatasetError,
    VideoEntry,
    describe_cut_intervals,
    frame_labels,
)


def entry(**changes):
    values = {"video_id": "a", "path": Path("a.mp4"), "split": "test", "label": 1}
    return VideoEntry(**(values | changes))


def test_frame_labels_are_half_open_and_may_overlap():
    video = entry(anomalies=((1, 3), (2, 5), (7, 8)))

    labels = frame_labels(video, 10)

    assert labels.dtype == bool
    assert labels.tolist() == [any(a <= i < b for a, b in video.anomalies) for i in range(10)]


def test_a_normal_video_has_normal_frames_only():
    assert not frame_labels(entry(label=0), 7).any()
    assert frame_labels(entry(label=0), 7).shape == (7,)


def test_intervals_beyond_their_video_are_cut_and_summarized_in_one_line():
    videos = [
        (entry(anomalies=((2, 9), (20, 30))), 4),
        (entry(path=Path("b.mp4"), anomalies=((0, 5), (6, 12))), 11),
    ]

    assert frame_labels(*videos[0]).tolist() == [False, False, True, True]
    assert describe_cut_intervals(videos) == (
        "3 of 4 anomalous intervals end beyond their video and are cut there, "
        "first a.mp4: 2-9 of 4 frames"
    )


def test_an_anomaly_up_to_the_last_frame_is_not_cut():
    video = entry(anomalies=((2, 4),))
    assert frame_labels(video, 4).tolist() == [False, False, True, True]
    assert describe_cut_intervals([(video, 4)]) is None


def test_an_anomalous_video_without_anomalies_has_no_frame_labels():
    unmarked = entry()

    assert not unmarked.has_frame_labels
    assert entry(label=0).has_frame_labels
    assert entry(anomalies=((0, 1),)).has_frame_labels
    with pytest.raises(DatasetError) as caught:
        frame_labels(unmarked, 10)
    assert str(caught.value) == (
        "a.mp4: is labeled 1 without anomalies, so its frames have no labels; add its anomalous "
        "frames to the manifest, or its annotation to the videos, or leave it out of the test split"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "Test"}, "split must be train, val or test, instead got 'Test'"),
        ({"label": 2}, "label must be 0 or 1, instead got 2"),
        (
            {"anomalies": ((5, 5),)},
            "an anomaly must be start-stop in frames with 0 <= start < stop, instead got 5-5",
        ),
        (
            {"anomalies": ((-1, 5),)},
            "an anomaly must be start-stop in frames with 0 <= start < stop, instead got -1-5",
        ),
        (
            {"label": 0, "anomalies": ((1, 2), (4, 5))},
            "anomalies must be empty with label 0, instead got 1-2;4-5",
        ),
    ],
)
def test_a_contradictory_entry_is_refused(changes, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        entry(**changes)


def test_a_dataset_gives_its_splits_in_order_and_lists_what_is_missing(tmp_path):
    (tmp_path / "b.mp4").touch()
    videos = tuple(
        entry(video_id=name, path=tmp_path / f"{name}.mp4", split=split)
        for name, split in (("c", "train"), ("b", "test"), ("a", "train"))
    )
    dataset = Dataset("some", videos)

    assert [video.video_id for video in dataset.split("train")] == ["c", "a"]
    assert dataset.split("val") == ()
    assert dataset.missing_videos() == [tmp_path / "c.mp4", tmp_path / "a.mp4"]


@pytest.mark.parametrize("name", ["shanghai", "video.mp4", "", "XD_VIOLENCE"])
def test_an_unknown_dataset_is_refused_with_the_known_names(name):
    with pytest.raises(DatasetError) as caught:
        load_dataset(name)
    shown = name or "."
    assert str(caught.value) in (
        f"{shown}: no such dataset; expected avenue, microworld, shanghaitech, ubnormal, "
        "ucf_crime, xd_violence or the path of a manifest CSV",
        f"{shown}: is a folder, expected a manifest CSV",
    )


def test_a_dataset_none_of_whose_videos_is_there_says_what_to_do(tmp_path):
    here, gone = tmp_path / "here.mp4", tmp_path / "gone.mp4"
    here.touch()
    entries = (entry(video_id="gone", path=gone), entry(video_id="here", path=here))
    Dataset("mine", entries).check_any_video_is_there()
    with pytest.raises(DatasetError) as caught:
        Dataset("mine", entries[:1], "ask the owner").check_any_video_is_there()
    assert str(caught.value) == (
        f"{gone}: no such file, nor any other of the 1 videos of mine; ask the owner"
    )


def test_a_manifest_stands_where_a_name_stands(tmp_path):
    manifest = tmp_path / "mine.csv"
    manifest.write_text("path,split,label,anomalies\na.mp4,train,0,\n")

    for given in (manifest, str(manifest)):
        assert load_dataset(given).name == "mine"


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_a_manifest_that_would_share_the_features_of_a_named_dataset_is_refused(name, tmp_path):
    manifest = tmp_path / f"{name}.csv"
    manifest.write_text("path,split,label,anomalies\na.mp4,train,0,\n")
    with pytest.raises(DatasetError, match=f"those of the dataset {name}; rename the file"):
        load_dataset(manifest)


def test_the_catalog_comes_without_torch_or_opencv():
    code = "import sys, pipeline.datasets; print(sorted({'torch', 'cv2'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_the_version_is_that_of_the_distribution():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert pipeline.__version__ == project["project"]["version"]


@pytest.mark.parametrize("name", ["", ".", "..", "../other", "a/b", "/tmp"])
def test_a_dataset_whose_features_would_leave_their_folder_is_refused(name):
    with pytest.raises(ValueError, match=f"folder of features, instead got '{re.escape(name)}'$"):
        Dataset(name, ())


def test_two_videos_of_one_id_are_refused(tmp_path):
    entries = [VideoEntry(name, tmp_path / f"{i}.mp4", "train", 0) for i, name in enumerate("aba")]
    with pytest.raises(ValueError, match="video ids must differ, instead got 'a' 2 times"):
        Dataset("cameras", tuple(entries))


def test_a_dataset_without_videos_cannot_be_extracted():
    with pytest.raises(DatasetError, match="cameras: has no videos; list at least one"):
        Dataset("cameras", ()).check_any_video_is_there()
