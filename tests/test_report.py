import numpy as np
import pytest
from matplotlib.image import imread

from pipeline.events import EventRule
from pipeline.frame_scores import Scores
from pipeline.metrics import Curves, FrameMetrics
from pipeline.report import plot_evaluation, plot_losses, plot_scores
from pipeline.results import Evaluation, Measurement, Row


@pytest.fixture
def scores():
    return Scores(np.array([0.1, 0.9, 0.2], np.float32), 16, np.arange(40) / 8)


def test_the_plot_is_a_png_of_a_readable_size(tmp_path, scores):
    plot_scores(scores, tmp_path / "curve.png", title="video.mp4")
    assert list(tmp_path.iterdir()) == [tmp_path / "curve.png"]
    height, width = imread(tmp_path / "curve.png").shape[:2]
    assert (width, height) == (1200, 384)


@pytest.mark.parametrize("name", ["day\udcff.mp4", "$\\frac{$.mp4", "a$b$c.mp4"])
def test_a_name_that_is_no_text_or_looks_like_a_formula_is_a_title(tmp_path, scores, name):
    plot_scores(scores, tmp_path / "curve.png", title=name)
    assert imread(tmp_path / "curve.png").shape[:2] == (384, 1200)


def test_the_note_is_drawn(tmp_path, scores):
    plot_scores(scores, tmp_path / "plain.png", title="video.mp4")
    plot_scores(scores, tmp_path / "noted.png", title="video.mp4", note="random weights")
    plain, noted = imread(tmp_path / "plain.png"), imread(tmp_path / "noted.png")
    reddish = (noted[..., 0] > 0.6) & (noted[..., 1] < 0.3)
    assert reddish.sum() > 50
    assert not ((plain[..., 0] > 0.6) & (plain[..., 1] < 0.3)).any()


def bluish(picture: np.ndarray) -> np.ndarray:
    """Where the first system's curves are drawn."""
    return (picture[..., 2] > picture[..., 0] + 0.2) & (picture[..., 2] < 0.75)


def evaluation(*, has_semantics: bool) -> Evaluation:
    rates = np.array([0.0, 0.5, 1.0])
    curves = Curves(rates, rates**0.5, rates[::-1], 1 - rates[::-1] / 2)
    frames = FrameMetrics(0.75, 0.6, 0.5, 0.4, 0.3)
    rows = (
        Row("model", "model", (Measurement(frames, curves=curves),) * 2),
        Row("shuffled", "control", (Measurement(frames),)),
    )
    return Evaluation("mine", "mine", 4, 0, 100, 25, "ab", EventRule(), (0, 1), has_semantics, rows)


def test_both_curves_of_an_evaluation_are_drawn_and_random_weights_are_owned_up_to(tmp_path):
    plot_evaluation(evaluation(has_semantics=True), tmp_path / "plain.png")
    plot_evaluation(evaluation(has_semantics=False), tmp_path / "noted.png")
    plain, noted = imread(tmp_path / "plain.png"), imread(tmp_path / "noted.png")
    middle = plain.shape[1] // 2
    assert bluish(plain[:, :middle]).sum() > 300
    assert bluish(plain[:, middle:]).sum() > 300
    reddish = (noted[..., 0] > 0.6) & (noted[..., 1] < 0.3)
    assert reddish.sum() > 50


def test_every_loss_term_has_a_panel(tmp_path):
    losses = [{"mil": 1.0 / step, "gate": 0.1 * step} for step in (1, 2, 3)]
    plot_losses(losses, [100, 200, 300], tmp_path / "two.png")
    plot_losses([{"mil": 1.0}], [100], tmp_path / "one.png")
    two, one = imread(tmp_path / "two.png"), imread(tmp_path / "one.png")
    assert two.shape[0] > one.shape[0]
    half = two.shape[0] // 2
    assert bluish(two[:half]).sum() > 100
    assert bluish(two[half:]).sum() > 100
    assert bluish(one).any()  # a single epoch is a point, and seen
