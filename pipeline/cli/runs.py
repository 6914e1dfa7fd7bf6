"""`pipeline runs`: what was trained, and how good it is."""

from pathlib import Path

import click

from pipeline.cli.shared import errors_in_one_line, runs_option


@click.command("runs")
@runs_option
@click.option("--dataset", help="Only runs that were trained on this dataset.")
@click.option("--model", help="Only runs of this model.")
def runs_command(runs: Path, dataset: str | None, model: str | None) -> None:
    """List the training runs, the latest last, with what `pipeline evaluate` found of them.

    \b
    pipeline runs
    pipeline runs --dataset xd_violence --model clav-como
    """
    with errors_in_one_line():
        from pipeline.run_list import as_lines, summarise
        from pipeline.runs import find_runs

        found = find_runs(runs, dataset=dataset, model_name=model)
        for line in as_lines([summarise(run) for run in found]):
            click.echo(line)
