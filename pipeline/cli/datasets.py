"""`pipeline datasets`: list the datasets, check one, make a synthetic one."""

import sys
from pathlib import Path

import click

from pipeline.cli.shared import (
    SOME_VIDEOS_FAILED,
    allow_outside_option,
    errors_in_one_line,
    fps_option,
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
@fps_option
@allow_outside_option
def check(dataset: str, videos: Path | None, fps: float | None, allow_outside: bool) -> None:
    """Compare a dataset's list or manifest with the files in its folder.

    Lists the videos that are missing, unreadable, there twice or not in the list, and names for
    which features have no place; counts the videos of each split.

    \b
    pipeline datasets check my_cameras.csv
    pipeline datasets check ucf_crime --videos /data/ucf
    """
    with errors_in_one_line():
        from pipeline.cli.terminal import show_progress
        from pipeline.datasets import load_dataset
        from pipeline.datasets.check import check_dataset
        from pipeline.extraction.feature_paths import videos_without_place

        loaded = load_dataset(
            dataset, videos, allow_outside=allow_outside, allow_duplicates=True, fps=fps
        )
        with show_progress() as report:
            checked = check_dataset(loaded, report=report)
        no_place = videos_without_place(
            Path("features", loaded.name), [entry.video_id for entry in loaded.entries]
        )
        lines = [f"no place for its features: {reason}" for reason in no_place.values()]
        for line in [*checked.describe(), *lines]:
            click.echo(printable(line))
    if no_place or not checked.is_complete:
        sys.exit(SOME_VIDEOS_FAILED)


@datasets.command()
@click.argument("name", callback=check_synthetic_name)
@videos_option
@seed_option
@click.option(
    "--test-videos",
    "n_test_videos",
    type=int,
    help="Size of the test split, a multiple of 8; the other videos stay the same.  [default: 24]",
)
def make(name: str, videos: Path | None, seed: int, n_test_videos: int | None) -> None:
    """Make the videos of a synthetic dataset, with their frame labels.

    \b
    pipeline datasets make microworld
    pipeline datasets make microworld --test-videos 96 --videos data/microworld-96
    """
    with errors_in_one_line():
        from pipeline.cli.terminal import show_progress
        from pipeline.datasets import DATASETS

        make_videos = DATASETS[name].make
        assert make_videos is not None  # as `check_synthetic_name` has found
        folder = Path("data", name) if videos is None else videos
        sizes = {} if n_test_videos is None else {"n_test_videos": n_test_videos}
        with show_progress() as report:
            paths = make_videos(folder, seed=seed, **sizes, report=report)
        click.echo(f"{len(paths)} videos and manifest.csv are in {folder}")
