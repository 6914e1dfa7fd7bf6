"""Import of features that others have published into this program's feature files.

A feature file has the frames that the release has snippets for: the video's own number of frames
where the dataset knows it and the last snippet reaches beyond it, else 16 for each snippet. Which
of both it is stands in the attribute `decoder`. Nobody knows the times of the frames: they are NaN.
"""

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from extractors.features import Features, Provenance
from extractors.snippets import SNIPPET_LEN
from pipeline.atomic import remove_abandoned
from pipeline.datasets import load_dataset
from pipeline.datasets.catalog import Dataset
from pipeline.extraction.earlier_results import NO_MORE_FILES
from pipeline.extraction.feature_file import (
    DamagedFileError,
    FeatureFileError,
    feature_path,
    provenance_differences,
    read_header,
    write_features,
)
from pipeline.extraction.feature_folder import finish_folder
from pipeline.extraction.published_files import Crops, ReleaseFiles, find_release_files
from pipeline.extraction.published_video import (
    check_length,
    covered_frames,
    provenance_of,
    read_crops,
    spread_segments,
    trim_rgb,
)
from pipeline.extraction.releases import (
    ImportFeaturesError,
    Release,
    find_release,
)
from pipeline.extraction.status import Failure, StatusTable, forget_failure, note_failure
from pipeline.extraction.video_digest import Source
from pipeline.progress import Progress, ReportProgress, no_report

N_THREADS = 4  # they wait for the disk most of the time
TAIL_BYTES = 2**16  # of each file: features that differ at all differ there


@dataclass(slots=True)
class ImportSummary:
    """How an import ended.

    Attributes:
        n_imported: Videos whose features were written.
        n_kept: Videos whose features had been imported before from the same files.
        n_missing: Videos without any file in the release.
        problems: What is missing, misshapen or not finite, one line each.
        extra: Files of the release that belong to none of the videos.
        provenance: How the features say that they were made.
    """

    n_imported: int = 0
    n_kept: int = 0
    n_missing: int = 0
    problems: list[str] = field(default_factory=list)
    extra: list[Path] = field(default_factory=list)
    provenance: Provenance = field(default_factory=dict)

    def describe(self) -> str:
        """A line for each problem, and one of counts."""
        counts = (
            f"{self.n_imported} imported, {self.n_kept} there already, {self.n_missing} without a "
        )
        counts += f"file, {len(self.problems) - self.n_missing} failed"
        if self.extra:
            counts += f"; {len(self.extra)} files are of no video, first {self.extra[0]}"
        return "\n".join([*self.problems, counts])


@dataclass(frozen=True, slots=True)
class _Task:
    """What all videos of an import share.

    Attributes:
        folder: The dataset's folder of features.
        release: Where the features are from.
        stream_dims: Width of each stream, in order.
        n_crops: Of every video.
        provenance: Of every file.
        frame_counts: The true number of frames, of the videos where the dataset knows it.
        tested: Videos whose frames are scored.
    """

    folder: Path
    release: Release
    stream_dims: dict[str, int]
    n_crops: int
    provenance: Provenance
    frame_counts: Mapping[str, int]
    tested: frozenset[str]


