"""XD-Violence: 3,954 training and 800 test videos with violence as the anomaly.

Wu et al., "Not only Look, but also Listen", ECCV 2020, https://roc-ng.github.io/XD-Violence/.
The lists in `lists/xd_violence` say which videos there are; `SOURCE.md` there says where they come
from. A video's name ends in its label: `_label_A` is normal, `_label_B2-G-0` shows a shooting and
an explosion.
"""

import os
from pathlib import Path

from pipeline.datasets.catalog import SPLITS, Dataset, DatasetError, DatasetSource, VideoEntry

DEFAULT_FOLDER = Path("data/xd_violence")
HOMEPAGE = "https://roc-ng.github.io/XD-Violence/"

CATEGORIES = {
    "B1": "fighting",
    "B2": "shooting",
    "B4": "riot",
    "B5": "abuse",
    "B6": "car accident",
    "G": "explosion",
}

_LISTS = Path(__file__).parent / "lists" / "xd_violence"


def load_xd_violence(videos: Path | None = None, *, allow_outside: bool = False) -> Dataset:
    """List the videos of XD-Violence, in the order of the official lists.

    All of them are listed, whether their files are there or not: a model can be trained where only
    the features are.

    Args:
        videos: Any folder above all of the mp4 files; `data/xd_violence` by default.
        allow_outside: Not needed here: links to folders are always followed, for only files with
            the listed names are taken.

    Raises:
        DatasetError: If two files have the same name.
    """
    folder = DEFAULT_FOLDER if videos is None else videos
    train, test = read_names("train_videos.txt"), read_names("test_videos.txt")
    found = _find_videos(folder, wanted=set(train) | set(test))
    anomalies = read_annotations()
    entries = [
        VideoEntry(
            video_id=name,
            path=found.get(name, folder / f"{name}.mp4"),
            split=split,
            label=int(bool(categories_of(name))),
            anomalies=anomalies.get(name, ()),
            categories=categories_of(name),
        )
        for names, split in ((train, SPLITS[0]), (test, SPLITS[2]))
        for name in names
    ]
    return Dataset(
        "xd_violence",
        tuple(entries),
        how_to_get=f"get the videos from {HOMEPAGE} and name their folder with --videos",
    )


def categories_of(name: str) -> tuple[str, ...]:
    """Read from a video's name what violence it shows, in the order of the name.

    >>> categories_of("The.Fast.and.the.Furious.2001__#00-29-00_00-29-52_label_B2-G-0")
    ('shooting', 'explosion')
    >>> categories_of("About.Time.2013__#00-23-50_00-24-31_label_A")
    ()
    """
    codes = name.rpartition("_label_")[2].split("-")
    return tuple(CATEGORIES[code] for code in codes if code not in ("A", "0"))


def read_names(file_name: str) -> list[str]:
    """Read one of the lists of names, which are file names without `.mp4`."""
    return (_LISTS / file_name).read_text(encoding="utf-8").splitlines()


def read_annotations() -> dict[str, tuple[tuple[int, int], ...]]:
    """Read the anomalous frames of the violent test videos: name -> ((start, stop), ...).

    Frames are counted from 0 and `stop` is excluded, as the authors' own script reads them.
    """
    annotations = {}
    for line in (_LISTS / "annotations.txt").read_text(encoding="utf-8").splitlines():
        name, *numbers = line.split()
        frames = [int(number) for number in numbers]
        # 14 of the names carry the suffix.
        annotations[name.removesuffix(".mp4")] = tuple(zip(frames[::2], frames[1::2], strict=True))
    return annotations


def _find_videos(folder: Path, wanted: set[str]) -> dict[str, Path]:
    """Find the wanted mp4 files anywhere below a folder, behind links to folders too."""
    found: dict[str, Path] = {}
    visited: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        if os.path.realpath(parent) in visited:
            folders.clear()
            continue
        visited.add(os.path.realpath(parent))
        folders.sort()
        for file in files:
            name = file.removesuffix(".mp4")
            if name == file or name not in wanted:
                continue
            path = Path(parent, file)
            if name in found:
                raise DatasetError(
                    f"{folder}: holds two files of one name, {found[name]} and {path}; remove one"
                )
            found[name] = path
    return found


SOURCE = DatasetSource(load_xd_violence, "3,954 training and 800 test videos with violence")
