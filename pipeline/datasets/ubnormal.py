"""UBnormal: 268 training, 64 validation and 211 test videos of virtual scenes.

Acsintoae et al., "UBnormal: New Benchmark for Supervised Open-Set Video Anomaly Detection", CVPR
2022. A video's name begins with its label and names its scene, which is its folder
(`Scene1/abnormal_scene_1_scenario_1.mp4`). Anomalous frames are read from the annotations that come
with the videos (`abnormal_scene_1_scenario_1_annotations/abnormal_scene_1_scenario_1_tracks.txt`
beside each); training uses only the label of a video.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pipeline.datasets.catalog import (
    SPLITS,
    Dataset,
    DatasetError,
    DatasetSource,
    Intervals,
    Split,
    VideoEntry,
)
from pipeline.datasets.listed_videos import find_listed_videos, read_list

HOMEPAGE = "https://github.com/lilygeorgescu/UBnormal"
PUBLISHED_COUNTS: dict[Split, tuple[int, int]] = {
    "train": (186, 82),
    "val": (26, 38),
    "test": (53, 158),
}

# A track takes a line of some 15 characters: a larger file is no list of tracks.
MAX_TRACKS_BYTES = 1_000_000


def load_ubnormal(videos: Path | None = None, *, allow_outside: bool = False) -> Dataset:
    """List the videos of UBnormal in the order of their names.

    Args:
        videos: Any folder above all of the videos; `data/ubnormal` by default.
        allow_outside: Not needed here: links to folders are always followed, for only files with
            the listed names are taken.

    Raises:
        DatasetError: If an annotation that exists is not as it should be.
    """
    listed = [
        VideoEntry(
            video_id=name,
            path=Path(f"Scene{name.split('_')[2]}", f"{name}.mp4"),
            split=split,
            label=int(name.startswith("abnormal")),
        )
        for split in SPLITS
        for name in read_list("ubnormal", f"{split}_videos.txt")
    ]
    dataset = find_listed_videos(
        "ubnormal", listed, videos, homepage=HOMEPAGE, published_counts=PUBLISHED_COUNTS
    )
    return replace(dataset, entries=tuple(map(_with_anomalies, dataset.entries)))


def parse_tracks(lines: Iterable[str]) -> Intervals:
    """Parse the tracks of anomalous objects: object, first frame and last frame of each.

    Frames are counted from 0 and the last one is included, as the authors' own script reads them.
    Intervals of several objects may overlap.

    >>> parse_tracks(["1,100,220", "2.0,150.0,300.0"])
    ((100, 221), (150, 301))
    """
    intervals = []
    for line in lines:
        if line.strip():
            _, first, last = (int(float(number)) for number in line.split(","))
            intervals.append((first, last + 1))
    return tuple(intervals)


def _with_anomalies(entry: VideoEntry) -> VideoEntry:
    """Add the anomalous frames from the annotation beside a video, where there is one."""
    folder = entry.path.parent / f"{entry.path.stem}_annotations"
    path = folder / f"{entry.path.stem}_tracks.txt"
    if entry.label == 0 or not path.is_file():
        return entry
    try:
        if path.stat().st_size > MAX_TRACKS_BYTES:
            raise ValueError(f"has more than {MAX_TRACKS_BYTES} bytes")
        return replace(entry, anomalies=parse_tracks(path.read_text("utf-8").splitlines()))
    except (ValueError, OverflowError) as error:
        raise DatasetError(
            f"{path}: is not a list of tracks ({error}); expected lines of object,first,last"
        ) from error


SOURCE = DatasetSource(load_ubnormal, "268 training, 64 validation and 211 test videos, synthetic")
