"""`pipeline evaluate`: the metrics of a trained model on a test split."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.scoring_options import threshold_option
from pipeline.cli.shared import (
    SOME_VIDEOS_FAILED,
    allow_outside_option,
    device_option,
    errors_in_one_line,
    is_quiet,
    runs_option,
    say,
    videos_option,
    warn,
)
from pipeline.notes import weights_note

if TYPE_CHECKING:
    from pipeline.datasets.catalog import Dataset
    from pipeline.evaluation.results import Evaluation
    from pipeline.runs.seeds import Seeds


@click.command()
@click.argument("run_folder", metavar="[RUN]", required=False, type=click.Path(path_type=Path))
@runs_option
@click.option(
    "--dataset", help="A dataset's name or a manifest CSV.  [default: what the run was trained on]"
)
@videos_option
@allow_outside_option
@click.option(
    "--features",
    "named_features",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of feature files.  [default: features, or the one that the run was trained from]",
)
@click.option(
    "--controls",
    is_flag=True,
    help="Also measure what a model has to beat: motion energy, linear MIL scorers on the same "
    "features, and the model with its context shuffled.",
)
@threshold_option
@click.option(
    "--best-on-test",
    is_flag=True,
    help="Also the epoch that is best on the test videos: optimistic, as the literature reports. "
    "Needs a run trained with --set keep_epochs=true. An epoch of an ensemble is its network.",
)
@click.option(
    "--ground-truth",
    metavar="NAME",
    help="How frame labels are made: annotation (cut to each video's true length), or a published "
    "convention: see `pipeline groundtruth DATASET --list`. Only results by the default are "
    "stored.  [default: annotation; for imported features what fits them]",
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="JSON to write, - for stdout."
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    help="PNG of the ROC and PR curves to write, - for stdout.",
)
@click.option(
    "--report",
    "report_folder",
    type=click.Path(path_type=Path),
    help="Folder of HTML pages to write: one per test video with its labels, and an index.html, "
    "the worst misses and false alarms first.",
)
@device_option
def evaluate(
    run_folder: Path | None,
    runs: Path,
    dataset: str | None,
    videos: Path | None,
    allow_outside: bool,
    named_features: Path | None,
    controls: bool,
    threshold: float | None,
    best_on_test: bool,
    ground_truth: str | None,
    json_path: Path | None,
    plot: Path | None,
    report_folder: Path | None,
    device: str,
) -> None:
    """Measure a trained model on the test videos of a dataset, over all seeds of its training.

    RUN is a run's folder, by default that of the run that was trained last. The dataset need not be
    the one that it was trained on. The result is also stored in the run's folder.

    \b
    pipeline evaluate --controls --json metrics.json --plot curves.png
    pipeline evaluate --report pages/
    pipeline evaluate runs/xd_violence/clav-como/20260102-030405-seed0 --dataset my_cameras.csv
    """
    with errors_in_one_line():
        opens_videos = controls or report_folder is not None
        seeds, source, loaded = _find(
            run_folder, runs, dataset, videos, allow_outside=allow_outside or not opens_videos
        )
        features = named_features or _features_folder(seeds, loaded)
        _check_outputs(json_path, plot, report_folder, source, loaded, features)

        from pipeline.cli.terminal import show_progress
        from pipeline.evaluation.evaluate import evaluate as evaluate_run

        with show_progress() as report:
            evaluation = evaluate_run(
                seeds,
                dataset=loaded,
                features=features,
                device=device,
                controls=controls,
                threshold=threshold,
                best_on_test=best_on_test,
                ground_truth=ground_truth,
                report=report,
            )
        _show(evaluation, seeds, json_path, plot)
        failures = _write_report(report_folder, evaluation, seeds, loaded, features, device)
    if failures or any(left_out.is_failure for left_out in evaluation.left_out):
        sys.exit(SOME_VIDEOS_FAILED)


def _find(
    run_folder: Path | None,
    runs: Path,
    dataset: str | None,
    videos: Path | None,
    *,
    allow_outside: bool,
) -> tuple[Seeds, Path, Dataset]:
    """The run's seeds, and the dataset with its source; one that is named is read before torch."""
    from pipeline.datasets import load_dataset

    loaded = dataset and load_dataset(dataset, videos, allow_outside=allow_outside)

    from pipeline.scoring.score import find_seeds

    seeds = find_seeds(run_folder, runs)
    source = dataset or seeds.describe().dataset_source
    loaded = loaded or load_dataset(source, videos, allow_outside=allow_outside)
    return seeds, Path(source), loaded


