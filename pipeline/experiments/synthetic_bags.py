"""Synthetic features with known anomalous snippets: the test beds `exclusive-or` and `bursts`.

Two test beds for what models claim, small enough for a CPU. They say nothing about real videos.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extractors.features import Features
from pipeline.config import TrainConfig
from pipeline.datasets.catalog import VideoEntry
from pipeline.evaluation.linear_baseline import LabeledBag
from pipeline.evaluation.split_videos import TestVideo
from pipeline.training.bag_loading import Bag, collect_bags
from pipeline.training.batches import BagSet

FEATURE_DIM = 64
N_TRAIN, N_TEST = 1200, 200
STREAM_DIMS = (("rgb", FEATURE_DIM),)

N_CONTEXTS = N_MOTIONS = 4
EXCLUSIVE_OR_LEN = 32

N_KINDS, N_BURST_KINDS = 6, 12
BURSTS_LEN = 64
ANOMALY_NORM, BURST_NORM = 2.5, 5.0

SampledVideo = tuple[NDArray[np.float32], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticSet:
    """Videos of one seed, half of them anomalous; one snippet is one frame.

    Attributes:
        train: One bag per video.
        test: With the label of every snippet.
    """

    train: tuple[Bag, ...]
    test: tuple[TestVideo, ...]

    def bags(self, config: TrainConfig) -> BagSet:
        """The training videos, brought to the length that the config says."""
        return collect_bags(
            self.train,
            sampler=config.sampler,
            bag_len=config.bag_len,
            stream_dims=STREAM_DIMS,
            provenance={"extractor": "none", "is_pretrained": False},
        )

    def labeled(self) -> list[LabeledBag]:
        """The training videos as they are, for the linear scorers."""
        return [LabeledBag(bag.features, bag.label) for bag in self.train]


def exclusive_or(seed: int, *, n_train: int = N_TRAIN, n_test: int = N_TEST) -> SyntheticSet:
    """Videos in which only certain pairs of context and motion are anomalous.

    A video has one of four contexts, a snippet one of four motions; its features are the sum of
    both codes and noise. In context c the motions c and c + 1 are anomalous, the other two are
    normal. So every context and every motion is as often normal as it is anomalous: neither tells
    alone. In an anomalous video a run of 4 to 8 of the 32 snippets is anomalous.

    Args:
        seed: Of the codes and of all videos.
        n_train: Training videos.
        n_test: Test videos.
    """
    rng = np.random.default_rng((seed, 0))
    context_codes = rng.normal(size=(N_CONTEXTS, FEATURE_DIM))
    motion_codes = rng.normal(size=(N_MOTIONS, FEATURE_DIM))

    def sample(label: int) -> SampledVideo:
        context = rng.integers(N_CONTEXTS)
        is_anomalous = _run(rng, EXCLUSIVE_OR_LEN, 4, 8) & (label == 1)
        motion = context + 2 * ~is_anomalous + rng.integers(2, size=EXCLUSIVE_OR_LEN)
        codes = context_codes[context] + motion_codes[motion % N_MOTIONS]
        return (codes + rng.normal(size=codes.shape)).astype(np.float32), is_anomalous

    return _collect(sample, n_train, n_test)


def bursts(seed: int, *, n_train: int = N_TRAIN, n_test: int = N_TEST) -> SyntheticSet:
    """Videos with weak anomalies of six kinds, and strong bursts that are normal.

    Features are noise. In an anomalous video a run of 8 to 16 of the 64 snippets has a weak code of
    one of six kinds added to it; in every video a run of 2 to 8 has a strong one of twelve others.
    So what stands out most is not what is anomalous.

    Args:
        seed: Of the codes and of all videos.
        n_train: Training videos.
        n_test: Test videos.
    """
    rng = np.random.default_rng((seed, 1))
    kinds = ANOMALY_NORM * _directions(rng, N_KINDS)
    burst_kinds = BURST_NORM * _directions(rng, N_BURST_KINDS)

    def sample(label: int) -> SampledVideo:
        features = rng.normal(size=(BURSTS_LEN, FEATURE_DIM))
        is_anomalous = _run(rng, BURSTS_LEN, 8, 16) & (label == 1)
        features[_run(rng, BURSTS_LEN, 2, 8)] += burst_kinds[rng.integers(N_BURST_KINDS)]
        features[is_anomalous] += kinds[rng.integers(N_KINDS)]
        return features.astype(np.float32), is_anomalous

    return _collect(sample, n_train, n_test)


SYNTHETIC: dict[str, Callable[[int], SyntheticSet]] = {
    "exclusive-or": exclusive_or,
    "bursts": bursts,
}


def _directions(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    codes = rng.normal(size=(n, FEATURE_DIM))
    directions: NDArray[np.float64] = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    return directions


def _run(
    rng: np.random.Generator, n_snippets: int, shortest: int, longest: int
) -> NDArray[np.bool_]:
    """(n_snippets,) True in one run of random length and place."""
    run_len = rng.integers(shortest, longest + 1)
    start = rng.integers(n_snippets - run_len + 1)
    place = np.arange(n_snippets)
    return (place >= start) & (place < start + run_len)


def _collect(sample: Callable[[int], SampledVideo], n_train: int, n_test: int) -> SyntheticSet:
    """Every second video is anomalous."""
    train = tuple(Bag(f"train/{i}", sample(i % 2)[0], i % 2) for i in range(n_train))
    test = tuple(_test_video(f"test/{i}", i % 2, *sample(i % 2)) for i in range(n_test))
    return SyntheticSet(train, test)


def _test_video(
    video_id: str, label: int, features: NDArray[np.float32], is_anomalous: NDArray[np.bool_]
) -> TestVideo:
    n_snippets = len(features)
    return TestVideo(
        VideoEntry(video_id, Path(video_id), "test", label),
        Features(
            streams={"rgb": features[:, None]},
            snippet_len=1,
            n_frames=n_snippets,
            n_missing=0,
            fps=1.0,
            timestamps=np.arange(n_snippets, dtype=np.float64),
            decoder="none",
        ),
        is_anomalous,
    )
