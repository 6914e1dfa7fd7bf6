"""The features of a single video, computed in memory and not stored: for scoring."""

import time
from collections.abc import Generator
from pathlib import Path

from extractors.decoding.decode_pool import VideoLost
from extractors.decoding.video import VideoError
from extractors.engine import FramesDecoded, VideoFeatures, extract_videos
from extractors.features import Extractor, Features
from pipeline.extraction.extract_records import FramesDone
from pipeline.progress import Progress, ReportProgress, no_report


def extract_video(
    path: Path, extractor: Extractor, *, stage: str = "extract", report: ReportProgress = no_report
) -> Features:
    """Compute the features of one video in bounded memory.

    Args:
        path: The video file.
        extractor: Computes the features.
        stage: Names the work in the reports.
        report: Gets the progress, as a fraction of one video.

    Returns:
        The features of all frames that are shown and can be decoded.

    Raises:
        VideoError: If no frame of the file can be decoded.
    """
    started = time.monotonic()
    for event in extract_videos(extractor, [path]):
        match event:
            case FramesDecoded():
                rate = event.n_frames / max(time.monotonic() - started, 1e-9)
                report(Progress(stage, event.share, 1, "videos", f"{rate:.1f} frames/s"))
            case VideoLost():
                raise VideoError(event.reason)
            case VideoFeatures():
                features = event.features
    return features


def stream_features(path: Path, extractor: Extractor) -> Generator[FramesDone, None, Features]:
    """As `extract_video`, but yields the progress: until scoring uses `extract_video`."""
    for event in extract_videos(extractor, [path]):
        match event:
            case FramesDecoded():
                yield FramesDone(path.name, event.n_frames, event.share)
            case VideoLost():
                raise VideoError(event.reason)
            case VideoFeatures():
                features = event.features
    return features
