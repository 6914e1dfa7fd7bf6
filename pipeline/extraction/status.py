"""The status of each video of a dataset: records of failures, and `status.csv`, a table of all.

A video that has features is done. One that failed has a record next to where its features would be,
`<video_id>.failed.json`, and is not tried again unless that is asked for. Each record is a file of
its own, so that any number of processes may write them. `status.csv` is for people; no program
reads it.
"""

import csv
import hashlib
import json
import logging
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.atomic import replacing
from pipeline.datasets.catalog import Dataset, VideoEntry
from pipeline.extraction.feature_file import read_header
from pipeline.extraction.feature_paths import (
    MAX_NAME_BYTES,
    STATUS_NAME,
    FeatureFileError,
    feature_path,
    videos_without_place,
)
from pipeline.printable import printable

logger = logging.getLogger(__name__)

MAX_NOTE_BYTES = 2**16
NOTE_SUFFIX = ".failed.json"
COLUMNS = ("video_id", "status", "n_missing", "error", "message")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a video has no features.

    Attributes:
        video_id: The video's name within its dataset.
        kind: Name of the error's class.
        reason: In one line.
        is_quarantined: Whether its decoder crashed or hung.
    """

    video_id: str
    kind: str
    reason: str
    is_quarantined: bool


def note_failure(folder: Path, failure: Failure) -> None:
    """Record that a video failed; a warning in the log if the record cannot be written."""
    path = _note_path(folder, failure.video_id)
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(asdict(failure)), encoding="utf-8")
    except OSError as error:
        logger.warning("%s: cannot be written (%s)", path, error.strerror)


def forget_failure(folder: Path, video_id: str) -> None:
    """Remove the record of a video's failure, if there is one."""
    with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        _note_path(folder, video_id).unlink()


def time_of_failure(folder: Path, video_id: str) -> int | None:
    """When a video failed, in ns by the clock of the file system; None if it did not."""
    with suppress(OSError):
        return _note_path(folder, video_id).stat().st_mtime_ns
    return None


def read_failure(folder: Path, video_id: str) -> Failure | None:
    """Read why a video failed in an earlier run; None if it did not.

    A damaged record is ignored, with a warning in the log.
    """
    path = _note_path(folder, video_id)
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > MAX_NOTE_BYTES:
            raise ValueError("too long")
        note = json.loads(path.read_bytes())
        return Failure(
            video_id, str(note["kind"]), str(note["reason"]), bool(note["is_quarantined"])
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        logger.warning("%s: is not a record of a failed video and is ignored", printable(str(path)))
        return None


class StatusTable:
    """The table of a dataset's videos and their status.

    The columns are `COLUMNS`. The status is done, damaged (the feature file), failed, quarantined,
    missing (no such file) or waiting; `n_missing` counts the frames of a done video that could not
    be decoded. Names are escaped where they could change what a terminal shows.

    Args:
        folder: The dataset's folder of features.
        dataset: All its videos.
    """

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        self.folder = folder
        self._dataset = dataset
        self._without_place = videos_without_place(
            folder, [entry.video_id for entry in dataset.entries]
        )
        # What was read of a feature file, by path and time of its last change.
        self._headers: dict[tuple[Path, int], tuple[str, str, str, str]] = {}

    def write(self) -> Path:
        """Write the table.

        Returns:
            Its path.

        Raises:
            OSError: If it cannot be written.
        """
        path = self.folder / STATUS_NAME
        with (
            replacing(path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for entry in self._dataset.entries:
                writer.writerow([printable(cell) for cell in (entry.video_id, *self._row(entry))])
        return path

    def _row(self, entry: VideoEntry) -> tuple[str, str, str, str]:
        """All columns but the first."""
        if entry.video_id in self._without_place:
            return "failed", "", "FeatureFileError", self._without_place[entry.video_id]
        with suppress(FileNotFoundError, NotADirectoryError):
            return self._row_of_features(feature_path(self.folder, entry.video_id))
        failure = read_failure(self.folder, entry.video_id)
        if failure is not None:
            status = "quarantined" if failure.is_quarantined else "failed"
            return status, "", failure.kind, failure.reason
        return "waiting" if entry.is_there else "missing", "", "", ""

    def _row_of_features(self, path: Path) -> tuple[str, str, str, str]:
        key = path, path.stat().st_mtime_ns
        if key not in self._headers:
            try:
                self._headers[key] = "done", str(read_header(path).n_missing), "", ""
            except FeatureFileError as error:
                self._headers[key] = "damaged", "", type(error).__name__, str(error)
        return self._headers[key]


def _note_path(folder: Path, video_id: str) -> Path:
    path = feature_path(folder, video_id).with_suffix(NOTE_SUFFIX)
    if len(path.name.encode()) <= MAX_NAME_BYTES:
        return path
    digest = hashlib.blake2b(path.name.encode(), digest_size=16).hexdigest()
    return path.with_name(f"{digest}{NOTE_SUFFIX}")
