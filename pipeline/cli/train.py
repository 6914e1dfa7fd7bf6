"""`pipeline train`: a model from features and video-level labels."""

from pathlib import Path

import click

from pipeline.cli.shared import (
    RANDOM_WEIGHTS_NOTE,
    device_option,
    errors_in_one_line,
    features_option,
    runs_option,
    say,
)


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
        say(f"device: {describe_device(chosen)}")
        if not bags.contract["has_semantics"]:
            say(RANDOM_WEIGHTS_NOTE)
        for run in to_train:
            show_training(train_run(run, bags, chosen), run.folder.name, config.n_epochs)
            click.echo(f"run: {run.folder}")
