"""Folders of frames stand for the videos of a dataset's list."""

import shutil

import pytest

from extractors.decoding.frame_folder import FrameFolder
from pipeline.datasets import load_dataset
from pipeline.datasets.catalog import DatasetError
from pipeline.datasets.check import check_dataset


def found(dataset):
    """The sources of the videos that are there, by their ids."""
    return {entry.video_id: entry.source for entry in dataset.entries if entry.is_there}


def test_the_official_layout_of_shanghaitech_is_found_with_its_published_rate(
    tmp_path, write_frames
):
    official = tmp_path / "shanghaitech/testing/frames"
    for name in ("01_0014", "01_0015"):
        write_frames(official / name)
    write_frames(tmp_path / "shanghaitech/testing/other/01_9999")

    dataset = load_dataset("shanghaitech", tmp_path)

    expected = {name: FrameFolder(official / name, 24) for name in ("01_0014", "01_0015")}
    assert found(dataset) == expected
    assert len(dataset.missing_videos()) == 437 - 2
    checked = check_dataset(dataset)
    assert checked.unreadable == ()
    assert sum(count.n_found for count in checked.counts) == 2
    assert len(checked.missing) == 435


def test_a_video_file_goes_before_a_folder_of_its_frames(tmp_path, write_frames, write_clip):
    write_frames(tmp_path / "testing/frames/01_0014")
    path = write_clip(tmp_path / "01_0014.mp4")
    assert found(load_dataset("shanghaitech", tmp_path)) == {"01_0014": path}


def test_the_rate_can_be_given_for_any_dataset(tmp_path, write_frames):
    folder = write_frames(tmp_path / "Abuse/Abuse028_x264")
    assert found(load_dataset("ucf_crime", tmp_path)) == {"Abuse028_x264": folder}
    dataset = load_dataset("ucf_crime", tmp_path, fps=30)
    assert found(dataset) == {"Abuse028_x264": FrameFolder(folder, 30)}


def test_the_check_names_the_damage_of_a_folder_and_a_rate_that_is_not_known(
    tmp_path, write_frames
):
    folder = write_frames(tmp_path / "Abuse/Abuse028_x264")
    (without_rate,) = check_dataset(load_dataset("ucf_crime", tmp_path)).unreadable
    assert without_rate == (
        folder,
        f"{folder} is a folder; to read its frames as a video, give their rate with --fps",
    )
    dataset = load_dataset("ucf_crime", tmp_path, fps=30)
    assert check_dataset(dataset).unreadable == ()
    (folder / "002.jpg").unlink()
    ((path, problem),) = check_dataset(dataset).unreadable
    assert path == folder
    assert problem.startswith(f"{folder / '003.jpg'} follows frame 1, expected frame 2")


def test_two_folders_of_frames_for_one_video_are_refused(tmp_path, write_frames):
    folder = write_frames(tmp_path / "a/01_0014", 1)
    shutil.copytree(folder, tmp_path / "b/01_0014")
    with pytest.raises(DatasetError, match="holds two videos of one name"):
        load_dataset("shanghaitech", tmp_path)
    ambiguous = check_dataset(load_dataset("shanghaitech", tmp_path, allow_duplicates=True))
    assert ambiguous.ambiguous == ((folder, tmp_path / "b/01_0014"),)


@pytest.mark.parametrize("parent", ["testing_videos", "testing/frames"])
def test_avenue_frames_are_told_apart_by_their_folder(tmp_path, write_frames, parent):
    folder = write_frames(tmp_path / parent / "02")
    write_frames(tmp_path / "elsewhere/03")
    dataset = load_dataset("avenue", tmp_path)
    assert found(dataset) == {"testing_videos/02": FrameFolder(folder, 25)}


def test_a_manifest_lists_folders_of_frames(tmp_path, write_frames):
    folder = write_frames(tmp_path / "cameras/gate")
    (tmp_path / "mine.csv").write_text("path,split,label,anomalies\ncameras/gate,test,1,2-4\n")
    dataset = load_dataset(tmp_path / "mine.csv", fps=12.5)
    assert found(dataset) == {"cameras/gate": FrameFolder(folder, 12.5)}
