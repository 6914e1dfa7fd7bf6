"""`pipeline evaluate`: how good a trained model is."""

from pathlib import Path

import click

from pipeline.cli.shared import (
    RANDOM_WEIGHTS_NOTE,
    device_option,
    errors_in_one_line,
    features_option,
    runs_option,
    videos_option,
)


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@runs_option
@click.option(
    "--dataset", help="A dataset's name or a manifest CSV.  [default: what the run was trained on]"
)
@videos_option
@features_option
@click.option(
    "--controls",
    is_flag=True,
    help="Also measure two controls: motion energy, and the model with its context shuffled.",
)
@device_option
def evaluate(
    run: Path | None,
    runs: Path,
    dataset: str | None,
    videos: Path | None,
    features: Path,
    controls: bool,
    device: str,
) -> None:
    """Measure a trained model on the test videos of a dataset, over all seeds of its training.

    RUN is a run's folder; without it, the run that was trained last.

    \b
    pipeline evaluate
    pipeline evaluate runs/xd_violence/clav-como/20260102-030405-seed0 --dataset my_cameras.csv
    """
    with errors_in_one_line():
        from pipeline.checkpoints import load_checkpoint
        from pipeline.datasets import load_dataset
        from pipeline.device import choose_device
        from pipeline.evaluate import Evaluation, as_table
        from pipeline.evaluate import evaluate as evaluate_runs
        from pipeline.progress import ProgressDisplay
        from pipeline.runs import Run, latest_run, read_description, runs_of_command

        chosen = choose_device(device)
        first = latest_run(runs) if run is None else Run(run)
        source = dataset or read_description(first).dataset_source
        loaded = load_dataset(source, videos)
        seeds = [other for other in runs_of_command(first) if other.is_finished] or [first]
        checkpoints = [load_checkpoint(seed.checkpoint_path) for seed in seeds]
        with ProgressDisplay("evaluate", total=1 + 2 * controls, unit="rows") as display:
            for record in evaluate_runs(checkpoints, loaded, features, chosen, controls=controls):
                if isinstance(record, Evaluation):
                    evaluation = record
                else:
                    display.update(record.index, record.name)
        click.echo("runs: " + " ".join(str(seed.folder) for seed in seeds))
        click.echo(as_table(evaluation))
        if not checkpoints[0].has_semantics:
            click.echo(RANDOM_WEIGHTS_NOTE)
