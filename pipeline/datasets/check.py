"""Checking a dataset before anything is computed: which videos are missing, extra or unreadable."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from extractors.decoding.frame_folder import FrameFolder, check_not_a_folder, read_index
from extractors.decoding.pyav_file import VideoError, open_video, select_stream
from pipeline.datasets.catalog import SPLITS, Dataset, Split, VideoEntry
from pipeline.datasets.listed_videos import walk_videos
from pipeline.progress import Progress, ReportProgress, no_report


@dataclass(frozen=True, slots=True)
class SplitCount:
    """The number of videos in one split.

    Attributes:
        split: Its name.
        n_normal: Listed videos with label 0.
        n_anomalous: Listed videos with label 1.
        n_found: Listed videos whose file or folder of frames exists.
        published: (normal, anomalous) as the dataset's authors give them; None where unknown.
    """

    split: Split
    n_normal: int
    n_anomalous: int
    n_found: int
    published: tuple[int, int] | None

    def describe(self) -> str:
        """One line for a user."""
        line = (
            f"{self.split:5} {self.n_normal + self.n_anomalous:5} videos: {self.n_normal} normal, "
            f"{self.n_anomalous} anomalous; {self.n_found} found"
        )
        if self.published is None:
            return line
        if self.published == (self.n_normal, self.n_anomalous):
            return f"{line}; listed as published"
        normal, anomalous = self.published
        return f"{line}; published: {normal} normal, {anomalous} anomalous"


@dataclass(frozen=True, slots=True)
class DatasetCheck:
    """What differs between a dataset's list and the files in its folder.

    Attributes:
        counts: One for each split.
        missing: Listed files that do not exist, neither as folders of frames.
        unreadable: Listed files and folders that cannot be opened as a video, each with the reason.
        ambiguous: Groups of files that fit one listed video equally well.
        copies: Groups of files with the same content, the first of them listed.
        leaks: Those groups whose listed files belong to different splits.
        extra: Other video files in the folder.
        unannotated: Anomalous test videos whose anomalous frames are not known.
        how_to_get: What to do where no file was found.
    """

    counts: tuple[SplitCount, ...]
    missing: tuple[Path, ...]
    unreadable: tuple[tuple[Path, str], ...]
    ambiguous: tuple[tuple[Path, ...], ...]
    copies: tuple[tuple[Path, ...], ...]
    leaks: tuple[tuple[Path, ...], ...]
    extra: tuple[Path, ...]
    unannotated: tuple[Path, ...]
    how_to_get: str

    @property
    def is_complete(self) -> bool:
        """Whether every listed video can be read, whatever copies and extra files there are."""
        return not (self.missing or self.unreadable or self.ambiguous)

    def describe(self) -> list[str]:
        """Lines for a user."""
        return [
            *(count.describe() for count in self.counts),
            *self._describe_missing(),
            *(f"unreadable: {reason}" for _, reason in self.unreadable),
            *(f"several files for one video: {_join(paths)}" for paths in self.ambiguous),
            *(
                f"same content{' in different splits' * (paths in self.leaks)}: {_join(paths)}"
                for paths in self.copies
            ),
            *(f"not in the list: {path}" for path in self.extra),
            *(f"anomalous frames not known: {path}" for path in self.unannotated),
        ]

    def _describe_missing(self) -> list[str]:
        """A line for each missing file; one for all if none was found: a wrong folder."""
        if not self.missing or any(count.n_found for count in self.counts):
            return [f"missing: {path}" for path in self.missing]
        return [
            f"missing: all {len(self.missing)} videos, first {self.missing[0]}; {self.how_to_get}"
        ]


def check_dataset(dataset: Dataset, *, report: ReportProgress = no_report) -> DatasetCheck:
    """Compare a dataset's list with the files in its folder.

    Of every video the container's header is read, and of files of equal size the whole content; of
    a folder of frames the names and the first frame. Damage further on is found by extraction.

    Args:
        dataset: Loaded with `allow_duplicates`.
        report: Called after each video.
    """
    listed = [entry.path for entry in dataset.entries]
    found = [entry for entry in dataset.entries if entry.is_there]
    existing = {entry.path for entry in found}
    unreadable = []
    for n_done, entry in enumerate(found, start=1):
        problem = _find_problem(entry)
        if problem is not None:
            unreadable.append((entry.path, problem))
        report(Progress("check", n_done, len(found), "videos"))
    others = _other_videos(dataset, set(listed))
    copies = _same_content([*(path for path in listed if path.is_file()), *others])
    split_of = {entry.path: entry.split for entry in dataset.entries}
    of_copies = {path for group in copies for path in group}
    return DatasetCheck(
        counts=tuple(_count(dataset, split, existing) for split in SPLITS),
        missing=tuple(path for path in listed if path not in existing),
        unreadable=tuple(unreadable),
        ambiguous=dataset.duplicates,
        copies=copies,
        leaks=tuple(
            group
            for group in copies
            if len({split_of[path] for path in group if path in split_of}) > 1
        ),
        extra=tuple(path for path in others if path not in of_copies),
        unannotated=tuple(
            entry.path for entry in dataset.split("test") if not entry.has_frame_labels
        ),
        how_to_get=dataset.how_to_get,
    )


def _count(dataset: Dataset, split: Split, existing: set[Path]) -> SplitCount:
    entries = dataset.split(split)
    n_anomalous = sum(entry.label for entry in entries)
    return SplitCount(
        split,
        n_normal=len(entries) - n_anomalous,
        n_anomalous=n_anomalous,
        n_found=sum(entry.path in existing for entry in entries),
        published=dataset.published_counts.get(split),
    )


def _find_problem(entry: VideoEntry) -> str | None:
    """Why a file or folder cannot be opened as a video; None if it can."""
    source = entry.source
    try:
        if isinstance(source, FrameFolder):
            read_index(source)
            return None
        check_not_a_folder(source)
        with open_video(source) as container:
            select_stream(container, source)
    except VideoError as error:
        return str(error)
    return None


def _other_videos(dataset: Dataset, listed: set[Path]) -> list[Path]:
    """The video files in the folder that are not those of the list."""
    if dataset.folder is None:
        return []
    known = listed.union(*dataset.duplicates)
    others = [path for path in walk_videos(dataset.folder) if path not in known]
    return [path for path in others if path.is_file()]  # no broken link, no named pipe


def _same_content(paths: Sequence[Path]) -> tuple[tuple[Path, ...], ...]:
    """Groups of files that are not empty and equal byte by byte, in the order of `paths`."""
    groups: list[tuple[Path, ...]] = []
    by_size = sorted(range(len(paths)), key=lambda i: (paths[i].stat().st_size, i))
    for size, indices in groupby(by_size, key=lambda i: paths[i].stat().st_size):
        same_size = [paths[i] for i in indices]
        if size and len(same_size) > 1:
            groups += _same_digest(same_size)
    return tuple(groups)


def _same_digest(paths: Iterable[Path]) -> list[tuple[Path, ...]]:
    by_digest: dict[str, list[Path]] = {}
    for path in paths:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        by_digest.setdefault(digest, []).append(path)
    return [tuple(group) for group in by_digest.values() if len(group) > 1]


def _join(paths: Iterable[Path]) -> str:
    return ", ".join(map(str, paths))