def import_features(
    dataset: str | Path | Dataset,
    folder: str | Path,
    *,
    release: str,
    made_by: str | None = None,
    lists: Sequence[Path] = (),
    features: str | Path = "features",
    report: ReportProgress = no_report,
) -> ImportSummary:
    """Import a published release of features; what was imported before is kept.

    Args:
        dataset: A dataset, its name or the path of its manifest. No video is opened.
        folder: The release as downloaded: all files below it count.
        release: A key of `RELEASES`, or `other`.
        made_by: Who made the features and how, where the release is `other`.
        lists: Lists of files; where there are any, only the files that they name are imported.
        features: Folder of feature files; takes `<dataset>/<video_id>.h5`.
        report: Called after each video.

    Returns:
        How it ended; a bad file stops no other.

    Raises:
        DatasetError: If the dataset is not known.
        ImportFeaturesError: If the release is not known, or no file is that of a video.
        FeatureFileError: If the folder holds features that were imported with different settings.
        OSError: If the disk is full.
    """
    chosen = find_release(release, made_by)
    if not isinstance(dataset, Dataset):
        dataset = load_dataset(dataset, allow_outside=True, allow_duplicates=True)
    folder = Path(folder)
    files = find_release_files(dataset, folder, lists)
    stream_dims, n_crops = _probe(files, chosen, dataset.name)
    task = _Task(
        folder=Path(features, dataset.name),
        release=chosen,
        stream_dims=stream_dims,
        n_crops=n_crops,
        provenance=provenance_of(release, chosen, dataset.name, stream_dims, n_crops),
        frame_counts=dataset.frame_counts,
        tested=frozenset(entry.video_id for entry in dataset.split("test")),
    )
    summary = ImportSummary(extra=files.extra, provenance=task.provenance)
    for name, problem in files.problems.items():
        if name not in files.of_video:
            summary.problems.append(problem)
    if not lists:
        missing = [
            f"{entry.video_id}: no file below {folder} has its features"
            for entry in dataset.entries
            if entry.video_id not in files.of_video
        ]
        summary.n_missing = len(missing)
        summary.problems += missing
    remove_abandoned(task.folder)
    _import_all(task, files, summary, report)
    finish_folder(StatusTable(task.folder, dataset))
    return summary


