"""`pipeline runs`: what was trained, and how good it is."""

import sys
from pathlib import Path

import click

from pipeline.cli.shared import (
    SOME_VIDEOS_FAILED,
    check_model_name,
    errors_in_one_line,
    runs_option,
    say,
)


@click.command("runs")
@runs_option
@click.option("--dataset", help="Only runs that were trained on this dataset.")
@click.option("--model", callback=check_model_name, metavar="NAME", help="Only runs of this model.")
def runs_command(runs: Path, dataset: str | None, model: str | None) -> None:
    """List the training runs, the latest last, with what `pipeline evaluate` found of them.

    \b
    pipeline runs
    pipeline runs --dataset xd_violence --model clav-como
    """
    with errors_in_one_line():
        from pipeline.reports.run_table import as_lines, summarise
        from pipeline.runs.checkpoints import CheckpointError
        from pipeline.runs.run_folder import find_runs

        if not runs.is_dir():
            raise CheckpointError(f"{runs}: there is no such folder; `pipeline train` makes runs")
        summaries, damages = [], []
        for run in find_runs(runs, dataset=dataset, model_name=model):
            try:
                summaries.append(summarise(run))
            except CheckpointError as error:
                damages.append(str(error))
        for line in as_lines(summaries):
            click.echo(line)
    for damage in damages:
        say(f"left out: {damage}")
    if damages:
        sys.exit(SOME_VIDEOS_FAILED)