def _features_folder(seeds: Seeds, dataset: Dataset) -> Path:
    from pipeline.evaluation.evaluate import features_folder_of

    return features_folder_of(seeds, dataset)


def _check_outputs(
    json_path: Path | None,
    plot: Path | None,
    report_folder: Path | None,
    source: Path,
    dataset: Dataset,
    features: Path,
) -> None:
    """Find out before the work that an output cannot be written or would replace an input."""
    from pipeline.cli.output_paths import check_output_folders, check_outputs
    from pipeline.extraction.feature_file import feature_path

    inputs = [source]
    for entry in dataset.entries if json_path or plot or report_folder else ():
        inputs += [entry.path, feature_path(features / dataset.name, entry.video_id)]
    check_outputs({"--json": json_path, "--plot": plot}, inputs)
    if report_folder is not None:
        dataset.check_any_video_is_there()
        check_output_folders({"--report": report_folder}, (), inputs)


def _write_report(
    folder: Path | None,
    evaluation: Evaluation,
    seeds: Seeds,
    dataset: Dataset,
    features: Path,
    device: str,
) -> tuple[str, ...]:
    """Write the pages of the test videos, if they are wanted; the videos that have none."""
    if folder is None:
        return ()
    from pipeline.cli.terminal import show_progress
    from pipeline.device import choose_device
    from pipeline.reports.split_report import write_split_report
    from pipeline.runs.seeds import load_average
    from pipeline.scoring.calibration import distance_limits

    with show_progress() as report:
        written = write_split_report(
            folder,
            load_average(seeds.finished),
            dataset,
            features,
            choose_device(device),
            evaluation.rule,
            ground_truth=evaluation.ground_truth,
            distance_limits=distance_limits(seeds, evaluation.calibration),
            report=report,
        )
    for failure in written.failures:
        warn(f"no page: {failure}")
    say(f"report: open {written.index} in a browser")
    return written.failures


def _show(evaluation: Evaluation, seeds: Seeds, json_path: Path | None, plot: Path | None) -> None:
    """Print the tables, write the outputs and store the evaluation with the runs of all seeds."""
    from pipeline.cli.terminal import format_table
    from pipeline.evaluation.results import (
        alarms_table,
        as_json,
        controls_table,
        metrics_table,
        write_json,
    )
    from pipeline.evaluation.verdict import describe_unbeaten
    from pipeline.reports.plots import plot_evaluation

    click.echo("runs: " + " ".join(str(seed.folder) for seed in seeds.finished))
    if seeds.description is not None:
        click.echo(f"checkpoints: {seeds.description.config.selection_description}")
    for make_table in (metrics_table, alarms_table, controls_table):
        table = make_table(evaluation)
        if table.rows:
            click.echo(format_table(table.title, table.header, table.rows) + "\n")
    if unbeaten := describe_unbeaten(as_json(evaluation)["rows"]):
        click.echo(unbeaten)
    if note := weights_note(evaluation.is_pretrained):
        click.echo(note)
    for left_out in evaluation.left_out if is_quiet() else ():
        warn(f"{left_out.name}: left out: {left_out.reason}")
    if json_path is not None:
        write_json(evaluation, json_path)
    if plot is not None:
        plot_evaluation(evaluation, plot)
    _store(evaluation, seeds)


def _store(evaluation: Evaluation, seeds: Seeds) -> None:
    """Store results by the default ground truth; not beside a checkpoint alone, without a card."""
    from pipeline.evaluation.split_videos import default_ground_truth
    from pipeline.reports.model_card import keep_evaluation

    if seeds.description is None:
        return
    default = default_ground_truth(evaluation.dataset, seeds.description.provenance)
    for seed in seeds.finished if evaluation.ground_truth == default else ():
        keep_evaluation(seed, evaluation)
