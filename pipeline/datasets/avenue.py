"""CUHK Avenue in a weakly supervised split of our own: 19 training and 18 test videos.

Lu et al., "Abnormal Event Detection at 150 FPS in MATLAB", ICCV 2013. The original dataset trains
on 16 normal videos and tests on 21 anomalous ones; both folders hold files `01.avi`, `02.avi` and
so on, so the folder is part of a video's id. Copies that hold frames instead have them in
`training/frames/01` and `testing/frames/01`. The dataset names no classes.
"""

from pathlib import Path

from pipeline.datasets.catalog import Dataset, DatasetSource, VideoEntry
from pipeline.datasets.listed_videos import find_listed_videos, read_list
from pipeline.datasets.xd_violence import parse_annotations

HOMEPAGE = "http://www.cse.cuhk.edu.hk/leojia/projects/detectabnormal/dataset.html"
N_NORMAL, N_ANOMALOUS = 16, 21


def load_avenue(videos: Path | None = None, *, allow_outside: bool = False) -> Dataset:
    """List the videos of Avenue: odd numbers are the training split, even ones the test split.

    Args:
        videos: Any folder above those of training and testing; `data/avenue` by default.
        allow_outside: Not needed here: links to folders are always followed, for only files with
            the listed names are taken.
    """
    anomalies = parse_annotations(read_list("avenue", "annotations.txt"))
    names = [("training_videos", f"{number:02d}") for number in range(1, N_NORMAL + 1)]
    names += [("testing_videos", f"{number:02d}") for number in range(1, N_ANOMALOUS + 1)]
    listed = [
        VideoEntry(
            video_id=f"{folder}/{name}",
            path=Path(folder, f"{name}.avi"),
            # The field has no weakly supervised split of Avenue: this one is a choice.
            split="train" if int(name) % 2 else "test",
            label=int(folder == "testing_videos"),
            anomalies=anomalies[name] if folder == "testing_videos" else (),
        )
        for folder, name in names
    ]
    frame_folders = {
        f"{folder}/{name}": Path(folder.removesuffix("_videos"), "frames", name)
        for folder, name in names
    }
    return find_listed_videos(
        "avenue", listed, videos, homepage=HOMEPAGE, frame_folders=frame_folders
    )


SOURCE = DatasetSource(
    load_avenue, "weakly supervised split of our own, 19 training and 18 test videos", fps=25
)
