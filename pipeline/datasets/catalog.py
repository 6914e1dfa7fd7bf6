"""The types of a dataset: videos with their split, label and anomalous frames; and its source."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from extractors.decoding.frame_folder import VideoSource, video_source
from extractors.errors import LookaroundError
from pipeline.progress import ReportProgress, no_report

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

# Frames as (start, stop), counted from 0, stop excluded.
Intervals = tuple[tuple[int, int], ...]


class DatasetError(LookaroundError, ValueError):
    """A dataset was not found, or its list or annotation is not valid."""


@dataclass(frozen=True, slots=True)
class VideoEntry:
    """One video of a dataset.

    Attributes:
        video_id: Its name in the dataset, with `/` as separator and without a suffix.
        path: The file, which need not exist yet.
        split: Which part of the dataset it belongs to.
        label: 1 if any of it is anomalous, else 0.
        anomalies: The anomalous frames as (start, stop), counted from 0, stop excluded. Empty
            with label 1 means that they are not known.
        categories: The classes of its anomalies, where the dataset names them.
        fps: Frames per second, where the video is a folder of frames: a file says so itself.

    Raises:
        ValueError: If a value is not one of those above, or label and anomalies contradict each
            other.
    """

    video_id: str
    path: Path
    split: Split
    label: int
    anomalies: Intervals = ()
    categories: tuple[str, ...] = ()
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split must be {_one_of(SPLITS)}, instead got {self.split!r}")
        if self.label not in (0, 1):
            raise ValueError(f"label must be 0 or 1, instead got {self.label!r}")
        for start, stop in self.anomalies:
            if not 0 <= start < stop:
                raise ValueError(
                    "an anomaly must be start-stop in frames with 0 <= start < stop, "
                    f"instead got {start}-{stop}"
                )
        if self.anomalies and self.label == 0:
            raise ValueError(
                "anomalies must be empty with label 0, instead got "
                f"{';'.join(f'{start}-{stop}' for start, stop in self.anomalies)}"
            )

    @property
    def is_there(self) -> bool:
        """Whether the file, or the folder of frames, exists."""
        return self.path.is_file() or self.path.is_dir()

    @property
    def source(self) -> VideoSource:
        """What is decoded: the file, or the folder of frames with its frames per second."""
        return video_source(self.path, self.fps)

    @property
    def has_frame_labels(self) -> bool:
        """Whether the label of every frame is known."""
        return self.label == 0 or bool(self.anomalies)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A list of videos to extract, to train on and to evaluate on.

    Attributes:
        name: Names the folder of its features.
        entries: Its videos, in the order of their list.
        how_to_get: What to do where none of the videos exists.
        folder: The folder of its videos, where it has one.
        manifest: The CSV that it was read from, where it was.
        duplicates: Files, or folders of frames, of which each group fits one video of the list
            equally well.
        published_counts: (normal, anomalous) videos of each split as the authors give them.
        frame_counts: Frames of a video by its id, where they are published.

    Raises:
        ValueError: If the name is not that of a folder, or two videos have one id.
    """

    name: str
    entries: tuple[VideoEntry, ...]
    how_to_get: str = "put the videos there"
    folder: Path | None = None
    manifest: Path | None = None
    duplicates: tuple[tuple[Path, ...], ...] = ()
    published_counts: Mapping[Split, tuple[int, int]] = field(default_factory=dict)
    frame_counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name in ("", ".", "..") or "/" in self.name:
            raise ValueError(
                f"name must be that of a folder of features, instead got {self.name!r}"
            )
        counts = Counter(entry.video_id for entry in self.entries)
        if len(counts) < len(self.entries):
            ((video_id, n_times),) = counts.most_common(1)
            raise ValueError(f"video ids must differ, instead got {video_id!r} {n_times} times")

    def split(self, split: Split) -> tuple[VideoEntry, ...]:
        """Select the videos of one split."""
        return tuple(entry for entry in self.entries if entry.split == split)

    def missing_videos(self) -> list[Path]:
        """List the files that do not exist, neither as folders of frames."""
        return [entry.path for entry in self.entries if not entry.is_there]

    def with_fps(self, fps: float | None) -> "Dataset":
        """This dataset, whose folders of frames have so many frames per second."""
        return replace(self, entries=tuple(replace(entry, fps=fps) for entry in self.entries))

    def check_no_duplicates(self) -> None:
        """Refuse two files or folders for one video: which of them was meant is not known.

        Raises:
            DatasetError: If there are such files or folders.
        """
        if self.duplicates:
            first, second, *_ = self.duplicates[0]
            raise DatasetError(
                f"{self.folder}: holds two videos of one name, {first} and {second}; remove one"
            )

    def check_any_video_is_there(self) -> None:
        """Refuse a dataset none of whose videos exists: the folder is probably another one.

        Raises:
            DatasetError: If there are no videos, or none of them exists.
        """
        if not self.entries:
            raise DatasetError(f"{self.name}: has no videos; list at least one")
        missing = self.missing_videos()
        if len(missing) == len(self.entries):
            raise DatasetError(
                f"{missing[0]}: no such file, nor any other of the {len(missing)} videos of "
                f"{self.name}; {self.how_to_get}"
            )


