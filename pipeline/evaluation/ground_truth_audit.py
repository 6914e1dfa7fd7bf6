"""Comparing a ground-truth file with the known conventions: which rule and order explain it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extractors.decoding.containers import VIDEO_SUFFIXES
from pipeline.datasets.catalog import Dataset, DatasetError
from pipeline.evaluation.ground_truth import GroundTruth, make_ground_truth
from pipeline.evaluation.ground_truth_conventions import FrameLabels, conventions_of
from pipeline.text_file import check_is_regular, read_text

# Ten million frames are 93 hours at 30 fps; the largest test split has 2.3 million.
MAX_FRAMES = 10_000_000
MAX_ORDER_BYTES = 10_000_000


@dataclass(frozen=True, slots=True)
class VideoDifference:
    """One video whose labels differ.

    Attributes:
        video_id: Its id.
        n_frames: Frames in the file that was audited, and in our ground truth.
        n_anomalous: Anomalous frames in the file, and in our ground truth.
        n_different: Frames, of those that both have, with another label.
    """

    video_id: str
    n_frames: tuple[int, int]
    n_anomalous: tuple[int, int]
    n_different: int

    def describe(self) -> str:
        """One line for a user."""
        return (
            f"{self.video_id}: {self.n_frames[0]} frames instead of {self.n_frames[1]}, "
            f"{self.n_anomalous[0]} anomalous instead of {self.n_anomalous[1]}, "
            f"{self.n_different} labels differ"
        )


@dataclass(frozen=True, slots=True)
class Match:
    """The convention and order that come closest to a file of the same length.

    Attributes:
        convention: Its name.
        rule: Its rule, in one sentence.
        order: The order of the videos, in words.
        n_different: Frames with another label; 0 where the rule explains the file.
        unexplained: The videos that these frames are in, compared with the convention.
        classes_without_anomaly: Classes that have no anomalous frame in the file, but have some by
            the convention: a sign of a broken file.
    """

    convention: str
    rule: str
    order: str
    n_different: int
    unexplained: tuple[VideoDifference, ...]
    classes_without_anomaly: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GroundTruthAudit:
    """How a ground-truth file differs from ours.

    Attributes:
        n_frames: Frames in the file, and in our ground truth.
        n_anomalous: Anomalous frames in the file, and in our ground truth.
        known_lengths: The lengths of all conventions that could be computed, by name.
        match: The closest convention of the same length; None if none has this length.
        differences: The videos that differ from ours; none where `match` is None, because then it
            is not known where in the file a video begins.
    """

    n_frames: tuple[int, int]
    n_anomalous: tuple[int, int]
    known_lengths: Mapping[str, int]
    match: Match | None
    differences: tuple[VideoDifference, ...]

    def describe(self) -> list[str]:
        """Lines for a user."""
        lines = [
            f"frames: {self.n_frames[0]}, ours {self.n_frames[1]}",
            f"anomalous: {self.n_anomalous[0]}, ours {self.n_anomalous[1]}",
        ]
        if self.match is None:
            known = ", ".join(f"{name} {n}" for name, n in self.known_lengths.items())
            return [*lines, f"explained by: no known convention has this length ({known})"]
        match = self.match
        verdict = f"{match.convention}, {match.order}: {match.rule}"
        if match.n_different:
            verdict += f"; but {match.n_different} labels differ from it"
        lines.append(f"explained by: {verdict}")
        lines += [f"not explained: {each.describe()}" for each in match.unexplained]
        if match.classes_without_anomaly:
            classes = ", ".join(match.classes_without_anomaly)
            lines.append(f"broken: no anomalous frame in the classes {classes}")
        return [*lines, *(f"differs from ours: {each.describe()}" for each in self.differences)]


def audit_ground_truth(
    path: Path, dataset: Dataset, features_folder: Path, *, order: Sequence[str] | None = None
) -> GroundTruthAudit:
    """Compare a `gt.npy` with our ground truth, and find the convention that explains it.

    Conventions that need lengths which are not known are left out.

    Args:
        path: A NumPy file of one label, 0 or 1, per frame of all test videos.
        dataset: Whose test split it is about.
        features_folder: As for `make_ground_truth`.
        order: The ids of the test videos in the order of the file. Without it, the order of the
            dataset's list and that of the names are tried.

    Raises:
        DatasetError: If the file is not such labels, the order is not one of the test videos, or
            our own ground truth cannot be made.
        OSError: If the file cannot be read.
    """
    theirs = read_labels(path)
    ours = make_ground_truth(dataset, features_folder)
    orders = _orders(dataset, order)
    known = {truth.convention: truth for truth in _known_truths(dataset, features_folder, ours)}
    best: tuple[int, GroundTruth, str] | None = None
    for truth in known.values():
        for name, video_ids in orders.items() if truth.n_frames == theirs.size else ():
            n_different = int((truth.concatenate(video_ids) != theirs).sum())
            if best is None or n_different < best[0]:
                best = (n_different, truth, name)
    parts: dict[str, FrameLabels] = {}
    if best is not None:
        parts = _split(theirs, best[1], orders[best[2]])
    return GroundTruthAudit(
        n_frames=(theirs.size, ours.n_frames),
        n_anomalous=(int(theirs.sum()), ours.n_anomalous),
        known_lengths={name: truth.n_frames for name, truth in known.items()},
        match=None if best is None else _match(dataset, parts, *best),
        differences=tuple(_differences(parts, ours)),
    )


def read_labels(path: Path) -> FrameLabels:
    """Read a NumPy file of one label per frame, of any numeric type.

    Raises:
        DatasetError: If it holds anything else.
        OSError: If it cannot be read.
    """
    kind = "a NumPy file (.npy) of one label, 0 or 1, per frame"
    expected = f"expected {kind}"
    check_is_regular(path, kind, error=DatasetError)
    try:
        # Mapped, so that a forged header does not allocate; and never unpickled.
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DatasetError(f"{path}: is no array of numbers; {expected}") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        raise DatasetError(f"{path}: is no array of numbers; {expected}")
    values = values.squeeze()
    if values.ndim != 1 or not 0 < values.size <= MAX_FRAMES:
        raise DatasetError(f"{path}: has the shape {values.shape}; {expected}")
    if not np.isin(values, (0, 1)).all():
        raise DatasetError(f"{path}: has values that are neither 0 nor 1; {expected}")
    return np.asarray(values, dtype=bool)


def read_order(path: Path) -> list[str]:
    """Read the order of the videos from a list of names, or of feature files as others use it.

    >>> [_video_of("features/-fall_x264__9.npy"), _video_of("Abuse028_x264_i3d.npy")]
    ['-fall_x264', 'Abuse028_x264']

    Returns:
        The names, each once, without folders, suffixes and numbers of crops.

    Raises:
        DatasetError: If it is not a regular file of UTF-8 text, is larger than a list of videos,
            or cannot be read.
    """
    text = read_text(
        path,
        "a list of videos",
        max_bytes=MAX_ORDER_BYTES,
        error=DatasetError,
        layout="with one name a line",
    )
    return list(dict.fromkeys(_video_of(line) for line in text.splitlines() if line.strip()))


def _video_of(line: str) -> str:
    """The name of a video from the path of its file or of its features."""
    name = line.strip().rpartition("/")[2]
    if Path(name).suffix.lower() in (*VIDEO_SUFFIXES, ".npy"):
        name = name.rpartition(".")[0]
    return re.sub(r"(_i3d)?(__[0-9])?$", "", name)


def _known_truths(
    dataset: Dataset, features_folder: Path, ours: GroundTruth
) -> Iterator[GroundTruth]:
    yield ours
    for name in conventions_of(dataset.name):
        try:
            yield make_ground_truth(dataset, features_folder, convention=name)
        except DatasetError:  # a length that it needs is not known
            continue


def _orders(dataset: Dataset, order: Sequence[str] | None) -> dict[str, list[str]]:
    """The orders of the test videos to try, by a description."""
    listed = [entry.video_id for entry in dataset.split("test")]
    if order is None:
        return {"in the order of the list": listed, "in the order of the names": sorted(listed)}
    given = set(order)
    if len(order) != len(listed) or given != set(listed):
        wrong = sorted(given ^ set(listed))
        raise DatasetError(
            f"{dataset.name}: the order must name each of the {len(listed)} test videos once, "
            f"instead got {len(order)} names"
            + (f", of which {wrong[0]!r} is missing or unknown" if wrong else "")
        )
    return {"in the given order": list(order)}


def _split(
    theirs: FrameLabels, truth: GroundTruth, video_ids: Sequence[str]
) -> dict[str, FrameLabels]:
    """Cut a file into its videos, whose lengths are those of a convention."""
    stops = np.cumsum([truth.labels[video_id].size for video_id in video_ids])
    return dict(zip(video_ids, np.split(theirs, stops[:-1]), strict=True))


def _match(
    dataset: Dataset,
    parts: Mapping[str, FrameLabels],
    n_different: int,
    truth: GroundTruth,
    order: str,
) -> Match:
    n_anomalous: dict[str, list[int]] = {}
    for entry in dataset.split("test"):
        for name in entry.categories:
            counts = n_anomalous.setdefault(name, [0, 0])
            counts[0] += int(parts[entry.video_id].sum())
            counts[1] += int(truth.labels[entry.video_id].sum())
    return Match(
        truth.convention,
        truth.rule,
        order,
        n_different,
        unexplained=tuple(_differences(parts, truth)),
        classes_without_anomaly=tuple(
            name for name, (found, expected) in n_anomalous.items() if expected and not found
        ),
    )


def _differences(parts: Mapping[str, FrameLabels], truth: GroundTruth) -> Iterator[VideoDifference]:
    for video_id, theirs in parts.items():
        ours = truth.labels[video_id]
        n_both = min(theirs.size, ours.size)
        n_different = int((theirs[:n_both] != ours[:n_both]).sum())
        if n_different or theirs.size != ours.size:
            yield VideoDifference(
                video_id,
                (theirs.size, ours.size),
                (int(theirs.sum()), int(ours.sum())),
                n_different,
            )
