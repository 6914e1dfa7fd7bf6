"""The path of a video's feature file, and which names have none. Imports no torch or h5py."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from extractors.errors import LookaroundError

INDEX_NAME = "index.h5"
STATUS_NAME = "status.csv"
LOCKS_NAME = ".locks"
RESERVED_NAMES = (INDEX_NAME, STATUS_NAME, LOCKS_NAME)  # in a dataset's folder of features
MAX_NAME_BYTES = 255  # of Linux and macOS


class FeatureFileError(LookaroundError, OSError):
    """A feature file is missing, damaged, of another format, or of other settings than expected."""


def feature_path(folder: Path, video_id: str) -> Path:
    """The file of a video in a dataset's folder of features.

    Args:
        folder: The dataset's, such as `features/xd_violence`.
        video_id: Relative, with `/` between its parts.

    Raises:
        FeatureFileError: If the id would lead out of the folder, take the name of another file
            there, or be too long.
    """
    parts = video_id.split("/")
    if PurePosixPath(video_id).is_absolute() or {"", ".", ".."} & set(parts) or "\0" in video_id:
        raise FeatureFileError(
            f"{folder}: video id must be a relative path that stays in the folder, "
            f"instead got {video_id!r}; rename the video"
        )
    names = [*parts[:-1], f"{parts[-1]}.h5"]
    if names[0] in RESERVED_NAMES:
        what = "the index" if names[0] == INDEX_NAME else "a file of this program"
        raise FeatureFileError(
            f"{folder / names[0]}: is the name of {what}; rename the video {video_id!r}"
        )
    n_bytes = max(len(name.encode("utf-8", "surrogateescape")) for name in names)
    if n_bytes > MAX_NAME_BYTES:
        raise FeatureFileError(
            f"{folder}: the feature file of a video would have a name of {n_bytes} bytes, at most "
            f"{MAX_NAME_BYTES} expected; rename the video {video_id!r}"
        )
    return folder.joinpath(*names)


def videos_without_place(folder: Path, video_ids: Iterable[str]) -> dict[str, str]:
    """Find the videos whose names do not allow a feature file.

    Args:
        folder: The dataset's folder of features, which need not exist.
        video_ids: All videos of the dataset.

    Returns:
        The reason by video id: the file's name is too long, reserved, or that of a folder which
        other videos' features need (`a` beside `a.h5/b`).
    """
    reasons: dict[str, str] = {}
    paths: dict[str, Path] = {}
    for video_id in video_ids:
        try:
            paths[video_id] = feature_path(folder, video_id)
        except FeatureFileError as error:
            reasons[video_id] = str(error)
    parents = {parent for path in paths.values() for parent in path.parents}
    for video_id, path in paths.items():
        if path in parents:
            reasons[video_id] = (
                f"{path}: is the folder of other videos' features; rename the video {video_id!r}"
            )
    return reasons
