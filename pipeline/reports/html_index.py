"""HTML index of the reports of several videos, the worst video first."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.reports.curve import Curve
from pipeline.reports.html_page import format_count, format_seconds, relative_href, write_page
from pipeline.reports.html_report import ReportSummary, RunFacts

INDEX_NAME = "index.html"

# The coordinates of the small curves: 0 to 100 along the time, 0 to 30 down from score 1.
PLOT_WIDTH, PLOT_HEIGHT = 100.0, 30.0


def write_index(path: Path, title: str, summaries: Sequence[ReportSummary], run: RunFacts) -> None:
    """Write a page that lists reports.

    Videos with labels are ordered by their largest mistake, a missed anomaly or a false alarm;
    others by their highest score.

    Args:
        path: The HTML file, which appears whole or not at all.
        title: Such as the name of the folder of videos.
        summaries: As from `write_report`.
        run: What scored the videos.

    Raises:
        OSError: If the page cannot be written.
    """
    worst_first = sorted(summaries, key=lambda summary: (-summary.badness, summary.name))
    write_page(
        path,
        "index.html.jinja",
        scripts=(),
        styles=("report.css", "index.css"),
        title=title,
        note=run.note,
        run_facts=run.facts,
        facts=_facts_line(summaries),
        has_labels=any(summary.mistakes is not None for summary in summaries),
        rows=[_row(summary, path) for summary in worst_first],
    )


def _facts_line(summaries: Sequence[ReportSummary]) -> str:
    n_events = sum(len(summary.events) for summary in summaries)
    total = format_seconds(sum(summary.seconds for summary in summaries))
    videos, events = format_count(len(summaries), "video"), format_count(n_events, "event")
    return f"{videos} · {total} · {events}"


def _row(summary: ReportSummary, index: Path) -> dict[str, object]:
    """What the template shows of one video."""
    seconds = sum(event.stop_seconds - event.start_seconds for event in summary.events)
    return {
        "href": relative_href(summary.path, index),
        "name": summary.name,
        "duration": format_seconds(summary.seconds),
        "image": None if summary.thumbnail is None else summary.thumbnail.data_uri,
        "peak": summary.peak,
        "mistakes": summary.mistakes,
        "events": format_count(len(summary.events), "event"),
        "event_seconds": format_seconds(seconds),
        "line": curve_path(summary.curve),
        "bands": [
            _band(summary.curve, event.start_seconds, event.stop_seconds)
            for event in summary.events
        ],
        "truth": [_band(summary.curve, start, stop) for start, stop in summary.truth],
    }


def curve_path(curve: Curve) -> str:
    """The curve's steps as an SVG path.

    >>> import numpy as np
    >>> starts, scores = np.array([0.0, 5.0]), np.array([0.0, 1.0], "float32")
    >>> curve_path(Curve(np.array([0, 5]), starts, starts + 4, scores, 10, 10.0, False))
    'M0.0 30.0H50.0V0.0H100.0'
    """
    heights = (1 - curve.scores.astype(float)) * PLOT_HEIGHT
    steps = [
        f"H{_x(curve, start):.1f}V{height:.1f}"
        for start, height in zip(curve.starts[1:].tolist(), heights[1:].tolist(), strict=True)
    ]
    return f"M0.0 {heights[0]:.1f}{''.join(steps)}H{PLOT_WIDTH:.1f}"


def _band(curve: Curve, start: float, stop: float) -> tuple[str, str]:
    """Left edge and width of a time span in the small curve."""
    left = _x(curve, start)
    return f"{left:.2f}", f"{max(_x(curve, stop) - left, 0.3):.2f}"


def _x(curve: Curve, seconds: float) -> float:
    first = float(curve.starts[0])
    whole = curve.end_seconds - first
    return (seconds - first) / whole * PLOT_WIDTH if whole > 0 else 0.0
