"""Write a video again with its anomaly score and the score's curve below each frame."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extractors.decoding.frame_folder import VideoSource, path_of
from extractors.decoding.video import Video, VideoError
from pipeline.images import Panel, draw_curve_panel, draw_label
from pipeline.progress import Progress, ReportProgress, no_report
from pipeline.reports.html_page import format_seconds
from pipeline.scoring.events import Event, frame_ends
from pipeline.scoring.frame_scores import Scores
from pipeline.video_writer import Frame, write_with_sound

# The panel's height as a fraction of the frame's, and its limits in pixels.
PANEL_FRACTION = 0.2
MIN_PANEL_PX, MAX_PANEL_PX = 56, 240
LABEL_ASPECT = 1.7
CHUNK_LEN = 16


def write_overlay(
    path: Path,
    video: VideoSource,
    scores: Scores,
    *,
    report: ReportProgress = no_report,
) -> None:
    """Write a video with a panel below each frame: score, time, curve, events and playhead.

    Nothing of a frame is covered. Frames keep their times, and the sound is copied.

    Args:
        path: The file, `.mp4` or `.mkv`; it appears whole or not at all.
        video: The video that was scored.
        scores: Its scores.
        report: Called after every `CHUNK_LEN` frames.

    Raises:
        VideoError: If the video cannot be read, or shows another number of frames than was scored.
        VideoWriterError: If the file cannot be written, or its container cannot hold the sound.
    """
    end = float(frame_ends(scores.timestamps)[-1])
    frames = _draw_frames(video, scores, scores.events(), report)
    write_with_sound(path, frames, video, stop_seconds=end)


def _draw_frames(
    video: VideoSource,
    scores: Scores,
    events: Sequence[Event],
    report: ReportProgress,
) -> Iterator[tuple[Frame, float]]:
    opened = Video(video)
    height = round(min(max(opened.height * PANEL_FRACTION, MIN_PANEL_PX), MAX_PANEL_PX))
    label_width = min(round(height * LABEL_ASPECT), opened.width // 2)
    panel = _draw_panel(scores, events, (height, opened.width - label_width))
    per_frame = scores.per_frame
    is_event = np.zeros(scores.n_frames, bool)
    for event in events:
        is_event[event.start_frame : event.stop_frame] = True
    n_done = 0
    for chunk in opened.read(CHUNK_LEN):
        for image, time in zip(chunk.frames, chunk.timestamps.tolist(), strict=True):
            if n_done == scores.n_frames:
                raise _other_frames(video, scores)
            label = draw_label(
                (height, label_width),
                f"{per_frame[n_done]:.2f}",
                format_seconds(time),
                is_alarm=bool(is_event[n_done]),
            )
            strip = np.concatenate([label, panel.at(n_done / max(scores.n_frames - 1, 1))], axis=1)
            yield np.concatenate([image, strip]), time
            n_done += 1
        report(Progress("overlay", n_done, scores.n_frames, "frames"))
    if n_done < scores.n_frames:
        raise _other_frames(video, scores)


def _other_frames(video: VideoSource, scores: Scores) -> VideoError:
    problem = f"does not show the {scores.n_frames} frames that were scored; score it again"
    return VideoError.about(path_of(video), problem)


def _draw_panel(scores: Scores, events: Sequence[Event], size: tuple[int, int]) -> Panel:
    n_frames = scores.n_frames
    bands = [(event.start_frame / n_frames, event.stop_frame / n_frames) for event in events]
    heights = column_maxima(scores.per_frame, size[1])
    return draw_curve_panel(size, heights, bands, scores.rule.threshold)


def column_maxima(per_frame: NDArray[np.float32], n_columns: int) -> NDArray[np.float32]:
    """(n_columns,) the highest score of the frames that fall into each column of a curve.

    >>> column_maxima(np.array([0, 1, 0, 0, 0.5, 0], "float32"), 3)
    array([1. , 0. , 0.5], dtype=float32)
    >>> column_maxima(np.array([0, 1], "float32"), 4)
    array([0., 0., 1., 1.], dtype=float32)
    """
    edges = np.arange(n_columns) * len(per_frame) // n_columns
    return np.maximum.reduceat(per_frame, edges)
