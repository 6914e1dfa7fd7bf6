"""`pipeline import-features`: the features that others have published."""

import sys
from pathlib import Path

import click

from pipeline.cli.shared import SOME_VIDEOS_FAILED, errors_in_one_line, features_option
from pipeline.extraction.releases import OTHER, RELEASES
from pipeline.printable import printable


@click.command("import-features")
@click.argument("dataset")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--release",
    required=True,
    type=click.Choice([*RELEASES, OTHER]),
    help="Who published them.",
)
@click.option("--made-by", metavar="TEXT", help="With --release other: who made them, and how.")
@click.option(
    "--list",
    "lists",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Import only the files that a list names; may be repeated. Of its paths the end counts.",
)
@features_option
def import_features(
    dataset: str,
    folder: Path,
    release: str,
    made_by: str | None,
    lists: tuple[Path, ...],
    features: Path,
) -> None:
    """Turn a published release of features in FOLDER into feature files of DATASET.

    Then `train`, `evaluate` and `ablate` work as with features of your own. A new video cannot be
    scored with them, for nobody can compute the same features again. Exit code 3 if a file is
    missing or cannot be used.

    \b
    pipeline import-features ucf_crime downloads/UCF_ten_crop --release rtfm
    pipeline import-features xd_violence downloads/i3d-features --release xdviodet
    """
    with errors_in_one_line():
        from pipeline.cli.terminal import show_progress
        from pipeline.extraction.import_features import import_features as import_release

        with show_progress() as report:
            summary = import_release(
                dataset,
                folder,
                release=release,
                made_by=made_by,
                lists=lists,
                features=features,
                report=report,
            )
        for line in summary.describe().splitlines():
            click.echo(printable(line))
    if summary.problems:
        sys.exit(SOME_VIDEOS_FAILED)
