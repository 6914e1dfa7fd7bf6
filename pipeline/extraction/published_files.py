"""Which files of a release belong to which video, stream and crop: by names, never by position.

Releases differ in their names, as their lists show (`list/` of each repository):

    RTFM, TEVAD          UCF_Test_ten_crop_i3d/Abuse028_x264_i3d.npy             all crops
                         Violence_five_crop_i3d_v1/One.Day.2011__#..._label_A_i3d.npy
    DeepMIL              RGB/Testing_Normal_Videos_Anomaly/Normal_Videos_941_x264.npy, ..__1.npy
    XDVioDet             RGBTest/v=vHnAmx0UYbM__#1_label_A__0.npy, FlowTest/...   one crop
    PEL4VAD              test/01_0015_0.npy (ShanghaiTech)                        one crop
    Sultani et al.       Abuse001_x264_C.txt                                      32 segments

A folder whose name has "flow" in it holds flow features. Lists have absolute paths of other
machines, of Windows, too: of such a path only its end counts.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipeline.datasets.catalog import Dataset, VideoEntry
from pipeline.extraction.published_arrays import SUFFIXES
from pipeline.extraction.releases import ImportFeaturesError
from pipeline.text_file import read_text

MAX_LIST_BYTES = 2**26
# What follows a video's name in the name of a file, with or without `__<crop>` or `_<crop>`.
_ENDINGS = ("_i3d", "_c3d", "_rgb", "_flow", "_c", "_fc6", "_features", ".mp4", ".avi")
_CROP = re.compile(r"__?([0-9]{1,2})$")

Crops = dict[int | None, Path]  # None: all crops are in one file


@dataclass(slots=True)
class ReleaseFiles:
    """The files of a release that belong to a dataset's videos.

    Attributes:
        of_video: By video id and stream: by crop, the file.
        extra: Files that belong to none of the videos.
        problems: By video id or line of a list, what is wrong, in one line.
    """

    of_video: dict[str, dict[str, Crops]] = field(default_factory=dict)
    extra: list[Path] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def streams(self) -> list[str]:
        """The streams that any video has, RGB first."""
        found = {stream for streams in self.of_video.values() for stream in streams}
        return sorted(found, reverse=True)


def find_release_files(dataset: Dataset, folder: Path, lists: Sequence[Path] = ()) -> ReleaseFiles:
    """Search a folder for the features of a dataset's videos.

    Args:
        dataset: The videos.
        folder: All files below it count, also behind links to folders.
        lists: Lists of paths; where there are any, only the files that they name are taken.

    Raises:
        ImportFeaturesError: If the folder or a list cannot be read, or no file is a video's.
    """
    if not folder.is_dir():
        raise ImportFeaturesError(f"{folder}: is not a folder; name the one of the release")
    found = ReleaseFiles()
    paths = list(_feature_files(folder))
    if lists:
        paths = _listed_files(paths, folder, lists, found.problems)
    names = _entries_by_name(dataset)
    for path in paths:
        _sort_in(path, folder, names, found)
    if not found.of_video:
        example = dataset.entries[0].video_id if dataset.entries else "VIDEO"
        raise ImportFeaturesError(
            f"{folder}: none of its {len(paths)} files ({', '.join(SUFFIXES)}) belongs to a video "
            f"of {dataset.name}; expected names such as {example}.npy or {example}__0.npy"
        )
    return found


def _feature_files(folder: Path) -> Iterator[Path]:
    visited: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(parent) in visited:
            folders.clear()
            continue
        visited.add(os.path.realpath(parent))
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            # A pipe of that name would block whoever opens it.
            if name.lower().endswith(SUFFIXES) and not name.startswith(".") and path.is_file():
                yield path


def _entries_by_name(dataset: Dataset) -> dict[str, VideoEntry]:
    """Videos by their id, and by its last part where that is unique."""
    by_id = {_normal(entry.video_id): entry for entry in dataset.entries}
    by_last: dict[str, list[VideoEntry]] = {}
    for video_id, entry in by_id.items():
        by_last.setdefault(video_id.rpartition("/")[2], []).append(entry)
    unique = {name: entries[0] for name, entries in by_last.items() if len(entries) == 1}
    return unique | by_id


def _sort_in(path: Path, folder: Path, names: dict[str, VideoEntry], found: ReleaseFiles) -> None:
    relative = path.relative_to(folder)
    stem = _normal(relative.with_suffix("").as_posix())
    crop_number = _CROP.search(stem)
    entry, crop = _entry_of(stem, names), None
    if entry is None and crop_number is not None:
        entry, crop = _entry_of(stem[: crop_number.start()], names), int(crop_number[1])
    if entry is None:
        found.extra.append(path)
        return
    places = [folder.resolve().name, *relative.parent.parts]
    is_flow = any("flow" in place.lower() for place in places) or "_flow" in stem.rpartition("/")[2]
    stream = "flow" if is_flow else "rgb"
    crops = found.of_video.setdefault(entry.video_id, {}).setdefault(stream, {})
    if crop in crops:
        found.problems[entry.video_id] = f"{path}: is a second file beside {crops[crop]}"
    crops[crop] = path


def _entry_of(stem: str, names: dict[str, VideoEntry]) -> VideoEntry | None:
    """The video that a path without suffix and crop names by its end."""
    while True:
        parts = stem.split("/")
        for start in range(len(parts)):
            entry = names.get("/".join(parts[start:]))
            if entry is not None:
                return entry
        ending = next((end for end in _ENDINGS if stem.lower().endswith(end)), None)
        if ending is None:
            return None
        stem = stem[: -len(ending)]


def _listed_files(
    paths: Iterable[Path], folder: Path, lists: Sequence[Path], problems: dict[str, str]
) -> list[Path]:
    """The files that lists name; what they name in vain is added to the problems."""
    by_name: dict[str, list[Path]] = {}
    for path in paths:
        by_name.setdefault(_normal(path.name), []).append(path)
    listed: dict[Path, None] = {}
    for file in lists:
        for number, line in enumerate(_read_lines(file), start=1):
            wanted = PurePosixPath(_normal(line).replace("\\", "/"))
            candidates = by_name.get(wanted.name, [])
            if not candidates:  # a line may go on with a label after the path
                wanted = PurePosixPath(str(wanted).split()[0])
                candidates = by_name.get(wanted.name, [])
            if candidates:
                listed[max(candidates, key=lambda path: _common_end(path, wanted))] = None
            else:
                problems[f"{file}:{number}"] = f"{wanted.name}: is in {file} but not below {folder}"
    return list(listed)


def _read_lines(file: Path) -> list[str]:
    text = read_text(file, "a list of files", max_bytes=MAX_LIST_BYTES, error=ImportFeaturesError)
    return [line.strip() for line in text.splitlines() if line.strip()]


def _common_end(path: Path, wanted: PurePosixPath) -> int:
    """How many parts at their ends two paths share."""
    count = 0
    for one, other in zip(reversed(path.parts), reversed(wanted.parts), strict=False):
        if _normal(one) != other:
            break
        count += 1
    return count


def _normal(name: str) -> str:
    """One spelling of names that archives of different systems spell differently."""
    return unicodedata.normalize("NFC", name)
