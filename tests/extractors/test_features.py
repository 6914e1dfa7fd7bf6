"""The checks of the types of features."""

from typing import Any

import numpy as np
import pytest

from extractors.features import Features


def make_features(**changes: Any) -> Features:
    fields: dict[str, Any] = {
        "streams": {
            "rgb": np.ones((3, 5, 4), np.float32),
            "flow": np.ones((3, 5, 2), np.float32),
        },
        "snippet_len": 16,
        "n_frames": 33,
        "n_missing": 0,
        "fps": 25.0,
        "timestamps": np.arange(33) / 25,
        "decoder": "pyav 18.0.0",
    }
    return Features(**(fields | changes))


def test_features_count_their_snippets_and_crops() -> None:
    features = make_features()
    assert (features.n_snippets, features.n_crops) == (3, 5)


def test_frames_may_share_a_time_and_start_before_zero() -> None:
    make_features(timestamps=np.repeat(np.arange(11) - 0.5, 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"snippet_len": 0}, "snippet_len must be at least 1, instead got 0"),
        ({"n_frames": 0}, "n_frames must be at least 1, instead got 0"),
        ({"n_missing": -1}, "n_missing must be at least 0, instead got -1"),
        ({"fps": float("nan")}, "fps must be finite and above 0, instead got nan"),
        ({"fps": 0.0}, "fps must be finite and above 0"),
        ({"timestamps": np.arange(32.0)}, r"timestamps must be \(33,\) float64, instead got \(32,"),
        ({"timestamps": np.arange(33)}, "instead got .* int64"),
        ({"timestamps": -np.arange(33.0)}, "never decrease"),
        ({"timestamps": np.full(33, np.inf)}, "finite"),
        ({"streams": {}}, "at least one stream"),
        ({"streams": {"rgb": np.ones((3, 4), np.float32)}}, r"rgb features must be .* \(3, 4\)"),
        ({"streams": {"rgb": np.ones((3, 1, 4))}}, "float64"),
        ({"streams": {"rgb": np.ones((2, 1, 4), np.float32)}}, r"= \(3, 1\) .* got \(2, 1, 4\)"),
        ({"streams": {"rgb": np.ones((3, 1, 0), np.float32)}}, "at least one"),
        (
            {
                "streams": {
                    "rgb": np.ones((3, 5, 4), np.float32),
                    "flow": np.ones((3, 1, 4), np.float32),
                }
            },
            r"flow features must be .* = \(3, 5\) .* instead got \(3, 1, 4\)",
        ),
        ({"streams": {"rgb": np.full((3, 1, 4), np.nan, np.float32)}}, "rgb .* must be finite"),
    ],
)
def test_features_that_do_not_hold_together_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_features(**changes)
