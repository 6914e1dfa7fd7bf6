"""`pipeline datasets`: which datasets are known, and whether they are all there."""

import sys
from pathlib import Path

import click

from pipeline.cli.shared import (
    SOME_VIDEOS_FAILED,
    allow_outside_option,
    errors_in_one_line,
    seed_option,
    videos_option,
)
from pipeline.printable import printable


@click.group()
def datasets() -> None:
    """List the known datasets, check one, or make the synthetic one.

    \b
    pipeline datasets list
    pipeline datasets check my_cameras.csv
    pipeline datasets make microworld
    """


@datasets.command(name="list")
def list_datasets() -> None:
    """List the datasets that have a name, and where their videos are looked for.

    Any other dataset is a manifest CSV with the columns path,split,label,anomalies.
    """
    from pipeline.datasets import DATASETS

    for name in DATASETS:
        click.echo(f"{name}  data/{name}")


@datasets.command()
@click.argument("dataset")
@videos_option
@allow_outside_option
def check(dataset: str, videos: Path | None, allow_outside: bool) -> None:
    """Read a dataset's lists or manifest, and count its videos.

    Files that are not there are listed, and names for which features have no place.

    \b
    pipeline datasets check my_cameras.csv
    """
    with errors_in_one_line():
        from pipeline.datasets import load_dataset
        from pipeline.datasets.catalog import SPLITS
        from pipeline.extraction.feature_paths import videos_without_place

        loaded = load_dataset(dataset, videos, allow_outside=allow_outside)
        for split in SPLITS:
            entries = loaded.split(split)
            n_anomalous = sum(entry.label for entry in entries)
            click.echo(
                f"{split:5} {len(entries):5} videos: {len(entries) - n_anomalous} normal, "
                f"{n_anomalous} anomalous"
            )
        problems = [f"not there: {path}" for path in loaded.missing_videos()]
        problems += [
            f"no place for its features: {reason}"
            for reason in videos_without_place(
                Path("features", loaded.name), [entry.video_id for entry in loaded.entries]
            ).values()
        ]
        for problem in problems:
            click.echo(printable(problem))
    if problems:
        sys.exit(SOME_VIDEOS_FAILED)


@datasets.command()
@click.argument("name", type=click.Choice(["microworld"]))
@videos_option
@seed_option
def make(name: str, videos: Path | None, seed: int) -> None:
    """Make the videos of the synthetic dataset, with their frame labels.

    \b
    pipeline datasets make microworld
    """
    with errors_in_one_line():
        from pipeline.cli.progress import ProgressDisplay
        from pipeline.datasets.microworld.dataset import DEFAULT_FOLDER, N_VIDEOS, make_microworld

        folder = DEFAULT_FOLDER if videos is None else videos
        with ProgressDisplay(f"make {name}", total=N_VIDEOS, unit="videos") as display:
            for n_made, _ in enumerate(make_microworld(folder, seed=seed), start=1):
                display.update(n_made)
        click.echo(f"{n_made} videos and manifest.csv are in {folder}")
