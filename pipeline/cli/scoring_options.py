"""Options of the commands that score videos."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from pipeline.cli.shared import check_number, warn

MAX_LISTED = 20

stride_option = click.option(
    "--stride",
    type=click.Choice([16, 8, 4, 2, 1]),
    default=16,
    show_default=True,
    help="Frames from one snippet of 16 to the next. Below 16 snippets overlap, and a frame has "
    "the mean score of those that cover it, for 16 / STRIDE times the computing time.",
)
frame_rate_option = click.option(
    "--fps",
    type=click.FloatRange(min=0, max=1000, min_open=True),
    callback=check_number,
    help="Frames per second of folders of frames. With it, a folder that holds images (jpg or png) "
    "whose names end in their number, and no video file, is a video. Without it, folders are "
    "searched for video files alone.",
)
threshold_option = click.option(
    "--threshold",
    type=click.FloatRange(min=0, max=1, min_open=True),
    callback=check_number,
    help="The score that begins an event.  [default: that of the run's calibration, else 0.5]",
)
merge_seconds_option = click.option(
    "--merge-seconds",
    type=click.FloatRange(min=0),
    callback=check_number,
    help="Merge events that follow each other within this time.  [default: 1, or in score "
    "and watch that of the run's calibration]",
)
min_seconds_option = click.option(
    "--min-seconds",
    type=click.FloatRange(min=0),
    callback=check_number,
    help="Drop events that are shorter than this.  [default: 0, or in score and watch that of the "
    "run's calibration]",
)
run_option = click.option(
    "--run",
    "run_folder",
    type=click.Path(path_type=Path),
    help="Folder of the run to score with; all seeds that were trained with it score together.  "
    "[default: the one trained last]",
)


def extractor_weights_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --weights and --flow-weights."""
    command = click.option("--flow-weights", help="The same for RAFT's weights.")(command)
    return click.option(
        "--weights",
        help="The extractor's weights, where the features were made with a file of your own.",
    )(command)


def warn_of_failures(reasons: Sequence[str], n_videos: int) -> None:
    """Say how many videos were scored, and which failed for which reason."""
    warn(f"{n_videos - len(reasons)} of {n_videos} videos are scored; failed:")
    warn_list(reasons)


def warn_list(lines: Sequence[str]) -> None:
    """Write the first of some lines to stderr, and how many more there are."""
    for line in lines[:MAX_LISTED]:
        warn(f"  {line}")
    if len(lines) > MAX_LISTED:
        warn(f"  and {len(lines) - MAX_LISTED} more")
