"""Features, and files of them, for the tests of this folder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from extractors.features import Features
from pipeline.extraction.feature_file import write_features
from pipeline.extraction.video_digest import Source

PROVENANCE = {"extractor": "i3d", "n_crops": 2, "flow_tau": 0.25, "is_pretrained": False}


@pytest.fixture(scope="session")
def make_features() -> Callable[..., Features]:
    """A function that makes random features of a number of frames."""
    return _make_features


@pytest.fixture(scope="session")
def write_file() -> Callable[..., Features]:
    """A function that writes a feature file and returns the features in it."""
    return _write_file


def _make_features(n_frames: int = 35, names: tuple[str, ...] = ("rgb", "flow")) -> Features:
    rng = np.random.default_rng(n_frames)
    n_snippets = -(-n_frames // 16)
    return Features(
        streams={name: rng.normal(size=(n_snippets, 2, 8)).astype(np.float32) for name in names},
        snippet_len=16,
        n_frames=n_frames,
        n_missing=3,
        fps=23.976,
        timestamps=np.sort(rng.uniform(0, 2, n_frames)),
        decoder="pyav 18.0.0",
    )


def _write_file(
    path: Path, features: Features | None = None, video_id: str = "some/video"
) -> Features:
    features = features or _make_features()
    write_features(
        path,
        features,
        PROVENANCE,
        video_id=video_id,
        source_name="video.mp4",
        source=Source(7, "00ff"),
    )
    return features
