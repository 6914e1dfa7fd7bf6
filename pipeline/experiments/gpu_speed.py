"""The speed of extraction on a GPU: TV-L1 cut up in several ways, transfers, whole extractions.

    python -m pipeline.experiments.gpu_speed

A part that fails never stops the next. The figures go to a JSON file as they come, and the last
lines are a table of them. `--device cpu` is a rehearsal at tiny size, under Triton's interpreter.
"""

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from extractors.engine import VideoFeatures, extract_videos
from extractors.flow.tvl1 import TVL1Config, tvl1_flow
from extractors.transforms import to_gray
from extractors.uploads import FrameUploads
from pipeline.device import choose_device
from pipeline.experiments.bench_extraction import seconds_of
from pipeline.experiments.gpu_context import Context

Rows = Iterator[tuple[str, float]]
# Iterations of a launch, columns of a thread, rows of a program; pixels solved at once in millions.
VARIANTS = (
    (4, 2, 64, 24),
    (4, 2, 64, 48),
    (4, 2, 64, 12),
    (4, 2, 43, 24),
    (4, 2, 128, 24),
    (3, 2, 64, 24),
    (5, 2, 64, 24),
    (2, 2, 64, 24),
    (3, 3, 64, 24),
    (4, 1, 64, 24),
    (6, 1, 64, 24),
)
N_COMPARED = 4  # snippets for the agreement with torch
TINY_TVL1 = TVL1Config(n_scales=1, n_warps=1, n_inner_iterations=3, n_outer_iterations=1)


@dataclass(frozen=True, slots=True)
class Budget:
    """Until when another measurement may begin."""

    deadline: float

    def is_spent(self) -> bool:
        """Whether no other measurement may begin."""
        return time.monotonic() > self.deadline


def measure_flow(context: Context, budget: Budget) -> Rows:
    """Each variant of TV-L1: how far it is from torch's, and how fast."""
    from extractors.flow.tvl1_cuda import KernelSolver  # noqa: PLC0415
    from extractors.flow.tvl1_state import Tiling  # noqa: PLC0415

    config = TINY_TVL1 if context.is_small else TVL1Config()
    if context.is_small:
        gray = 255 * torch.rand(1, 2, 8, 36, generator=torch.Generator().manual_seed(0))
    else:
        gray = to_gray(context.snippets(32).to(context.device)).float()
    expected = tvl1_flow(gray[:N_COMPARED], config)
    for n_steps, n_columns, segment_len, n_megapixels in VARIANTS[
        : 1 if context.is_small else None
    ]:
        if budget.is_spent():
            return
        name = f"TV-L1 {n_steps} x {n_columns} x {segment_len}, {n_megapixels} Mpx"
        tiling = Tiling(n_steps, n_columns, segment_len)
        n_pixels = gray[0].numel() if context.is_small else n_megapixels * 1_000_000
        solver = KernelSolver(config, n_pixels, tiling)
        started = time.perf_counter()
        error = (solver.flow(gray[:N_COMPARED]) - expected).norm(dim=2).mean(dim=(2, 3))
        yield f"{name}: mean px", float(error.mean())
        yield f"{name}: worst pair px", float(error.max())
        yield f"{name}: first s", time.perf_counter() - started
        n_pairs = error.numel() // len(error) * len(gray)
        flow = partial(solver.flow, gray)
        seconds_of(flow, context.device)  # graphs are recorded
        seconds = min(seconds_of(flow, context.device) for _ in range(3))
        yield f"{name}: pairs/s", n_pairs / seconds
        del solver, flow


