"""`pipeline score`: a score for every frame of videos, and their events."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.scoring_options import (
    extractor_weights_options,
    frame_rate_option,
    merge_seconds_option,
    min_seconds_option,
    run_option,
    stride_option,
    threshold_option,
    warn_list,
    warn_of_failures,
)
from pipeline.cli.shared import (
    SOME_VIDEOS_FAILED,
    device_option,
    errors_in_one_line,
    is_quiet,
    runs_option,
    say,
    warn,
)
from pipeline.printable import printable

if TYPE_CHECKING:
    from pipeline.reports.media_outputs import MediaOutputs
    from pipeline.scoring.frame_scores import Scores
    from pipeline.scoring.score_files import NamedVideo, ScoreFormat, VideoOutputs
    from pipeline.scoring.scorer import Scorer, VideoFailure


@click.command()
@click.argument("videos", type=click.Path(path_type=Path), nargs=-1, required=True)
@frame_rate_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="File of scores to write, - for stdout; a folder for several videos.  [default: -]",
)
@click.option(
    "--format",
    "score_format",
    type=click.Choice(["csv", "json", "parquet"]),
    help="Of the scores; else what --out ends in, or csv. parquet needs pyarrow.",
)
@stride_option
@click.option(
    "--events",
    type=click.Path(path_type=Path),
    help="JSON of the events to write, - for stdout; a folder for several videos. Each has a "
    "thumbnail of its peak as a data URI, and the scores that the peak would have without parts of "
    "the model.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    help="PNG of the curve above thumbnails of the video to write, - for stdout; a folder for "
    "several videos.",
)
@click.option(
    "--report",
    "report_path",
    type=click.Path(path_type=Path),
    help="HTML page to write, with the video, its curve and its events, - for stdout; a folder of "
    "pages and an index for several videos.",
)
@click.option(
    "--clips", type=click.Path(path_type=Path), help="Folder to write a clip per event to."
)
@click.option(
    "--overlay",
    type=click.Path(path_type=Path),
    help="Video to write, mp4 or mkv, with the score drawn below each frame; a folder for several "
    "videos.",
)
@click.option(
    "--labels",
    metavar="DATASET",
    help="A dataset's name or a manifest CSV: plot and report show the labeled anomalies of VIDEOS "
    "that are in it.",
)
@threshold_option
@merge_seconds_option
@min_seconds_option
@run_option
@runs_option
@extractor_weights_options
@device_option
def score(
    videos: tuple[Path, ...],
    fps: float | None,
    out: Path | None,
    score_format: ScoreFormat | None,
    stride: int,
    events: Path | None,
    plot: Path | None,
    report_path: Path | None,
    clips: Path | None,
    overlay: Path | None,
    labels: str | None,
    threshold: float | None,
    merge_seconds: float | None,
    min_seconds: float | None,
    run_folder: Path | None,
    runs: Path,
    weights: str | None,
    flow_weights: str | None,
    device: str,
) -> None:
    """Give every frame of VIDEOS an anomaly score: frame,time_seconds,score.

    VIDEOS are video files, folders that are searched for them, and with --fps folders of frames. An
    event begins at --threshold and ends where the score falls below 0.8 of it. With several videos,
    or a folder of videos, all outputs are folders. The exit code is 3 if some videos cannot be
    scored, or some outputs not be made.

    \b
    pipeline score video.mp4 --out scores.csv --plot scores.png --events events.json
    pipeline score cameras/ --out scores/ --format json
    pipeline score video.mp4 --out scores.csv --report report.html --clips clips/
    pipeline score video.mp4 --stride 4 --out scores.csv
    pipeline score frames/ --fps 25 --out scores.csv
    """
    with errors_in_one_line():
        from pipeline.device import describe_device
        from pipeline.reports.media_outputs import MediaOutputs
        from pipeline.scoring.calibration import read_rule
        from pipeline.scoring.score import find_seeds
        from pipeline.scoring.score_files import (
            check_format,
            find_videos,
            format_of_name,
            is_one_video,
        )
        from pipeline.scoring.scorer import Scorer

        score_format = score_format or format_of_name(out)
        check_format(score_format)
        seeds = find_seeds(run_folder, runs)
        found = find_videos(videos, fps)
        are_folders = not is_one_video(videos, found)
        media = MediaOutputs(report_path, clips, overlay, are_folders)
        checkpoints = [seed.checkpoint_path for seed in seeds.finished]
        inputs = [*checkpoints, *map(Path, filter(None, (weights, flow_weights)))]
        outputs = _plan_outputs(
            found, labels, inputs, score_format, media, out=out, events=events, plot=plot
        )
        rule, calibration = read_rule(
            seeds, threshold=threshold, merge_seconds=merge_seconds, min_seconds=min_seconds
        )
        scorer = Scorer.load(
            seeds, rule, calibration, device=device, weights=weights, flow_weights=flow_weights
        )
        say(f"run: {seeds.named.folder}\ndevice: {describe_device(scorer.device)}")
        calibrated = [] if calibration is None else calibration.notices(stride)
        for notice in (*scorer.notices, *calibrated):
            say(notice)
        failures, incomplete = _score_all(scorer, outputs, score_format, stride, media)
        _end(failures, incomplete, len(outputs))


def _plan_outputs(
    videos: list[NamedVideo],
    labels: str | None,
    inputs: list[Path],
    score_format: ScoreFormat,
    media: MediaOutputs,
    *,
    out: Path | None,
    events: Path | None,
    plot: Path | None,
) -> list[VideoOutputs]:
    """Where the outputs of videos go, which are checked before the work."""
    from extractors.decoding.frame_folder import FrameFolder
    from pipeline.cli.output_paths import (
        check_output_folders,
        check_outputs,
        check_outside_frames,
    )
    from pipeline.datasets import load_dataset
    from pipeline.outputs import STDOUT
    from pipeline.scoring.score_files import (
        VideoOutputs,
        check_names,
        check_plot_name,
        outputs_in_folders,
        with_labels,
    )

    if labels is not None:
        videos = with_labels(videos, load_dataset(labels, allow_outside=True))  # opens none
    inputs = [*inputs, *(video.path for video in videos)]
    named = {
        **{"--out": out, "--events": events, "--plot": plot},
        **{"--report": media.report, "--clips": media.clips, "--overlay": media.overlay},
    }
    check_outside_frames(
        named, [video.path for video in videos if isinstance(video.source, FrameFolder)]
    )
    if not media.are_folders:
        out = STDOUT if out is None else out
        files = {option: path for option, path in named.items() if option != "--clips"}
        check_outputs({**files, "--out": out}, inputs)
        check_output_folders({"--clips": media.clips}, [], inputs)
        media.check_overlay(videos[0])
        check_plot_name(plot)
        return [VideoOutputs(videos[0], out, events, plot)]
    if STDOUT in named.values() or not any(named.values()):
        raise click.UsageError("several videos need a folder: give --out FOLDER")
    check_names(videos)
    planned = [
        outputs_in_folders(video, score_format, scores=out, events=events, plot=plot)
        for video in videos
    ]
    media.check_reports(videos)
    check_output_folders(named, [file for each in planned for file in each.files], inputs)
    return planned


def _score_all(
    scorer: Scorer,
    outputs: list[VideoOutputs],
    score_format: ScoreFormat,
    stride: int,
    media: MediaOutputs,
) -> tuple[list[VideoFailure], list[str]]:
    """Score all videos and write the outputs of each; Ctrl-C says which are left.

    Returns the videos that could not be scored, and the outputs of others that could not be made.
    """
    from extractors.snippets import SNIPPET_LEN
    from pipeline.cli.terminal import show_progress
    from pipeline.reports.html_report import describe_run
    from pipeline.reports.media_outputs import MediaWriter
    from pipeline.scoring.score_files import write_video_outputs

    if stride < SNIPPET_LEN:
        say(f"stride {stride}: about {SNIPPET_LEN // stride} times the time of stride 16")
    left = {each.video.path: each for each in outputs}
    writer = MediaWriter(media, describe_run(scorer.checkpoint))
    explain = media.report is not None or any(each.events for each in outputs)
    incomplete: list[str] = []

    def write(video: Path, scores: Scores) -> None:
        warning = scorer.warning(scores)
        failed = write_video_outputs(
            left[video], scores, score_format=score_format, note=scorer.note
        )
        failed += writer.write(left[video].video, scores, warning=warning, report=report)
        incomplete.extend(f"{video}: {failure}" for failure in failed)
        if warning and is_quiet():  # else the progress says it
            warn(f"{video}: {warning}")
        del left[video]

    try:
        with show_progress() as report:
            failures = scorer.score_all(
                [each.video.source for each in outputs],
                write,
                stride=stride,
                explain=explain,
                report=report,
            )
    except KeyboardInterrupt:
        if len(outputs) > 1:
            warn(f"{len(outputs) - len(left)} of {len(outputs)} videos are scored; left:")
            warn_list([str(video) for video in left])
        raise
    finally:  # Ctrl-C leaves an index of the reports that are finished
        writer.write_index()
    if writer.page is not None:
        say(f"report: open {writer.page} in a browser")
    return failures, incomplete


def _end(failures: list[VideoFailure], incomplete: list[str], n_videos: int) -> None:
    """Say which videos and which outputs failed, and end with the exit code for it."""
    if failures and n_videos == 1:
        raise click.ClickException(printable(failures[0].reason))
    if failures:
        warn_of_failures([failure.reason for failure in failures], n_videos)
    if incomplete:
        warn("outputs that could not be made:")
        warn_list(incomplete)
    if failures or incomplete:
        sys.exit(SOME_VIDEOS_FAILED)
