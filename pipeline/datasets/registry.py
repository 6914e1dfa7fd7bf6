"""The registry of datasets: by name the built-in ones, by the path of a manifest a user's own.

To add a dataset, write a file with its `DatasetSource` and register it by a line in `DATASETS`.
"""

from pathlib import Path

from pipeline.datasets import avenue, shanghaitech, ubnormal, ucf_crime, xd_violence
from pipeline.datasets.catalog import Dataset, DatasetError, DatasetSource
from pipeline.datasets.manifest import load_manifest
from pipeline.datasets.microworld import dataset as microworld

DATASETS: dict[str, DatasetSource] = {
    "avenue": avenue.SOURCE,
    "microworld": microworld.SOURCE,
    "shanghaitech": shanghaitech.SOURCE,
    "ubnormal": ubnormal.SOURCE,
    "ucf_crime": ucf_crime.SOURCE,
    "xd_violence": xd_violence.SOURCE,
}


def load_dataset(
    name_or_csv: str | Path,
    videos: str | Path | None = None,
    *,
    allow_outside: bool = False,
    allow_duplicates: bool = False,
    fps: float | None = None,
) -> Dataset:
    """Find a dataset by its name, or read the one that a manifest CSV describes.

    Args:
        name_or_csv: A name in `DATASETS`, or the path of a manifest.
        videos: The folder of the videos. By default `data/<name>`, or that of the manifest.
        allow_outside: Accept a manifest's links that lead out of this folder. They do no harm
            where no video is opened.
        allow_duplicates: Accept two files for one video of the list; the first one is taken.
        fps: Frames per second of videos that are folders of frames; by default as published, where
            the dataset's videos are published so.

    Raises:
        DatasetError: If there is no such dataset, its manifest is not valid, or two files have the
            name of one video.
        TypeError: If it is neither a name nor a path.
    """
    if not isinstance(name_or_csv, str | Path):
        raise TypeError(
            "dataset must be a name or the path of a manifest CSV, "
            f"instead got {type(name_or_csv).__name__}"
        )
    videos = None if videos is None else Path(videos)
    if str(name_or_csv) in DATASETS:
        source = DATASETS[str(name_or_csv)]
        dataset = source.load(videos, allow_outside=allow_outside)
        if not allow_duplicates:
            dataset.check_no_duplicates()
        return dataset.with_fps(source.fps if fps is None else fps)
    path = Path(name_or_csv)
    if not path.exists() and path.suffix.lower() != ".csv":
        raise DatasetError(
            f"{name_or_csv}: no such dataset; expected {', '.join(sorted(DATASETS))} "
            "or the path of a manifest CSV"
        )
    if path.stem in DATASETS:
        raise DatasetError(
            f"{path}: its features would mix with those of the dataset {path.stem}; rename the file"
        )
    return load_manifest(path, videos, allow_outside=allow_outside).with_fps(fps)