def measure_kernels(context: Context, budget: Budget) -> Rows:
    """The share of each kernel in the time of TV-L1."""
    from extractors.flow.tvl1_cuda import KernelSolver  # noqa: PLC0415

    if context.device.type == "cpu":
        return
    gray = to_gray(context.snippets(32).to(context.device)).float()
    solver = KernelSolver(TVL1Config())
    seconds_of(partial(solver.flow, gray), context.device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        seconds = seconds_of(partial(solver.flow, gray), context.device)
    events = sorted(profile.key_averages(), key=lambda event: -event.device_time_total)
    for event in events[:8]:
        yield f"TV-L1 share of {event.key[:40]}", event.device_time_total / 1e6 / seconds
        yield f"TV-L1 launches of {event.key[:40]}", event.count
    yield "TV-L1 seconds while profiled", seconds


def measure_uploads(context: Context, budget: Budget) -> Rows:
    """Milliseconds for the frames of a snippet: pinned first, or registered where they lie."""
    device = context.device
    n_slots = 2 if context.is_small else 8
    for width, height in ((340, 256), (1920, 1080)):
        frames = np.random.default_rng(0).integers(
            0, 256, (n_slots, 17, height, width, 3), np.uint8
        )
        uploads = FrameUploads(device)

        def copy_all(uploads: FrameUploads, frames: np.ndarray, is_pinned: bool) -> None:
            for slot in frames:
                uploads.upload(slot, is_pinned=is_pinned)

        seconds_of(partial(copy_all, uploads, frames, False), device)
        seconds = seconds_of(partial(copy_all, uploads, frames, False), device)
        yield f"upload {width}x{height}, pinned first: ms", 1000 * seconds / n_slots
        started = time.perf_counter()
        unregister = uploads.register(frames)
        yield (
            f"registering {n_slots} slots of {width}x{height}: ms",
            1000 * (time.perf_counter() - started),
        )
        if unregister is None:
            continue
        seconds_of(partial(copy_all, uploads, frames, True), device)
        seconds = seconds_of(partial(copy_all, uploads, frames, True), device)
        yield f"upload {width}x{height}, registered: ms", 1000 * seconds / n_slots
        unregister()


def measure_extraction(context: Context, budget: Budget) -> Rows:
    """Whole extractions, times real time at 25 fps."""
    cases = [(None, 1), ("tvl1", 5), ("tvl1", 1), (None, 5)]
    if context.is_small:
        cases = [(None, 1)]
    for n_frames in (1024, 256):
        paths = _clips(context, 2 if context.is_small else 16, n_frames)
        for flow, crops in cases:
            if budget.is_spent():
                return
            extractor = context.extractor(flow, crops, context.precision)
            _extract(extractor, paths[:4])  # kernels are compiled and chosen
            started = time.perf_counter()
            n_done = _extract(extractor, paths)
            seconds = time.perf_counter() - started
            name = f"{len(paths)} x {n_frames} frames, RGB + {flow}, {crops} crops"
            yield f"{name}: s", seconds
            yield f"{name}: x real time", n_done / 25 / seconds
            del extractor


def _clips(context: Context, n_clips: int, n_frames: int) -> list[Path]:
    """Clips of 340x256, copies of two: to encode 16 long ones would take too much of the time."""
    sources = context.clips(340, 256, n_clips=2, n_frames=n_frames)
    folder = context.folder / "clips" / f"copies-{n_clips}x{n_frames}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index}.mp4" for index in range(n_clips)]
    for index, path in enumerate(paths):
        path.write_bytes(sources[index % len(sources)].read_bytes())
    return paths


def _extract(extractor: object, paths: list[Path]) -> int:
    """The number of frames whose features are there in the end."""
    events = extract_videos(extractor, paths)  # type: ignore[arg-type]
    return sum(event.features.n_frames for event in events if isinstance(event, VideoFeatures))


def measure_decoding(context: Context, budget: Budget) -> Rows:
    """Decoding alone, and how long it takes until the first snippet is there."""
    from extractors.decoding.decode_pool import DecodePool, SnippetDecoded  # noqa: PLC0415
    from extractors.engine import default_workers  # noqa: PLC0415

    paths = context.clips(340, 256, n_clips=16, n_frames=256)
    n_workers = default_workers(context.device)
    started, first, n_frames = time.perf_counter(), 0.0, 0
    with DecodePool(n_workers, 16) as pool:
        for event in pool.decode(paths):
            if isinstance(event, SnippetDecoded):
                first = first or time.perf_counter() - started
                n_frames += len(event.timestamps)
    seconds = time.perf_counter() - started
    yield f"{n_workers} decoders: s to the first snippet", first
    yield f"{n_workers} decoders: s for all", seconds
    yield f"{n_workers} decoders: frames/s after the first snippet", n_frames / (seconds - first)


Part = Callable[[Context, Budget], Rows]
# The share of the seconds at which a part may still begin a measurement.
PARTS: dict[str, tuple[Part, float]] = {
    "flow": (measure_flow, 0.4),
    "kernels": (measure_kernels, 0.5),
    "uploads": (measure_uploads, 0.6),
    "decoding": (measure_decoding, 0.7),
    "extraction": (measure_extraction, 0.85),
}


def main() -> None:
    """Measure everything that fits into the time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("gpu-speed"))
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--parts", default=",".join(PARTS))
    arguments = parser.parse_args()
    if arguments.device == "cpu" and "TRITON_INTERPRET" not in os.environ:
        # It must be there before Triton is imported.
        command = [sys.executable, "-m", "pipeline.experiments.gpu_speed", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "TRITON_INTERPRET": "1"})
    arguments.out.mkdir(parents=True, exist_ok=True)
    context = Context(
        choose_device(arguments.device), arguments.out.absolute(), arguments.device == "cpu"
    )
    started = time.monotonic()
    found: dict[str, float | str] = {}
    for name in arguments.parts.split(","):
        part, share = PARTS[name]
        budget = Budget(started + share * arguments.seconds)
        try:
            for figure, value in part(context, budget):
                found[figure] = value
                sys.stderr.write(f"{time.monotonic() - started:6.1f} s  {figure} {value:.4g}\n")
                text = json.dumps(found, indent=2) + "\n"
                (arguments.out / "speed.json").write_text(text, encoding="utf-8")
        except Exception:  # noqa: BLE001 - whatever it is, the other parts go on
            sys.stderr.write(traceback.format_exc())
            found[f"{name} failed"] = traceback.format_exc().strip().rpartition("\n")[2]
    sys.stdout.write(_table(found))


def _table(found: dict[str, float | str]) -> str:
    lines = [
        f"{name}: {value if isinstance(value, str) else f'{value:.4g}'}"
        for name, value in found.items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
