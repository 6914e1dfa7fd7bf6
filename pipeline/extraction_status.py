"""What became of each video of a dataset: notes on failures, and a table of all videos.

A video that has features is done. One that was tried in vain has a note beside the place of its
features, `<video_id>.failed.json`, and is left alone until that is asked for. Notes are files of
their own so that any number of processes may write them. `status.csv` is the table for people; it
only shows what the folder holds.
"""

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.atomic import replacing
from pipeline.datasets.catalog import Dataset, VideoEntry
from pipeline.feature_file import FeatureFileError, feature_path

STATUS_NAME = "status.csv"
MAX_NOTE_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a video has no features.

    Attributes:
        video_id: The video's name within its dataset.
        kind: Name of the error's class.
        reason: In one line.
        is_quarantined: Whether it made its decoder crash or hang.
    """

    video_id: str
    kind: str
    reason: str
    is_quarantined: bool


def note_failure(folder: Path, failure: Failure) -> None:
    """Remember that a video of the dataset's folder failed."""
    with replacing(_note_path(folder, failure.video_id)) as temporary:
        temporary.write_text(json.dumps(asdict(failure)), encoding="utf-8")


def forget_failure(folder: Path, video_id: str) -> None:
    """Forget that a video failed, if it did."""
    _note_path(folder, video_id).unlink(missing_ok=True)


def read_failure(folder: Path, video_id: str) -> Failure | None:
    """Recall why a video failed in an earlier run; None if it did not.

    Raises:
        FeatureFileError: If the note is not one.
    """
    path = _note_path(folder, video_id)
    if not path.exists():
        return None
    try:
        if path.stat().st_size > MAX_NOTE_BYTES:
            raise ValueError("too long")
        note = json.loads(path.read_bytes())
        return Failure(
            video_id, str(note["kind"]), str(note["reason"]), bool(note["is_quarantined"])
        )
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise FeatureFileError(
            f"{path}: is not a note on a failed video; remove it to try the video again"
        ) from error


def write_status(folder: Path, dataset: Dataset) -> Path:
    """Write the table of a dataset's videos: video_id, status, error, message.

    The status is done, failed, quarantined, missing (no such file) or waiting.

    Returns:
        The path of the table.
    """
    path = folder / STATUS_NAME
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["video_id", "status", "error", "message"])
        writer.writerows(_status(folder, entry) for entry in dataset.entries)
    return path


def _status(folder: Path, entry: VideoEntry) -> tuple[str, str, str, str]:
    if feature_path(folder, entry.video_id).exists():
        return entry.video_id, "done", "", ""
    failure = read_failure(folder, entry.video_id)
    if failure is not None:
        status = "quarantined" if failure.is_quarantined else "failed"
        return entry.video_id, status, failure.kind, failure.reason
    return entry.video_id, "waiting" if entry.path.is_file() else "missing", "", ""


def _note_path(folder: Path, video_id: str) -> Path:
    return feature_path(folder, video_id).with_suffix(".failed.json")
