"""Where features lie: names at the limits."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.extraction.feature_paths import FeatureFileError, feature_path, videos_without_place

FOLDER = Path("features/some")


@pytest.mark.parametrize("video_id", ["x" * 252, "day/" + "x" * 252, "ü" * 126, "a/status.csv/b"])
def test_the_longest_name_has_a_place(video_id: str) -> None:
    assert feature_path(FOLDER, video_id) == FOLDER / f"{video_id}.h5"


@pytest.mark.parametrize("video_id", ["x" * 253, "x" * 256 + "/a", "ü" * 127])
def test_a_name_that_is_too_long_for_a_file_is_refused(video_id: str) -> None:
    with pytest.raises(FeatureFileError, match=r"at most 255 expected; rename the video"):
        feature_path(FOLDER, video_id)


@pytest.mark.parametrize(
    "video_id", ["index", "index.h5/a", "status.csv/a", ".locks/day/a"], ids=str
)
def test_no_video_takes_the_name_of_another_file_of_the_folder(video_id: str) -> None:
    with pytest.raises(FeatureFileError, match=r"is the name of .*; rename the video"):
        feature_path(FOLDER, video_id)


def test_videos_without_a_place_are_found_without_looking_at_the_folder() -> None:
    ids = ["a", "a.h5/b", "a.h5/c/d", "c", "c.h5/e.h5/f", "c.h5/e", "index", "x" * 300, "good"]
    reasons = videos_without_place(FOLDER, ids)
    assert set(reasons) == {"a", "c", "c.h5/e", "index", "x" * 300}
    assert "some/a.h5: is the folder of other videos' features; rename" in reasons["a"]


def test_names_are_judged_without_loading_torch() -> None:
    code = "import sys, pipeline.extraction.feature_paths; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("video_id", ["", "../a", "a/../../b", "/a", "a//b", "a/", "./a", "a\0b"])
def test_a_video_id_that_leaves_the_folder_is_refused(tmp_path, video_id):
    with pytest.raises(FeatureFileError, match=r"stays in the folder.*rename the video"):
        feature_path(tmp_path, video_id)


def test_a_video_cannot_take_the_name_of_the_index(tmp_path):
    with pytest.raises(FeatureFileError, match=r"index\.h5: is the name of the index"):
        feature_path(tmp_path, "index")
