"""Frame-level ground truth of a test split, by our rule or that of a published result.

Our rule (`annotation`) is the raw annotation cut to the true number of frames of each video. The
published ones are in `ground_truth_conventions.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from extractors.features import Features
from pipeline.datasets.catalog import Dataset, DatasetError, VideoEntry, describe_cut_intervals
from pipeline.evaluation.ground_truth_conventions import (
    ANNOTATION,
    ANNOTATION_RULE,
    FrameLabels,
    VideoLength,
    conventions_of,
    cut_to_frames,
)
from pipeline.extraction.feature_file import feature_path, read_features
from pipeline.outputs import write_output


@dataclass(frozen=True, slots=True, eq=False)
class GroundTruth:
    """Frame labels of a test split, video by video.

    Attributes:
        dataset: Its name.
        convention: A key of `conventions_of`, or `annotation`.
        rule: How it is made, in one sentence.
        labels: By video id, in the order of the dataset's list.
        published_n_frames: The length that it should have; None for our own rule.
        cut_intervals: How many intervals end beyond their video, in one line; None if none.
    """

    dataset: str
    convention: str
    rule: str
    labels: Mapping[str, FrameLabels]
    published_n_frames: int | None
    cut_intervals: str | None

    @property
    def n_frames(self) -> int:
        """Frames of all videos."""
        return sum(labels.size for labels in self.labels.values())

    @property
    def n_anomalous(self) -> int:
        """Anomalous frames of all videos."""
        return sum(int(labels.sum()) for labels in self.labels.values())

    def concatenate(self, video_ids: Sequence[str] | None = None) -> FrameLabels:
        """Join the labels of all videos, in an order that is given or in that of the list."""
        return np.concatenate([self.labels[video_id] for video_id in video_ids or self.labels])

    def write(self, path: Path) -> None:
        """Write the labels of all videos, joined, as a NumPy file of uint8; `-` is stdout.

        Raises:
            OSError: If it cannot be written.
        """
        content = BytesIO()
        np.save(content, self.concatenate().astype(np.uint8), allow_pickle=False)
        write_output(path, content.getvalue())

    def describe(self) -> list[str]:
        """Lines for a user."""
        lines = [
            f"{self.dataset}, {self.convention}: {len(self.labels)} test videos, "
            f"{self.n_frames} frames, {self.n_anomalous} of them anomalous",
            f"rule: {self.rule}",
        ]
        if self.published_n_frames is not None:
            is_same = self.n_frames == self.published_n_frames
            note = "as published" if is_same else f"published: {self.published_n_frames} frames"
            lines.append(f"length: {note}")
        return [*lines, *([self.cut_intervals] if self.cut_intervals else [])]


def describe_conventions(dataset_name: str) -> list[str]:
    """One line for our rule and for each published convention of a dataset."""
    return [
        f"{ANNOTATION}: {ANNOTATION_RULE}",
        *(
            f"{name}: {each.n_frames} frames ({each.publishers}): {each.rule}"
            for name, each in conventions_of(dataset_name).items()
        ),
    ]


def convention_labels(
    dataset: Dataset, convention: str, entry: VideoEntry, features: Features | None
) -> FrameLabels:
    """Make the labels of one test video by a convention.

    Scores to compare with them are those of the snippets, repeated 16 times and cut or continued
    to as many frames: `extractors.snippets.per_frame(per_snippet, 16, len(labels))`.

    Args:
        dataset: The video's dataset.
        convention: `annotation`, or a key of `conventions_of(dataset.name)`.
        entry: A test video.
        features: The video's, where there are some. Their number of frames is the true one by our
            rule, unless they were imported; a published convention takes the published one where
            the dataset knows it.

    Returns:
        (n_frames,) True where the frame is anomalous; n_frames follows from the convention.

    Raises:
        DatasetError: If there is no such convention, or the length that it needs is not known.
    """
    return _labels(dataset, convention, entry, _length_of(dataset, convention, entry, features))


def _labels(
    dataset: Dataset, convention: str, entry: VideoEntry, length: VideoLength
) -> FrameLabels:
    known = conventions_of(dataset.name)
    if convention == ANNOTATION:
        labels, needs = cut_to_frames(entry, length), "number of frames"
    elif convention in known:
        labels, needs = known[convention].labels(entry, length), known[convention].needs
    else:
        raise DatasetError(
            f"{dataset.name}: no ground-truth convention {convention!r}; "
            f"expected {', '.join((ANNOTATION, *known))}"
        )
    if labels is None:
        raise DatasetError(
            f"{entry.path}: its {needs} is not known; extract or import the features of "
            f"{dataset.name} and name their folder with --features"
        )
    return labels


def make_ground_truth(
    dataset: Dataset, features_folder: Path, *, convention: str = ANNOTATION
) -> GroundTruth:
    """Make the frame labels of a dataset's test split.

    Args:
        dataset: Its test split is used.
        features_folder: Holds `<dataset>/<video_id>.h5`, where the lengths are read that the
            package does not know.
        convention: `annotation`, or a key of `conventions_of`.

    Raises:
        DatasetError: If there is no such convention or no test video, or the length or the
            anomalous frames of one are not known.
        FeatureFileError: If a feature file is damaged.
    """
    entries = dataset.split("test")
    if not entries:
        raise DatasetError(f"{dataset.name}: has no videos in the split 'test'")
    labels: dict[str, FrameLabels] = {}
    n_frames: list[int] = []
    for entry in entries:
        features = _read_features(dataset, features_folder, entry)
        length = _length_of(dataset, convention, entry, features)
        labels[entry.video_id] = _labels(dataset, convention, entry, length)
        n_frames.append(length.n_frames or labels[entry.video_id].size)
    published = conventions_of(dataset.name).get(convention)
    return GroundTruth(
        dataset.name,
        convention,
        rule=published.rule if published else ANNOTATION_RULE,
        labels=labels,
        published_n_frames=published.n_frames if published else None,
        cut_intervals=describe_cut_intervals(zip(entries, n_frames, strict=True)),
    )


def _read_features(dataset: Dataset, folder: Path, entry: VideoEntry) -> Features | None:
    path = feature_path(folder / dataset.name, entry.video_id)
    return read_features(path, video_id=entry.video_id).features if path.exists() else None


def _length_of(
    dataset: Dataset, convention: str, entry: VideoEntry, features: Features | None
) -> VideoLength:
    published = dataset.frame_counts.get(entry.video_id)
    if features is None:
        return VideoLength(published)
    # Features that were imported may leave out frames of their video.
    is_own = convention == ANNOTATION and features.has_times
    n_frames = features.n_frames if is_own or published is None else published
    return VideoLength(n_frames, features.n_snippets)
