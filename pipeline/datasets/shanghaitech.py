"""ShanghaiTech Campus in its weakly supervised split: 238 training and 199 test videos.

Liu et al., "Future Frame Prediction for Anomaly Detection", CVPR 2018; split of Zhong et al., CVPR
2019. The original dataset trains on normal videos alone (`training/videos/01_001.avi`) and tests on
107 anomalous ones, which are published as folders of frames (`testing/frames/01_0014/000.jpg`).
The weakly supervised split mixes both. A name with a number of four digits is one of the 107. The
dataset names no classes.
"""

from collections.abc import Iterable
from pathlib import Path

from pipeline.datasets.catalog import Dataset, DatasetSource, Intervals, Split, VideoEntry
from pipeline.datasets.listed_videos import find_listed_videos, read_list

HOMEPAGE = "https://svip-lab.github.io/dataset/campus_dataset.html"
PUBLISHED_COUNTS: dict[Split, tuple[int, int]] = {"train": (175, 63), "test": (155, 44)}


def load_shanghaitech(videos: Path | None = None, *, allow_outside: bool = False) -> Dataset:
    """List the videos of ShanghaiTech in the order of their names.

    Args:
        videos: Any folder above all of the videos; `data/shanghaitech` by default.
        allow_outside: Not needed here: links to folders are always followed, for only files with
            the listed names are taken.
    """
    annotations = parse_annotations(read_list("shanghaitech", "annotations.txt"))
    splits: tuple[Split, ...] = ("train", "test")
    listed = []
    for split in splits:
        for name in read_list("shanghaitech", f"{split}_videos.txt"):
            is_anomalous = is_from_original_test_set(name)
            folder = "testing/videos" if is_anomalous else "training/videos"
            listed.append(
                VideoEntry(
                    video_id=name,
                    path=Path(folder, f"{name}.avi"),
                    split=split,
                    label=int(is_anomalous),
                    anomalies=annotations[name][1] if split == "test" else (),
                )
            )
    return find_listed_videos(
        "shanghaitech", listed, videos, homepage=HOMEPAGE, published_counts=PUBLISHED_COUNTS
    )


def is_from_original_test_set(name: str) -> bool:
    """Whether a video is from the original test set, all of whose videos are anomalous.

    >>> is_from_original_test_set("01_0014"), is_from_original_test_set("01_001")
    (True, False)
    """
    return len(name.rpartition("_")[2]) == 4


def parse_annotations(lines: Iterable[str]) -> dict[str, tuple[int, Intervals]]:
    """Parse lines of a name, a number of frames and pairs of start and stop.

    Frames are counted from 0 and the stop is excluded. The number of frames is the length padded
    to whole snippets of 16, and so may an interval be.

    >>> parse_annotations(["01_0055 320 68 320", "01_001 768"])
    {'01_0055': (320, ((68, 320),)), '01_001': (768, ())}
    """
    annotations = {}
    for line in lines:
        name, n_frames, *numbers = line.split()
        frames = [int(number) for number in numbers]
        intervals = tuple(zip(frames[::2], frames[1::2], strict=True))
        annotations[name] = (int(n_frames), intervals)
    return annotations


SOURCE = DatasetSource(
    load_shanghaitech, "weakly supervised split, 238 training and 199 test videos", fps=24
)
