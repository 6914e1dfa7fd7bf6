"""Which videos of a split have features."""

import logging
import shlex
from pathlib import Path

from pipeline.datasets import DATASETS
from pipeline.datasets.catalog import Dataset, DatasetError, Split, VideoEntry
from pipeline.extraction.feature_file import DamagedFileError, read_header
from pipeline.extraction.feature_paths import FeatureFileError, feature_path
from pipeline.extraction.releases import IMPORTED_FROM
from pipeline.printable import printable

logger = logging.getLogger(__name__)


def entries_with_features(
    dataset: Dataset, split: Split, features_folder: Path
) -> tuple[VideoEntry, ...]:
    """The videos of a split that have features; a warning in the log counts the others.

    Published datasets have videos that cannot be read: one of them must not stop the rest, nor go
    unnoticed.

    Raises:
        DatasetError: If the dataset has no video in the split.
        FeatureFileError: If none of its videos has features, or if features were extracted from a
            file of another size than that of their video.
    """
    folder = features_folder / dataset.name
    entries = dataset.split(split)
    if not entries:
        raise DatasetError(f"{dataset.name}: has no videos in the split '{split}'")
    there: list[VideoEntry] = []
    absent: list[str] = []
    for entry in entries:
        path = feature_path(folder, entry.video_id)
        if path.exists():
            _check_source(path, entry)
            there.append(entry)
        else:
            absent.append(entry.video_id)
    manifest = (dataset.folder or Path()) / f"{dataset.name}.csv"  # where it was read from
    argument = dataset.name if dataset.name in DATASETS else shlex.quote(str(manifest))
    command = f"pipeline extract {argument}"
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
    return tuple(there)


def _check_source(path: Path, entry: VideoEntry) -> None:
    """Refuse features of a file that had the same name: another dataset's, or a replaced video.

    Only the size is compared, and only where the video is there and is a file: the content is
    compared by an extraction. Imported features are of files of their release.
    """
    if not entry.path.is_file():
        return
    try:
        header = read_header(path)
    except DamagedFileError:
        return  # reported by who reads the features
    source = None if IMPORTED_FROM in header.provenance else header.source
    n_bytes = entry.path.stat().st_size
    if source is not None and n_bytes != source.n_bytes:
        raise FeatureFileError(
            f"{path}: was extracted from a file of {source.n_bytes} bytes, but {entry.path} has "
            f"{n_bytes}; extract it again, or give the folder of its features with --features "
            "(datasets of one name need folders of their own)"
        )
