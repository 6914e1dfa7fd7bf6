"""`pipeline score`: a score for every frame of a video."""

import sys
from pathlib import Path

import click

from pipeline.cli.shared import (
    RANDOM_WEIGHTS_NOTE,
    device_option,
    errors_in_one_line,
    runs_option,
    say,
)


@click.command()
@click.argument("video", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="CSV to write.  [default: stdout]")
@click.option("--plot", type=click.Path(path_type=Path), help="PNG of the curve to write.")
@click.option(
    "--run",
    "run_folder",
    type=click.Path(path_type=Path),
    help="Folder of the run to score with.  [default: the one trained last]",
)
@runs_option
@click.option("--weights", help="The extractor's weights, where the run used a file of your own.")
@click.option("--flow-weights", help="The same for RAFT's weights.")
@device_option
def score(
    video: Path,
    out: Path | None,
    plot: Path | None,
    run_folder: Path | None,
    runs: Path,
    weights: str | None,
    flow_weights: str | None,
    device: str,
) -> None:
    """Give every frame of VIDEO an anomaly score: frame,time_seconds,score.

    \b
    pipeline score video.mp4 --out scores.csv --plot scores.png
    """
    with errors_in_one_line():
        from pipeline.atomic import check_writable, replacing
        from pipeline.checkpoints import load_checkpoint
        from pipeline.device import choose_device, describe_device
        from pipeline.frame_scores import write_csv
        from pipeline.report import plot_scores
        from pipeline.runs import Run, latest_run
        from pipeline.score import extractor_of_run, score_video
        from pipeline.show import show_scoring

        for path in (out, plot):
            if path is not None:
                check_writable(path)
        run = latest_run(runs) if run_folder is None else Run(run_folder)
        checkpoint = load_checkpoint(run.checkpoint_path)
        chosen = choose_device(device)
        say(f"run: {run.folder}\ndevice: {describe_device(chosen)}")
        note = "" if checkpoint.has_semantics else RANDOM_WEIGHTS_NOTE
        if note:
            say(note)
        extractor = extractor_of_run(
            checkpoint.contract, weights=weights, flow_weights=flow_weights, device=chosen
        )
        scores = show_scoring(score_video(video, checkpoint, extractor, chosen), video.name)
        if out is None:
            write_csv(scores, sys.stdout)
        else:
            with replacing(out) as temporary, temporary.open("w", encoding="utf-8") as file:
                write_csv(scores, file)
        if plot is not None:
            plot_scores(scores, plot, title=video.name, note=note)
