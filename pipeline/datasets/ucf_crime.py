"""UCF-Crime: 1,610 training and 290 test videos of surveillance cameras, 13 classes of crimes.

Sultani et al., "Real-world Anomaly Detection in Surveillance Videos", CVPR 2018. The lists in
`lists/ucf_crime` are the authors'; `SOURCE.md` there says where they come from. The archives hold
one folder per class (`Abuse/Abuse001_x264.mp4`) and folders of normal videos; a normal video's name
begins with `Normal_Videos`.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from pipeline.datasets.catalog import Dataset, DatasetSource, Intervals, Split, VideoEntry
from pipeline.datasets.listed_videos import find_listed_videos, read_list

HOMEPAGE = "https://www.crcv.ucf.edu/projects/real-world/"
PUBLISHED_COUNTS: dict[Split, tuple[int, int]] = {"train": (800, 810), "test": (150, 140)}

_LIST_FILES: dict[Split, str] = {"train": "Anomaly_Train.txt", "test": "Anomaly_Test.txt"}


def load_ucf_crime(videos: Path | None = None, *, allow_outside: bool = False) -> Dataset:
    """List the videos of UCF-Crime, in the order of the official lists.

    The folder of 50 copies that comes with the dataset (`Normal_Videos_for_Event_Recognition`)
    may be there: the file in the folder that the list names is preferred.

    Args:
        videos: Any folder above all of the videos; `data/ucf_crime` by default.
        allow_outside: Not needed here: links to folders are always followed, for only files with
            the listed names are taken.
    """
    anomalies = parse_annotations(read_list("ucf_crime", "Temporal_Anomaly_Annotation.txt"))
    listed = []
    for split, file_name in _LIST_FILES.items():
        for line in read_list("ucf_crime", file_name):
            path = PurePosixPath(line)
            is_normal = path.stem.startswith("Normal_Videos")
            listed.append(
                VideoEntry(
                    video_id=path.stem,
                    path=Path(path),
                    split=split,
                    label=int(not is_normal),
                    anomalies=anomalies.get(path.stem, ()),
                    categories=() if is_normal else (path.parent.name,),
                )
            )
    dataset = find_listed_videos(
        "ucf_crime", listed, videos, homepage=HOMEPAGE, published_counts=PUBLISHED_COUNTS
    )
    return replace(dataset, frame_counts=read_test_frame_counts())


def parse_annotations(lines: Iterable[str]) -> dict[str, Intervals]:
    """Parse the official temporal annotation: name, class, and two pairs of start and end.

    -1 stands for no interval. The official file does not say whether the end is included. Frames
    are taken as counted from 0 and the end as excluded, as the published ground truth of 1,109,680
    frames does. Names may carry the suffix `.mp4`.

    >>> parse_annotations(["Arson011_x264.mp4  Arson  150  420  680  1267  "])
    {'Arson011_x264': ((150, 420), (680, 1267))}
    >>> parse_annotations(["Normal_Videos_003_x264  Normal  -1  -1  -1  -1"])
    {'Normal_Videos_003_x264': ()}
    """
    annotations = {}
    for line in lines:
        name, _, *numbers = line.split()
        frames = [int(number) for number in numbers]
        pairs = zip(frames[::2], frames[1::2], strict=True)
        annotations[name.removesuffix(".mp4")] = tuple(pair for pair in pairs if pair[0] >= 0)
    return annotations


def read_test_frame_counts() -> dict[str, int]:
    """Read how many frames each test video has: name -> number."""
    lines = read_list("ucf_crime", "test_frame_counts.txt")
    return {name: int(count) for name, count in map(str.split, lines)}


SOURCE = DatasetSource(load_ucf_crime, "1,610 training and 290 test videos, 13 classes of crimes")
