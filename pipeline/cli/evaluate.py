"""`pipeline evaluate`: how good a trained model is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.shared import (
    RANDOM_WEIGHTS_NOTE,
    SOME_VIDEOS_FAILED,
    allow_outside_option,
    check_number,
    device_option,
    errors_in_one_line,
    features_option,
    runs_option,
    videos_option,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.datasets.catalog import Dataset
    from pipeline.evaluation.evaluate import RowLeftOut, RowStarted
    from pipeline.evaluation.results import Evaluation
    from pipeline.runs.run_folder import RunDescription


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@runs_option
@click.option(
    "--dataset", help="A dataset's name or a manifest CSV.  [default: what the run was trained on]"
)
@videos_option
@allow_outside_option
@features_option
@click.option(
    "--controls",
    is_flag=True,
    help="Also measure what a model has to beat: motion energy, linear MIL scorers on the same "
    "features, and the model with its context shuffled.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(min=0, max=1, min_open=True),
    callback=check_number,
    default=0.5,
    show_default=True,
    help="The score that begins an event.",
)
@click.option(
    "--best-on-test",
    is_flag=True,
    help="Also the epoch that is best on the test videos: optimistic, as the literature reports. "
    "Needs a run trained with --set keep_epochs=true.",
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="JSON to write, - for stdout."
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    help="PNG of the ROC and PR curves to write, - for stdout.",
)
@device_option
def evaluate(
    run: Path | None,
    runs: Path,
    dataset: str | None,
    videos: Path | None,
    allow_outside: bool,
    features: Path,
    controls: bool,
    threshold: float,
    best_on_test: bool,
    json_path: Path | None,
    plot: Path | None,
    device: str,
) -> None:
    """Measure a trained model on the test videos of a dataset, over all seeds of its training.

    RUN is a run's folder; without it, the run that was trained last. The dataset need not be the
    one that it was trained on. What was found is kept in the run's folder, too.

    \b
    pipeline evaluate --controls --json metrics.json --plot curves.png
    pipeline evaluate runs/xd_violence/clav-como/20260102-030405-seed0 --dataset my_cameras.csv
    """
    with errors_in_one_line():
        from pipeline.datasets import load_dataset

        allow_outside = allow_outside or not controls  # which alone open videos
        # Before torch is loaded, which takes seconds.
        loaded = (
            None if dataset is None else load_dataset(dataset, videos, allow_outside=allow_outside)
        )

        from pipeline.cli.output_paths import check_outputs
        from pipeline.device import choose_device
        from pipeline.evaluation.evaluate import evaluate as evaluate_runs
        from pipeline.evaluation.results import as_table, write_json
        from pipeline.extraction.feature_file import feature_path
        from pipeline.reports.model_card import keep_evaluation
        from pipeline.reports.plots import plot_evaluation
        from pipeline.runs.checkpoints import load_checkpoint
        from pipeline.runs.run_folder import Run, latest_run, read_description, runs_of_command
        from pipeline.scoring.events import EventRule

        first = latest_run(runs) if run is None else Run(run)
        description = read_description(first)
        if loaded is None:
            loaded = load_dataset(description.dataset_source, videos, allow_outside=allow_outside)
        inputs = [Path(dataset or description.dataset_source)]
        for entry in loaded.entries if json_path or plot else ():
            inputs += [entry.path, feature_path(features / loaded.name, entry.video_id)]
        check_outputs({"--json": json_path, "--plot": plot}, inputs)
        chosen = choose_device(device)
        seeds = [other for other in runs_of_command(first) if other.is_finished] or [first]
        records = evaluate_runs(
            [load_checkpoint(seed.checkpoint_path) for seed in seeds],
            loaded,
            features,
            chosen,
            controls=controls,
            rule=EventRule(threshold),
            epochs=[seed.epoch_checkpoints() for seed in seeds] if best_on_test else (),
            training=_trained_on(description) if controls else None,
        )
        evaluation, is_whole = _draw_to_the_end(records)
        click.echo("runs: " + " ".join(str(seed.folder) for seed in seeds))
        click.echo(f"checkpoints: {description.config.selection_in_words}")
        click.echo(as_table(evaluation))
        if not evaluation.is_pretrained:
            click.echo(RANDOM_WEIGHTS_NOTE)
        if json_path is not None:
            write_json(evaluation, json_path)
        if plot is not None:
            plot_evaluation(evaluation, plot)
        for seed in seeds:
            keep_evaluation(seed, evaluation)
    if not is_whole:
        sys.exit(SOME_VIDEOS_FAILED)


def _trained_on(description: RunDescription) -> Dataset:
    """The dataset of a run; only the features of its videos are read."""
    from pipeline.datasets import load_dataset

    return load_dataset(description.dataset_source, allow_outside=True)


def _draw_to_the_end(
    records: Iterator[RowStarted | RowLeftOut | Evaluation],
) -> tuple[Evaluation, bool]:
    """Draw the progress of an evaluation; returns what it found, and whether that is all."""
    from pipeline.cli.progress import ProgressDisplay
    from pipeline.evaluation.evaluate import RowLeftOut
    from pipeline.evaluation.results import Evaluation

    is_whole = True
    with ProgressDisplay("evaluate", total=100, unit="%") as display:
        for record in records:
            if isinstance(record, Evaluation):
                return record, is_whole
            if isinstance(record, RowLeftOut):
                is_whole = False
                display.say(f"{record.name}: left out: {record.reason}")
            else:
                display.update(100 * record.index / record.n_rows, record.name)
    raise AssertionError("an evaluation ends with its result")
