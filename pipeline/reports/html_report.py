"""HTML report of a scored video: one file with player, score curve, events and thumbnails.

A report loads nothing from the network: scripts and styles are inside, and its content security
policy forbids the rest. `html_player.py` decides how the video is played: inside the page if it is
small, else linked by its path relative to the report, so that both can be moved together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from extractors.decoding.frame_folder import VideoSource, path_of
from pipeline.notes import weights_note
from pipeline.printable import printable
from pipeline.reports.curve import Curve, make_curve
from pipeline.reports.html_page import (
    format_count,
    format_seconds,
    read_asset,
    relative_href,
    write_page,
)
from pipeline.reports.html_player import make_player
from pipeline.scoring.events import (
    RELEASE_FRACTION,
    Event,
    EventRule,
    Interval,
    frame_ends,
)
from pipeline.scoring.frame_scores import Scores
from pipeline.scoring.thumbnails import Thumbnail, choose_frames, make_thumbnails

# What a checkpoint is needs torch, which takes seconds to load.
if TYPE_CHECKING:
    from pipeline.runs.checkpoints import Checkpoint

SCRIPTS = ("uplot/uPlot.iife.min.js", "events.js", "helpers.js", "player.js", "report.js")
STYLES = ("uplot/uPlot.min.css", "report.css")

# Runs of the small curve in an index.
INDEX_CURVE_RUNS = 240


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a report says about the run that scored the video.

    Attributes:
        facts: (name, value) to show.
        provenance: (key, value) of how the features are made.
        note: A warning, such as that the weights are random; "" where there is none.
    """

    facts: tuple[tuple[str, str], ...]
    provenance: tuple[tuple[str, str], ...]
    note: str


@dataclass(frozen=True, slots=True)
class Mistakes:
    """How far the scores of a labeled video are from its labels.

    Attributes:
        miss: Of the labeled anomaly with the lowest peak, what its peak lacks to 1; 0 where there
            is no anomaly.
        false_alarm: The highest score of a normal frame; 0 where there is none.
    """

    miss: float
    false_alarm: float


@dataclass(frozen=True, slots=True)
class ReportSummary:
    """What an index says about one video.

    Attributes:
        path: The report.
        name: The video's, for display.
        seconds: How long the video is.
        events: At the report's threshold.
        curve: Of the score, with a few hundred runs.
        thumbnail: At the highest score; None where nothing could be decoded.
        truth: Labeled anomalies as (start, stop) in seconds.
        mistakes: Of a labeled video; None of others.
    """

    path: Path
    name: str
    seconds: float
    events: tuple[Event, ...]
    curve: Curve
    thumbnail: Thumbnail | None
    truth: tuple[tuple[float, float], ...]
    mistakes: Mistakes | None

    @property
    def badness(self) -> float:
        """What an index is sorted by, in [0, 1]: the largest mistake, or else the highest score."""
        if self.mistakes is None:
            return self.peak
        return max(self.mistakes.miss, self.mistakes.false_alarm)

    @property
    def peak(self) -> float:
        """The highest score, in [0, 1]."""
        return float(self.curve.scores.max())


def describe_run(checkpoint: "Checkpoint") -> RunFacts:
    """Collect what a reader of a report must know about the model that scored the video."""
    provenance = checkpoint.provenance
    weights = weights_note(checkpoint.is_pretrained, if_pretrained="pretrained weights")
    n_averaged = checkpoint.n_averaged
    seeds = f"{n_averaged} seeds averaged" if n_averaged > 1 else f"seed {checkpoint.seed}"
    facts = (
        ("Model", checkpoint.model_name),
        ("Trained on", f"{checkpoint.dataset}, {checkpoint.step} steps, {seeds}"),
        ("Features", f"{provenance.get('extractor', 'unknown')}, {weights}"),
        ("Optical flow", str(provenance.get("flow_method", "unknown"))),
        ("Crops per frame", str(provenance.get("crops", "unknown"))),
    )
    settings = tuple((key, str(value)) for key, value in provenance.items())
    return RunFacts(facts, settings, weights_note(checkpoint.is_pretrained))


