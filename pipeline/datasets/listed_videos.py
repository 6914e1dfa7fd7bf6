"""Finding the videos of a published list in the folders into which they were downloaded."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from pipeline.datasets.catalog import Dataset, Split, VideoEntry

VIDEO_SUFFIXES = frozenset(
    (".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
)

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
) -> Dataset:
    """Replace each listed path by that of the file found for it.

    A file belongs to a listed video if it has the same name, whatever its suffix and wherever
    below the folder it is. Of several such files, the one that shares most of its parent folders
    with the listed path is taken. Where two listed videos have one name, the folder must agree.

    Args:
        name: The dataset's.
        listed: Its videos; their paths are relative, as in the official archives.
        videos: Any folder above all of the videos; `data/<name>` by default.
        homepage: Where to get them.
        published_counts: (normal, anomalous) videos of each split, where it is a published one.

    Returns:
        The dataset, with all listed videos: those that were not found keep their listed path,
        below the folder. Files that fit one video equally well are its `duplicates`.
    """
    folder = Path("data", name) if videos is None else videos
    found: dict[str, list[Path]] = {}
    for path in walk_videos(folder):
        found.setdefault(path.stem, []).append(path)
    n_of_name = Counter(entry.path.stem for entry in listed)
    entries: list[VideoEntry] = []
    duplicates: list[tuple[Path, ...]] = []
    for entry in listed:
        n_shared_min = 1 if n_of_name[entry.path.stem] > 1 else 0
        best = best_matches(entry.path, found.get(entry.path.stem, []), n_shared_min)
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


def best_matches(listed: Path, candidates: Sequence[Path], n_shared_min: int) -> list[Path]:
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