def _import_all(
    task: _Task, files: ReleaseFiles, summary: ImportSummary, report: ReportProgress
) -> None:
    def import_video(video_id: str) -> Literal["imported", "kept"] | Failure:
        try:
            if video_id in files.problems:
                raise ImportFeaturesError(files.problems[video_id])
            return _import_video(task, video_id, files.of_video[video_id])
        except (ImportFeaturesError, OSError, MemoryError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            if isinstance(cause, OSError) and cause.errno in NO_MORE_FILES:
                raise
            if isinstance(error, _OtherProvenanceError):
                raise
            reason = str(error) or f"{video_id}: not enough memory"
            return Failure(video_id, type(error).__name__, reason, is_quarantined=False)

    pool = ThreadPoolExecutor(N_THREADS)
    try:
        for n_done, outcome in enumerate(pool.map(import_video, files.of_video), start=1):
            if isinstance(outcome, Failure):
                summary.problems.append(outcome.reason)
                note_failure(task.folder, outcome)
            elif outcome == "kept":
                summary.n_kept += 1
            else:
                summary.n_imported += 1
            total = len(files.of_video)
            report(Progress("import", n_done, total, "videos"))
    finally:
        pool.shutdown(cancel_futures=True)


class _OtherProvenanceError(FeatureFileError):
    """The folder holds features that were imported with different settings."""


def _import_video(
    task: _Task, video_id: str, streams: Mapping[str, Crops]
) -> Literal["imported", "kept"]:
    path = feature_path(task.folder, video_id)
    paths = [file for crops in streams.values() for file in crops.values()]
    source = _identify(paths)
    if path.is_file() and _is_kept(path, video_id, task.provenance, source):
        return "kept"
    path.unlink(missing_ok=True)  # what was imported from other files must not stay if these fail
    arrays = _read_streams(task, video_id, streams)
    n_snippets = len(next(iter(arrays.values())))
    n_frames = task.frame_counts.get(video_id)
    if task.release.n_segments and n_frames is None and video_id in task.tested:
        raise ImportFeaturesError(
            f"{video_id}: the number of frames of a test video must be known where features are of "
            f"{task.release.n_segments} segments, and this dataset does not publish it; the scores "
            "would not lie where the labels do"
        )
    if task.release.n_segments and n_frames is not None:
        arrays = {name: spread_segments(values, n_frames) for name, values in arrays.items()}
    elif n_frames is not None:
        check_length(paths[0], n_snippets, n_frames)
    tail_policy = str(task.provenance["tail_policy"])
    n_covered, origin = covered_frames(len(next(iter(arrays.values()))), n_frames, tail_policy)
    features = Features(
        streams=arrays,
        snippet_len=SNIPPET_LEN,
        n_frames=n_covered,
        n_missing=0,
        fps=math.nan,
        timestamps=np.full(n_covered, math.nan),
        decoder=f"imported; number of frames: {origin}",
        tail_policy=tail_policy,
    )
    write_features(
        path,
        features,
        task.provenance,
        video_id=video_id,
        source_name=paths[0].name,
        source=source,
    )
    forget_failure(task.folder, video_id)
    return "imported"


def _is_kept(path: Path, video_id: str, provenance: Provenance, source: Source) -> bool:
    try:
        header = read_header(path)
    except DamagedFileError:
        return False
    differences = provenance_differences(provenance, header.provenance)
    if differences:
        raise _OtherProvenanceError(
            f"{path}: was imported with different settings ({'; '.join(differences)}); "
            "import into another folder with --features"
        )
    return header.video_id == video_id and header.source == source


def _identify(paths: Sequence[Path]) -> Source:
    """What tells a video's files of a release from others of the same names."""
    digest, total = hashlib.sha256(), 0
    for path in paths:
        with path.open("rb") as file:
            n_bytes = file.seek(0, os.SEEK_END)
            file.seek(max(n_bytes - TAIL_BYTES, 0))
            digest.update(f"{path.name} {n_bytes}\n".encode("utf-8", "surrogateescape"))
            digest.update(file.read(TAIL_BYTES))
        total += n_bytes
    return Source(total, digest.hexdigest())


def _probe(files: ReleaseFiles, release: Release, dataset: str) -> tuple[dict[str, int], int]:
    """Streams, their widths and the number of crops that all videos are to have."""
    error: ImportFeaturesError | None = None
    for streams in files.of_video.values():
        if list(streams) and set(streams) != set(files.streams):
            continue
        try:
            arrays = {name: read_crops(streams[name]) for name in files.streams}
        except ImportFeaturesError as problem:
            error = problem
            continue
        dims = {name: values.shape[2] for name, values in arrays.items()}
        n_crops = next(iter(arrays.values())).shape[1]
        expected = {name: release.dims_of(dataset).get(name, dims[name]) for name in dims}
        return expected, release.n_crops.get(dataset, n_crops)
    raise error or ImportFeaturesError(
        f"no video has all of the streams {', '.join(files.streams)}; import one stream alone"
    )


def _read_streams(
    task: _Task, video_id: str, streams: Mapping[str, Crops]
) -> dict[str, NDArray[np.float32]]:
    """By stream (n_snippets, K, D), finite, and RGB trimmed to the length of the flow."""
    arrays = {}
    for name, dim in task.stream_dims.items():
        if name not in streams:
            raise ImportFeaturesError(f"{video_id}: has no {name} features, unlike other videos")
        values = read_crops(streams[name])
        first = next(iter(streams[name].values()))
        if values.shape[1:] != (task.n_crops, dim):
            raise ImportFeaturesError(
                f"{first}: {name} features must have {task.n_crops} crops and D = {dim}, "
                f"instead got {values.shape[1]} crops and D = {values.shape[2]}"
            )
        if task.release.n_segments and len(values) != task.release.n_segments:
            raise ImportFeaturesError(
                f"{first}: must have {task.release.n_segments} segments, instead got {len(values)}"
            )
        n_wrong = values.size - int(np.count_nonzero(np.isfinite(values)))
        if n_wrong:
            raise ImportFeaturesError(f"{first}: {n_wrong} of its values are not finite")
        arrays[name] = values
    return trim_rgb(video_id, arrays)
