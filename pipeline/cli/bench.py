"""`pipeline bench`: how fast extraction is on this machine."""

from pathlib import Path

import click

from pipeline.cli.extractor_options import (
    crops_option,
    extractor_option,
    flow_option,
    flow_weights_option,
)
from pipeline.cli.shared import device_option, errors_in_one_line, say


@click.command()
@click.argument("videos", nargs=-1, required=True, type=click.Path(path_type=Path))
@extractor_option
@flow_option
@crops_option
@click.option(
    "--weights", default="random:0", show_default=True, help="They do not affect the speed."
)
@flow_weights_option
@device_option
def bench(
    videos: tuple[Path, ...],
    extractor: str | None,
    flow: str | None,
    crops: str | None,
    weights: str,
    flow_weights: str | None,
    device: str,
) -> None:
    """Measure decoding, flow, network, writing and the whole extraction on VIDEOS of your own.

    Nothing is stored. The figures hold for this machine only.

    \b
    pipeline bench video.mp4 --flow none --crops 1
    pipeline bench a.mp4 b.mp4 --device cuda
    """
    with errors_in_one_line():
        from pipeline.cli.terminal import format_table, show_progress
        from pipeline.device import choose_device, describe_device
        from pipeline.experiments.bench_extraction import bench_extraction
        from pipeline.extraction.choices import resolve_choices

        chosen = choose_device(device)
        say(f"device: {describe_device(chosen)}")
        choice = resolve_choices(
            None,
            extractor=extractor,
            flow=flow,
            crops=None if crops is None else int(crops),
            weights=weights,
            flow_weights=flow_weights,
        )
        built = choice.build(chosen)
        with show_progress() as report:
            rows = bench_extraction(built, videos, report=report)
        precision = built.provenance()["precision"]
        click.echo(
            f"{describe_device(chosen)}; {choice.extractor}, flow {choice.flow}, "
            f"crops {choice.crops}, {precision}"
        )
        cells = [(row.name, _in_digits(row.value), row.unit) for row in rows]
        click.echo(format_table("", ("measured", "value", "unit"), cells))


def _in_digits(value: float) -> str:
    """A value with two or three digits.

    >>> _in_digits(1234.5), _in_digits(12.34), _in_digits(1.234)
    ('1234', '12.3', '1.23')
    """
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
