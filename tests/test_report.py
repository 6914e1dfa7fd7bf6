import numpy as np
import pytest
from matplotlib.image import imread

from pipeline.frame_scores import Scores
from pipeline.report import plot_scores


@pytest.fixture
def scores():
    return Scores(np.array([0.1, 0.9, 0.2], np.float32), 16, np.arange(40) / 8)


def test_the_plot_is_a_png_of_a_readable_size(tmp_path, scores):
    plot_scores(scores, tmp_path / "curve.png", title="video.mp4")
    assert list(tmp_path.iterdir()) == [tmp_path / "curve.png"]
    height, width = imread(tmp_path / "curve.png").shape[:2]
    assert (width, height) == (1200, 384)


def test_the_note_is_drawn(tmp_path, scores):
    plot_scores(scores, tmp_path / "plain.png", title="video.mp4")
    plot_scores(scores, tmp_path / "noted.png", title="video.mp4", note="random weights")
    plain, noted = imread(tmp_path / "plain.png"), imread(tmp_path / "noted.png")
    reddish = (noted[..., 0] > 0.6) & (noted[..., 1] < 0.3)
    assert reddish.sum() > 50
    assert not ((plain[..., 0] > 0.6) & (plain[..., 1] < 0.3)).any()
