"""Cut the events of a scored video into clips, with a margin around each and the sound kept."""

from collections.abc import Sequence
from pathlib import Path

from extractors.decoding.frame_folder import FrameFolder, VideoSource
from extractors.decoding.seeking import frames_between
from pipeline.progress import Progress, ReportProgress, no_report
from pipeline.scoring.events import Event
from pipeline.video_writer import suffix_for_sound, write_with_sound

MARGIN_SECONDS = 2.0
# Most file systems take names of 255 bytes.
MAX_STEM_CHARACTERS = 60


def write_clips(
    folder: Path,
    video: VideoSource,
    events: Sequence[Event],
    *,
    margin_seconds: float = MARGIN_SECONDS,
    report: ReportProgress = no_report,
) -> list[Path]:
    """Write one clip per event: H.264 in mp4, or in Matroska where mp4 cannot hold the sound.

    Frames are shown as long as in the video. A clip begins with the frame that is shown
    `margin_seconds` before the event and ends that long after it, or where the video does.

    Args:
        folder: Made if it is missing. Clips are named `<video>-event-001.mp4`; those of an earlier
            call are replaced.
        video: The file or folder of frames.
        events: As from `Scores.events`.
        margin_seconds: At least 0.
        report: Called after each clip.

    Returns:
        The clips, in the order of the events.

    Raises:
        ValueError: If the margin is negative.
        VideoError: If the video cannot be read.
        VideoWriterError: If a clip cannot be written.
    """
    if not margin_seconds >= 0:
        raise ValueError(f"margin_seconds must be at least 0, instead got {margin_seconds}")
    stem, suffix = _stem(video)[:MAX_STEM_CHARACTERS], suffix_for_sound(video)
    paths = []
    for number, event in enumerate(events, start=1):
        path = folder / f"{stem}-event-{number:03d}{suffix}"
        stop = event.stop_seconds + margin_seconds
        frames = frames_between(video, event.start_seconds - margin_seconds, stop)
        write_with_sound(path, frames, video, stop_seconds=stop)
        paths.append(path)
        report(Progress("clips", number, len(events), "clips"))
    return paths


def _stem(video: VideoSource) -> str:
    return video.path.resolve().name if isinstance(video, FrameFolder) else video.stem
