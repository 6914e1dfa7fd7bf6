"""Stage 1: every video of a dataset becomes a feature file.

The stage is a generator of small records; the caller shows them. One bad video never stops the
others, and never hides: it comes out as a `VideoFailed`.
"""

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from extractors.decode_pool import VideoLost
from extractors.engine import FramesDecoded, VideoFeatures, extract_videos
from extractors.features import Extractor, Features
from extractors.video import VideoError
from pipeline.claims import Claims
from pipeline.datasets.catalog import Dataset, VideoEntry
from pipeline.extraction_status import (
    Failure,
    forget_failure,
    note_failure,
    read_failure,
    write_status,
)
from pipeline.feature_file import (
    Contract,
    FeatureFileError,
    contract_differences,
    feature_path,
    read_contract,
    write_features,
    write_index,
)

MOST_UNWRITTEN = 4  # videos whose features wait for the disk
SECONDS_BETWEEN_TABLES = 60.0


@dataclass(frozen=True, slots=True)
class FramesDone:
    """Some frames of a video are through; `share` is how much of it, in [0, 1]."""

    video_id: str
    n_frames: int
    share: float


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
class VideoTaken:
    """Another process that shares the folder is extracting the video."""

    video_id: str


@dataclass(frozen=True, slots=True)
class VideoFailed:
    """A video gave no features, and why; `is_earlier` if it was not even tried again."""

    failure: Failure
    is_earlier: bool = False


ExtractRecord = FramesDone | VideoDone | VideoKept | VideoTaken | VideoFailed


def extract_dataset(
    dataset: Dataset,
    features_folder: Path,
    extractor: Extractor,
    *,
    entries: Sequence[VideoEntry] | None = None,
    retry_failed: bool = False,
) -> Iterator[ExtractRecord]:
    """Extract what is not there yet, then write the table and the index of all that is.

    Args:
        dataset: Its videos, of every split.
        features_folder: Takes `<dataset>/<video_id>.h5`. Several processes may share it.
        extractor: Makes the features.
        entries: Those of the videos that are wanted, where it is not all.
        retry_failed: Try videos again that failed in an earlier run.

    Yields:
        `FramesDone` while a video is read, and one of the others at its end.

    Raises:
        FeatureFileError: If the folder holds features that were made in another way, and nothing
            is extracted then: features of two kinds never mix. Also if the folder cannot be
            written.
        torch.OutOfMemoryError: If the device has no room for a single snippet.
    """
    folder = features_folder / dataset.name
    written_at = time.monotonic()
    wanted = dataset.entries if entries is None else entries
    for record in extract_entries(wanted, folder, extractor, retry_failed=retry_failed):
        yield record
        is_end = isinstance(record, VideoDone | VideoFailed)
        if is_end and time.monotonic() - written_at > SECONDS_BETWEEN_TABLES:
            write_status(folder, dataset)
            written_at = time.monotonic()
    finish_folder(folder, dataset)


def extract_entries(
    entries: Sequence[VideoEntry], folder: Path, extractor: Extractor, *, retry_failed: bool
) -> Iterator[ExtractRecord]:
    """Extract what is not there yet of some videos; the table and the index are left as they are.

    Args, yields and raises as `extract_dataset`; `folder` is the dataset's own.
    """
    contract = extractor.contract()
    todo: list[VideoEntry] = []
    for entry in entries:
        if _is_done(folder, entry, contract):
            yield VideoKept(entry.video_id)
        elif not retry_failed and (failure := read_failure(folder, entry.video_id)) is not None:
            yield VideoFailed(failure, is_earlier=True)
        else:
            todo.append(entry)
    if todo:
        with Claims(folder) as claims, ThreadPoolExecutor(1) as writer:
            yield from _extract(todo, folder, extractor, claims, writer)


def finish_folder(folder: Path, dataset: Dataset) -> None:
    """Write the table of videos and the index, if there is a folder at all."""
    if folder.is_dir():
        write_status(folder, dataset)
        write_index(folder)


def stream_features(path: Path, extractor: Extractor) -> Generator[FramesDone, None, Features]:
    """Compute the features of one video in bounded memory.

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
    for event in extract_videos(extractor, [path]):
        match event:
            case FramesDecoded():
                yield FramesDone(path.name, event.n_frames, event.share)
            case VideoLost():
                raise VideoError(event.reason)
            case VideoFeatures():
                features = event.features
    return features


def _extract(
    todo: Sequence[VideoEntry],
    folder: Path,
    extractor: Extractor,
    claims: Claims,
    writer: Executor,
) -> Iterator[ExtractRecord]:
    contract = extractor.contract()
    by_path = {entry.path: entry for entry in todo}
    elsewhere: deque[ExtractRecord] = deque()
    writing: deque[Future[VideoDone]] = deque()
    for event in extract_videos(extractor, _unclaimed(todo, folder, claims, elsewhere)):
        entry = by_path[event.path]
        match event:
            case FramesDecoded():
                yield FramesDone(entry.video_id, event.n_frames, event.share)
            case VideoLost():
                yield VideoFailed(_failure(event, entry, folder))
            case VideoFeatures():
                write = writer.submit(_write, folder, entry, event.features, contract)
                writing.append(write)
        while writing and (writing[0].done() or len(writing) > MOST_UNWRITTEN):
            yield writing.popleft().result()
    for write in writing:
        yield write.result()
    yield from elsewhere


def _unclaimed(
    todo: Sequence[VideoEntry], folder: Path, claims: Claims, elsewhere: deque[ExtractRecord]
) -> Iterator[Path]:
    """Claim one video after the other as they are asked for; note those that others have."""
    for entry in todo:
        if not claims.take(entry.video_id):
            elsewhere.append(VideoTaken(entry.video_id))
        elif feature_path(folder, entry.video_id).exists():
            elsewhere.append(VideoKept(entry.video_id))
        else:
            yield entry.path


def _write(folder: Path, entry: VideoEntry, features: Features, contract: Contract) -> VideoDone:
    write_features(
        feature_path(folder, entry.video_id),
        features,
        contract,
        video_id=entry.video_id,
        source_name=entry.path.name,
    )
    forget_failure(folder, entry.video_id)
    return VideoDone(entry.video_id, features.n_frames, features.n_missing)


def _failure(lost: VideoLost, entry: VideoEntry, folder: Path) -> Failure:
    """Note a failure, unless the file is only not there yet."""
    failure = Failure(entry.video_id, lost.kind, lost.reason, lost.is_quarantined)
    if entry.path.is_file():
        note_failure(folder, failure)
    return failure


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
