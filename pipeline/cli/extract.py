"""`pipeline extract`: the features of a dataset's videos."""

import sys
from pathlib import Path

import click

from pipeline.cli.shared import (
    RANDOM_WEIGHTS_NOTE,
    SOME_VIDEOS_FAILED,
    device_option,
    errors_in_one_line,
    features_option,
    say,
    videos_option,
)


@click.command()
@click.argument("dataset")
@videos_option
@features_option
@click.option("--extractor", default="i3d", show_default=True, help="Network: i3d.")
@click.option(
    "--flow",
    type=click.Choice(["tvl1", "dis", "none"]),
    default="tvl1",
    show_default=True,
    help="Optical flow. tvl1 is the field's; dis is for machines without a GPU; none: RGB alone.",
)
@click.option(
    "--crops",
    type=click.Choice(["1", "5", "10"]),
    default="5",
    show_default=True,
    help="Centre; centre and corners; the same and their mirror images.",
)
@click.option(
    "--weights",
    default="kinetics",
    show_default=True,
    help="kinetics, random:SEED, or a file or folder of your own.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="Of the networks. auto: bfloat16 where the device is made for it.",
)
@click.option("--retry-failed", is_flag=True, help="Try videos again that failed in earlier runs.")
@device_option
def extract(
    dataset: str,
    videos: Path | None,
    features: Path,
    extractor: str,
    flow: str,
    crops: str,
    weights: str,
    precision: str,
    retry_failed: bool,
    device: str,
) -> None:
    """Compute the features of every video of DATASET, a name or a manifest CSV.

    What is there already is kept; a video that fails is reported, the others go on, and the exit
    code is then 3. FEATURES/DATASET/status.csv says of every video what became of it.

    \b
    pipeline extract xd_violence --videos /data/xd
    pipeline extract my_cameras.csv --flow dis --crops 1
    """
    with errors_in_one_line():
        from extractors.build import ExtractorChoice
        from pipeline.datasets import load_dataset
        from pipeline.device import choose_device, describe_device
        from pipeline.extract import extract_dataset
        from pipeline.show import show_extraction

        loaded = load_dataset(dataset, videos)
        loaded.check_any_video_is_there()
        chosen = choose_device(device)
        say(f"device: {describe_device(chosen)}")
        built = ExtractorChoice(
            name=extractor,
            flow=None if flow == "none" else flow,
            crops=int(crops),
            weights=weights,
            precision=None if precision == "auto" else precision,
        ).build(chosen)
        if not built.contract()["has_semantics"]:
            say(RANDOM_WEIGHTS_NOTE)
        records = extract_dataset(loaded, features, built, retry_failed=retry_failed)
        summary = show_extraction(records, n_videos=len(loaded.entries))
        click.echo(summary.in_words())
        click.echo(f"features of {loaded.name} are in {features / loaded.name}")
    if summary.failures:
        sys.exit(SOME_VIDEOS_FAILED)
