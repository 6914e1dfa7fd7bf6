"""`pipeline bench`: how fast extraction is on this machine."""

from pathlib import Path

import click

from pipeline.cli.shared import device_option, errors_in_one_line, say


@click.command()
@click.argument("videos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--extractor", default="i3d", show_default=True, help="Network: i3d or i3d_r50.")
@click.option(
    "--flow",
    type=click.Choice(["tvl1", "raft", "dis", "none"]),
    default="tvl1",
    show_default=True,
    help="Optical flow.",
)
@click.option(
    "--crops",
    type=click.Choice(["1", "5", "10"]),
    default="5",
    show_default=True,
    help="Crops of each frame.",
)
@click.option(
    "--weights", default="random:0", show_default=True, help="They make no difference to the speed."
)
@click.option("--flow-weights", help="With --flow raft: raft-small, raft-large, or a file.")
@device_option
def bench(
    videos: tuple[Path, ...],
    extractor: str,
    flow: str,
    crops: str,
    weights: str,
    flow_weights: str | None,
    device: str,
) -> None:
    """Measure decoding, flow, network and writing, and the whole, on VIDEOS of your own.

    Nothing is kept. Ratios between rows hold for this machine; times for it alone.

    \b
    pipeline bench video.mp4 --flow none --crops 1
    pipeline bench a.mp4 b.mp4 --device cuda
    """
    with errors_in_one_line():
        from extractors.build import ExtractorChoice
        from pipeline.cli.progress import ProgressDisplay
        from pipeline.device import choose_device, describe_device
        from pipeline.experiments.bench_extraction import as_table, bench_extraction

        chosen = choose_device(device)
        say(f"device: {describe_device(chosen)}")
        choice = ExtractorChoice(extractor, flow, int(crops), weights, flow_weights)
        built = choice.build(chosen)
        rows = []
        with ProgressDisplay("bench", total=8, unit="rows") as display:
            for row in bench_extraction(built, videos):
                rows.append(row)
                display.update(len(rows), row.name)
        choices = f"{extractor}, flow {flow}, crops {crops}, {built.provenance()['precision']}"
        click.echo(f"{describe_device(chosen)}; {choices}")
        click.echo(as_table(rows))
