"""The output files of `pipeline score`: scores as CSV, JSON or Parquet, events as JSON, a plot."""

import importlib.util
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.outputs import OutputError, write_output
from pipeline.printable import printable
from pipeline.scoring.events import EventRule, describe_events
from pipeline.scoring.frame_scores import CSV_HEADER, Scores, csv_bytes

ScoreFormat = Literal["csv", "json", "parquet"]
SCORES_FORMAT, EVENTS_FORMAT = "lookaround scores", "lookaround events"
FORMAT_VERSION = 1

# File names by which videos are found in a folder; a video that is named itself may have any.
VIDEO_SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".mxf", ".ogv", ".ts", ".webm", ".wmv"),
)


@dataclass(frozen=True, slots=True)
class NamedVideo:
    """A video to score.

    Attributes:
        path: The file.
        name: Names its outputs; with `/` between folders where it was found in a folder.
    """

    path: Path
    name: Path


@dataclass(frozen=True, slots=True)
class VideoOutputs:
    """Where the results of one video go; None where one is not wanted, `-` for stdout.

    Attributes:
        video: The video.
        scores: File of scores.
        events: File of events.
        plot: Plot of the scores.
    """

    video: NamedVideo
    scores: Path | None
    events: Path | None
    plot: Path | None

    @property
    def files(self) -> list[Path]:
        """The outputs that are wanted."""
        return [path for path in (self.scores, self.events, self.plot) if path is not None]


def find_videos(paths: Sequence[Path]) -> list[NamedVideo]:
    """The videos that are named, and those in folders that are named, with all folders below.

    Raises:
        OutputError: If a folder holds no video, or two videos have one name for their outputs.
    """
    found: list[NamedVideo] = []
    for path in paths:
        if not path.is_dir():
            found.append(NamedVideo(path, Path(path.name)))
            continue
        in_folder = sorted(
            file for file in path.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES
        )
        if not in_folder:
            raise OutputError(f"{path}: holds no video ({' '.join(VIDEO_SUFFIXES)})")
        found += [NamedVideo(file, file.relative_to(path)) for file in in_folder]
    _check_names(found)
    return found


def _check_names(videos: Iterable[NamedVideo]) -> None:
    seen: dict[Path, Path] = {}
    for video in videos:
        if video.name in seen:
            raise OutputError(
                f"{video.path}: its outputs would have the same names as those of "
                f"{seen[video.name]}; score them one after the other"
            )
        seen[video.name] = video.path


def check_format(score_format: ScoreFormat) -> None:
    """Check before the work that a format can be written.

    Raises:
        OutputError: If it needs a package that is not installed.
    """
    if score_format == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise OutputError("parquet needs pyarrow: pip install 'lookaround[parquet]'")


def outputs_in_folders(
    video: NamedVideo,
    score_format: ScoreFormat,
    *,
    scores: Path | None,
    events: Path | None,
    plot: Path | None,
) -> VideoOutputs:
    """The outputs of one of several videos: each in a folder, named by the video.

    >>> video = NamedVideo(Path("a/b.mp4"), Path("b.mp4"))
    >>> outputs_in_folders(video, "csv", scores=Path("s"), events=None, plot=None).files
    [PosixPath('s/b.mp4.csv')]
    """

    def place(folder: Path | None, suffix: str) -> Path | None:
        return None if folder is None else folder / f"{video.name}{suffix}"

    return VideoOutputs(
        video,
        place(scores, f".{score_format}"),
        place(events, ".events.json"),
        place(plot, ".png"),
    )


def write_video_outputs(
    outputs: VideoOutputs,
    scores: Scores,
    *,
    score_format: ScoreFormat,
    rule: EventRule,
    note: str = "",
) -> None:
    """Write what is wanted of one video; each file appears whole or not at all.

    Args:
        outputs: Where to.
        scores: The video's.
        score_format: Of the scores.
        rule: When a score is an event.
        note: A warning for the plot.

    Raises:
        OSError: If a file cannot be written.
    """
    video_name = str(outputs.video.name)
    if outputs.scores is not None:
        write_output(outputs.scores, format_scores(scores, score_format))
    if outputs.events is not None:
        write_output(outputs.events, events_json(scores, rule, video_name=video_name))
    if outputs.plot is not None:
        scores.plot(outputs.plot, title=video_name, note=note)


def format_scores(scores: Scores, score_format: ScoreFormat) -> bytes:
    """The scores of all frames as a file.

    CSV has the columns frame, time_seconds and score, JSON and Parquet the same as columns, at full
    precision.
    """
    if score_format == "csv":
        return csv_bytes(scores)
    frames = np.arange(scores.n_frames)
    columns: dict[str, NDArray[Any]] = dict(
        zip(CSV_HEADER, (frames, scores.timestamps, scores.per_frame), strict=True)
    )
    if score_format == "parquet":
        from pipeline.scoring.parquet import parquet_bytes  # noqa: PLC0415  # an optional package

        return parquet_bytes(columns)
    return _json_bytes(
        {
            "format": SCORES_FORMAT,
            "format_version": FORMAT_VERSION,
            "snippet_len": scores.snippet_len,
            "stride": scores.stride,
            **{name: values.tolist() for name, values in columns.items()},
        }
    )


def events_json(scores: Scores, rule: EventRule, *, video_name: str) -> bytes:
    """The events of a video as JSON: the rule, and each event as the fields of `Event`."""
    events = describe_events(scores.per_frame, scores.timestamps, rule)
    return _json_bytes(
        {
            "format": EVENTS_FORMAT,
            "format_version": FORMAT_VERSION,
            "video": printable(video_name),
            "rule": {**asdict(rule), "release": rule.release},
            "events": [asdict(event) for event in events],
        }
    )


def _json_bytes(values: dict[str, object]) -> bytes:
    return f"{json.dumps(values, indent=2, allow_nan=False)}\n".encode()
