"""`pipeline score`: a score for every frame of a video."""

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
@click.option(
    "--out", type=click.Path(path_type=Path), help="CSV to write, - for stdout.  [default: -]"
)
@click.option(
    "--plot", type=click.Path(path_type=Path), help="PNG of the curve to write, - for stdout."
)
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
        from pipeline.cli.display import show_scoring
        from pipeline.cli.output_paths import check_outputs
        from pipeline.device import choose_device, describe_device
        from pipeline.outputs import STDOUT, write_output
        from pipeline.runs.checkpoints import load_checkpoint
        from pipeline.runs.compatibility import compare_with_run
        from pipeline.runs.run_folder import Run, latest_run
        from pipeline.scoring.frame_scores import csv_bytes
        from pipeline.scoring.score import extractor_of_run, score_video

        out = STDOUT if out is None else out
        run = latest_run(runs) if run_folder is None else Run(run_folder)
        files = [Path(name) for name in (weights, flow_weights) if name is not None]
        check_outputs({"--out": out, "--plot": plot}, [video, run.checkpoint_path, *files])
        checkpoint = load_checkpoint(run.checkpoint_path)
        chosen = choose_device(device)
        say(f"run: {run.folder}\ndevice: {describe_device(chosen)}")
        note = "" if checkpoint.is_pretrained else RANDOM_WEIGHTS_NOTE
        if note:
            say(note)
        extractor = extractor_of_run(
            checkpoint.provenance, weights=weights, flow_weights=flow_weights, device=chosen
        )
        _, precision_notice = compare_with_run(checkpoint.provenance, extractor.provenance())
        if precision_notice:
            say(precision_notice)
        scores = show_scoring(score_video(video, checkpoint, extractor, chosen), video.name)
        write_output(out, csv_bytes(scores))
        if plot is not None:
            scores.plot(plot, title=video.name, note=note)
