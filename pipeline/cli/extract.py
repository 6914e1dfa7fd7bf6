"""`pipeline extract`: the features of a dataset's videos."""

import sys
from pathlib import Path
from typing import Any, Literal

import click

from pipeline.cli.extractor_options import (
    crops_option,
    extractor_option,
    flow_option,
    flow_weights_option,
    precision_option,
    weights_option,
)
from pipeline.cli.shared import (
    SOME_VIDEOS_FAILED,
    allow_outside_option,
    check_device_names,
    device_option,
    errors_in_one_line,
    features_option,
    fps_option,
    videos_option,
)
from pipeline.extraction.profiles import PROFILES
from pipeline.printable import printable


def _check_shard(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    """Refuse what is not a shard as a usage error."""
    if value is None:
        return None
    from pipeline.extraction.errors import ExtractionError
    from pipeline.extraction.shards import Shard

    try:
        Shard.parse(value)
    except ExtractionError as error:
        raise click.BadParameter(printable(str(error))) from error
    return value


@click.command()
@click.argument("dataset")
@videos_option
@fps_option
@allow_outside_option
@features_option
@click.option(
    "--profile",
    type=click.Choice([*PROFILES]),
    help="Options with which published features were extracted. Options that contradict them are "
    "refused, except for weights and precision.",
)
@extractor_option
@flow_option
@crops_option
@weights_option
@flow_weights_option
@precision_option
@click.option("--retry-failed", is_flag=True, help="Try videos again that failed in earlier runs.")
@click.option(
    "--shard",
    metavar="i/N",
    callback=_check_shard,
    help="Begin with the i-th of N parts of the videos, then go on with what the processes of the "
    "other parts have left.  [default: what Slurm's array or RANK and WORLD_SIZE say]",
)
@click.option(
    "--devices",
    callback=check_device_names,
    metavar="DEVICES",
    help="Several GPUs of this machine, such as cuda:0,cuda:1: a process for each.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="ray: a task for each video on a Ray cluster (pip install ray).",
)
@click.option("--ray-address", help="Of the Ray cluster.  [default: start one on this machine]")
@device_option
def extract(
    dataset: str,
    videos: Path | None,
    fps: float | None,
    allow_outside: bool,
    crops: str | None,
    devices: str | None,
    device: str,
    engine: Literal["local", "ray"],
    ray_address: str | None,
    **options: Any,
) -> None:
    """Compute the features of every video of DATASET, a name or a manifest CSV.

    Features that are there already are kept. A video that fails is reported, the others go on, and
    the exit code is then 3. FEATURES/DATASET/status.csv has the status of every video. Any number
    of processes, on any number of machines, may extract into one folder at the same time.

    \b
    pipeline extract xd_violence --videos /data/xd
    pipeline extract xd_violence --profile xd-official
    pipeline extract shanghaitech --videos /data/shanghaitech --fps 24
    pipeline extract my_cameras.csv --flow dis --crops 1
    """
    if engine != "ray" and ray_address is not None:
        raise click.UsageError("--ray-address needs --engine ray")
    if devices is not None and (device != "auto" or engine == "ray"):
        other = "--engine ray" if engine == "ray" else "--device"
        raise click.UsageError(f"--devices does not go together with {other}")
    with errors_in_one_line():
        from pipeline.datasets import load_dataset

        # Errors of the dataset are found before torch is loaded.
        loaded = load_dataset(dataset, videos, allow_outside=allow_outside, fps=fps)
        loaded.check_any_video_is_there()

        from pipeline.cli.terminal import show_progress
        from pipeline.extraction.extract import extract as extract_dataset

        with show_progress() as report:
            summary = extract_dataset(
                loaded,
                crops=None if crops is None else int(crops),
                device=devices or device,
                engine=engine,
                ray_address=ray_address,
                report=report,
                **options,
            )
        click.echo(summary.describe())
    if summary.failures:
        sys.exit(SOME_VIDEOS_FAILED)