class LoadDataset(Protocol):
    """A function that reads a dataset's list: any registered one."""

    def __call__(self, videos: Path | None = None, *, allow_outside: bool = False) -> Dataset:
        """Read the list.

        Args:
            videos: The folder of the videos; by default `data/<name>`.
            allow_outside: Accept links out of this folder in lists that come with the videos.
        """


class MakeDataset(Protocol):
    """A function that writes a synthetic dataset's videos and returns their paths."""

    def __call__(
        self,
        folder: Path,
        *,
        seed: int = 0,
        n_test_videos: int = ...,
        report: ReportProgress = no_report,
    ) -> list[Path]:
        """Write the videos into a folder, which is made if it is missing."""


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """What is registered under a dataset's name.

    Attributes:
        load: Reads its list.
        summary: A few words about it, for `pipeline datasets list`.
        make: Writes its videos, where it is synthetic.
        fps: Frames per second of those of its videos that are published as folders of frames.
    """

    load: LoadDataset
    summary: str
    make: MakeDataset | None = None
    fps: int | None = None


def frame_labels(entry: VideoEntry, n_frames: int) -> NDArray[np.bool_]:
    """Label each frame of a video.

    An interval that goes beyond the video's end is cut there: published annotations do, by a few
    frames. `describe_cut_intervals` says how many.

    Args:
        entry: The video.
        n_frames: How many frames it has.

    Returns:
        (n_frames,) bool, True where the frame is anomalous.

    Raises:
        DatasetError: If it is anomalous and its anomalous frames are not known.
    """
    if not entry.has_frame_labels:
        raise DatasetError(
            f"{entry.path}: is labeled 1 without anomalies, so its frames have no labels; add its "
            "anomalous frames to the manifest, or its annotation to the videos, or leave it out of "
            "the test split"
        )
    labels = np.zeros(n_frames, dtype=bool)
    for start, stop in entry.anomalies:
        labels[start:stop] = True
    return labels


def describe_cut_intervals(videos: Iterable[tuple[VideoEntry, int]]) -> str | None:
    """Summarize in one line the intervals that end beyond their video.

    Args:
        videos: Videos, each with its number of frames.

    Returns:
        The line; None if there is no such interval.
    """
    n_intervals = 0
    cut: list[str] = []
    for entry, n_frames in videos:
        n_intervals += len(entry.anomalies)
        cut += [
            f"{entry.path}: {start}-{stop} of {n_frames} frames"
            for start, stop in entry.anomalies
            if stop > n_frames
        ]
    if not cut:
        return None
    return (
        f"{len(cut)} of {n_intervals} anomalous intervals end beyond their video and are cut "
        f"there, first {cut[0]}"
    )


def _one_of(values: tuple[str, ...]) -> str:
    return f"{', '.join(values[:-1])} or {values[-1]}"
