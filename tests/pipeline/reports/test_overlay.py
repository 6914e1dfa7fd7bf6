"""The overlay: every frame as it was, and below it the score, the curve and the playhead."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from extractors.decoding.video import Video, VideoError
from pipeline.images import PLAYHEAD
from pipeline.reports.overlay import column_maxima, write_overlay
from pipeline.scoring.events import EventRule
from pipeline.scoring.frame_scores import Scores


@pytest.fixture
def clip(tmp_path, write_clip):
    """40 frames of 320 x 240, whose panel is 56 pixels high; its label is 95 wide."""
    return write_clip(tmp_path / "clip.mp4", width=320, height=240)


def overlay(path, clip, scores):
    write_overlay(path, clip, scores)
    chunks = list(Video(path, decoder="pyav").read(1000))
    return chunks[0]


def is_red(pixels):
    red, green, blue = pixels.reshape(-1, 3).mean(0)
    return red > 100 and red > 2 * green and red > 2 * blue


def test_no_frame_is_lost_or_covered(tmp_path, clip, scores, read_number):
    chunk = overlay(tmp_path / "out.mp4", clip, scores)
    assert chunk.frames.shape == (40, 296, 320, 3)
    assert [read_number(frame[:240]) for frame in chunk.frames] == list(range(40))
    np.testing.assert_allclose(chunk.timestamps, scores.timestamps, atol=0.001)


def test_a_variable_frame_rate_is_kept(tmp_path, write_clip, scores):
    pts = np.cumsum(np.arange(40) % 5 + 1) - 1
    clip = write_clip(tmp_path / "vfr.mp4", pts=pts.tolist())
    uneven = Scores(scores.per_snippet, scores.snippet_len, pts / 25)
    chunk = overlay(tmp_path / "out.mp4", clip, uneven)
    np.testing.assert_allclose(chunk.timestamps, pts / 25, atol=0.001)


def test_the_label_is_red_during_events(tmp_path, clip, scores):
    unmerged = replace(scores, rule=EventRule(merge_seconds=0))
    chunk = overlay(tmp_path / "out.mp4", clip, unmerged)
    in_event = [frame for frame in range(40) if is_red(chunk.frames[frame, 244:252, 4:90])]
    assert in_event == [*range(8, 16), *range(32, 40)]


def test_the_playhead_moves_from_one_end_to_the_other(tmp_path, clip, scores):
    chunk = overlay(tmp_path / "out.mp4", clip, scores)
    panels = chunk.frames[:, 240:, 95:].astype(int)
    distances = np.abs(panels - PLAYHEAD).sum(3).mean(1)  # (frames, columns)
    found = distances.argmin(1)
    np.testing.assert_allclose(found, np.linspace(0, 224, 40), atol=3)


def test_the_curve_is_high_where_the_score_is(tmp_path, clip):
    scores = Scores(np.array([0, 1], np.float32), 20, np.arange(40) / 25)
    panel = overlay(tmp_path / "out.mp4", clip, scores).frames[5, 240:, 95:].astype(int)
    blueness = panel[:, :, 2] - panel[:, :, 0]
    heights = blueness.argmax(0)
    assert (heights[60:100] > 45).all()
    assert (heights[140:220] < 10).all()


def test_columns_have_the_highest_score_of_their_frames():
    per_frame = np.random.default_rng(0).random(1234).astype(np.float32)
    found = column_maxima(per_frame, 100)
    edges = [column * 1234 // 100 for column in range(101)]
    expected = [per_frame[a:b].max() for a, b in pairwise(edges)]
    np.testing.assert_array_equal(found, np.array(expected))


@pytest.mark.parametrize("n_frames", [39, 41])
def test_scores_of_another_video_are_refused(tmp_path, clip, n_frames):
    scores = Scores(np.zeros(n_frames, np.float32), 1, np.arange(n_frames) / 25)
    with pytest.raises(VideoError, match=f"does not show the {n_frames} frames that were scored"):
        write_overlay(tmp_path / "out.mp4", clip, scores)
    assert not (tmp_path / "out.mp4").exists()


def test_progress_is_reported_to_the_last_frame(tmp_path, clip, scores):
    reported = []
    write_overlay(tmp_path / "out.mp4", clip, scores, report=reported.append)
    assert [(p.done, p.total) for p in reported] == [(16, 40), (32, 40), (40, 40)]
    assert {p.stage for p in reported} == {"overlay"}
