"""A dataset's folder of features: list it, index it, and keep it in order during an extraction."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from pipeline.atomic import remove_abandoned
from pipeline.datasets.catalog import Dataset, VideoEntry
from pipeline.extraction.feature_file import read_header
from pipeline.extraction.feature_paths import (
    INDEX_NAME,
    STATUS_NAME,
    FeatureFileError,
    videos_without_place,
)
from pipeline.extraction.hdf5 import ExternalLink, writing
from pipeline.extraction.locks import VideoLocks
from pipeline.extraction.status import Failure, StatusTable
from pipeline.extraction.summary import ExtractEvent, VideoOutcome

SECONDS_BETWEEN_TABLES = 60.0
# Extracts what is not there yet of some videos.
ExtractSome = Callable[[Sequence[VideoEntry]], Iterator[ExtractEvent]]


def extract_into_folder(
    dataset: Dataset,
    folder: Path,
    extract: ExtractSome,
) -> Iterator[ExtractEvent]:
    """Extract a dataset's videos, and keep the folder of its features in order meanwhile.

    What killed processes left is removed first; the table of videos is written every minute and
    at the end, the index at the end. Videos whose names have no place in the folder fail at once.

    Args:
        dataset: The videos.
        folder: The dataset's folder of features.
        extract: Extracts some videos into it.

    Yields:
        What `extract` yields, and a failure of every video without a place.
    """
    remove_abandoned(folder)
    table = StatusTable(folder, dataset)
    written_at = time.monotonic()
    reasons = videos_without_place(folder, [entry.video_id for entry in dataset.entries])
    for video_id, reason in reasons.items():
        failure = Failure(video_id, "FeatureFileError", reason, is_quarantined=False)
        yield VideoOutcome(video_id, "failed", failure=failure)
    for event in extract([entry for entry in dataset.entries if entry.video_id not in reasons]):
        yield event
        is_end = isinstance(event, VideoOutcome) and event.status in ("done", "failed")
        if is_end and folder.is_dir() and time.monotonic() - written_at > SECONDS_BETWEEN_TABLES:
            table.write()
            written_at = time.monotonic()
    if folder.is_dir():
        finish_folder(table)


def finish_folder(table: StatusTable) -> None:
    """Write the table of videos and the index; the index by one process after the other."""
    table.write()
    with VideoLocks(table.folder) as locks:
        locks.lock_index()
        write_index(table.folder)


def list_feature_files(folder: Path) -> list[Path]:
    """The feature files of a dataset's folder, sorted; the index is none of them."""
    paths = (path for path in folder.rglob("*.h5") if path != folder / INDEX_NAME)
    return sorted(path for path in paths if path.is_file())


def check_is_folder(folder: Path) -> None:
    """Find out before anything is loaded that a folder of features cannot be made.

    Raises:
        FeatureFileError: If a file, or a link to nowhere, has its name.
    """
    if (folder.exists() or folder.is_symlink()) and not folder.is_dir():
        raise FeatureFileError(
            f"{folder}: is not a folder, expected that of the dataset's features; remove it, or "
            "give another folder with --features"
        )


def is_index(path: Path) -> bool:
    """Whether a file is the index of the folder of features that it is in."""
    return path.name == INDEX_NAME and (path.parent / STATUS_NAME).is_file()


def write_index(folder: Path) -> Path:
    """Write `index.h5`, through which one `h5py.File` shows all videos of a folder.

    `index["some/video"]` is the root of that video's file, attributes included, by an external
    link with a relative name: the folder may be moved.

    Args:
        folder: A dataset's folder of feature files.

    Returns:
        The path of the index.

    Raises:
        FeatureFileError: If the index cannot be written.
    """
    index_path = folder / INDEX_NAME
    names = [path.relative_to(folder).as_posix() for path in list_feature_files(folder)]
    video_ids = {name.removesuffix(".h5"): name for name in names}
    parents = {parent.as_posix() for name in names for parent in PurePosixPath(name).parents}
    with writing(index_path) as index:
        for video_id, name in video_ids.items():
            if video_id not in parents:
                index[video_id] = ExternalLink(name, "/")
                continue
            # A video `a` beside videos `a/b`: nothing can be hung below a link, so `a` is a group
            # of its own that links to the arrays.
            for array in [*read_header(folder / name).streams, "timestamps"]:
                index[f"{video_id}/{array}"] = ExternalLink(name, f"/{array}")
    return index_path


def precision_of_folder(folder: Path) -> str | None:
    """The precision in which a folder's features were made; None if it holds none that can tell."""
    for path in list_feature_files(folder):
        with suppress(FeatureFileError):
            if "precision" in (provenance := read_header(path).provenance):
                return str(provenance["precision"])
    return None
