"""The output files of `pipeline score`: scores as CSV, JSON or Parquet, events as JSON, a plot.

Each event in the JSON has a thumbnail of its peak as a data URI (`data:image/jpeg;base64,...`): one
file holds all, can be written to stdout, and a web page shows the thumbnail as it is.
"""

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from extractors.decoding.containers import VIDEO_SUFFIXES
from extractors.decoding.frame_folder import FrameFolder, VideoSource, frame_number, path_of
from extractors.errors import LookaroundError
from pipeline.datasets.catalog import Dataset, DatasetError, VideoEntry, frame_labels
from pipeline.outputs import OutputError, resolved, write_output
from pipeline.printable import printable
from pipeline.scoring.events import Interval, true_runs
from pipeline.scoring.frame_scores import CSV_HEADER, Scores, csv_bytes
from pipeline.scoring.thumbnails import make_thumbnails

ScoreFormat = Literal["csv", "json", "parquet"]
SCORES_FORMAT, EVENTS_FORMAT = "lookaround scores", "lookaround events"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class NamedVideo:
    """A video to score.

    Attributes:
        source: The file or folder of frames.
        name: Names its outputs; with `/` between folders where it was found in a folder.
        entry: Its entry in a dataset, which has its labels; None where it is in none.
    """

    source: VideoSource
    name: Path
    entry: VideoEntry | None = None

    @property
    def path(self) -> Path:
        """The file or folder of frames."""
        return path_of(self.source)

    def truth(self, n_frames: int) -> list[Interval] | None:
        """The labeled anomalies as (start, stop) in frames, within the video's; None if unknown."""
        if self.entry is None or not self.entry.has_frame_labels:
            return None
        return true_runs(frame_labels(self.entry, n_frames))


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


def find_videos(paths: Sequence[Path], fps: float | None = None) -> list[NamedVideo]:
    """The videos that are named, and those in folders that are named, with all folders below.

    A file in a folder is a video by its suffix. If `fps` is given, a folder with images whose names
    end in their number, and without a video file directly in it, is a video, too, whether it is
    named or found in another; else images are passed over.

    Args:
        paths: Files and folders.
        fps: Frames per second of folders of frames.

    Raises:
        OutputError: If a folder holds no video, or a video is named twice.
    """
    found: list[NamedVideo] = []
    for path in paths:
        found += _videos_below(path, fps) if path.is_dir() else [NamedVideo(path, Path(path.name))]
    seen: set[Path] = set()
    for video in found:
        if video.path.absolute() in seen:
            raise OutputError(
                f"{video.path}: is named twice, by itself or by folders that it is in; name it once"
            )
        seen.add(video.path.absolute())
    return found


def is_one_video(paths: Sequence[Path], videos: Sequence[NamedVideo]) -> bool:
    """Whether the paths name one video, and not a folder in which videos were found.

    >>> is_one_video([Path("a")], [NamedVideo(Path("a/b.mp4"), Path("b.mp4"))])
    False
    """
    return len(paths) == 1 and [video.path for video in videos] == list(paths)


def _videos_below(folder: Path, fps: float | None) -> list[NamedVideo]:
    files: list[Path] = []
    of_images: set[Path] = set()  # folders
    for path in folder.rglob("*"):
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir():
            files.append(path)
        elif _is_a_frame(path):
            of_images.add(path.parent)
    sources: list[VideoSource] = [*files]
    if fps is not None:
        of_files = {file.parent for file in files}
        sources += [FrameFolder(path, fps) for path in of_images - of_files]
    if not sources:
        frames = " nor folder of frames (numbered jpg or png)" if fps is not None else ""
        advice = "; to read its images as frames, give their rate with --fps" if of_images else ""
        raise OutputError(f"{folder}: holds no video ({' '.join(VIDEO_SUFFIXES)}){frames}{advice}")
    return [
        NamedVideo(source, _name_below(folder, path_of(source)))
        for source in sorted(sources, key=path_of)
    ]


def _is_a_frame(path: Path) -> bool:
    """Whether a file is named as a frame of a folder: not after a video file, as our plots are.

    >>> [_is_a_frame(Path(name)) for name in ("12.png", "gate.mp4.png", "gate.mp4_0001.png")]
    [True, False, True]
    """
    is_of_a_video_file = Path(path.stem).suffix.lower() in VIDEO_SUFFIXES
    return frame_number(path) is not None and not is_of_a_video_file


def _name_below(folder: Path, path: Path) -> Path:
    """A video's path in the folder that was searched; that folder's own name if it is the video."""
    return path.relative_to(folder) if path != folder else Path(folder.resolve().name)


def with_labels(videos: Sequence[NamedVideo], dataset: Dataset) -> list[NamedVideo]:
    """The same videos, each with its entry in a dataset if it is one of its files.

    Raises:
        DatasetError: If none of them is.
    """
    entries = {resolved(entry.path): entry for entry in dataset.entries}
    labeled = [replace(video, entry=entries.get(resolved(video.path))) for video in videos]
    if not any(video.entry for video in labeled):
        raise DatasetError(
            f"{videos[0].path}: is not a video of {dataset.name}, nor is any other of the "
            f"{len(videos)} videos; leave out --labels, or name the dataset that they are of"
        )
    return labeled


