"""The plot of a video's scores: what is plotted is what was scored, frame by frame."""

import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.offsetbox import AnnotationBbox

from extractors.decoding.video import VideoError
from pipeline.scoring.frame_scores import Scores


@pytest.fixture
def scores():
    return Scores(np.array([0.1, 0.9, 0.2], np.float32), 16, np.arange(40) / 8)


def test_the_plot_is_a_png_of_a_readable_size(tmp_path, scores):
    scores.plot(tmp_path / "curve.png", title="video.mp4")
    assert list(tmp_path.iterdir()) == [tmp_path / "curve.png"]
    height, width = imread(tmp_path / "curve.png").shape[:2]
    assert (width, height) == (1200, 384)


def test_the_curve_has_each_frames_score_from_its_time_on(tmp_path, scores, figures, points, texts):
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


def test_without_a_note_there_is_only_the_title(tmp_path, scores, figures, texts):
    scores.plot(tmp_path / "curve.png", title="video.mp4")
    assert texts(figures[0]) == ["video.mp4"]


def images_of(axes):
    """The thumbnails in axes: (time of its middle, image), in the order of time."""
    boxes = [artist for artist in axes.artists if isinstance(artist, AnnotationBbox)]
    found = [(box.xy[0], np.asarray(box.offsetbox.get_data())) for box in boxes]
    return sorted(found, key=lambda placed: placed[0])


def test_thumbnails_of_the_video_are_along_the_time_axis(
    tmp_path, write_clip, read_number, scores, figures
):
    video = write_clip(tmp_path / "clip.mp4", n_frames=40, fps=8)
    scores.plot(tmp_path / "curve.png", title="video.mp4", video=video)
    curve, strip = figures[0].axes
    placed = images_of(strip)
    assert len(placed) == 8
    for index, (seconds, image) in enumerate(placed):
        assert seconds == pytest.approx((index + 0.5) / 8 * 39 / 8)
        assert read_number(image) == int(seconds * 8)
    assert curve.get_xlim() == strip.get_xlim() == (0, 39 / 8)
    assert all(label.get_visible() for label in curve.get_xticklabels())
    assert imread(tmp_path / "curve.png").shape[:2] == (504, 1200)


@pytest.mark.parametrize(("width", "height"), [(1280, 96), (64, 640)])
def test_a_thumbnail_of_any_shape_fits_its_place(
    tmp_path, write_clip, scores, figures, width, height
):
    video = write_clip(tmp_path / "clip.mp4", n_frames=40, fps=8, width=width, height=height)
    scores.plot(tmp_path / "curve.png", video=video)
    for _, image in images_of(figures[0].axes[1]):
        assert image.shape[0] <= 98
        assert image.shape[1] <= 130
        assert image.shape[1] / image.shape[0] == pytest.approx(width / height, rel=0.1)


def test_a_video_of_one_frame_is_plotted_with_its_thumbnail(tmp_path, write_clip, figures):
    video = write_clip(tmp_path / "clip.mp4", n_frames=1)
    Scores(np.array([0.5], np.float32), 16, np.zeros(1)).plot(tmp_path / "curve.png", video=video)
    assert len(images_of(figures[0].axes[1])) == 8


def test_labeled_anomalies_are_bands(tmp_path, scores, figures):
    scores.plot(tmp_path / "curve.png", truth=[(8, 16), (32, 40)])
    (axes,) = figures[0].axes
    bands = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]
    assert bands == [(1, 2), (4, 5)]  # a frame lasts until the next one is shown
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["labeled anomaly"]


@pytest.mark.parametrize("has_video", [False, True])
def test_the_legend_covers_neither_the_curve_nor_the_time_axis(
    tmp_path, write_clip, scores, figures, has_video
):
    video = write_clip(tmp_path / "clip.mp4", n_frames=40, fps=8) if has_video else None
    scores.plot(tmp_path / "curve.png", video=video, truth=[(8, 16)])
    axes = figures[0].axes[0]
    legend = axes.get_legend().get_window_extent()
    strip = [each.get_window_extent() for each in figures[0].axes[1:]]
    labels = [axes.xaxis.label, *axes.get_xticklabels()]
    others = [axes.bbox, *strip, *(label.get_window_extent() for label in labels)]
    assert not any(legend.overlaps(other) for other in others)
    assert legend.y0 > 0
    assert legend.x1 < figures[0].bbox.x1


def test_a_video_that_is_gone_is_an_error_and_leaves_no_plot(tmp_path, scores):
    with pytest.raises(VideoError, match=r"gone\.mp4"):
        scores.plot(tmp_path / "curve.png", video=tmp_path / "gone.mp4")
    assert list(tmp_path.iterdir()) == []
