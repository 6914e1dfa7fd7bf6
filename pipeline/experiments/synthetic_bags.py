"""Synthetic features with known anomalous snippets: the test beds `exclusive-or` and `bursts`.

Two test beds for what models claim, small enough for a CPU. They say nothing about real videos.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extractors.features import Features
from models.interface import stream_columns
from pipeline.config import RECIPES, TrainConfig
from pipeline.datasets.catalog import VideoEntry
from pipeline.evaluation.linear_baseline import LabeledBag
from pipeline.evaluation.split_videos import SplitVideo
from pipeline.training.bag_loading import Bag, collect_bags
from pipeline.training.batches import BagSet

FEATURE_DIM = 64  # of each stream
N_TRAIN, N_TEST = 1200, 200

EXCLUSIVE_OR_STREAMS = (("rgb", FEATURE_DIM), ("flow", FEATURE_DIM))
N_CONTEXTS = N_MOTIONS = 4
EXCLUSIVE_OR_LEN = 32
MIN_SHOT_LEN, MAX_SHOT_LEN = 4, 8

BURSTS_STREAMS = (("rgb", FEATURE_DIM),)

N_KINDS, N_BURST_KINDS = 6, 12
BURSTS_LEN = 64
ANOMALY_NORM, BURST_NORM = 2.5, 5.0

StreamDims = tuple[tuple[str, int], ...]
SampledVideo = tuple[NDArray[np.float32], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticSet:
    """Videos of one seed, half of them anomalous; one snippet is one frame.

    Attributes:
        train: One bag per video.
        test: With the label of every snippet.
        stream_dims: Name and width of each stream, in the order in which they lie in D.
    """

    train: tuple[Bag, ...]
    test: tuple[SplitVideo, ...]
    stream_dims: StreamDims

    def bags(self, config: TrainConfig) -> BagSet:
        """The training videos, brought to the length that the config says."""
        return collect_bags(
            self.train,
            sampler=config.sampler,
            bag_len=config.bag_len,
            stream_dims=self.stream_dims,
            provenance={"extractor": "none", "is_pretrained": False},
        )

    def labeled(self) -> list[LabeledBag]:
        """The training videos as they are, for the linear scorers."""
        return [LabeledBag(bag.features, bag.label) for bag in self.train]


def exclusive_or(seed: int, *, n_train: int = N_TRAIN, n_test: int = N_TEST) -> SyntheticSet:
    """Videos in which only certain pairs of context and motion are anomalous.

    A video of 32 snippets is cut into shots of 4 to 8. Each shot has one of four contexts, which is
    all that its RGB features hold; each snippet has one of four motions, which is all that its flow
    features hold; noise is added to both. In context c the motions c and c + 1 are anomalous, c + 2
    and c + 3 are normal. In an anomalous video the motions of one shot are anomalous.

    Contexts are sampled by shot, not by video: with one context, the motion that is rare in its
    video would be the anomalous one, and flow alone would tell it. Here each stream has the same
    distribution whatever the labels are, over whole videos too. The codes of c and c + 2 are each
    other's negative: changing the sign of all features changes no label and no probability, so that
    the AUC of every linear score of snippets is one half.

    Args:
        seed: Of the codes and of all videos.
        n_train: Training videos.
        n_test: Test videos.
    """
    rng = np.random.default_rng((seed, 0))
    context_codes, motion_codes = _opposite_codes(rng, N_CONTEXTS), _opposite_codes(rng, N_MOTIONS)

    def sample(label: int) -> SampledVideo:
        shots = _shots(rng, EXCLUSIVE_OR_LEN)
        n_shots = shots[-1] + 1
        context = rng.integers(N_CONTEXTS, size=n_shots)[shots]
        is_anomalous = (shots == rng.integers(n_shots)) & (label == 1)
        motion = context + 2 * ~is_anomalous + rng.integers(2, size=EXCLUSIVE_OR_LEN)
        codes = np.hstack([context_codes[context], motion_codes[motion % N_MOTIONS]])
        return (codes + rng.normal(size=codes.shape)).astype(np.float32), is_anomalous

    return _collect(sample, EXCLUSIVE_OR_STREAMS, n_train, n_test)


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

    return _collect(sample, BURSTS_STREAMS, n_train, n_test)


SYNTHETIC: dict[str, Callable[[int], SyntheticSet]] = {
    "exclusive-or": exclusive_or,
    "bursts": bursts,
}


def synthetic_recipe(model_name: str, name: str) -> Path | None:
    """The recipe of a model for one of `SYNTHETIC`; None where it has none."""
    path = RECIPES / "synthetic" / f"{model_name}-{name}.toml"
    return path if path.is_file() else None


def _opposite_codes(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """(n, FEATURE_DIM) random; the second half is the negative of the first."""
    codes = rng.normal(size=(n // 2, FEATURE_DIM))
    return np.vstack([codes, -codes])


def _shots(rng: np.random.Generator, n_snippets: int) -> NDArray[np.int64]:
    """(n_snippets,) the number of each snippet's shot, from 0; shots of random lengths."""
    while True:
        lengths = rng.integers(MIN_SHOT_LEN, MAX_SHOT_LEN + 1, size=n_snippets // MIN_SHOT_LEN)
        ends = lengths.cumsum()
        if n_snippets in ends:  # else the last shot would be too short
            return np.searchsorted(ends, np.arange(n_snippets), side="right")


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


def _collect(
    sample: Callable[[int], SampledVideo], stream_dims: StreamDims, n_train: int, n_test: int
) -> SyntheticSet:
    """Every second video is anomalous."""
    train = tuple(Bag(f"train/{i}", sample(i % 2)[0], i % 2) for i in range(n_train))
    test = tuple(
        _test_video(f"test/{i}", i % 2, stream_dims, *sample(i % 2)) for i in range(n_test)
    )
    return SyntheticSet(train, test, stream_dims)


def _test_video(
    video_id: str,
    label: int,
    stream_dims: StreamDims,
    features: NDArray[np.float32],
    is_anomalous: NDArray[np.bool_],
) -> SplitVideo:
    n_snippets = len(features)
    # (n_snippets, D) -> (n_snippets, 1, width of the stream), one crop
    streams = {
        name: features[:, None, columns] for name, columns in stream_columns(stream_dims).items()
    }
    return SplitVideo(
        VideoEntry(video_id, Path(video_id), "test", label),
        Features(
            streams=streams,
            snippet_len=1,
            n_frames=n_snippets,
            n_missing=0,
            fps=1.0,
            timestamps=np.arange(n_snippets, dtype=np.float64),
            decoder="none",
        ),
        is_anomalous,
    )
