"""Fixtures that tests of several rooms share."""

import numpy as np
import pytest


@pytest.fixture
def scores():
    """40 frames at 25 fps in snippets of 8: events of frames 8 to 15 and of 32 to 39."""
    # Only here, because most tests need no scores.
    from pipeline.scoring.frame_scores import Scores  # noqa: PLC0415

    return Scores(np.array([0.1, 0.9, 0.1, 0.2, 0.6], np.float32), 8, np.arange(40) / 25)


@pytest.fixture
def points():
    """A function that lists the points of a plotted line."""
    return lambda line: np.asarray(line.get_xydata()).tolist()


@pytest.fixture
def texts():
    """A function that lists all that is written above a figure and its axes."""
    return _texts


def _texts(figure):
    titles = [axes.get_title(loc) for axes in figure.axes for loc in ("left", "center", "right")]
    return [text for text in (*titles, *(text.get_text() for text in figure.texts)) if text]
