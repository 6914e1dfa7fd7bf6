"""The plot of a video's scores: what is plotted is what was scored, frame by frame."""

import numpy as np
import pytest
from matplotlib.image import imread

from pipeline.scoring.frame_scores import Scores


@pytest.fixture
def scores():
    return Scores(np.array([0.1, 0.9, 0.2], np.float32), 16, np.arange(40) / 8)


def points(line):
    return np.asarray(line.get_xydata()).tolist()


def texts(figure):
    """All that is written above a figure and its axes."""
    titles = [axes.get_title(loc) for axes in figure.axes for loc in ("left", "center", "right")]
    return [text for text in (*titles, *(text.get_text() for text in figure.texts)) if text]


def test_the_plot_is_a_png_of_a_readable_size(tmp_path, scores):
    scores.plot(tmp_path / "curve.png", title="video.mp4")
    assert list(tmp_path.iterdir()) == [tmp_path / "curve.png"]
    height, width = imread(tmp_path / "curve.png").shape[:2]
    assert (width, height) == (1200, 384)


def test_the_curve_has_each_frames_score_from_its_time_on(tmp_path, scores, figures):
    scores.plot(tmp_path / "curve.png", title="video.mp4", note="a warning")
    (axes,) = figures[0].axes
    (line,) = axes.lines
    expected = [0.1] * 16 + [0.9] * 16 + [0.2] * 8
    np.testing.assert_allclose(points(line), np.stack([np.arange(40) / 8, expected], 1), rtol=1e-6)
    assert line.get_drawstyle() == "steps-post"
    assert axes.get_xlim() == (0, 39 / 8)
    assert axes.get_ylim() == (0, 1.02)
    assert texts(figures[0]) == ["video.mp4", "a warning"]


@pytest.mark.parametrize("name", ["day\udcff.mp4", "$\\frac{$.mp4", "a$b$c.mp4"])
def test_a_name_that_is_no_text_or_looks_like_a_formula_is_a_title(tmp_path, scores, name):
    scores.plot(tmp_path / "curve.png", title=name)
    assert imread(tmp_path / "curve.png").shape[:2] == (384, 1200)


def test_without_a_note_there_is_only_the_title(tmp_path, scores, figures):
    scores.plot(tmp_path / "curve.png", title="video.mp4")
    assert texts(figures[0]) == ["video.mp4"]
