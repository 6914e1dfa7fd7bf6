"""What earlier runs left of a video: features to keep or to replace, or a failure."""

import errno
from pathlib import Path

from pipeline.datasets.catalog import VideoEntry
from pipeline.extraction.feature_file import (
    DamagedFileError,
    FeatureFileError,
    Provenance,
    provenance_differences,
    read_header,
)
from pipeline.extraction.feature_paths import feature_path
from pipeline.extraction.status import Failure, read_failure
from pipeline.extraction.summary import VideoOutcome
from pipeline.extraction.video_digest import identify_source

# Errors of writing that the next video would meet, too.
NO_MORE_FILES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def earlier_outcome(
    folder: Path,
    entry: VideoEntry,
    provenance: Provenance,
    *,
    is_retried: bool,
    has_source_checked: bool,
) -> VideoOutcome | None:
    """Find out whether a video is done already, or failed; None if it is to be extracted.

    Args:
        folder: The dataset's folder of features.
        entry: The video.
        provenance: How features are extracted now.
        is_retried: Whether an earlier failure counts for nothing.
        has_source_checked: As for `reason_to_replace`.

    Raises:
        FeatureFileError: If its features were extracted with different settings.
        OSError: If the next video would fail for the same reason.
    """
    path = feature_path(folder, entry.video_id)
    try:
        if path.is_file():
            is_whole = not reason_to_replace(
                path, entry, provenance, has_source_checked=has_source_checked
            )
            return VideoOutcome(entry.video_id, "kept") if is_whole else None
    except FeatureFileError as error:
        if isinstance(error.__cause__, PermissionError):  # says nothing about the other videos
            return failed_outcome(entry, error)
        raise
    except OSError as error:
        return failed_outcome(entry, error)
    failure = None if is_retried else read_failure(folder, entry.video_id)
    if failure is None:
        return None
    return VideoOutcome(entry.video_id, "failed", failure=failure, is_earlier=True)


def reason_to_replace(
    path: Path, entry: VideoEntry, provenance: Provenance, *, has_source_checked: bool = True
) -> str:
    """Say why the features that are there are not those of the video; "" if they are.

    Args:
        path: The feature file.
        entry: The video. Where its file is not there, the features count as its own.
        provenance: How features are extracted now.
        has_source_checked: Whether to compare the video file with the one that the features were
            extracted from, which reads up to 3 MiB of it.

    Raises:
        FeatureFileError: If they were extracted with different settings.
        OSError: If the video cannot be read.
    """
    try:
        header = read_header(path)
    except DamagedFileError as error:
        return str(error).removesuffix("; remove it and extract the video again")
    differences = provenance_differences(provenance, header.provenance)
    if differences:
        raise FeatureFileError(
            f"{path}: was extracted with different settings ({'; '.join(differences)}); "
            "give the same options, or another folder with --features"
        )
    if header.video_id != entry.video_id:
        return f"{path}: holds the features of another video, {header.video_id!r}"
    if has_source_checked and header.source is not None and entry.is_there:
        source = identify_source(entry.source)
        if source != header.source:
            return (
                f"{entry.path}: is not the file that {path} was made from "
                f"({source.n_bytes} bytes, instead of {header.source.n_bytes})"
                if source.n_bytes != header.source.n_bytes
                else f"{entry.path}: is not the file that {path} was made from (other content)"
            )
    return ""


def failed_outcome(entry: VideoEntry, error: OSError | MemoryError) -> VideoOutcome:
    """Describe a failure to reach or write a file, which the next run is to try again.

    Raises:
        OSError: The error itself, if the next video would meet it, too.
    """
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(cause, OSError) and cause.errno in NO_MORE_FILES:
        raise error
    reason = str(error)
    if isinstance(error, MemoryError):
        reason = f"{entry.path}: not enough memory for its features"
    elif error.filename is not None and error.strerror:
        reason = f"{error.filename}: {error.strerror}"
    failure = Failure(entry.video_id, type(error).__name__, reason, is_quarantined=False)
    return VideoOutcome(entry.video_id, "failed", failure=failure)