def check_names(videos: Sequence[NamedVideo]) -> None:
    """Check before the work that the outputs of several videos in folders have different names.

    Raises:
        OutputError: If two videos have one name.
    """
    seen: dict[Path, Path] = {}
    for video in videos:
        if video.name in seen:
            raise OutputError(
                f"{video.path}: its outputs would have the same names as those of "
                f"{seen[video.name]}; score them one after the other"
            )
        seen[video.name] = video.path


def format_of_name(path: Path | None) -> ScoreFormat:
    """The format that a file's name ends in; csv for every other name, and for none.

    >>> format_of_name(Path("gate.JSON"))
    'json'
    """
    ending = "" if path is None else path.suffix.lower()
    formats: tuple[ScoreFormat, ...] = get_args(ScoreFormat)
    return next((name for name in formats if ending == f".{name}"), "csv")


def check_plot_name(path: Path | None) -> None:
    """Check before the work that a plot's name says what it is.

    Raises:
        OutputError: If it ends in anything but .png; a name without an ending will do.
    """
    if path is not None and path.suffix.lower() not in ("", ".png"):
        raise OutputError(f"{path}: expected a name that ends in .png, which a plot is")


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

    No plot is named as a frame: plots below a folder that is searched would be its next video.

    >>> video = NamedVideo(Path("a/01"), Path("01"))
    >>> outputs_in_folders(video, "csv", scores=Path("s"), events=None, plot=Path("p")).files
    [PosixPath('s/01.csv'), PosixPath('p/01.plot.png')]
    """

    def place(folder: Path | None, suffix: str) -> Path | None:
        return None if folder is None else folder / f"{video.name}{suffix}"

    plot_suffix = ".plot.png" if _is_a_frame(Path(f"{video.name}.png")) else ".png"
    found = place(scores, f".{score_format}"), place(events, ".events.json")
    return VideoOutputs(video, *found, place(plot, plot_suffix))


def write_video_outputs(
    outputs: VideoOutputs,
    scores: Scores,
    *,
    score_format: ScoreFormat,
    note: str = "",
) -> list[str]:
    """Write what is wanted of one video; each file appears whole or not at all.

    Args:
        outputs: Where to.
        scores: The video's.
        score_format: Of the scores.
        note: A warning for the plot.

    Returns:
        As `write_each`: a video that cannot be read again for thumbnails fails events and plot.

    Raises:
        OSError: If a file cannot be written.
    """
    video, video_name = outputs.video, str(outputs.video.name)

    def write_scores(path: Path) -> None:
        write_output(path, format_scores(scores, score_format))

    def write_events(path: Path) -> None:
        write_output(path, events_json(scores, video_name=video_name, video=video.source))

    def write_plot(path: Path) -> None:
        truth = video.truth(scores.n_frames) or ()
        scores.plot(path, title=video_name, note=note, video=video.source, truth=truth)

    return write_each(
        ("scores", outputs.scores, write_scores),
        ("events", outputs.events, write_events),
        ("plot", outputs.plot, write_plot),
    )


def write_each(*outputs: tuple[str, Path | None, Callable[[Path], object]]) -> list[str]:
    """Write outputs of one video; one that cannot be made does not stop the others.

    Args:
        *outputs: The name of each, where it goes (None where it is not wanted), and what writes it.

    Returns:
        The outputs that failed, each as one line: its name and the reason.

    Raises:
        OSError: If a file cannot be written, which would fail for the next video, too.
    """
    failures = []
    for name, path, write in outputs:
        if path is not None:
            try:
                write(path)
            except LookaroundError as error:
                failures.append(f"{name}: {error}")
    return failures


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


def events_json(scores: Scores, *, video_name: str, video: VideoSource) -> bytes:
    """The events of a video as JSON: the rule, and each event as the fields of `Event`.

    Each also has `thumbnail`, the frame of its peak as a data URI, null if it cannot be decoded;
    and `scores_without`, by part of the model, such as "context", what the score of the peak would
    be without this part: an event rests on the parts without which its peak falls. It is empty
    where `Scores.without` is.

    Raises:
        VideoError: If the video cannot be read.
    """
    events = scores.events()
    thumbnails = make_thumbnails(video, scores, [event.peak_frame for event in events])
    without = scores.per_frame_without
    uri_of = {thumbnail.frame: thumbnail.data_uri for thumbnail in thumbnails}
    return _json_bytes(
        {
            "format": EVENTS_FORMAT,
            "format_version": FORMAT_VERSION,
            "video": printable(video_name),
            "rule": {**asdict(scores.rule), "release": scores.rule.release},
            "events": [
                {
                    **asdict(event),
                    "scores_without": {
                        name: float(values[event.peak_frame]) for name, values in without.items()
                    },
                    "thumbnail": uri_of.get(event.peak_frame),
                }
                for event in events
            ],
        }
    )


def _json_bytes(values: dict[str, object]) -> bytes:
    return f"{json.dumps(values, indent=2, allow_nan=False)}\n".encode()
