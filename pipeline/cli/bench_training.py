"""`pipeline bench-training`: how fast training is, beside the usual loader."""

import tempfile
from pathlib import Path

import click

from pipeline.cli.shared import device_option, errors_in_one_line, model_option, say


@click.command("bench-training")
@click.option(
    "--videos",
    "n_videos",
    type=click.IntRange(min=2),
    default=100,
    show_default=True,
    help="Synthetic videos to train on.",
)
@click.option(
    "--rounds",
    "n_rounds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Measurements of each system.",
)
@click.option(
    "--steps",
    "n_steps",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Training steps in a round.",
)
@click.option(
    "--workers",
    "n_workers",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Processes of the usual loader, per class of bags.",
)
@model_option
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="As in train.")
@device_option
def bench_training(
    n_videos: int,
    n_rounds: int,
    n_steps: int,
    n_workers: int,
    model: str,
    settings: tuple[str, ...],
    device: str,
) -> None:
    """Measure training on bags of XD-Violence's shape beside the loader that is usual in the field.

    All systems take turns in each round, so that a busy machine slows all of them alike. The files,
    about 8 MB for each video, lie in the folder of temporary files and are removed.

    \b
    pipeline bench-training
    pipeline bench-training --set sampler=sequence --set bag_len=200 --device cuda
    """
    with errors_in_one_line():
        from pipeline.config import ConfigError, resolve_config
        from pipeline.device import choose_device, describe_device
        from pipeline.experiments.bench_training import Read, Round, Written, describe
        from pipeline.experiments.bench_training import bench_training as measure

        config = resolve_config(model, "none", settings=settings)
        n_bags = n_videos // 2 * 5
        if config.bags_per_class > n_bags:
            raise ConfigError(
                f"--videos must give {config.bags_per_class} bags of each class, "
                f"instead got {n_bags}"
            )
        chosen = choose_device(device)
        rounds: list[Round] = []
        with tempfile.TemporaryDirectory() as folder:
            for record in measure(
                Path(folder),
                config,
                chosen,
                n_videos=n_videos,
                n_rounds=n_rounds,
                n_steps=n_steps,
                n_workers=n_workers,
            ):
                match record:
                    case Written():
                        click.echo(
                            f"{record.n_bags} bags of {record.mean_snippets:.0f} snippets on "
                            f"average, {record.n_bytes / 1e6:.0f} MB as float32"
                        )
                    case Read():
                        click.echo(f"read once into one block: {record.seconds:.2f} s")
                    case Round():
                        rounds.append(record)
                        say(f"round {len(rounds)} of {n_rounds}")
        click.echo(
            f"device: {describe_device(chosen)}; {config.sampler} of {config.bag_len}, "
            f"{config.bags_per_class} + {config.bags_per_class} bags, usual loader with "
            f"{n_workers} workers"
        )
        click.echo(describe(rounds))
