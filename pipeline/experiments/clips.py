"""Clips for benchmarks: real ones brought to a size, or synthetic ones where none are at hand."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from extractors.decoding.video import Video
from pipeline.datasets.microworld.dataset import plan_microworld
from pipeline.datasets.microworld.rendering import render
from pipeline.video_writer import write_video

SHARED_VARIABLE = "LOOKAROUND_SHARED"  # names a folder of real videos, for tests and benchmarks
MAX_SOURCES = 6  # more would only take time


def find_real_videos() -> list[Path]:
    """The real videos in the folder that the environment names; none where it is not set."""
    shared = os.environ.get(SHARED_VARIABLE)
    if not shared:
        return []
    return sorted(Path(shared, "data").glob("gmdcsa24/*/*/*.mp4"))


def make_clips(folder: Path, *, n_clips: int, n_frames: int, width: int, height: int) -> list[Path]:
    """Write H.264 clips of one size at 25 fps.

    Args:
        folder: Where to; made if it is missing.
        n_clips: How many; where there are fewer sources they repeat.
        n_frames: Frames of each clip.
        width: Pixels, even.
        height: Pixels, even.

    Returns:
        Their paths.

    Raises:
        OSError: If a clip cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    real = find_real_videos()
    n_sources = min(n_clips, len(real) or 2, MAX_SOURCES)
    paths = []
    for index in range(n_sources):
        frames = _read(real[index]) if real else render(plan_microworld()[8 * index])
        path = folder / f"{index}.mp4"
        clip = islice(_back_and_forth(list(islice(frames, n_frames))), n_frames)
        write_video(path, (_resized(frame, height, width) for frame in clip), fps=25)
        paths.append(path)
    for index in range(n_sources, n_clips):
        path = folder / f"{index}.mp4"
        path.write_bytes(paths[index % n_sources].read_bytes())
        paths.append(path)
    return paths


def _read(path: Path) -> Iterator[NDArray[np.uint8]]:
    for chunk in Video(path).read(16):
        yield from chunk.frames


def _back_and_forth(frames: list[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Frames without end and without a cut: 0 1 2 1 0 1 2 ..."""
    while True:
        yield from frames
        yield from frames[-2:0:-1]


def _resized(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    image = torch.from_numpy(frame).permute(2, 0, 1)[None].float()  # (H, W, C) -> (1, C, H, W)
    resized = functional.interpolate(image, (height, width), mode="bilinear", antialias=True)
    # (1, C, H, W) -> (H, W, C)
    return resized[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
