"""Extraction by one process: lock a video, decode it, compute its features, write its file.

One bad video never stops the others: its outcome says why it failed.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from extractors.decoding.decode_pool import VideoLost
from extractors.decoding.frame_folder import VideoSource
from extractors.engine import FramesDecoded, VideoFeatures, extract_videos
from extractors.features import Extractor, Features
from pipeline.datasets.catalog import VideoEntry
from pipeline.extraction.earlier_results import earlier_outcome, failed_outcome, reason_to_replace
from pipeline.extraction.feature_file import FeatureFileError, Provenance, write_features
from pipeline.extraction.feature_paths import feature_path
from pipeline.extraction.locks import VideoLocks
from pipeline.extraction.shards import WHOLE, Shard, begin_with
from pipeline.extraction.status import Failure, forget_failure, note_failure, time_of_failure
from pipeline.extraction.summary import ExtractEvent, VideoOutcome
from pipeline.extraction.video_digest import Source, identify_source

MAX_UNWRITTEN = 4  # videos whose features wait for the disk


def extract_entries(
    entries: Sequence[VideoEntry],
    folder: Path,
    extractor: Extractor,
    *,
    shard: Shard = WHOLE,
    retry_failed: bool = False,
) -> Iterator[ExtractEvent]:
    """Extract what is not there yet of some videos, beside other processes that do the same.

    Each video is locked before it is read. A process begins with its shard and goes on with what
    the others have left: none has to wait for the slowest, and what a killed one leaves is done.

    Args:
        entries: The videos that are wanted.
        folder: The dataset's folder of features, `features/<dataset>`.
        extractor: Computes the features.
        shard: The part of the videos to begin with.
        retry_failed: Try videos again that failed in an earlier run.

    Yields:
        Frames while a video is decoded, and one outcome of each video.

    Raises:
        FeatureFileError: If the folder holds features that were extracted with different settings,
            and nothing is extracted then. Also if the disk is full.
        OSError: If the folder cannot be written.
        torch.OutOfMemoryError: If the device has no room for a single snippet.
    """
    ordered, n_own = begin_with(entries, shard)
    provenance = extractor.provenance()
    todo: list[_Todo] = []
    for index, entry in enumerate(ordered):
        is_own = index < n_own
        outcome = earlier_outcome(
            folder, entry, provenance, is_retried=retry_failed, has_source_checked=is_own
        )
        if outcome is None:
            failed_at = time_of_failure(folder, entry.video_id) if retry_failed else None
            todo.append(_Todo(entry, is_own, failed_at))
        else:
            yield outcome
    if todo:
        with VideoLocks(folder) as locks, ThreadPoolExecutor(1) as writer:
            yield from _extract(_Work(todo, folder, provenance, locks), extractor, writer)


@dataclass(frozen=True, slots=True)
class _Todo:
    """A video to extract.

    Attributes:
        entry: The video.
        is_own: Whether it is in the part that this process began with. The process that begins with
            a video compares its file with its features; for the others that would be slow.
        failed_at: When it failed in an earlier run, where it is tried again, in ns.
    """

    entry: VideoEntry
    is_own: bool
    failed_at: int | None


@dataclass(frozen=True, slots=True)
class _Begun:
    """A video that is being read; `replaced_because` is why earlier features are not kept."""

    entry: VideoEntry
    source: Source
    replaced_because: str


class _Work:
    """The videos of one process, locked one by one as they are asked for.

    Args:
        todo: The videos that are wanted.
        folder: The dataset's folder of features.
        provenance: How features are extracted.
        locks: The locks on the folder's videos.

    Attributes:
        ended: Outcomes of videos that need not, or cannot, be read; to be taken out.
    """

    def __init__(
        self, todo: Sequence[_Todo], folder: Path, provenance: Provenance, locks: VideoLocks
    ) -> None:
        self.ended: deque[VideoOutcome] = deque()
        self._todo, self._folder, self._provenance, self._locks = todo, folder, provenance, locks
        self._begun: dict[Path, _Begun] = {}

    def sources(self) -> Iterator[VideoSource]:
        """Yield the videos that are to be read."""
        locked_elsewhere = []
        for todo in self._todo:
            if self._locks.lock(todo.entry.video_id):
                yield from self._source_of(todo)
            else:
                locked_elsewhere.append(todo)
        for todo in locked_elsewhere:  # once more: their processes may have ended, or been killed
            is_ours = self._locks.lock(todo.entry.video_id)
            yield from self._source_of(todo, is_ours=is_ours)

    def _source_of(self, todo: _Todo, *, is_ours: bool = True) -> Iterator[VideoSource]:
        """The file or folder of a video, if this process is to read it."""
        outcome = self._outcome_meanwhile(todo)
        if outcome is None:
            taken = VideoOutcome(todo.entry.video_id, "taken")
            outcome = self._begin(todo.entry) if is_ours else taken
        if outcome is None:
            yield todo.entry.source
        else:
            self.ended.append(outcome)

    def write(self, path: Path, features: Features) -> VideoOutcome:
        """Write the features of a file that was yielded."""
        begun = self._begun[path]
        video_id = begun.entry.video_id
        try:
            write_features(
                feature_path(self._folder, video_id),
                features,
                self._provenance,
                video_id=video_id,
                source_name=path.name,
                source=begun.source,
            )
            forget_failure(self._folder, video_id)
        except (OSError, MemoryError) as error:
            return failed_outcome(begun.entry, error)
        return VideoOutcome(
            video_id, "done", features.n_frames, features.n_missing, begun.replaced_because
        )

    def lose(self, lost: VideoLost) -> VideoOutcome:
        """Note that a file cannot be read, unless it is not there yet or the machine failed."""
        begun = self._begun[lost.path]
        entry = begun.entry
        failure = Failure(entry.video_id, lost.kind, lost.reason, lost.is_quarantined)
        if entry.is_there and not lost.is_machine_error:
            note_failure(self._folder, failure)
            path = feature_path(self._folder, entry.video_id)
            with suppress(OSError):
                if path.is_file() and reason_to_replace(path, entry, self._provenance):
                    path.unlink()  # features of another file must not pass for its own
        return VideoOutcome(
            entry.video_id,
            "failed",
            replaced_because=begun.replaced_because,
            failure=failure,
        )

    def _outcome_meanwhile(self, todo: _Todo) -> VideoOutcome | None:
        """Another process may have extracted the video since, or have failed to."""
        failed_at = time_of_failure(self._folder, todo.entry.video_id)
        return earlier_outcome(
            self._folder,
            todo.entry,
            self._provenance,
            is_retried=failed_at == todo.failed_at,
            has_source_checked=todo.is_own,
        )

    def _begin(self, entry: VideoEntry) -> VideoOutcome | None:
        """Make ready to read a video; the outcome if that is not possible."""
        path = feature_path(self._folder, entry.video_id)
        try:
            if path.is_dir():
                raise IsADirectoryError(
                    f"{path}: is a folder, expected to write the features of "
                    f"{entry.video_id!r} there; remove it, or rename the video"
                )
            reason = reason_to_replace(path, entry, self._provenance) if path.is_file() else ""
            self._begun[entry.path] = _Begun(entry, identify_source(entry.source), reason)
            path.parent.mkdir(parents=True, exist_ok=True)
        except FeatureFileError:
            raise
        except OSError as error:
            return failed_outcome(entry, error)
        return None


def _extract(work: _Work, extractor: Extractor, writer: Executor) -> Iterator[ExtractEvent]:
    writing: deque[Future[VideoOutcome]] = deque()
    for event in extract_videos(extractor, work.sources()):
        match event:
            case FramesDecoded():
                yield event
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
