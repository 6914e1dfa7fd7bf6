"""Bags of snippets for training: read, and brought to a fixed length.

A video's crops are bags of their own: models never see crops. Both samplers are fixed functions of
a bag, so they run once, while the files are read, and only their results are kept.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config import Sampler
from pipeline.datasets.catalog import Dataset, DatasetError, Split, VideoEntry
from pipeline.extraction.available_features import entries_with_features
from pipeline.extraction.feature_file import (
    FeatureFileError,
    Provenance,
    StoredFeatures,
    feature_path,
    provenance_differences,
    read_features,
)
from pipeline.training.bag_store import BagStore
from pipeline.training.batches import BagSet, StreamDims
from pipeline.training.temporal_sampling import SnippetSample

N_SAMPLE_SNIPPETS = 2**15
# Enough to keep two cores busy and a network disk answering.
N_READERS = 4

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Bag:
    """The snippets of one crop of one video.

    Attributes:
        video_id: The video's name within its dataset.
        features: (n_snippets, D) float32, finite, the streams side by side.
        label: 0 for a normal video, 1 for an anomalous one.

    Raises:
        ValueError: If something is not as above; the text names the video.
    """

    video_id: str
    features: NDArray[np.float32]
    label: int

    def __post_init__(self) -> None:
        shape = self.features.shape
        if len(shape) != 2 or 0 in shape or self.features.dtype != np.float32:
            raise ValueError(
                f"features of {self.video_id} must be (n_snippets, D) float32, "
                f"instead got {shape} {self.features.dtype}"
            )
        if not np.isfinite(self.features).all():
            raise ValueError(
                f"features of {self.video_id} must be finite, instead got NaN or infinity"
            )
        if self.label not in (0, 1):
            raise ValueError(f"label of {self.video_id} must be 0 or 1, instead got {self.label}")


def collect_bags(
    bags: Iterable[Bag],
    *,
    sampler: Sampler,
    bag_len: int,
    stream_dims: StreamDims,
    provenance: Provenance,
) -> BagSet:
    """Bring bags that are in memory to their length.

    Args:
        bags: Bags with the same video id follow each other and are crops of one video.
        sampler: `bins` or `sequence`.
        bag_len: T.
        stream_dims: Name and width of each stream, in the order in which they lie in D.
        provenance: How the features were made.

    Raises:
        DatasetError: If the videos are all normal or all anomalous.
        ValueError: If a bag's width is not that of the streams, or a video's crops differ in
            their length.
    """
    bags = list(bags)
    collection = _Collection(len(bags), sampler, bag_len, stream_dims, np.float32)
    for video_id, group in groupby(bags, key=lambda bag: bag.video_id):
        of_video = list(group)
        crops = np.stack([bag.features for bag in of_video], axis=1)  # (n_snippets, K, D)
        collection.add(video_id, of_video[0].label, [crops])
    return collection.bag_set(provenance)


class _Collection:
    """A `BagSet` in the making; see `collect_bags`."""

    def __init__(
        self,
        max_bags: int,
        sampler: Sampler,
        bag_len: int,
        stream_dims: StreamDims,
        dtype: type[np.float16] | type[np.float32],
    ) -> None:
        self._feature_dim = sum(dim for _, dim in stream_dims)
        self._store = BagStore(
            max_bags, bag_len=bag_len, feature_dim=self._feature_dim, sampler=sampler, dtype=dtype
        )
        self._sampler, self._stream_dims = sampler, stream_dims
        self._sample = SnippetSample(N_SAMPLE_SNIPPETS)
        self._video_ids: list[str] = []
        self._labels: list[int] = []
        self._n_crops: list[int] = []
        self._max_snippets = 0

    def add(self, video_id: str, label: int, streams: list[NDArray[np.float32]]) -> None:
        """Take one video; the streams, each (n_snippets, K, D of the stream), make D."""
        feature_dim = sum(stream.shape[2] for stream in streams)
        if feature_dim != self._feature_dim:
            raise ValueError(
                f"features of {video_id} must have D = {self._feature_dim}, "
                f"instead got {feature_dim}"
            )
        n_crops = streams[0].shape[1]
        for crop in range(n_crops):
            self._sample.add([stream[:, crop] for stream in streams], len(self._video_ids))
        self._store.add(streams)
        self._video_ids.append(video_id)
        self._labels.append(label)
        self._n_crops.append(n_crops)
        self._max_snippets = max(self._max_snippets, len(streams[0]))

    def bag_set(self, provenance: Provenance) -> BagSet:
        """Everything that was taken."""
        features, n_snippets = self._store.contents()
        n_crops = np.array(self._n_crops, dtype=np.int64)
        return BagSet(
            video_ids=tuple(self._video_ids),
            labels=torch.tensor(self._labels, dtype=torch.int64),
            first_bags=n_crops.cumsum() - n_crops,
            n_crops=n_crops,
            features=features,
            n_snippets=n_snippets,
            max_snippets=self._max_snippets,
            sampler=self._sampler,
            stream_dims=self._stream_dims,
            provenance=provenance,
            snippets=self._sample.rows(),
            snippet_videos=self._sample.videos(),
        )


def load_bags(
    dataset: Dataset,
    features_folder: Path,
    *,
    sampler: Sampler,
    bag_len: int,
    split: Split = "train",
) -> BagSet:
    """Read a split of a dataset, each file once.

    What a sampler only picks keeps the files' float16; means over bins are float32.

    Args:
        dataset: One of its splits is read.
        features_folder: Holds `<dataset>/<video_id>.h5`.
        sampler: `bins` (T means) or `sequence` (up to T snippets, padded).
        bag_len: T.
        split: Which.

    Raises:
        DatasetError: If there are not both normal and anomalous videos.
        FeatureFileError: If there are no features, they cannot be read, or they were not all made
            in the same way.
        OSError: If they fit neither into memory nor into the folder of temporary files.
    """
    entries = entries_with_features(dataset, split, features_folder)
    if len({entry.label for entry in entries}) < 2:
        n_anomalous = sum(entry.label for entry in entries)
        raise DatasetError(
            f"{dataset.name}: training needs normal and anomalous videos in the split '{split}', "
            f"instead got {len(entries) - n_anomalous} normal and {n_anomalous} anomalous"
        )
    folder = features_folder / dataset.name
    paths = [feature_path(folder, entry.video_id) for entry in entries]
    first = read_features(paths[0], video_id=entries[0].video_id)
    if not first.provenance:
        raise FeatureFileError(f"{paths[0]}: does not say how it was made; extract it again")
    stream_dims = _stream_dims(first)
    collection = _Collection(
        len(entries) * first.features.n_crops,
        sampler,
        bag_len,
        stream_dims,
        np.float16 if sampler == "sequence" else np.float32,
    )
    for entry, path, stored in zip(entries, paths, _read_in_order(entries, paths), strict=True):
        differences = provenance_differences(first.provenance, stored.provenance)
        if differences:
            raise FeatureFileError(
                f"{path}: extracted with different settings than {paths[0].name} "
                f"({'; '.join(differences)}); extract all videos with the same options"
            )
        if _shape(stored) != _shape(first):
            raise FeatureFileError(
                f"{path}: must have {_shape(first)} as {paths[0].name}, "
                f"instead got {_shape(stored)}; extract it again"
            )
        collection.add(entry.video_id, entry.label, list(stored.features.streams.values()))
    logger.info("%s: read %d videos for the split '%s'", folder, len(entries), split)
    return collection.bag_set(first.provenance)


def _shape(stored: StoredFeatures) -> str:
    """The streams with their widths, and the number of crops."""
    streams = ", ".join(f"{name} ({dim}-d)" for name, dim in _stream_dims(stored))
    return f"{streams} of {stored.features.n_crops} crops"


def _stream_dims(stored: StoredFeatures) -> StreamDims:
    return tuple((name, values.shape[2]) for name, values in stored.features.streams.items())


def _read_in_order(
    entries: Sequence[VideoEntry], paths: Sequence[Path]
) -> Iterator[StoredFeatures]:
    """Read files ahead of their use, but only a few, for a long video's features are large."""
    with ThreadPoolExecutor(N_READERS) as readers:
        ahead: deque[Future[StoredFeatures]] = deque()
        for entry, path in zip(entries, paths, strict=True):
            ahead.append(readers.submit(read_features, path, video_id=entry.video_id))
            if len(ahead) > N_READERS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
