"""Stage 3 as a library function: a video and a trained run become a score for every frame."""

from pathlib import Path

from extractors.decoding.frame_folder import check_not_a_folder, path_of, video_source
from extractors.snippets import SNIPPET_LEN
from pipeline.progress import ReportProgress, no_report
from pipeline.runs.run_folder import Run
from pipeline.runs.seeds import Seeds, latest_run, seeds_of
from pipeline.scoring.calibration import read_rule
from pipeline.scoring.frame_scores import Scores
from pipeline.scoring.scorer import Scorer

RUNS_FOLDER = Path("runs")


def score(
    video: str | Path,
    *,
    fps: float | None = None,
    run: Run | str | Path | None = None,
    runs: str | Path = RUNS_FOLDER,
    device: str = "auto",
    weights: str | Path | None = None,
    flow_weights: str | Path | None = None,
    stride: int = SNIPPET_LEN,
    report: ReportProgress = no_report,
) -> Scores:
    """Score every frame of a video.

    Args:
        video: The video file, or a folder of numbered images (jpg or png) that are its frames.
        fps: Frames per second of such a folder, which needs it; a file says so itself.
        run: A training run or its folder; None for the run that was trained last. All seeds that
            were trained with it score, and their scores are averaged.
        runs: Folder in which the last run is looked for.
        device: "auto" (the first GPU, else the CPU), "cpu", "cuda" or "cuda:N".
        weights: The extractor's weights where the run used a file; None for those of the run.
        flow_weights: The same for a flow method that is a network.
        stride: Frames from the beginning of one snippet to that of the next: 16, 8, 4, 2 or 1.
            The computing time grows with 16 / stride.
        report: Called with the progress.

    Returns:
        The scores of all frames that are shown. Their `events()` are by the rule that the run is
        calibrated for, which is for scores with the stride of the calibration.

    Raises:
        ConfigError: If there is no such device.
        CheckpointError: If there is no such run, its calibration cannot be read, or its features
            cannot be computed again.
        WeightsError: If the weights cannot be had.
        VideoError: If no frame can be decoded from the file, or the video is a folder and fps is
            not given.
        ValueError: If stride is not one of those, or fps is not finite and above 0.
    """
    source = video_source(Path(video), fps)
    if fps is None:
        check_not_a_folder(path_of(source))
    seeds = find_seeds(run, runs)
    rule, calibration = read_rule(seeds)
    scorer = Scorer.load(
        seeds, rule, calibration, device=device, weights=weights, flow_weights=flow_weights
    )
    return scorer.score(source, stride=stride, report=report)


def find_seeds(
    run: Seeds | Run | str | Path | None, runs_folder: str | Path = RUNS_FOLDER
) -> Seeds:
    """The seeds that were trained with a run, which may be named by its folder.

    Args:
        run: None for the run that was trained last; seeds are returned as they are.
        runs_folder: Folder in which the last run is looked for.

    Raises:
        CheckpointError: If None is given and there is no trained run, or the run cannot be read.
    """
    if isinstance(run, Seeds):
        return run
    if run is None:
        return seeds_of(latest_run(Path(runs_folder)))
    return seeds_of(run if isinstance(run, Run) else Run(Path(run)))
