"""The command line: parse, call a stage, show what it yields. Nothing else.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 an error in one line,
2 a usage error, 3 finished but some videos failed.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

import pipeline

SOME_VIDEOS_FAILED = 3
RANDOM_WEIGHTS_NOTE = "random weights: no semantics"

features_option = click.option(
    "--features",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("features"),
    show_default=True,
    help="Folder of feature files.",
)
runs_option = click.option(
    "--runs",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Folder of training runs.",
)
videos_option = click.option(
    "--videos",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the videos.  [default: data/DATASET, or the manifest's folder]",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto (the first GPU, else the CPU), cpu, cuda or cuda:N.",
)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turn the errors that a user can mend into one line on stderr and exit code 1.

    Everything else is a bug and keeps its traceback.
    """
    try:
        yield
    except OSError as error:
        raise click.ClickException(_one_line(error)) from error
    except ValueError as error:
        from pipeline.config import ConfigError
        from pipeline.datasets.catalog import DatasetError

        if isinstance(error, (ConfigError, DatasetError)):
            raise click.ClickException(_one_line(error)) from error
        raise


def _one_line(error: Exception) -> str:
    """The message without line breaks; an operating system error names its file first."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(pipeline.__version__, prog_name="lookaround")
@click.option("-v", "--verbose", is_flag=True, help="Say more of what is done and why.")
def main(verbose: bool) -> None:
    """From raw video to an anomaly score for every frame.

    \b
    pipeline extract xd_violence          videos -> features
    pipeline train                        features -> a trained model
    pipeline score video.mp4 --out s.csv  a video -> a score for every frame
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s: %(message)s",
        stream=sys.stderr,
    )
    # Libraries below may log at their own pleasure; only this program's words are for the user.
    logging.captureWarnings(True)


@main.command()
@click.argument("dataset")
@videos_option
@features_option
@click.option("--extractor", default="i3d", show_default=True, help="Network: i3d.")
@click.option(
    "--flow",
    type=click.Choice(["tvl1", "dis", "none"]),
    default="tvl1",
    show_default=True,
    help="Optical flow. tvl1 is the field's; dis is for machines without a GPU; none: RGB alone.",
)
@click.option(
    "--crops",
    type=click.Choice(["1", "5", "10"]),
    default="5",
    show_default=True,
    help="Centre; centre and corners; the same and their mirror images.",
)
@click.option(
    "--weights",
    default="kinetics",
    show_default=True,
    help="kinetics, random:SEED, or a file or folder of your own.",
)
@device_option
def extract(
    dataset: str,
    videos: Path | None,
    features: Path,
    extractor: str,
    flow: str,
    crops: str,
    weights: str,
    device: str,
) -> None:
    """Compute the features of every video of DATASET, a name or a manifest CSV.

    What is there already is kept; a video that fails is reported, the others go on, and the exit
    code is then 3.

    \b
    pipeline extract xd_violence --videos /data/xd
    pipeline extract my_cameras.csv --flow dis --crops 1
    """
    with errors_in_one_line():
        from extractors import build_extractor
        from pipeline.datasets import load_dataset
        from pipeline.device import choose_device, describe_device
        from pipeline.extract import extract_dataset
        from pipeline.show import show_extraction

        loaded = load_dataset(dataset, videos)
        loaded.check_any_video_is_there()
        chosen = choose_device(device)
        _say(f"device: {describe_device(chosen)}")
        built = build_extractor(
            extractor,
            flow=None if flow == "none" else flow,
            crops=int(crops),
            weights=weights,
            device=chosen,
        )
        if not built.contract()["has_semantics"]:
            _say(RANDOM_WEIGHTS_NOTE)
        records = extract_dataset(loaded, features, built)
        summary = show_extraction(records, n_videos=len(loaded.entries))
        click.echo(summary.in_words())
        click.echo(f"features of {loaded.name} are in {features / loaded.name}")
    if summary.failures:
        sys.exit(SOME_VIDEOS_FAILED)


@main.command()
@click.option(
    "--dataset",
    default="xd_violence",
    show_default=True,
    help="A dataset's name or a manifest CSV.",
)
@features_option
@runs_option
@click.option("--model", default="clav-como", show_default=True, help="Model: clav-como.")
@click.option(
    "--recipe", type=click.Path(path_type=Path), help="TOML file of settings that differ."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting, such as learning_rate=1e-4 or model.margin=1; may be repeated.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--seeds",
    "n_seeds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Train so many times, with SEED, SEED + 1, ...",
)
@click.option("--resume", is_flag=True, help="Go on with the latest run that was stopped.")
@device_option
def train(
    dataset: str,
    features: Path,
    runs: Path,
    model: str,
    recipe: Path | None,
    settings: tuple[str, ...],
    seed: int,
    n_seeds: int,
    resume: bool,
    device: str,
) -> None:
    """Learn a model from a dataset's features and its video-level labels.

    \b
    pipeline train
    pipeline train --dataset my_cameras.csv --seeds 3 --set steps=2000
    """
    with errors_in_one_line():
        from pipeline.bags import load_bags
        from pipeline.config import resolve_config, with_seed
        from pipeline.datasets import load_dataset
        from pipeline.device import choose_device, describe_device
        from pipeline.runs import RunDescription, create_runs, read_description, unfinished_runs
        from pipeline.show import show_training
        from pipeline.train import train as train_run

        loaded = load_dataset(dataset)
        chosen = choose_device(device)
        if resume:
            to_train = unfinished_runs(runs, dataset=loaded.name, model_name=model)
            config = read_description(to_train[0]).config
        else:
            config = resolve_config(model, loaded.name, recipe=recipe, settings=settings)
        bags = load_bags(loaded, features, sampler=config.sampler, bag_len=config.bag_len)
        if not resume:
            to_train = create_runs(
                runs,
                [
                    RunDescription(
                        loaded.name, dataset, features, bags.contract, with_seed(config, number)
                    )
                    for number in range(seed, seed + n_seeds)
                ],
            )
        _say(f"device: {describe_device(chosen)}")
        if not bags.contract["has_semantics"]:
            _say(RANDOM_WEIGHTS_NOTE)
        for run in to_train:
            show_training(train_run(run, bags, chosen), run.folder.name, config.n_epochs)
            click.echo(f"run: {run.folder}")


