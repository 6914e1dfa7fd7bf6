"""The test videos of a dataset: features and frame labels, read one video at a time."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extractors.decoding.frame_folder import VideoSource, video_source
from extractors.features import Features
from pipeline.datasets.catalog import (
    Dataset,
    DatasetError,
    VideoEntry,
    describe_cut_intervals,
    frame_labels,
)
from pipeline.evaluation.ground_truth import convention_labels
from pipeline.evaluation.ground_truth_conventions import ANNOTATION, conventions_of
from pipeline.extraction.available_features import entries_with_features
from pipeline.extraction.feature_file import (
    FeatureFileError,
    Provenance,
    feature_path,
    read_features,
)
from pipeline.extraction.releases import GROUND_TRUTH
from pipeline.runs.compatibility import compare_with_run

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class SplitVideo:
    """One video of the test split.

    Attributes:
        entry: Its entry in the dataset.
        features: As extracted.
        labels: True where the frame is anomalous. As many as the video has frames by our rule for
            the ground truth; a published convention may cut or continue them.
    """

    entry: VideoEntry
    features: Features
    labels: NDArray[np.bool_]

    @property
    def source(self) -> VideoSource:
        """The file, or the folder of frames at the frame rate of the features.

        Imported features have none: it is then the dataset's, where that has one.
        """
        features = self.features
        if not features.has_times:
            return self.entry.source
        return video_source(self.entry.path, features.fps)


@dataclass(frozen=True, slots=True, eq=False)
class VideoTruth:
    """What is kept of a test video once its features are scored.

    Attributes:
        entry: Its entry in the dataset.
        source: The file, or the folder of frames at the frame rate of the features.
        labels: (n_labels,) True where the frame is anomalous.
        timestamps: (n_labels,) seconds.
        n_frames: Frames of the features; a published ground truth may have more or fewer labels.
        duration_seconds: Length of the video.
        snippet_len: Frames per snippet of its features.
    """

    entry: VideoEntry
    source: VideoSource
    labels: NDArray[np.bool_]
    timestamps: NDArray[np.float64]
    n_frames: int
    duration_seconds: float
    snippet_len: int


class EvaluatedSplit:
    """The test videos of a dataset that have features; iterating reads one after the other.

    A test split can be larger than memory, so no features are kept.

    Args:
        dataset: Its `test` split is read.
        features_folder: Holds `<dataset>/<video_id>.h5`.
        provenance: How the run's features were extracted.
        ground_truth: How frame labels are made: `annotation`, or a published convention.

    Attributes:
        dataset: Whose test split it is.
        entries: The videos, in the order of the dataset.

    Raises:
        DatasetError: If there is no test video.
        FeatureFileError: If none has features.
    """

    def __init__(
        self,
        dataset: Dataset,
        features_folder: Path,
        provenance: Provenance,
        *,
        ground_truth: str = ANNOTATION,
    ) -> None:
        self.entries = entries_with_features(dataset, "test", features_folder)
        self.dataset, self._ground_truth = dataset, ground_truth
        self._folder, self._provenance = features_folder / dataset.name, provenance
        self._notices: set[str] = set()

    def __iter__(self) -> Iterator[SplitVideo]:
        """Read the videos.

        Raises:
            DatasetError: If it is not known which frames of a video are anomalous, or there is no
                such convention for the ground truth.
            FeatureFileError: If features cannot be read or were extracted with other settings than
                the run's. A difference in rounding only is a warning in the log.
        """
        lengths: list[tuple[VideoEntry, int]] = []
        for index, entry in enumerate(self.entries):
            features = self.features(index)
            logger.info("%s: %d frames", self.path(entry), features.n_frames)
            lengths.append((entry, features.n_frames))
            labels = convention_labels(self.dataset, self._ground_truth, entry, features)
            yield SplitVideo(entry, features, labels)
        cut = describe_cut_intervals(lengths)
        if cut is not None:
            self._warn_once(cut)

    def path(self, entry: VideoEntry) -> Path:
        """The feature file of a video."""
        return feature_path(self._folder, entry.video_id)

    def features(self, index: int) -> Features:
        """Read the features of one video; errors as those of iterating."""
        entry = self.entries[index]
        path = self.path(entry)
        stored = read_features(path, video_id=entry.video_id)
        differences, notice = compare_with_run(self._provenance, stored.provenance)
        if differences:
            raise FeatureFileError(
                f"{path}: was extracted with other settings than the run's features "
                f"({'; '.join(differences)}); extract with the run's options, or name another run"
            )
        if notice:
            self._warn_once(notice)
        return stored.features

    def _warn_once(self, notice: str) -> None:
        if notice not in self._notices:
            self._notices.add(notice)
            logger.warning("%s: %s", self._folder, notice)


def default_ground_truth(dataset_name: str, provenance: Provenance) -> str:
    """The convention that fits the features of a release; our own rule for all others."""
    convention = str(provenance.get(GROUND_TRUTH, ANNOTATION))
    return convention if convention in conventions_of(dataset_name) else ANNOTATION


def load_test_videos(
    dataset: Dataset, features_folder: Path, provenance: Provenance
) -> tuple[SplitVideo, ...]:
    """Read the whole test split into memory, with labels for the frames of the features.

    Args:
        dataset: Its `test` split is read.
        features_folder: Holds `<dataset>/<video_id>.h5`.
        provenance: How the run's features were extracted.

    Raises:
        DatasetError: As `EvaluatedSplit`, and if the frames of all videos are of one class.
        FeatureFileError: As `EvaluatedSplit`.
    """
    videos = tuple(
        replace(video, labels=frame_labels(video.entry, video.features.n_frames))
        for video in EvaluatedSplit(dataset, features_folder, provenance)
    )
    check_both_classes(dataset.name, [video.labels for video in videos])
    return videos


def check_both_classes(dataset_name: str, labels: Sequence[NDArray[np.bool_]]) -> None:
    """Refuse a test split whose frames are all of one class.

    Args:
        dataset_name: For the message.
        labels: Of each video (n_frames,).

    Raises:
        DatasetError: If they are.
    """
    n_anomalous = sum(int(of_video.sum()) for of_video in labels)
    n_frames = sum(of_video.size for of_video in labels)
    if n_anomalous in (0, n_frames):
        raise DatasetError(
            f"{dataset_name}: an evaluation needs normal and anomalous frames in the split 'test', "
            f"instead got {n_frames - n_anomalous} normal and {n_anomalous} anomalous"
        )
