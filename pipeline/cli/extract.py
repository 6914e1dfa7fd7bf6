"""`pipeline extract`: the features of a dataset's videos."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

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
    RANDOM_WEIGHTS_NOTE,
    SOME_VIDEOS_FAILED,
    allow_outside_option,
    check_device_names,
    device_option,
    errors_in_one_line,
    features_option,
    say,
    videos_option,
)
from pipeline.printable import printable

if TYPE_CHECKING:  # `pipeline --help` must not wait for torch
    import torch

    from extractors.build import ExtractorChoice
    from pipeline.extraction.extract_records import ExtractRecord


def _check_shard(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    """Refuse what is no shard as a usage error."""
    if value is None:
        return None
    from pipeline.config import ConfigError
    from pipeline.extraction.shards import Shard

    try:
        Shard.parse(value)
    except ConfigError as error:
        raise click.BadParameter(printable(str(error))) from error
    return value


@click.command()
@click.argument("dataset")
@videos_option
@allow_outside_option
@features_option
@click.option(
    "--profile",
    help="How published features were made: xd-official, ucf-deepmil or rtfm-r50. Options that "
    "contradict it are refused, except for weights.",
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
    help="Extract the i-th of N parts.  [default: what Slurm's array or RANK and WORLD_SIZE say, "
    "else all]",
)
@click.option(
    "--devices", callback=check_device_names, help="Several GPUs of this machine: cuda:0,cuda:1."
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="ray: a task for each video on a Ray cluster (pip install ray).",
)
@click.option("--ray-address", help="Of the Ray cluster.  [default: one on this machine alone]")
@device_option
def extract(
    dataset: str,
    videos: Path | None,
    allow_outside: bool,
    features: Path,
    profile: str | None,
    extractor: str | None,
    flow: str | None,
    crops: str | None,
    weights: str | None,
    flow_weights: str | None,
    precision: str,
    retry_failed: bool,
    shard: str | None,
    devices: str | None,
    engine: str,
    ray_address: str | None,
    device: str,
) -> None:
    """Compute the features of every video of DATASET, a name or a manifest CSV.

    What is there already is kept; a video that fails is reported, the others go on, and the exit
    code is then 3. FEATURES/DATASET/status.csv says of every video what became of it.

    \b
    pipeline extract xd_violence --videos /data/xd
    pipeline extract xd_violence --profile xd-official
    pipeline extract my_cameras.csv --flow dis --crops 1
    """
    if engine != "ray" and ray_address is not None:
        raise click.UsageError("--ray-address needs --engine ray")
    if devices is not None and (device != "auto" or engine == "ray"):
        other = "--engine ray" if engine == "ray" else "--device"
        raise click.UsageError(f"--devices does not go together with {other}")
    with errors_in_one_line():
        from pipeline.datasets import load_dataset

        # What can be wrong about the dataset is found before torch is loaded.
        loaded = load_dataset(dataset, videos, allow_outside=allow_outside)
        loaded.check_any_video_is_there()

        from pipeline.cli.display import show_extraction
        from pipeline.device import choose_devices, describe_device
        from pipeline.extraction.extract import extract_dataset
        from pipeline.extraction.many_devices import extract_on_devices
        from pipeline.extraction.profiles import describe_profile, resolve_choices
        from pipeline.extraction.shards import Shard, entries_of_shard

        choice = resolve_choices(
            profile,
            extractor=extractor,
            flow=flow,
            crops=None if crops is None else int(crops),
            weights=weights,
            flow_weights=flow_weights,
            precision=None if precision == "auto" else precision,
        )
        if profile is not None:
            say(describe_profile(profile))
        chosen = choose_devices(device if devices is None else devices)
        say(f"device: {', '.join(describe_device(one) for one in chosen)}")
        choice = _with_precision_of_folder(choice, features / loaded.name, chosen)
        entries = loaded.entries
        part = Shard.of_environment() if shard is None else Shard.parse(shard)
        if part is not None:
            entries = entries_of_shard(entries, part)
            say(f"shard {part}: {len(entries)} of {len(loaded.entries)} videos")
        if choice.has_random_weights:
            say(RANDOM_WEIGHTS_NOTE)
        if engine == "ray":
            records = _ray_engine()(
                loaded,
                features,
                choice,
                entries=entries,
                address=ray_address,
                device=chosen[0].type,
                retry_failed=retry_failed,
            )
        elif len(chosen) > 1:
            records = extract_on_devices(
                loaded, features, choice, chosen, entries=entries, retry_failed=retry_failed
            )
        else:
            extractor_there = choice.build(chosen[0])
            records = extract_dataset(
                loaded, features, extractor_there, entries=entries, retry_failed=retry_failed
            )
        summary = show_extraction(records, n_videos=len(entries))
        click.echo(summary.describe())
        click.echo(f"features of {printable(loaded.name)} are in {features / loaded.name}")
    if summary.failures:
        sys.exit(SOME_VIDEOS_FAILED)


def _with_precision_of_folder(
    choice: "ExtractorChoice", folder: Path, devices: "Sequence[torch.device]"
) -> "ExtractorChoice":
    """Take the precision of the features that are there, unless one was asked for.

    Raises:
        ExtractorError: If a device cannot compute in it.
    """
    from extractors.build import ExtractorError
    from extractors.networks.precision import check_precision
    from pipeline.extraction.feature_file import precision_of_folder

    precision = precision_of_folder(folder) if choice.precision is None else None
    if precision is None:
        return choice
    say(f"precision: {precision}, as of the features in {folder}")
    for device in devices:
        try:
            check_precision(precision, device)
        except ValueError as error:
            raise ExtractorError(
                f"{folder}: holds features in {precision}, which {device} cannot compute fast "
                f"({error}); give another folder with --features"
            ) from error
    return replace(choice, precision=precision)


def _ray_engine() -> "Callable[..., Iterator[ExtractRecord]]":
    """Ray is an extra; whoever asks for it without having it is told how to get it."""
    try:
        from pipeline.extraction.ray_extract import extract_on_ray
    except ImportError as error:
        raise click.ClickException("Ray is not installed; pip install ray") from error
    return extract_on_ray
