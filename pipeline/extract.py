"""Stage 1: every video of a dataset becomes a feature file.

The stage is a generator of small records; the caller shows them. One bad video never stops the
others, and never hides: it comes out as a `VideoFailed`.
"""

import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import compress
from operator import not_
from pathlib import Path

from extractors.features import Extractor, Features
from extractors.slide import join, slide
from extractors.video import DecoderFailure, Video, VideoError
from pipeline.datasets.catalog import Dataset, VideoEntry
from pipeline.feature_file import (
    Contract,
    FeatureFileError,
    contract_differences,
    feature_path,
    read_contract,
    write_features,
    write_index,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FramesDone:
    """Some frames of the present video are through; `n_frames_expected` is the header's word."""

    n_frames: int
    n_frames_expected: int

    @property
    def share(self) -> float:
        """How much of the video is through, in [0, 1]."""
        return min(self.n_frames / max(self.n_frames_expected, 1), 1.0)


@dataclass(frozen=True, slots=True)
class VideoDone:
    """A video's features are on disk; `n_missing` of its frames could not be decoded."""

    video_id: str
    n_frames: int
    n_missing: int


@dataclass(frozen=True, slots=True)
class VideoKept:
    """A video's features were there already, made in the same way."""

    video_id: str


@dataclass(frozen=True, slots=True)
class VideoFailed:
    """A video gave no features, and why, in one line."""

    video_id: str
    reason: str


ExtractRecord = FramesDone | VideoDone | VideoKept | VideoFailed


def extract_dataset(
    dataset: Dataset, features_folder: Path, extractor: Extractor
) -> Iterator[ExtractRecord]:
    """Extract what is not there yet, then write the index of all that is.

    Args:
        dataset: Its videos, of every split.
        features_folder: Takes `<dataset>/<video_id>.h5`. Several processes may share it.
        extractor: Makes the features.

    Yields:
        `FramesDone` while a video is read, and one of the others at its end.

    Raises:
        FeatureFileError: If the folder holds features that were made in another way. Nothing is
            extracted then: features of two kinds never mix.
    """
    folder = features_folder / dataset.name
    contract = extractor.contract()
    is_done = [_is_done(folder, entry, contract) for entry in dataset.entries]
    for entry in compress(dataset.entries, is_done):
        yield VideoKept(entry.video_id)
    for entry in compress(dataset.entries, map(not_, is_done)):
        try:
            features = yield from stream_features(entry.path, extractor)
        except VideoError as error:
            yield VideoFailed(entry.video_id, str(error))
            continue
        write_features(
            feature_path(folder, entry.video_id),
            features,
            contract,
            video_id=entry.video_id,
            source_name=entry.path.name,
        )
        yield VideoDone(entry.video_id, features.n_frames, features.n_missing)
    if folder.is_dir():
        write_index(folder)


def stream_features(path: Path, extractor: Extractor) -> Generator[FramesDone, None, Features]:
    """Compute the features of one video in bounded memory.

    When decord errs in the middle of a file, nothing that it returned counts: the video is read
    again with PyAV.

    Args:
        path: The video file.
        extractor: Makes the features.

    Yields:
        The progress.

    Returns:
        The features of all frames that are shown and can be decoded.

    Raises:
        VideoError: If no frame can be had from the file.
    """
    try:
        return (yield from _stream(Video(path), extractor))
    except DecoderFailure as error:
        logger.info("%s; reading it again with PyAV", error)
        return (yield from _stream(Video(path, decoder="pyav"), extractor))


def _stream(video: Video, extractor: Extractor) -> Generator[FramesDone, None, Features]:
    chunks = []
    n_frames = 0
    for chunk in slide(extractor, video):
        chunks.append(chunk)
        n_frames += len(chunk.timestamps)
        yield FramesDone(n_frames, video.n_frames_expected)
    return join(chunks, extractor, video)


def _is_done(folder: Path, entry: VideoEntry, contract: Contract) -> bool:
    """Whether the video's features exist; features of another kind are an error."""
    path = feature_path(folder, entry.video_id)
    if not path.exists():
        return False
    differences = contract_differences(contract, read_contract(path))
    if differences:
        raise FeatureFileError(
            f"{path}: was made in another way ({'; '.join(differences)}); "
            "give the same options, or another folder with --features"
        )
    return True
