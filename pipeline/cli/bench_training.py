"""`pipeline bench-training`: how fast training is, beside the usual loader."""

import click

from pipeline.cli.shared import count_option, device_option, errors_in_one_line, model_option


@click.command("bench-training")
@count_option(
    "--videos", "n_videos", min_count=2, default=100, help="Synthetic videos to train on."
)
@count_option("--rounds", "n_rounds", default=5, help="Measurements of each system.")
@count_option("--steps", "n_steps", default=5, help="Training steps in a round.")
@count_option(
    "--workers",
    "n_workers",
    min_count=0,
    default=0,
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
