"""`pipeline runs`: the table of training runs with their metrics."""

import sys
from pathlib import Path

import click

from pipeline.cli.shared import (
    SOME_VIDEOS_FAILED,
    check_model_name,
    errors_in_one_line,
    runs_option,
    warn,
)


@click.command("runs")
@runs_option
@click.option("--dataset", help="Only runs that were trained on this dataset, or this CSV.")
@click.option("--model", callback=check_model_name, metavar="NAME", help="Only runs of this model.")
def runs_command(runs: Path, dataset: str | None, model: str | None) -> None:
    """List the training runs, the latest last, with what `pipeline evaluate` found of them.

    \b
    pipeline runs
    pipeline runs --dataset xd_violence --model clav-como
    """
    with errors_in_one_line():
        from pipeline.cli.terminal import format_table
        from pipeline.reports.run_table import HEADER, summarize, table_rows
        from pipeline.runs.checkpoints import CheckpointError
        from pipeline.runs.run_folder import find_runs

        if not runs.is_dir():
            raise CheckpointError(f"{runs}: there is no such folder; `pipeline train` makes runs")
        if dataset is not None and dataset.lower().endswith(".csv"):
            dataset = Path(dataset).stem
        summaries, damages = [], []
        for run in find_runs(runs, dataset=dataset, model_name=model):
            try:
                summaries.append(summarize(run))
            except CheckpointError as error:
                damages.append(str(error))
        click.echo(format_table("", HEADER, table_rows(summaries)))
    if not summaries and not damages:
        warn(f"{runs}: no such runs there; without options `pipeline runs` lists all")
    for damage in damages:
        warn(f"left out: {damage}")
    if damages:
        sys.exit(SOME_VIDEOS_FAILED)
