"""Finding the videos of a published list in the folders into which they were downloaded."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from extractors.decoding.containers import VIDEO_SUFFIXES
from extractors.decoding.frame_folder import IMAGE_CODECS
from pipeline.datasets.catalog import Dataset, Split, VideoEntry

_LISTS = Path(__file__).parent / "lists"


def read_list(dataset: str, file_name: str) -> list[str]:
    """Read the lines of a list that comes with this package."""
    return (_LISTS / dataset / file_name).read_text(encoding="utf-8").splitlines()


def find_listed_videos(
    name: str,
    listed: Sequence[VideoEntry],
    videos: Path | None,
    *,
    homepage: str,
    published_counts: Mapping[Split, tuple[int, int]] | None = None,
    frame_folders: Mapping[str, Path] | None = None,
) -> Dataset:
    """Replace each listed path by that of the file, or the folder of frames, found for it.

    A file belongs to a listed video if it has the same name, whatever its suffix and wherever
    below the folder it is. Of several such files, the one that shares most of its parent folders
    with the listed path is taken. Where two listed videos have one name, the folder must agree. For
    a video without a file, a folder of images that has its name is taken by the same rules.

    Args:
        name: The dataset's.
        listed: Its videos; their paths are relative, as in the official archives.
        videos: Any folder above all of the videos; `data/<name>` by default.
        homepage: Where to get them.
        published_counts: (normal, anomalous) videos of each split, where it is a published one.
        frame_folders: By video_id, another folder in which copies of the dataset hold a video's
            frames; all of its parents must agree.

    Returns:
        The dataset, with all listed videos: those that were not found keep their listed path,
        below the folder. Files, or folders, that fit one video equally well are its `duplicates`.
    """
    folder = Path("data", name) if videos is None else videos
    files: dict[str, list[Path]] = {}
    folders: dict[str, list[Path]] = {}
    for parent, names in walk_folders(folder):
        for path in map(Path, names):
            if path.suffix.lower() in VIDEO_SUFFIXES:
                files.setdefault(path.stem, []).append(parent / path)
        if any(Path(name).suffix.lower() in IMAGE_CODECS for name in names):
            folders.setdefault(parent.name, []).append(parent)
    n_of_name = Counter(entry.path.stem for entry in listed)
    entries: list[VideoEntry] = []
    duplicates: list[tuple[Path, ...]] = []
    for entry in listed:
        n_shared_min = 1 if n_of_name[entry.path.stem] > 1 else 0
        stem = entry.path.stem
        best = _best_matches(entry.path, files.get(stem, []), n_shared_min)
        best = best or _best_matches(entry.path, folders.get(stem, []), n_shared_min)
        if not best and (frames := (frame_folders or {}).get(entry.video_id)) is not None:
            best = _best_matches(frames, folders.get(stem, []), len(frames.parent.parts))
        entries.append(replace(entry, path=best[0] if best else folder / entry.path))
        if len(best) > 1:
            duplicates.append(tuple(best))
    return Dataset(
        name,
        tuple(entries),
        how_to_get=f"get the videos from {homepage} and name their folder with --videos",
        folder=folder,
        duplicates=tuple(duplicates),
        published_counts=published_counts or {},
    )


def walk_videos(folder: Path) -> Iterator[Path]:
    """Yield the video files anywhere below a folder, by name, behind links to folders too."""
    for parent, files in walk_folders(folder):
        for file in files:
            path = parent / file
            if path.suffix.lower() in VIDEO_SUFFIXES:
                yield path


def walk_folders(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield every folder below one and itself, with the names of its files, in order of names.

    Links to folders are followed; a folder that was seen already is left out.
    """
    visited: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders.sort()
        yield Path(parent), sorted(files)


def _best_matches(listed: Path, candidates: Sequence[Path], n_shared_min: int) -> list[Path]:
    """The candidates that share the most parent folders with a listed path, at least so many."""
    n_shared = [_n_shared_parents(listed, path) for path in candidates]
    most = max(n_shared, default=0)
    if most < n_shared_min:
        return []
    return [path for path, n in zip(candidates, n_shared, strict=True) if n == most]


def _n_shared_parents(listed: Path, path: Path) -> int:
    """How many parent folders agree, from the file upwards."""
    pairs = zip(reversed(listed.parent.parts), reversed(path.parent.parts), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
