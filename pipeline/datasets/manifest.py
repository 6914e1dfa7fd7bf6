"""Reading a manifest: a CSV that lists a user's own videos with their labels.

    path,split,label,anomalies
    day/yard.mp4,train,0,
    night/fall.mp4,test,1,12-128;300-410

Paths are relative to the CSV's folder, use `/` as separator, and may not leave the folder; neither
may links, unless that is allowed. Anomalies are pairs start-stop of frames, counted from 0, with
the stop excluded; the field is empty where there are none or where they are not known. A path may
also be a folder of frames. An optional
column `class` names what is anomalous (`fall`, or `fall;fire`), for an evaluation by class; it is
used in rows with label 1. Other columns are ignored.
"""

import csv
import io
import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple, cast

from pipeline.datasets.catalog import Dataset, DatasetError, Split, VideoEntry
from pipeline.text_file import read_text

COLUMNS = ("path", "split", "label", "anomalies")
CLASS_COLUMN = "class"

# A million rows of 64 characters: a larger file is no list of videos.
MAX_BYTES = 64_000_000
MAX_NAME_BYTES = 255  # of a file or folder, on the file systems of Linux
MAX_PATH_BYTES = 4095  # that Linux opens


def load_manifest(
    path: Path, videos: Path | None = None, *, allow_outside: bool = False
) -> Dataset:
    """Read a manifest. The videos need not exist.

    Args:
        path: The CSV; its stem becomes the dataset's name.
        videos: The folder that the paths are relative to, if not the CSV's.
        allow_outside: Accept videos behind links that lead out of this folder.

    Raises:
        DatasetError: If the file cannot be read or is not in the format of this module's docstring.
            The message names the line.
    """
    layout = f"with the columns {','.join(COLUMNS)}"
    text = read_text(path, "a manifest CSV", max_bytes=MAX_BYTES, error=DatasetError, layout=layout)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    folder = path.parent if videos is None else videos
    root = None if allow_outside else Path(os.path.realpath(folder))
    entries: list[VideoEntry] = []
    places: dict[str, _Place] = {}
    try:
        names = _check_header(path, next(reader, []))
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            try:
                entry = _parse_row(names, fields, folder)
                place = _Place(reader.line_num, entry.path.relative_to(folder).as_posix())
                _check_new(place, places.setdefault(entry.video_id, place))
                if root is not None:
                    _check_inside(root, place.path)
            except ValueError as error:
                raise DatasetError(f"{path}, line {reader.line_num}: {error}") from error
            entries.append(entry)
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: is not valid CSV ({error})") from error
    if not entries:
        raise DatasetError(f"{path}: has no rows; expected one for each video")
    try:
        return Dataset(path.stem, tuple(entries), folder=folder, manifest=path)
    except ValueError as error:
        raise DatasetError(f"{path}: {error}; rename the file") from error


class _Place(NamedTuple):
    """The line of a video in the manifest, and its path as written there."""

    line: int
    path: str


def _check_header(path: Path, header: list[str]) -> list[str]:
    """The names of all columns, after a check that the required ones are among them."""
    names = [name.strip() for name in header]
    for column in (*COLUMNS, *([CLASS_COLUMN] if CLASS_COLUMN in names else [])):
        if names.count(column) != 1:
            problem = "is missing" if column not in names else "occurs more than once"
            raise DatasetError(
                f"{path}, line 1: the column {column} {problem}; expected the columns "
                f"{','.join(COLUMNS)}, instead got {_shorten(','.join(names))!r}"
            )
    return names


def _parse_row(names: list[str], fields: list[str], folder: Path) -> VideoEntry:
    if len(fields) != len(names):
        raise ValueError(f"a row must have {len(names)} values, instead got {len(fields)}")
    row = {name: field.strip() for name, field in zip(names, fields, strict=True)}
    relative = _parse_path(row["path"], folder)
    if row["label"] not in ("0", "1"):
        raise ValueError(f"label must be 0 or 1, instead got {_shorten(row['label'])!r}")
    return VideoEntry(
        video_id=str(relative.with_suffix("")),
        path=folder / relative,
        split=cast("Split", row["split"]),  # VideoEntry checks it
        label=int(row["label"]),
        anomalies=_parse_anomalies(row["anomalies"]),
        categories=_parse_classes(row.get(CLASS_COLUMN, "")) if row["label"] == "1" else (),
    )


def _parse_path(text: str, folder: Path) -> PurePosixPath:
    path = PurePosixPath(text)
    is_absolute = path.is_absolute() or PureWindowsPath(text).drive
    if is_absolute or "\\" in text or "\0" in text or ".." in path.parts or not path.name:
        raise ValueError(
            "path must be relative to the folder of the videos, stay in it and have '/' between "
            f"folders, instead got {_shorten(text)!r}"
        )
    longest = max(len(os.fsencode(part)) for part in path.parts)
    if longest > MAX_NAME_BYTES:
        raise ValueError(
            f"a name in path must have at most {MAX_NAME_BYTES} bytes, instead got {longest} in "
            f"{_shorten(text)!r}"
        )
    n_bytes = len(os.fsencode(folder / path))
    if n_bytes > MAX_PATH_BYTES:
        raise ValueError(
            f"path must have at most {MAX_PATH_BYTES} bytes with its folder, instead got {n_bytes} "
            f"in {_shorten(text)!r}"
        )
    return path


def _parse_anomalies(text: str) -> tuple[tuple[int, int], ...]:
    anomalies = []
    for part in text.split(";") if text else []:
        match = re.fullmatch(r"\s*([0-9]{1,12})\s*-\s*([0-9]{1,12})\s*", part)
        if match is None:
            raise ValueError(
                f"anomalies must be start-stop;start-stop in frames, instead got {_shorten(text)!r}"
            )
        anomalies.append((int(match[1]), int(match[2])))
    return tuple(anomalies)


def _parse_classes(text: str) -> tuple[str, ...]:
    """The classes of a video, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(";") if part.strip()))


def _check_new(place: _Place, first: _Place) -> None:
    """Refuse a second video with the same id: it would overwrite the features of the first."""
    if place is first:
        return
    if place.path == first.path:
        raise ValueError(f"path {place.path!r} is in line {first.line} already; remove one row")
    raise ValueError(
        f"paths {place.path!r} and {first.path!r} (line {first.line}) differ in their suffix only, "
        "so their features would be one file; rename one of the videos"
    )


def _check_inside(root: Path, relative: str) -> None:
    """Refuse a path that leads out of `root`, a resolved folder, through a link."""
    target = Path(os.path.realpath(root / relative))
    if not target.is_relative_to(root):
        raise ValueError(
            f"path {relative!r} is a link that leads out of the folder of the videos, to "
            f"{str(target)!r}; move the video there, or allow it with --allow-outside"
        )


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
