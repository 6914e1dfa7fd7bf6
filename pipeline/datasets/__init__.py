"""The datasets that have a name, and a user's own through a manifest.

To add one, write a function that returns its `Dataset` and give it a line in `DATASETS`.
"""

from collections.abc import Callable
from pathlib import Path

from pipeline.datasets.catalog import Dataset, DatasetError
from pipeline.datasets.manifest import load_manifest
from pipeline.datasets.microworld.dataset import load_microworld
from pipeline.datasets.xd_violence import load_xd_violence

DATASETS: dict[str, Callable[[Path | None], Dataset]] = {
    "microworld": load_microworld,
    "xd_violence": load_xd_violence,
}


def load_dataset(
    name_or_csv: str | Path, videos: Path | None = None, *, allow_outside: bool = False
) -> Dataset:
    """Find a dataset by its name, or read the one that a manifest CSV describes.

    Args:
        name_or_csv: A name in `DATASETS`, or the path of a manifest.
        videos: The folder of the videos. By default `data/<name>`, or that of the manifest.
        allow_outside: Accept a manifest's links that lead out of this folder. For who opens no
            video they do no harm.

    Raises:
        DatasetError: If there is no such dataset, or its manifest is not as it must be.
    """
    if str(name_or_csv) in DATASETS:
        return DATASETS[str(name_or_csv)](videos)
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
    return load_manifest(path, videos, allow_outside=allow_outside)
