"""Which videos of a split have features."""

import logging
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path

from pipeline.datasets import DATASETS
from pipeline.datasets.catalog import Dataset, DatasetError, Split, VideoEntry
from pipeline.extraction.feature_file import DamagedFileError, read_header
from pipeline.extraction.feature_paths import FeatureFileError, feature_path
from pipeline.extraction.releases import IMPORTED_FROM
from pipeline.printable import printable

# Opening a feature file takes milliseconds: all of thousands would delay each command by many
# seconds.
MAX_COMPARED = 20

logger = logging.getLogger(__name__)


def count_with_features(dataset: Dataset, split: Split, features_folder: Path) -> int:
    """How many videos of a split have features."""
    folder = features_folder / dataset.name
    return sum(feature_path(folder, each.video_id).exists() for each in dataset.split(split))


def entries_with_features(
    dataset: Dataset, split: Split, features_folder: Path
) -> tuple[VideoEntry, ...]:
    """The videos of a split that have features; a warning in the log counts the others.

    Published datasets have videos that cannot be read: one of them must not stop the rest, nor go
    unnoticed. The sizes of the video files, at most `MAX_COMPARED`, are compared with those that
    the features were extracted from; folders of frames are not.

    Raises:
        DatasetError: If the dataset has no video in the split.
        FeatureFileError: If none of its videos has features, or if the features of several videos
            were all extracted from files of other sizes than the compared videos have; a warning if
            some were, or if not all of these can be compared.
    """
    folder = features_folder / dataset.name
    entries = dataset.split(split)
    if not entries:
        raise DatasetError(f"{dataset.name}: has no videos in the split '{split}'")
    there: list[VideoEntry] = []
    absent: list[str] = []
    for entry in entries:
        if feature_path(folder, entry.video_id).exists():
            there.append(entry)
        else:
            absent.append(entry.video_id)
    command = _extract_command(dataset)
    if not there:
        raise FeatureFileError(
            f"{folder}: holds no features of the {len(entries)} {split} videos of {dataset.name}; "
            f"name another folder with --features, or make them with: {command}"
        )
    if absent:
        logger.warning(
            "%s: %d of %d %s videos have no features and are left out, first %s; see: %s",
            *(folder, len(absent), len(entries), split, printable(absent[0]), command),
        )
    _check_sources(folder, there, command)
    return tuple(there)


def _extract_command(dataset: Dataset) -> str:
    """The command that makes a dataset's features; in Python where nothing lists its videos."""
    if dataset.name in DATASETS:
        argument, default = dataset.name, Path("data", dataset.name)
    elif dataset.manifest is not None:
        argument, default = str(dataset.manifest), dataset.manifest.parent
    else:
        return "pipeline.extract(dataset)"
    command = ["pipeline", "extract", argument]
    if dataset.folder not in (None, default):
        command += ["--videos", str(dataset.folder)]
    return shlex.join(command)


def _check_sources(folder: Path, entries: Sequence[VideoEntry], command: str) -> None:
    """Compare the sizes of videos with those of the files that features were extracted from.

    Folders of frames are not compared. Of more than `MAX_COMPARED` videos only so many are, always
    the same ones, spread evenly over the list: that suffices to notice another dataset of the same
    name, but single videos that were replaced may go unnoticed.

    If all differ, the features are those of another dataset. If some do, they were replaced since:
    a warning in the log. One video, or those that are left on a disk, cannot tell these cases
    apart: a warning as well.

    Raises:
        FeatureFileError: If there are several videos and all of them, or of those chosen, were
            compared and differ.
    """
    n_chosen = min(len(entries), MAX_COMPARED)
    chosen = [entries[index * len(entries) // n_chosen] for index in range(n_chosen)]
    found = [_describe_other_source(feature_path(folder, e.video_id), e) for e in chosen]
    compared = [description for description in found if description is not None]
    changed = [description for description in compared if description]
    if not changed:
        return
    message = (
        f"{changed[0]}; {len(changed)} of {len(compared)} compared videos, of {len(entries)} with "
        f"features, are not the files that their features are of; extract them again: {command}"
    )
    if len(changed) == n_chosen > 1:
        raise FeatureFileError(
            f"{message}, or give the folder of their features with --features (datasets of one "
            "name need folders of their own)"
        )
    logger.warning("%s", printable(message))


def _describe_other_source(path: Path, entry: VideoEntry) -> str | None:
    """From which other file features were extracted; "" if from none, None if nobody can tell.

    Only sizes of files are compared, not folders of frames: extraction compares the content.
    Imported features are of files of their release, and damaged ones are reported by who reads
    them. A video that cannot be reached is no error, since only its features are needed.
    """
    try:
        video = entry.path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(video.st_mode):
        return None
    try:
        header = read_header(path)
    except DamagedFileError:
        return None
    if header.source is None or IMPORTED_FROM in header.provenance:
        return None
    if video.st_size == header.source.n_bytes:
        return ""
    return (
        f"{path}: was extracted from a file of {header.source.n_bytes} bytes, but {entry.path} "
        f"has {video.st_size}"
    )
