"""`pipeline train`: a model from features and video-level labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.shared import (
    RANDOM_WEIGHTS_NOTE,
    device_option,
    errors_in_one_line,
    features_option,
    runs_option,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.trainer import EpochRecord


@click.command()
@click.option(
    "--dataset",
    default="xd_violence",
    show_default=True,
    help="A dataset's name or a manifest CSV.",
)
@features_option
@runs_option
@click.option(
    "--model", default="clav-como", show_default=True, help="Model: clav-como, la-net or cbcg."
)
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
@click.option(
    "--tensorboard", is_flag=True, help="Also write TensorBoard files; needs an extra package."
)
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
    tensorboard: bool,
    device: str,
) -> None:
    """Learn a model from a dataset's features and its video-level labels.

    \b
    pipeline train
    pipeline train --dataset my_cameras.csv --seeds 3 --set steps=2000
    pipeline train --set selection=held_out
    """
    with errors_in_one_line():
        from pipeline.config import resolve_config, with_seed
        from pipeline.datasets import load_dataset
        from pipeline.device import choose_device, describe_device
        from pipeline.runs import RunDescription, create_runs, read_description, unfinished_runs
        from pipeline.selection import training_bags
        from pipeline.show import show_training
        from pipeline.train import train as train_run

        if tensorboard:
            with_tensorboard = load_tensorboard()
        loaded = load_dataset(dataset, allow_outside=True)  # no video is opened
        chosen = choose_device(device)
        if resume:
            to_train = unfinished_runs(runs, dataset=loaded.name, model_name=model)
            config = read_description(to_train[0]).config
        else:
            config = resolve_config(model, loaded.name, recipe=recipe, settings=settings)
        bags, held_out = training_bags(loaded, features, config)
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
        say(f"device: {describe_device(chosen)}")
        if not bags.contract["has_semantics"]:
            say(RANDOM_WEIGHTS_NOTE)
        for run in to_train:
            records = train_run(run, bags, chosen, held_out=held_out)
            if tensorboard:
                records = with_tensorboard(records, run.folder)
            show_training(records, run.folder.name, config.n_epochs)
            click.echo(f"run: {run.folder}")


def load_tensorboard() -> Callable[[Iterator[EpochRecord], Path], Iterator[EpochRecord]]:
    """Find out before the training that TensorBoard is not installed."""
    from pipeline.config import ConfigError

    try:
        from pipeline.tensorboard import with_tensorboard
    except ImportError as error:
        raise ConfigError(
            "--tensorboard needs a package that is not installed; "
            "install it with: pip install tensorboard"
        ) from error
    return with_tensorboard
