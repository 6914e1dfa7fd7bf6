"""HTML reports of a test split: a page per video with its labels, and an index, worst first."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from extractors.decoding.video import VideoError
from extractors.errors import LookaroundError
from models.interface import AnomalyModel
from pipeline.datasets.catalog import Dataset
from pipeline.evaluation.split_videos import EvaluatedSplit, SplitVideo
from pipeline.progress import Progress, ReportProgress, no_report
from pipeline.reports.html_index import INDEX_NAME, write_index
from pipeline.reports.html_report import ReportSummary, RunFacts, describe_run, write_report
from pipeline.runs.checkpoints import Checkpoint
from pipeline.runs.feature_distance import describe_distance, video_distance
from pipeline.scoring.events import EventRule, Interval, true_runs
from pipeline.scoring.frame_scores import Scores, scores_of_video
from pipeline.scoring.snippet_scores import (
    check_streams,
    snippet_scores,
    snippet_scores_without,
    stream_dims_of,
)
from pipeline.video_writer import VideoWriterError


class PageError(LookaroundError, ValueError):
    """A video cannot have a page."""


@dataclass(frozen=True, slots=True)
class SplitReport:
    """Where the reports of a test split are.

    Attributes:
        index: The page that lists the videos.
        failures: Videos without a page, each as one line that names the file.
    """

    index: Path
    failures: tuple[str, ...]


def write_split_report(
    folder: Path,
    checkpoint: Checkpoint,
    dataset: Dataset,
    features_folder: Path,
    device: torch.device,
    rule: EventRule,
    *,
    ground_truth: str,
    distance_limits: Sequence[float | None] = (),
    report: ReportProgress = no_report,
) -> SplitReport:
    """Score the test videos of a dataset and write `index.html` and `videos/<video_id>.html`.

    Each page shows the labeled anomalies as bands, and warns of a video that is unlike those that
    the run knows. The index begins with the worst misses and false alarms.

    Args:
        folder: Made if it is missing.
        checkpoint: What scores the videos.
        dataset: Its `test` split is read; of its videos those that have features.
        features_folder: Holds `<dataset>/<video_id>.h5`.
        device: Where the model runs.
        rule: When a score is an event.
        ground_truth: How frame labels are made, as in `evaluate`.
        distance_limits: From which distance of its features on a video is unlike those of the
            training and of the calibration: as from `distance_limits`.
        report: Called after each video.

    Raises:
        DatasetError: If there is no test video, or one's anomalous frames are not known.
        FeatureFileError: If features are missing, were extracted with other settings than the
            run's, or have other streams than the model.
        OSError: If a page cannot be written. A preview of a folder of frames that cannot be made
            (VideoWriterError) is a failure of this video alone.
    """
    split = EvaluatedSplit(
        dataset, features_folder, checkpoint.provenance, ground_truth=ground_truth
    )
    model = checkpoint.model.to(device).eval()
    run = describe_run(checkpoint)
    summaries, failures = [], []
    for number, video in enumerate(split, start=1):
        path = split.path(video.entry)
        scores = _score(model, video, path, device, rule)
        warning = describe_distance(scores.feature_distance, distance_limits)
        try:
            summaries.append(_write_page(folder, video, path, scores, run, warning))
        except PageError as error:
            failures.append(str(error))
        report(Progress("report", number, len(split.entries), "videos"))
    index = folder / INDEX_NAME
    write_index(index, f"Test videos of {dataset.name}", summaries, run)
    return SplitReport(index, tuple(failures))


def _score(
    model: AnomalyModel, video: SplitVideo, path: Path, device: torch.device, rule: EventRule
) -> Scores:
    """Score a video from its features, which are in the file `path`, with all that a page shows."""
    features = video.features
    check_streams(model, stream_dims_of(features), path)
    return replace(
        scores_of_video(snippet_scores(model, features, device=device), features),
        without=snippet_scores_without(model, features, device=device),
        feature_distance=video_distance(model.input_norm, features.streams),
        rule=rule,
    )


def _write_page(
    folder: Path,
    video: SplitVideo,
    path: Path,
    scores: Scores,
    run: RunFacts,
    warning: str,
) -> ReportSummary:
    """Write the page of a video, whose features are in the file `path`.

    Raises:
        PageError: If it cannot have one, in one line that names the file.
    """
    if not video.features.has_times:
        raise PageError(
            f"{path}: imported features without the times of their frames, which a page needs; "
            "extract the features of the video here"
        )
    try:
        return write_report(
            folder / "videos" / f"{video.entry.video_id}.html",
            video.source,
            scores,
            run,
            name=Path(video.entry.video_id),
            truth=_intervals(video),
            index=folder / INDEX_NAME,
            warning=warning,
        )
    except VideoError as error:
        raise PageError(str(error)) from error
    except VideoWriterError as error:  # which names the preview of a folder of frames
        raise PageError(f"{video.entry.path}: {error}") from error


def _intervals(video: SplitVideo) -> list[Interval]:
    """The anomalous frames of a video; a published convention may have more or fewer labels."""
    return true_runs(video.labels[: video.features.n_frames])
