"""XD-Violence: 3,954 training and 800 test videos with violence as the anomaly.

Wu et al., "Not only Look, but also Listen", ECCV 2020, https://roc-ng.github.io/XD-Violence/.
The lists in `lists/xd_violence` say which videos there are; `SOURCE.md` there says where they come
from. A video's name ends in its label: `_label_A` is normal, `_label_B2-G-0` shows a shooting and
an explosion.
"""

from collections.abc import Iterable
from pathlib import Path

from pipeline.datasets.catalog import Dataset, DatasetSource, Intervals, Split, VideoEntry
from pipeline.datasets.listed_videos import find_listed_videos, read_list

PUBLISHED_COUNTS: dict[Split, tuple[int, int]] = {"train": (2049, 1905), "test": (300, 500)}
HOMEPAGE = "https://roc-ng.github.io/XD-Violence/"

CATEGORIES = {
    "B1": "fighting",
    "B2": "shooting",
    "B4": "riot",
    "B5": "abuse",
    "B6": "car accident",
    "G": "explosion",
}


def load_xd_violence(videos: Path | None = None, *, allow_outside: bool = False) -> Dataset:
    """List the videos of XD-Violence, in the order of the official lists.

    All of them are listed, whether their files exist or not: a model can be trained where only
    the features are.

    Args:
        videos: Any folder above all of the mp4 files; `data/xd_violence` by default.
        allow_outside: Not needed here: links to folders are always followed, for only files with
            the listed names are taken.
    """
    anomalies = read_annotations()
    listed = [
        VideoEntry(
            video_id=name,
            path=Path(f"{name}.mp4"),
            split=split,
            label=int(bool(categories_of(name))),
            anomalies=anomalies.get(name, ()),
            categories=categories_of(name),
        )
        for split in ("train", "test")
        for name in read_names(f"{split}_videos.txt")
    ]
    return find_listed_videos(
        "xd_violence", listed, videos, homepage=HOMEPAGE, published_counts=PUBLISHED_COUNTS
    )


def categories_of(name: str) -> tuple[str, ...]:
    """Read the classes of violence from the name of a video, in the order of the name.

    >>> categories_of("The.Fast.and.the.Furious.2001__#00-29-00_00-29-52_label_B2-G-0")
    ('shooting', 'explosion')
    >>> categories_of("About.Time.2013__#00-23-50_00-24-31_label_A")
    ()
    """
    codes = name.rpartition("_label_")[2].split("-")
    return tuple(CATEGORIES[code] for code in codes if code not in ("A", "0"))


def read_names(file_name: str) -> list[str]:
    """Read one of the lists of names, which are file names without `.mp4`."""
    return read_list("xd_violence", file_name)


def read_annotations() -> dict[str, Intervals]:
    """Read the anomalous frames of the violent test videos: name -> ((start, stop), ...)."""
    return parse_annotations(read_list("xd_violence", "annotations.txt"))


def parse_annotations(lines: Iterable[str]) -> dict[str, Intervals]:
    """Parse lines of a name and pairs of numbers.

    Frames are counted from 0 and `stop` is excluded, as the authors' own script reads them. 14 of
    the official names carry the suffix `.mp4`.

    >>> parse_annotations(["fall.mp4 150 779", "fight 0 1517 1970 3038"])
    {'fall': ((150, 779),), 'fight': ((0, 1517), (1970, 3038))}
    """
    annotations = {}
    for line in lines:
        name, *numbers = line.split()
        frames = [int(number) for number in numbers]
        annotations[name.removesuffix(".mp4")] = tuple(zip(frames[::2], frames[1::2], strict=True))
    return annotations


SOURCE = DatasetSource(load_xd_violence, "3,954 training and 800 test videos with violence")
