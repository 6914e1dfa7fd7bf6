"""`pipeline bench-training`: how fast training is, beside the usual loader."""

import click

from pipeline.cli.shared import device_option, errors_in_one_line, model_option


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
        from pipeline.cli.terminal import format_table, show_progress
        from pipeline.config import resolve_config
        from pipeline.device import choose_device, describe_device
        from pipeline.experiments.bench_training import bench_training as measure

        config = resolve_config(model, "none", settings=settings)
        chosen = choose_device(device)
        counts = {"n_videos": n_videos, "n_rounds": n_rounds, "n_steps": n_steps}
        with show_progress() as report:
            speed = measure(config, chosen, **counts, n_workers=n_workers, report=report)
        click.echo(
            f"{speed.n_bags} bags of {speed.mean_snippets:.0f} snippets on average, "
            f"{speed.n_bytes / 1e6:.0f} MB as float32; read once into one block: "
            f"{speed.read_seconds:.2f} s\n"
            f"device: {describe_device(chosen)}; {config.sampler} of {config.bag_len}, "
            f"{config.bags_per_class} + {config.bags_per_class} bags, usual loader with "
            f"{n_workers} workers"
        )
        rows = [
            (row.unit, row.system, f"{row.per_second:.2f}", f"{row.ratio:.1f}")
            for row in speed.comparisons()
        ]
        click.echo(format_table("", ("of", "batches from", "per second", "ratio"), rows))
