"""`pipeline datasets`: which datasets are known, and whether they are all there."""

import sys
from pathlib import Path

import click

from pipeline.cli.shared import (
    SOME_VIDEOS_FAILED,
    errors_in_one_line,
    seed_option,
    videos_option,
)


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
def check(dataset: str, videos: Path | None) -> None:
    """Read a dataset's lists or manifest, and count its videos and those that are not there.

    \b
    pipeline datasets check my_cameras.csv
    """
    with errors_in_one_line():
        from pipeline.datasets import load_dataset
        from pipeline.datasets.catalog import SPLITS

        loaded = load_dataset(dataset, videos)
        for split in SPLITS:
            entries = loaded.split(split)
            n_anomalous = sum(entry.label for entry in entries)
            click.echo(
                f"{split:5} {len(entries):5} videos: {len(entries) - n_anomalous} normal, "
                f"{n_anomalous} anomalous"
            )
        missing = loaded.missing_videos()
        for path in missing:
            click.echo(f"not there: {path}")
    if missing:
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
        from pipeline.datasets.microworld import DEFAULT_FOLDER, N_VIDEOS, make_microworld
        from pipeline.progress import ProgressDisplay

        folder = DEFAULT_FOLDER if videos is None else videos
        with ProgressDisplay(f"make {name}", total=N_VIDEOS, unit="videos") as display:
            for n_made, _ in enumerate(make_microworld(folder, seed=seed), start=1):
                display.update(n_made)
        click.echo(f"{n_made} videos and manifest.csv are in {folder}")