def write_report(
    path: Path,
    video: VideoSource,
    scores: Scores,
    run: RunFacts,
    *,
    name: Path | None = None,
    truth: Sequence[Interval] | None = None,
    index: Path | None = None,
    warning: str = "",
) -> ReportSummary:
    """Write the report of one scored video.

    Args:
        path: The HTML file, which appears whole or not at all.
        video: The file or folder of frames that was scored.
        scores: Its scores; the threshold of their rule is where the slider begins.
        run: What scored it.
        name: What the video is called, such as its path in a folder; None for the file's name.
        truth: Labeled anomalies as (start, stop) in frames, stop excluded; None where the video
            has no labels.
        index: The page that lists this report among others.
        warning: What a reader must know before trusting the scores; "" for nothing.

    Returns:
        What an index of several reports needs.

    Raises:
        VideoError: If the video cannot be read.
        VideoWriterError: If no preview can be made of a folder of frames.
        OSError: If the report cannot be written.
    """
    shown_name = printable(str(name or path_of(video).name))
    curve = make_curve(scores)
    thumbnails = make_thumbnails(video, scores, choose_frames(scores))
    first = float(scores.timestamps[0])
    seconds = curve.end_seconds - first
    truth_seconds = _in_seconds(scores, truth or ())
    write_page(
        path,
        "report.html.jinja",
        scripts=SCRIPTS,
        styles=STYLES,
        name=shown_name,
        facts=_facts_line(scores, seconds),
        note=run.note,
        warning=warning,
        run_facts=run.facts,
        provenance=run.provenance,
        index_href=None if index is None else relative_href(index, path),
        player=make_player(video, path),
        truth_known=truth is not None,
        threshold=scores.rule.threshold,
        is_reduced=curve.is_reduced,
        parts=list(curve.without),
        data=_page_data(curve, thumbnails, scores.rule, truth_seconds),
        uplot_license=read_asset("uplot/LICENSE"),
    )
    peak_frame = int(scores.per_frame.argmax())
    return ReportSummary(
        path=path,
        name=shown_name,
        seconds=seconds,
        events=scores.events(),
        curve=make_curve(scores, max_runs=INDEX_CURVE_RUNS),
        thumbnail=min(thumbnails, key=lambda t: abs(t.frame - peak_frame), default=None),
        truth=truth_seconds,
        mistakes=None if truth is None else find_mistakes(scores, truth),
    )


def find_mistakes(scores: Scores, truth: Sequence[Interval]) -> Mistakes:
    """Compare the scores of a video with its labels.

    Args:
        scores: The video's.
        truth: Labeled anomalies as (start, stop) in frames, stop excluded.
    """
    per_frame = scores.per_frame
    normal = np.ones(scores.n_frames, bool)
    for start, stop in truth:
        normal[start:stop] = False
    peaks = [float(per_frame[start:stop].max()) for start, stop in truth]
    return Mistakes(
        miss=1 - min(peaks, default=1.0),
        false_alarm=float(per_frame[normal].max(initial=0.0)),
    )


def _facts_line(scores: Scores, seconds: float) -> str:
    facts = [format_seconds(seconds), format_count(scores.n_frames, "frame")]
    if seconds > 0:
        facts.append(f"{scores.n_frames / seconds:.4g} fps")
    return " · ".join(facts)


def _in_seconds(scores: Scores, intervals: Sequence[Interval]) -> tuple[tuple[float, float], ...]:
    ends = frame_ends(scores.timestamps)
    return tuple((float(scores.timestamps[a]), float(ends[b - 1])) for a, b in intervals)


def _page_data(
    curve: Curve,
    thumbnails: Sequence[Thumbnail],
    rule: EventRule,
    truth: Sequence[tuple[float, float]],
) -> dict[str, object]:
    """What report.js reads."""
    return {
        "curve": curve.to_json(),
        "thumbnails": [
            {"frame": image.frame, "seconds": image.seconds, "src": image.data_uri}
            for image in thumbnails
        ],
        "rule": {
            "threshold": rule.threshold,
            "releaseFraction": RELEASE_FRACTION,
            "mergeSeconds": rule.merge_seconds,
            "minSeconds": rule.min_seconds,
        },
        "truth": truth,
    }
