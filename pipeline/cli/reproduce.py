"""`pipeline reproduce`: a paper's row of results beside ours."""

from pathlib import Path

import click

from pipeline.cli.shared import device_option, errors_in_one_line, features_option, runs_option


@click.command()
@click.argument("model")
@click.argument("dataset")
@features_option
@runs_option
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting that differs from the recipe, such as learning_rate=1e-3 for features that "
    "are 2048-d; may be repeated.",
)
@device_option
def reproduce(
    model: str,
    dataset: str,
    features: Path,
    runs: Path,
    settings: tuple[str, ...],
    device: str,
) -> None:
    """Train MODEL on DATASET with three seeds, and print its result beside the published one.

    The model is evaluated after its last step by the annotation and by the published ground truth.
    Most papers report the epoch that is best on the test videos, which is optimistic: that is a row
    of its own.

    \b
    pipeline reproduce clav-como ucf_crime --features features
    """
    with errors_in_one_line():
        from pipeline.cli.terminal import format_table, show_progress
        from pipeline.experiments.reproduce import reproduce as reproduce_row

        with show_progress() as report:
            row = reproduce_row(
                model,
                dataset,
                features=features,
                runs=runs,
                settings=settings,
                device=device,
                report=report,
            )
        title = f"{row.model} on {row.dataset}, in percent; features: {row.features}"
        click.echo(format_table(title, row.header, row.rows()))
        click.echo(f"run: {row.run.folder}")
