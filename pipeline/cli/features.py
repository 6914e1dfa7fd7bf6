"""`pipeline features`: what is in feature files."""

import sys
from pathlib import Path

import click

from pipeline.cli.shared import SOME_VIDEOS_FAILED, errors_in_one_line
from pipeline.printable import printable


@click.group()
def features() -> None:
    """Check feature files, also those that other programs wrote.

    \b
    pipeline features check features/my_cameras/*.h5
    """


@features.command()
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path)
)
def check(files: tuple[Path, ...]) -> None:
    """Validate feature files: one line for each problem, and exit code 3 if there is any.

    The index of a folder of features, index.h5, is left out.

    \b
    pipeline features check garage.h5
    """
    with errors_in_one_line():
        from pipeline.extraction.feature_check import check_feature_file
        from pipeline.extraction.feature_folder import is_index

        checked = [file for file in files if not is_index(file)]
        n_invalid = 0
        for file in checked:
            problems = check_feature_file(file)
            n_invalid += bool(problems)
            for problem in problems:
                click.echo(printable(problem))
        click.echo(f"{len(checked) - n_invalid} valid, {n_invalid} not")
    if n_invalid:
        sys.exit(SOME_VIDEOS_FAILED)
