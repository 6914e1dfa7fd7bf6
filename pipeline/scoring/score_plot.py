"""Plot one video's scores over time, above thumbnails of it and with its labels where known."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extractors.decoding.frame_folder import VideoSource
from extractors.decoding.seeking import frames_at
from pipeline.figures import CURVE_COLOR, NOTE_COLOR, TRUTH_COLOR, Axes, place_image, png_figure
from pipeline.images import resize_to_fit
from pipeline.scoring.events import Interval, frame_ends

INCHES, DPI = (10.0, 3.2), 120
N_THUMBNAILS = 8
THUMBNAIL_PX = (130, 98)  # width and height at most
STRIP_INCHES = 1.0


def plot_scores(
    timestamps: NDArray[np.float64],
    per_frame: NDArray[np.float32],
    path: Path,
    *,
    title: str = "",
    note: str = "",
    video: VideoSource | None = None,
    truth: Sequence[Interval] = (),
) -> None:
    """Plot the score of every frame over time as a PNG file.

    Args:
        timestamps: (n_frames,) seconds.
        per_frame: (n_frames,) scores in [0, 1].
        path: The file, which appears whole or not at all; `-` is stdout.
        title: Above the curve, usually the video's name.
        note: A warning at the right of the title, such as that the weights are random.
        video: The file or folder of frames, of which thumbnails are shown along the time axis; None
            for none.
        truth: Labeled anomalies as (start, stop) in frames, stop excluded, shown as bands.

    Raises:
        VideoError: If the video cannot be read.
        OSError: If the file cannot be written.
    """
    height = INCHES[1] + (STRIP_INCHES if video is not None else 0)
    with png_figure(path, inches=(INCHES[0], height), dpi=DPI, font_size=10) as figure:
        if video is None:
            axes = figure.add_subplot()
        else:
            axes, strip = figure.subplots(
                2, 1, sharex=True, height_ratios=(INCHES[1] - 0.6, STRIP_INCHES)
            )
            axes.tick_params(labelbottom=True)  # which axes that share their times leave out
            _show_thumbnails(strip, video, timestamps)
        # The bytes of a file's name may be no text, and a dollar in it begins no formula.
        readable = title.encode(errors="surrogateescape").decode(errors="replace")
        axes.set_title(readable, loc="left", parse_math=False)
        if note:
            axes.set_title(note, loc="right", color=NOTE_COLOR, fontsize=9)
        axes.step(timestamps, per_frame, where="post", color=CURVE_COLOR)
        axes.fill_between(timestamps, per_frame, step="post", color=CURVE_COLOR, alpha=0.15)
        _show_truth(axes, timestamps, truth)
        axes.set(xlabel="time (seconds)", ylabel="anomaly score", ylim=(0, 1.02))
        axes.margins(x=0)
        axes.grid(alpha=0.3)


def _show_truth(axes: Axes, timestamps: NDArray[np.float64], truth: Sequence[Interval]) -> None:
    ends = frame_ends(timestamps)
    for index, (start, stop) in enumerate(truth):
        band = axes.axvspan(timestamps[start], ends[stop - 1], color=TRUTH_COLOR, alpha=0.2, lw=0)
        if index == 0:
            band.set_label("labeled anomaly")
    if truth:
        # Below the curve, beside the name of the time axis.
        axes.legend(
            loc="upper right", bbox_to_anchor=(1, 0), borderaxespad=1.9, frameon=False, fontsize=9
        )


def _show_thumbnails(strip: Axes, video: VideoSource, timestamps: NDArray[np.float64]) -> None:
    """Show frames at equal distances in time, each below its time."""
    strip.axis("off")
    fractions = (np.arange(N_THUMBNAILS) + 0.5) / N_THUMBNAILS
    seconds = timestamps[0] + fractions * (timestamps[-1] - timestamps[0])
    shown = timestamps[np.searchsorted(timestamps, seconds, side="right") - 1]
    for x, image in zip(seconds.tolist(), frames_at(video, shown.tolist()), strict=True):
        if image is not None:
            place_image(strip, resize_to_fit(image, *THUMBNAIL_PX), x, DPI)
