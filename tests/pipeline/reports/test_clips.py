"""Clips of events: the frames of the event and its margin, at their times."""

import numpy as np
import pytest

from extractors.decoding.video import Video
from pipeline.reports.clips import write_clips
from pipeline.scoring.events import EventRule, describe_events


@pytest.fixture
def events(scores):
    """Frames 8 to 15 and 32 to 39 of 40 at 25 fps."""
    return describe_events(scores.per_frame, scores.timestamps, EventRule(merge_seconds=0))


def read(path):
    (chunk,) = Video(path, decoder="pyav").read(1000)
    return chunk


@pytest.mark.parametrize(
    ("margin", "expected"),
    [
        (0.0, [range(8, 16), range(32, 40)]),
        (0.2, [range(3, 21), range(27, 40)]),
        (10.0, [range(40), range(40)]),
    ],
)
def test_each_event_is_a_clip_with_its_margin(
    tmp_path, counting_clip, events, read_number, margin, expected
):
    paths = write_clips(tmp_path / "clips", counting_clip, events, margin_seconds=margin)
    assert [path.name for path in paths] == ["counting-event-001.mp4", "counting-event-002.mp4"]
    assert sorted((tmp_path / "clips").iterdir()) == paths
    for path, frames in zip(paths, expected, strict=True):
        chunk = read(path)
        assert [read_number(frame) for frame in chunk.frames] == list(frames)
        np.testing.assert_allclose(chunk.timestamps, np.arange(len(frames)) / 25, atol=0.001)


def test_a_variable_frame_rate_is_kept(tmp_path, write_clip, events, read_number):
    pts = [2 * i if i < 12 else 2 * i + 7 for i in range(40)]
    clip = write_clip(tmp_path / "vfr.mp4", pts=pts)
    (first, _) = write_clips(tmp_path / "clips", clip, events, margin_seconds=0)
    chunk = read(first)  # the event is of the seconds 0.32 to 0.64: pts 8 to 16
    assert [read_number(frame) for frame in chunk.frames] == [4, 5, 6, 7]
    np.testing.assert_allclose(chunk.timestamps, [0, 0.08, 0.16, 0.24], atol=0.001)


def test_each_clip_is_reported(tmp_path, counting_clip, events):
    reported = []
    write_clips(tmp_path, counting_clip, events, report=reported.append)
    assert [(p.stage, p.done, p.total, p.unit) for p in reported] == [
        ("clips", 1, 2, "clips"),
        ("clips", 2, 2, "clips"),
    ]


def test_no_event_is_no_clip(tmp_path, counting_clip):
    assert write_clips(tmp_path / "clips", counting_clip, []) == []


def test_a_long_name_is_cut(tmp_path, counting_clip, events):
    video = tmp_path / f"{'n' * 250}.mp4"
    video.write_bytes(counting_clip.read_bytes())
    paths = write_clips(tmp_path / "clips", video, events)
    assert [path.name for path in paths] == [f"{'n' * 60}-event-{i:03d}.mp4" for i in (1, 2)]


def test_a_negative_margin_is_refused(tmp_path, counting_clip, events):
    with pytest.raises(ValueError, match="margin_seconds must be at least 0, instead got -1"):
        write_clips(tmp_path, counting_clip, events, margin_seconds=-1)
