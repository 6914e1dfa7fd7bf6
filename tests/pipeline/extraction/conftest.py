"""Features, files of them, and an extractor that takes no time, for the tests of this folder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from extractors.features import Features
from extractors.snippets import REPEAT_LAST_FRAME
from pipeline.datasets.catalog import Dataset, VideoEntry
from pipeline.extraction.extract_entries import extract_entries
from pipeline.extraction.feature_file import write_features
from pipeline.extraction.feature_folder import extract_into_folder
from pipeline.extraction.shards import WHOLE
from pipeline.extraction.summary import VideoOutcome
from pipeline.extraction.video_digest import Source

PROVENANCE = {"extractor": "i3d", "n_crops": 2, "flow_tau": 0.25, "is_pretrained": False}


class Brightness:
    """An extractor that takes no time; its provenance can be changed."""

    snippet_len = 16
    n_crops = 1
    n_snippets_per_batch = 4
    tail_policy = REPEAT_LAST_FRAME
    device = torch.device("cpu")
    stream_dims = {"rgb": 3}  # noqa: RUF012

    def __init__(self, **choices):
        self.choices = {"extractor": "brightness", "is_pretrained": False} | choices

    def provenance(self):
        return dict(self.choices)

    def prepare(self, frames):
        return {"rgb": frames[:-1].float().mean(dim=(0, 1, 2))}

    def embed(self, snippets):
        return {"rgb": torch.stack([snippet["rgb"] for snippet in snippets])[:, None]}


@pytest.fixture(scope="session")
def brightness() -> type[Brightness]:
    """An extractor that takes no time."""
    return Brightness


@pytest.fixture(scope="session", name="extract_dataset")
def extract_dataset_fixture():
    return extract_dataset


@pytest.fixture(scope="session", name="endings")
def endings_fixture():
    return endings


@pytest.fixture
def dataset(write_clip, tmp_path, videos_folder):
    """Three videos of 200 frames."""
    paths = [write_clip(tmp_path / f"videos/{name}.mp4", n_frames=200) for name in "abc"]
    return Dataset("small", tuple(VideoEntry(path.stem, path, "train", 0) for path in paths))


@pytest.fixture
def videos_folder(tmp_path):
    (tmp_path / "videos").mkdir()


def extract_dataset(dataset, features, extractor, *, shard=WHOLE, retry_failed=False):
    """All events of an extraction with an extractor that is there already."""
    folder = features / dataset.name

    def extract(entries):
        return extract_entries(entries, folder, extractor, shard=shard, retry_failed=retry_failed)

    return extract_into_folder(dataset, folder, extract)


def endings(events):
    """The outcomes of videos, by video; each video has one."""
    outcomes = [event for event in events if isinstance(event, VideoOutcome)]
    by_id = {outcome.video_id: outcome for outcome in outcomes}
    assert len(by_id) == len(outcomes)
    return by_id


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