@main.command()
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


@main.command()
@click.argument("video", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="CSV to write.  [default: stdout]")
@click.option("--plot", type=click.Path(path_type=Path), help="PNG of the curve to write.")
@click.option(
    "--run",
    "run_folder",
    type=click.Path(path_type=Path),
    help="Folder of the run to score with.  [default: the one trained last]",
)
@runs_option
@click.option("--weights", help="The extractor's weights, where the run used a file of your own.")
@device_option
def score(
    video: Path,
    out: Path | None,
    plot: Path | None,
    run_folder: Path | None,
    runs: Path,
    weights: str | None,
    device: str,
) -> None:
    """Give every frame of VIDEO an anomaly score: frame,time_seconds,score.

    \b
    pipeline score video.mp4 --out scores.csv --plot scores.png
    """
    with errors_in_one_line():
        from pipeline.atomic import check_writable, replacing
        from pipeline.checkpoints import load_checkpoint
        from pipeline.device import choose_device, describe_device
        from pipeline.frame_scores import write_csv
        from pipeline.report import plot_scores
        from pipeline.runs import Run, latest_run
        from pipeline.score import extractor_of_run, score_video
        from pipeline.show import show_scoring

        for path in (out, plot):
            if path is not None:
                check_writable(path)
        run = latest_run(runs) if run_folder is None else Run(run_folder)
        checkpoint = load_checkpoint(run.checkpoint_path)
        chosen = choose_device(device)
        _say(f"run: {run.folder}\ndevice: {describe_device(chosen)}")
        note = "" if checkpoint.has_semantics else RANDOM_WEIGHTS_NOTE
        if note:
            _say(note)
        extractor = extractor_of_run(checkpoint.contract, weights=weights, device=chosen)
        scores = show_scoring(score_video(video, checkpoint, extractor, chosen), video.name)
        if out is None:
            write_csv(scores, sys.stdout)
        else:
            with replacing(out) as temporary, temporary.open("w", encoding="utf-8") as file:
                write_csv(scores, file)
        if plot is not None:
            plot_scores(scores, plot, title=video.name, note=note)


@main.group()
def datasets() -> None:
    """List the known datasets, check one, or make the synthetic one.

    \b
    pipeline datasets list
    pipeline datasets check my_cameras.csv
    pipeline datasets make microworld
    """


@datasets.command(name="list")
def list_datasets() -> None:
    """List the datasets that have a name, and where their videos are looked for.

    Any other dataset is a manifest CSV with the columns path,split,label,anomalies.
    """
    from pipeline.datasets import DATASETS

    for name in DATASETS:
        click.echo(f"{name}  data/{name}")


@datasets.command()
@click.argument("dataset")
@videos_option
def check(dataset: str, videos: Path | None) -> None:
    """Read a dataset's lists or manifest, and count its videos and those that are not there.

    \b
    pipeline datasets check my_cameras.csv
    """
    with errors_in_one_line():
        from pipeline.datasets import load_dataset
        from pipeline.datasets.catalog import SPLITS

        loaded = load_dataset(dataset, videos)
        for split in SPLITS:
            entries = loaded.split(split)
            n_anomalous = sum(entry.label for entry in entries)
            click.echo(
                f"{split:5} {len(entries):5} videos: {len(entries) - n_anomalous} normal, "
                f"{n_anomalous} anomalous"
            )
        missing = loaded.missing_videos()
        for path in missing:
            click.echo(f"not there: {path}")
    if missing:
        sys.exit(SOME_VIDEOS_FAILED)


@datasets.command()
@click.argument("name", type=click.Choice(["microworld"]))
@videos_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def make(name: str, videos: Path | None, seed: int) -> None:
    """Make the videos of the synthetic dataset, with their frame labels.

    \b
    pipeline datasets make microworld
    """
    with errors_in_one_line():
        from pipeline.datasets.microworld import DEFAULT_FOLDER, N_VIDEOS, make_microworld
        from pipeline.progress import ProgressDisplay

        folder = DEFAULT_FOLDER if videos is None else videos
        with ProgressDisplay(f"make {name}", total=N_VIDEOS, unit="videos") as display:
            for n_made, _ in enumerate(make_microworld(folder, seed=seed), start=1):
                display.update(n_made)
        click.echo(f"{n_made} videos and manifest.csv are in {folder}")


def _say(line: str) -> None:
    click.echo(line, err=True)
