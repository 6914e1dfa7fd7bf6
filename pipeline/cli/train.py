"""`pipeline train`: a model from features and video-level labels."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from pipeline.cli.shared import (
    RANDOM_WEIGHTS_NOTE,
    device_option,
    errors_in_one_line,
    features_option,
    model_option,
    runs_option,
    say,
    seed_option,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.training.trainer import EpochRecord


@click.command()
@click.option(
    "--dataset",
    default="xd_violence",
    show_default=True,
    help="A dataset's name or a manifest CSV.",
)
@features_option
@runs_option
@model_option
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
@seed_option
@click.option(
    "--seeds",
    "n_seeds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Train so many times, with SEED, SEED + 1, ...",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the latest run that was stopped, with the settings that it began with.",
)
@click.option(
    "--tensorboard", is_flag=True, help="Also write TensorBoard files; needs an extra package."
)
@device_option
@click.pass_context
def train(
    ctx: click.Context,
    dataset: str,
    features: Path,
    runs: Path,
    model: str,
    recipe: Path | None,
    settings: tuple[str, ...],
    seed: int,
    n_seeds: int,
    resume: bool,
    tensorboard: bool,
    device: str,
) -> None:
    """Learn a model from a dataset's features and its video-level labels.

    \b
    pipeline train
    pipeline train --dataset my_cameras.csv --seeds 3 --set steps=2000
    pipeline train --set selection=held_out
    """
    if resume:
        _refuse_with_resume(ctx, "recipe", "settings", "seed", "n_seeds")
    with errors_in_one_line():
        from pipeline.datasets import DATASETS, load_dataset

        # Before torch is loaded, which takes seconds. No video is opened.
        loaded = load_dataset(dataset, allow_outside=True)

        from pipeline.cli.display import show_training
        from pipeline.config import resolve_config, with_seed, with_streams
        from pipeline.device import choose_device, describe_device
        from pipeline.runs.run_folder import (
            RunDescription,
            create_runs,
            read_description,
            unfinished_runs,
        )
        from pipeline.runs.run_lock import owned
        from pipeline.training.train import train as train_run
        from pipeline.training.validation import training_bags

        if tensorboard:
            with_tensorboard = load_tensorboard()
        chosen = choose_device(device)
        if resume:
            to_train = unfinished_runs(runs, dataset=loaded.name, model_name=model)
            config = read_description(to_train[0]).config
        else:
            config = resolve_config(model, loaded.name, recipe=recipe, settings=settings)
            configs = [with_seed(config, number) for number in range(seed, seed + n_seeds)]
        with ExitStack() as stack:
            if resume:
                stack.enter_context(owned(to_train))  # before minutes of reading
            bags, held_out = training_bags(loaded, features, config)
            if not resume:
                with_streams(config, bags.stream_dims)  # refuses what cannot be built
                source = dataset if dataset in DATASETS else str(Path(dataset).absolute())
                to_train = create_runs(
                    runs,
                    [
                        RunDescription(
                            loaded.name, source, features.absolute(), bags.provenance, one
                        )
                        for one in configs
                    ],
                )
                stack.enter_context(owned(to_train))
            say(f"device: {describe_device(chosen)}")
            if bags.provenance.get("is_pretrained") is not True:
                say(RANDOM_WEIGHTS_NOTE)
            for run in to_train:
                records = train_run(run, bags, chosen, held_out=held_out)
                if tensorboard:
                    records = with_tensorboard(records, run.folder)
                show_training(records, run.folder.name, config.n_epochs)
                click.echo(f"run: {run.folder}")


def _refuse_with_resume(ctx: click.Context, *names: str) -> None:
    """A run goes on with its own settings: others would be ignored."""
    for name in names:
        if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            option = next(each.opts[0] for each in ctx.command.params if each.name == name)
            raise click.UsageError(
                f"{option} cannot be given with --resume, which goes on with the settings that "
                f"the run began with; leave out {option}, or train anew without --resume"
            )


def load_tensorboard() -> Callable[[Iterator[EpochRecord], Path], Iterator[EpochRecord]]:
    """Find out before the training that TensorBoard is not installed."""
    from pipeline.config import ConfigError

    try:
        from pipeline.training.tensorboard import with_tensorboard
    except ImportError as error:
        raise ConfigError(
            "--tensorboard needs a package that is not installed; "
            "install it with: pip install tensorboard"
        ) from error
    return with_tensorboard
