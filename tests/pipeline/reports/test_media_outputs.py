"""Report, clips and overlay of one video as named, and of several in folders with an index."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.reports.media_outputs import MediaOutputs, MediaWriter
from pipeline.scoring.events import EventRule
from pipeline.scoring.score_files import NamedVideo


@pytest.fixture
def videos(tmp_path, counting_clip):
    """a.mp4 and gate/a.mp4, found in a folder."""
    names = [Path("a.mp4"), Path("gate/a.mp4")]
    for name in names:
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(counting_clip, tmp_path / "videos" / name)
    return [NamedVideo(tmp_path / "videos" / name, name) for name in names]


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_outputs_of_one_video_have_the_names_that_were_given(
    tmp_path, videos, scores, run_facts
):
    out = tmp_path / "out"
    outputs = MediaOutputs(out / "r.html", out / "clips", out / "o.mkv")
    writer = MediaWriter(outputs, run_facts)
    writer.write(videos[0], replace(scores, rule=EventRule(merge_seconds=0)))
    writer.write_index()
    assert files_below(out) == {
        "r.html",
        "o.mkv",
        "clips/a-event-001.mp4",
        "clips/a-event-002.mp4",
    }


def test_the_outputs_of_several_videos_are_in_folders_with_an_index(
    tmp_path, videos, scores, run_facts, read_page
):
    out = tmp_path / "out"
    outputs = MediaOutputs(out / "reports", out / "clips", out / "overlays", are_folders=True)
    writer = MediaWriter(outputs, run_facts)
    for video in videos:
        writer.write(video, scores)
    writer.write_index()
    assert files_below(out) == {
        "reports/index.html",
        "reports/a.mp4.html",
        "reports/gate/a.mp4.html",
        "clips/a.mp4/a-event-001.mp4",
        "clips/gate/a.mp4/a-event-001.mp4",
        "overlays/a.mp4.mp4",
        "overlays/gate/a.mp4.mp4",
    }
    index = read_page(out / "reports/index.html")
    assert sorted(index.texts["strong"]) == ["a.mp4", "gate/a.mp4"]
    links = [a["href"] for tag, a in index.elements if tag == "a"]
    assert sorted(links) == ["a.mp4.html", "gate/a.mp4.html"]
    back = [
        a["href"] for tag, a in read_page(out / "reports/gate/a.mp4.html").elements if tag == "a"
    ]
    assert back == ["../index.html"]


@pytest.mark.parametrize("are_folders", [False, True])
def test_nothing_is_written_that_is_not_wanted(tmp_path, videos, scores, run_facts, are_folders):
    before = files_below(tmp_path)
    writer = MediaWriter(MediaOutputs(are_folders=are_folders), run_facts)
    writer.write(videos[0], scores)
    writer.write_index()
    assert files_below(tmp_path) == before
