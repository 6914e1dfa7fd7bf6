"""`pipeline datasets`: list the datasets, check that one is complete, make a synthetic one."""

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


def check_synthetic_name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Refuse the name of a dataset that is not made by this program."""
    from pipeline.datasets import DATASETS

    synthetic = [name for name, source in DATASETS.items() if source.make is not None]
    if value not in synthetic:
        known = ", ".join(synthetic)
        raise click.BadParameter(f"name must be one of {known}, instead got {printable(value)!r}")
    return value


@click.group()
def datasets() -> None:
    """List the known datasets, check one, or make a synthetic one.

    \b
    pipeline datasets list
    pipeline datasets check my_cameras.csv
    pipeline datasets make microworld
    """


@datasets.command(name="list")
def list_datasets() -> None:
    """List the built-in datasets with the default folders of their videos.

    Any other dataset is a manifest CSV with the columns path,split,label,anomalies.
    """
    from pipeline.cli.terminal import format_table
    from pipeline.datasets import DATASETS

    rows = [(name, f"data/{name}", source.summary) for name, source in DATASETS.items()]
    click.echo(format_table("", ("dataset", "default folder", "videos"), rows))


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
@click.argument("name", callback=check_synthetic_name)
@videos_option
@seed_option
def make(name: str, videos: Path | None, seed: int) -> None:
    """Make the videos of a synthetic dataset, with their frame labels.

    \b
    pipeline datasets make microworld
    """
    with errors_in_one_line():
        from pipeline.cli.terminal import show_progress
        from pipeline.datasets import DATASETS

        make_videos = DATASETS[name].make
        assert make_videos is not None  # as `check_synthetic_name` has found
        folder = Path("data", name) if videos is None else videos
        with show_progress() as report:
            paths = make_videos(folder, seed=seed, report=report)
        click.echo(f"{len(paths)} videos and manifest.csv are in {folder}")
