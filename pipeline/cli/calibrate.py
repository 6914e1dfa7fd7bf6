"""`pipeline calibrate`: the threshold of a run, chosen from normal footage."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipeline.cli.scoring_options import (
    extractor_weights_options,
    frame_rate_option,
    merge_seconds_option,
    min_seconds_option,
    stride_option,
    warn_of_failures,
)
from pipeline.cli.shared import (
    SOME_VIDEOS_FAILED,
    check_number,
    device_option,
    errors_in_one_line,
    say,
)


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("normal_videos", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--false-alarms-per-hour",
    type=click.FloatRange(min=0, min_open=True),
    callback=check_number,
    default=0.5,
    show_default=True,
    help="How many events per hour of normal footage are acceptable.",
)
@frame_rate_option
@merge_seconds_option
@min_seconds_option
@stride_option
@extractor_weights_options
@device_option
def calibrate(
    run_folder: Path,
    normal_videos: tuple[Path, ...],
    fps: float | None,
    false_alarms_per_hour: float,
    merge_seconds: float | None,
    min_seconds: float | None,
    stride: int,
    weights: str | None,
    flow_weights: str | None,
    device: str,
) -> None:
    """Choose the threshold of RUN from NORMAL_VIDEOS, in which nothing anomalous happens.

    RUN is a run's folder, NORMAL_VIDEOS are video files, folders that are searched for them, and
    with --fps folders of frames. The threshold is the lowest with so few false alarms in them that
    last, together, no longer than a minute for each that is acceptable, and no longer than a tenth
    of the time. It is stored with the run, and `pipeline score` uses it unless --threshold is
    given. Also printed is the rate of false alarms that the footage excludes: without a single
    false alarm, 3 hours of footage exclude more than one per hour, with 95% confidence. A video
    with the content of another one is refused, as its hours would count twice.

    \b
    pipeline calibrate runs/small/clav-como/20260102-030405-seed0 quiet_days/
    """
    with errors_in_one_line():
        from pipeline.atomic import check_writable
        from pipeline.cli.terminal import show_progress
        from pipeline.scoring.calibrate import calibrate as calibrate_run
        from pipeline.scoring.calibration import calibration_path, write_calibration
        from pipeline.scoring.events import EventRule
        from pipeline.scoring.score import find_seeds
        from pipeline.scoring.score_files import find_videos
        from pipeline.scoring.scorer import Scorer

        seeds = find_seeds(run_folder)
        videos = [video.source for video in find_videos(normal_videos, fps)]
        scorer = Scorer.load(seeds, device=device, weights=weights, flow_weights=flow_weights)
        check_writable(calibration_path(seeds))
        for notice in scorer.notices:
            say(notice)
        with show_progress() as report:
            calibration, failures = calibrate_run(
                scorer,
                videos,
                false_alarms_per_hour=false_alarms_per_hour,
                rule=EventRule().with_values(merge_seconds=merge_seconds, min_seconds=min_seconds),
                stride=stride,
                report=report,
            )
        write_calibration(seeds, calibration)
        click.echo(calibration.describe())
    if failures:
        warn_of_failures([failure.reason for failure in failures], len(videos))
        sys.exit(SOME_VIDEOS_FAILED)
