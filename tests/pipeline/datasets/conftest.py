"""Fixtures for the tests of datasets."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def put_videos(write_clip, tmp_path_factory) -> Callable[..., list[Path]]:
    """A function that writes tiny videos under the given names, no two of them alike."""

    def put(folder: Path, *names: str) -> list[Path]:
        paths = [folder / name for name in names]
        for n_frames, path in enumerate(paths, start=1):
            path.parent.mkdir(parents=True, exist_ok=True)
            clip = write_clip(path.with_name("clip.mp4"), n_frames=n_frames, width=16, height=16)
            clip.rename(path)
        return paths

    return put
