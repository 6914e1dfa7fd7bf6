"""Stage 1: every video of a dataset becomes a feature file.

The stage is a generator of small records; the caller shows them. One bad video never stops the
others, and never hides: it comes out as a `VideoFailed`.
"""

import errno
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from extractors.decoding.decode_pool import VideoLost
from extractors.decoding.video import VideoError
from extractors.engine import FramesDecoded, VideoFeatures, extract_videos
from extractors.features import Extractor, Features
from pipeline.atomic import remove_abandoned
from pipeline.datasets.catalog import Dataset, VideoEntry
from pipeline.extraction.extract_records import (
    ExtractRecord,
    FramesDone,
    VideoDone,
    VideoFailed,
    VideoKept,
    VideoRedone,
    VideoTaken,
)
from pipeline.extraction.feature_file import (
    DamagedFileError,
    FeatureFileError,
    Provenance,
    provenance_differences,
    read_header,
    write_features,
    write_index,
)
from pipeline.extraction.feature_paths import feature_path, videos_without_place
from pipeline.extraction.locks import Claims
from pipeline.extraction.status import (
    Failure,
    StatusTable,
    forget_failure,
    note_failure,
    read_failure,
)
from pipeline.extraction.video_digest import Source, identify_source

# Errors of writing that the next video would meet, too.
NO_MORE_FILES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
MAX_UNWRITTEN = 4  # videos whose features wait for the disk
SECONDS_BETWEEN_TABLES = 60.0


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
            is extracted then: features of two kinds never mix. Also if the disk is full.
        OSError: If the folder cannot be written.
        torch.OutOfMemoryError: If the device has no room for a single snippet.
    """
    folder = features_folder / dataset.name
    wanted = dataset.entries if entries is None else entries
    return in_order(
        dataset,
        folder,
        wanted,
        lambda some: extract_entries(some, folder, extractor, retry_failed=retry_failed),
    )


def in_order(
    dataset: Dataset,
    folder: Path,
    entries: Sequence[VideoEntry],
    extract: Callable[[Sequence[VideoEntry]], Iterator[ExtractRecord]],
) -> Iterator[ExtractRecord]:
    """Keep a dataset's folder of features in order while videos are extracted into it.

    What killed processes left is removed first; the table of videos is written every minute and
    at the end, the index at the end. Videos whose names have no place in the folder fail at once.

    Args:
        dataset: All videos, for the table of them.
        folder: The dataset's folder of features.
        entries: Those of the videos that are wanted.
        extract: Extracts some videos.

    Yields:
        What `extract` yields, and a `VideoFailed` for every video without a place.
    """
    remove_abandoned(folder)
    table = StatusTable(folder, dataset)
    written_at = time.monotonic()
    reasons = videos_without_place(folder, [entry.video_id for entry in dataset.entries])
    for entry in entries:
        if entry.video_id in reasons:
            reason = reasons[entry.video_id]
            yield VideoFailed(
                Failure(entry.video_id, "FeatureFileError", reason, is_quarantined=False)
            )
    for record in extract([entry for entry in entries if entry.video_id not in reasons]):
        yield record
        is_end = isinstance(record, VideoDone | VideoFailed)
        if is_end and folder.is_dir() and time.monotonic() - written_at > SECONDS_BETWEEN_TABLES:
            table.write()
            written_at = time.monotonic()
    if folder.is_dir():
        finish_folder(table)


def extract_entries(
    entries: Sequence[VideoEntry], folder: Path, extractor: Extractor, *, retry_failed: bool
) -> Iterator[ExtractRecord]:
    """Extract what is not there yet of some videos; the table and the index are left as they are.

    Args, yields and raises as `extract_dataset`; `folder` is the dataset's own.
    """
    provenance = extractor.provenance()
    todo: list[VideoEntry] = []
    for entry in entries:
        record = _earlier_end(folder, entry, provenance, retry_failed)
        if record is not None:
            yield record
        if record is None or isinstance(record, VideoRedone):
            todo.append(entry)
    if todo:
        with Claims(folder) as claims, ThreadPoolExecutor(1) as writer:
            yield from _extract(_Work(todo, folder, provenance, claims), extractor, writer)


def finish_folder(table: StatusTable) -> None:
    """Write the table of videos and the index; the index by one process after the other."""
    table.write()
    with Claims(table.folder) as claims:
        claims.wait_for_index()
        write_index(table.folder)


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


class _Work:
    """The videos of one process, claimed one by one as they are asked for.

    Args:
        todo: The videos that are wanted.
        folder: The dataset's folder of features.
        provenance: How features are made.
        claims: The claims on the folder's videos.

    Attributes:
        ended: Records of videos that need not, or cannot, be read; to be taken out.
    """

    def __init__(
        self, todo: Sequence[VideoEntry], folder: Path, provenance: Provenance, claims: Claims
    ) -> None:
        self.ended: deque[ExtractRecord] = deque()
        self._todo, self._folder, self._provenance, self._claims = todo, folder, provenance, claims
        self._begun: dict[Path, tuple[VideoEntry, Source]] = {}

    def paths(self) -> Iterator[Path]:
        """Yield the files that are to be read."""
        for entry in self._todo:
            path = feature_path(self._folder, entry.video_id)
            if not self._claims.take(entry.video_id):
                self.ended.append(VideoTaken(entry.video_id))
                continue
            try:
                # Another process may have written them since.
                if path.is_file() and not _reason_to_redo(path, entry, self._provenance):
                    self.ended.append(VideoKept(entry.video_id))
                    continue
                if path.is_dir():
                    raise IsADirectoryError(
                        f"{path}: is a folder, expected to write the features of "
                        f"{entry.video_id!r} there; remove it, or rename the video"
                    )
                self._begun[entry.path] = entry, identify_source(entry.path)
                path.parent.mkdir(parents=True, exist_ok=True)
            except FeatureFileError:
                raise
            except OSError as error:
                self.ended.append(_failed(entry, error))
            else:
                yield entry.path

    def entry_of(self, path: Path) -> VideoEntry:
        """The video of a file that was yielded."""
        return self._begun[path][0]

    def write(self, path: Path, features: Features) -> VideoDone | VideoFailed:
        """Write the features of a file that was yielded."""
        entry, source = self._begun[path]
        try:
            write_features(
                feature_path(self._folder, entry.video_id),
                features,
                self._provenance,
                video_id=entry.video_id,
                source_name=entry.path.name,
                source=source,
            )
            forget_failure(self._folder, entry.video_id)
        except (OSError, MemoryError) as error:
            return _failed(entry, error)
        return VideoDone(entry.video_id, features.n_frames, features.n_missing)

    def lose(self, lost: VideoLost) -> VideoFailed:
        """Note that a file cannot be read, unless it is not there yet or the machine failed."""
        entry = self.entry_of(lost.path)
        failure = Failure(entry.video_id, lost.kind, lost.reason, lost.is_quarantined)
        if entry.path.is_file() and not lost.is_machine_error:
            note_failure(self._folder, failure)
            path = feature_path(self._folder, entry.video_id)
            with suppress(OSError):
                if path.is_file() and _reason_to_redo(path, entry, self._provenance):
                    path.unlink()  # features of another file must not pass for its own
        return VideoFailed(failure)


def _extract(work: _Work, extractor: Extractor, writer: Executor) -> Iterator[ExtractRecord]:
    writing: deque[Future[VideoDone | VideoFailed]] = deque()
    for event in extract_videos(extractor, work.paths()):
        match event:
            case FramesDecoded():
                video_id = work.entry_of(event.path).video_id
                yield FramesDone(video_id, event.n_frames, event.share)
            case VideoLost():
                yield work.lose(event)
            case VideoFeatures():
                writing.append(writer.submit(work.write, event.path, event.features))
        while writing and (writing[0].done() or len(writing) > MAX_UNWRITTEN):
            yield writing.popleft().result()
        while work.ended:
            yield work.ended.popleft()
    for write in writing:
        yield write.result()
    yield from work.ended


def _earlier_end(
    folder: Path, entry: VideoEntry, provenance: Provenance, retry_failed: bool
) -> VideoKept | VideoRedone | VideoFailed | None:
    """What became of a video in earlier runs; None if nothing did."""
    path = feature_path(folder, entry.video_id)
    try:
        if path.is_file():
            reason = _reason_to_redo(path, entry, provenance)
            return VideoRedone(entry.video_id, reason) if reason else VideoKept(entry.video_id)
    except FeatureFileError:
        raise
    except OSError as error:
        return _failed(entry, error)
    failure = None if retry_failed else read_failure(folder, entry.video_id)
    return None if failure is None else VideoFailed(failure, is_earlier=True)


def _reason_to_redo(path: Path, entry: VideoEntry, provenance: Provenance) -> str:
    """Why the features that are there are not those of the video; empty if they are.

    Where the video itself is not at hand, its features count as its own.

    Raises:
        FeatureFileError: If they were made in another way.
        OSError: If the video cannot be read.
    """
    try:
        header = read_header(path)
    except DamagedFileError as error:
        return str(error).removesuffix("; remove it and extract the video again")
    differences = provenance_differences(provenance, header.provenance)
    if differences:
        raise FeatureFileError(
            f"{path}: was made in another way ({'; '.join(differences)}); "
            "give the same options, or another folder with --features"
        )
    if header.video_id != entry.video_id:
        return f"{path}: holds the features of another video, {header.video_id!r}"
    if header.source is not None and entry.path.is_file():
        source = identify_source(entry.path)
        if source != header.source:
            return (
                f"{entry.path}: is not the file that {path} was made from "
                f"({source.n_bytes} bytes, instead of {header.source.n_bytes})"
                if source.n_bytes != header.source.n_bytes
                else f"{entry.path}: is not the file that {path} was made from (other content)"
            )
    return ""


def _failed(entry: VideoEntry, error: OSError | MemoryError) -> VideoFailed:
    """A failure to reach or write a file, which the next run is to try again.

    Raises:
        OSError: The error itself, if the next video would meet it, too.
    """
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(cause, OSError) and cause.errno in NO_MORE_FILES:
        raise error
    reason = str(error)
    if isinstance(error, MemoryError):
        reason = f"{entry.path}: not enough memory for its features"
    elif error.filename is not None and error.strerror:
        reason = f"{error.filename}: {error.strerror}"
    return VideoFailed(Failure(entry.video_id, type(error).__name__, reason, is_quarantined=False))
