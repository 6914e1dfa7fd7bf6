"""The speed of extraction on a GPU, the figures that are wanted most first, in ten minutes.

    python -m pipeline.experiments.gpu.speed

TV-L1 tiled in several ways, the network alone, in the extractor and as a CUDA graph, whole
extractions with the fractions of their time, transfers, decoding; last the comparison with TV-L1
in torch, which takes longest. Each part has a time limit of its own. `--device cpu` is a rehearsal
at small size, with Triton's interpreter.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from extractors.decoding.decode_pool import DecodePool, SnippetDecoded
from extractors.engine import VideoFeatures, default_workers, extract_videos
from extractors.features import Extractor
from extractors.flow.tvl1 import TVL1Config, tvl1_flow
from extractors.flow.tvl1_state import Tiling
from extractors.transforms import to_gray
from extractors.uploads import FrameUploads
from pipeline.experiments.bench_extraction import run_networks, seconds_of
from pipeline.experiments.gpu.context import Context
from pipeline.experiments.gpu.profile import profile_extraction
from pipeline.experiments.gpu.runner import Figures, Part, as_text, choose_parts, run_parts

# Iterations of a launch, columns of a thread, rows of a program; pixels solved at once in millions.
TILINGS = (
    (6, 2, 64, 96),  # the default
    (6, 2, 64, 48),
    (6, 2, 64, 24),
    (6, 2, 128, 96),
    (5, 2, 64, 96),
    (4, 2, 64, 96),
    (3, 3, 64, 96),
)
N_SNIPPETS = 64  # of a batch on a GPU
N_CLIPS = (16, 64)  # of a whole extraction
N_COMPARED = 4  # snippets for the agreement with torch
N_TIMES = 3  # of which the shortest counts
TINY_TVL1 = TVL1Config(n_scales=1, n_warps=1, n_inner_iterations=3, n_outer_iterations=1)


def prepare_snippets(context: Context) -> Iterator[Figures]:
    """Make the clips, and decode the snippets that several parts work with."""
    started = time.perf_counter()
    snippets = context.snippets(2 if context.is_small else N_SNIPPETS)
    torch.save(snippets, _snippets_path(context))
    yield {"n_snippets": len(snippets), "seconds": time.perf_counter() - started}


def _snippets_path(context: Context) -> Path:
    return context.folder / "snippets.pt"


def _snippets(context: Context) -> Tensor:
    """Frames (N, 17, 3, 256, 340) uint8 on the device."""
    snippets: Tensor = torch.load(_snippets_path(context), weights_only=True)
    return snippets.to(context.device)


def _gray(context: Context) -> Tensor:
    """Gray frames (N, 17, 256, 340) float32; in a rehearsal (2, 2, 8, 36)."""
    gray = to_gray(_snippets(context)).float()
    return gray[:, :2, 100:108, 100:136].clone() if context.is_small else gray


def _shortest_seconds(work: Callable[[], object], context: Context) -> float:
    """The shortest of some times, once kernels are compiled, chosen and recorded."""
    if context.is_small:
        return seconds_of(work, context.device)
    times = [seconds_of(work, context.device) for _ in range(2 + N_TIMES)]
    return min(times[2:])


def measure_tiling(context: Context, tiling: tuple[int, int, int, int]) -> Iterator[Figures]:
    """The pairs of frames a second of TV-L1 tiled in one way; its flow is kept to be compared."""
    from extractors.flow.tvl1_cuda import KernelSolver  # noqa: PLC0415 - without Triton others go on

    *dims, n_megapixels = tiling
    gray = _gray(context)
    n_pixels = gray[0].numel() if context.is_small else n_megapixels * 1_000_000
    solver = KernelSolver(_tvl1_config(context), n_pixels, Tiling(*dims))
    flow = partial(solver.flow, gray)
    n_pairs = gray.shape[0] * (gray.shape[1] - 1)
    yield {"pairs_per_second": n_pairs / _shortest_seconds(flow, context)}
    torch.save(solver.flow(gray[:N_COMPARED]).cpu(), context.folder / f"{_tiling_name(tiling)}.pt")


def _tvl1_config(context: Context) -> TVL1Config:
    return TINY_TVL1 if context.is_small else TVL1Config()


def _tiling_name(tiling: tuple[int, int, int, int]) -> str:
    return "tvl1-{}x{}x{}-{}Mpx".format(*tiling)


def compare_tilings(context: Context) -> Iterator[Figures]:
    """How far each tiling's flow is from that of TV-L1 in torch, in pixels."""
    started = time.perf_counter()
    expected = tvl1_flow(_gray(context)[:N_COMPARED], _tvl1_config(context)).cpu()
    yield {
        "torch_seconds": time.perf_counter() - started,
        "n_pairs": expected[:, :, 0, 0, 0].numel(),
    }
    for path in sorted(context.folder.glob("tvl1-*.pt")):
        error = (torch.load(path, weights_only=True) - expected).norm(dim=2).mean(dim=(2, 3))
        yield {path.stem: {"mean_px": float(error.mean()), "worst_pair_px": float(error.max())}}


def measure_network(context: Context) -> Iterator[Figures]:
    """A batch in the extractor against the bare networks on as many clips."""
    cases: tuple[tuple[str | None, int], ...] = ((None, 1), (None, 5), ("tvl1", 5))
    if context.is_small:
        cases = (("dis", 1),)
    for flow, crops in cases:
        extractor = context.extractor(flow, crops, context.precision)
        frames = _snippets(context).permute(0, 1, 3, 4, 2)  # (N, 17, 3, H, W) -> (N, 17, H, W, 3)
        batch = [extractor.prepare(snippet) for snippet in frames[: extractor.n_snippets_per_batch]]
        embed = partial(extractor.embed, batch)
        whole = _shortest_seconds(embed, context)
        flow_seconds = 0.0
        if extractor.flow is not None:
            stacked = torch.stack([snippet["frames"] for snippet in batch])
            flow_seconds = _shortest_seconds(partial(extractor.flow, stacked), context)
        bare = _shortest_seconds(partial(run_networks, extractor, len(batch)), context)
        yield {
            f"RGB + {flow}, {crops} crops": {
                "batch_seconds": whole,
                "flow_seconds": flow_seconds,
                "bare_network_seconds": bare,
                "without_flow_per_bare": (whole - flow_seconds) / bare,
            }
        }


def measure_extraction(context: Context, flow: str | None, crops: int) -> Iterator[Figures]:
    """Whole extractions of clips of 1,024 frames, times real time at 25 fps.

    The start of the decoders is part of it, and the end, when only some of them still have a clip.
    """
    extractor = _extractor(context, flow, crops)
    for n_clips in (1,) if context.is_small else N_CLIPS:
        paths = _copies(context, n_clips, 1024)
        if not context.is_small:
            _extract(extractor, paths[:2])  # kernels are compiled and chosen
        started = time.perf_counter()
        n_frames = _extract(extractor, paths)
        seconds = time.perf_counter() - started
        rate = n_frames / 25 / seconds
        figures = {"n_frames": n_frames, "seconds": seconds, "times_real_time": rate}
        yield {f"{n_clips} clips": figures}


def measure_fractions(context: Context) -> Iterator[Figures]:
    """What the time of an extraction with TV-L1 and five crops goes into."""
    paths = _copies(context, 1 if context.is_small else 16, 256)
    yield from profile_extraction(_extractor(context, "tvl1", 5), paths, context.folder)


def _extractor(context: Context, flow: str | None, crops: int) -> Extractor:
    if context.is_small:  # on a CPU TV-L1 takes half a second for each pair
        flow, crops = flow and "dis", 1
    return context.extractor(flow, crops, context.precision)


def _copies(context: Context, n_clips: int, n_frames: int) -> list[Path]:
    """Clips of 340x256, copies of two: to encode 16 long ones would take too much of the time."""
    sources = context.clips(340, 256, n_clips=2, n_frames=n_frames)
    folder = context.folder / "clips" / f"copies-{n_clips}x{n_frames}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index}.mp4" for index in range(n_clips)]
    for index, path in enumerate(paths):
        path.write_bytes(sources[index % len(sources)].read_bytes())
    return paths


def _extract(extractor: Extractor, paths: list[Path]) -> int:
    """The number of frames whose features are there in the end."""
    events = extract_videos(extractor, paths)
    return sum(event.features.n_frames for event in events if isinstance(event, VideoFeatures))


def measure_kernels(context: Context) -> Iterator[Figures]:
    """The fraction of each kernel in the time of TV-L1."""
    from extractors.flow.tvl1_cuda import KernelSolver  # noqa: PLC0415 - without Triton others go on

    flow = partial(KernelSolver(_tvl1_config(context)).flow, _gray(context))
    seconds_of(flow, context.device)
    activity = torch.profiler.ProfilerActivity
    kind = activity.CPU if context.is_small else activity.CUDA
    with torch.profiler.profile(activities=[kind]) as profile:
        seconds = seconds_of(flow, context.device)
    events = sorted(profile.key_averages(), key=lambda event: -event.device_time_total)
    for event in events[:8]:
        fraction = event.device_time_total / 1e6 / seconds
        yield {event.key[:40]: {"fraction": fraction, "launches": event.count}}
    yield {"seconds": seconds}


def measure_uploads(context: Context) -> Iterator[Figures]:
    """Milliseconds for the frames of a snippet: pinned first, or registered where they lie."""
    n_slots = 2 if context.is_small else 8
    for width, height in ((340, 256), (1920, 1080)):
        shape = (n_slots, 17, height, width, 3)
        frames = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        uploads = FrameUploads(context.device)

        def milliseconds(
            is_pinned: bool, frames: np.ndarray = frames, uploads: FrameUploads = uploads
        ) -> float:
            def copy_all() -> None:
                for slot in frames:
                    uploads.upload(slot, is_pinned=is_pinned)

            seconds_of(copy_all, context.device)
            return 1000 * seconds_of(copy_all, context.device) / len(frames)

        yield {f"{width}x{height}, pinned first, ms": milliseconds(False)}
        unregister = uploads.register(frames)
        if unregister is not None:
            yield {f"{width}x{height}, registered, ms": milliseconds(True)}
            unregister()


def measure_decoding(context: Context) -> Iterator[Figures]:
    """Decoding alone, and how long it takes until the first snippet is there."""
    paths = _copies(context, 1 if context.is_small else 16, 256)
    n_workers = default_workers(context.device)
    started, first, n_frames = time.perf_counter(), 0.0, 0
    with DecodePool(n_workers, 16) as pool:
        for event in pool.decode(paths):
            if isinstance(event, SnippetDecoded):
                first = first or time.perf_counter() - started
                n_frames += len(event.timestamps)
    seconds = time.perf_counter() - started
    yield {"n_processes": n_workers, "seconds": seconds, "seconds_to_first_snippet": first}
    yield {"frames_per_second_after_first": n_frames / (seconds - first)}


def _tiling_part(tiling: tuple[int, int, int, int]) -> tuple[str, Part]:
    return _tiling_name(tiling), Part(partial(measure_tiling, tiling=tiling), 25)


def _extraction_part(flow: str | None, crops: int) -> tuple[str, Part]:
    part = Part(partial(measure_extraction, flow=flow, crops=crops), 90)
    return f"extraction-{flow}-{crops}", part


# In order of how much they are wanted. With their usual times they take about eight minutes.
PARTS = dict(
    [
        ("snippets", Part(prepare_snippets, 60)),
        _tiling_part(TILINGS[0]),
        ("network", Part(measure_network, 60)),
        _extraction_part("tvl1", 5),
        *map(_tiling_part, TILINGS[1:]),
        ("fractions", Part(measure_fractions, 90)),
        _extraction_part(None, 1),
        _extraction_part(None, 5),
        _extraction_part("tvl1", 1),
        ("kernels", Part(measure_kernels, 30)),
        ("uploads", Part(measure_uploads, 20)),
        ("decoding", Part(measure_decoding, 20)),
        ("agreement", Part(compare_tilings, 90)),
    ]
)


def main() -> None:
    """Measure everything that fits into the time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a small rehearsal")
    parser.add_argument("--out", type=Path, default=Path("gpu-speed"))
    parser.add_argument("--seconds", type=float, default=570.0, help="of all parts together")
    parser.add_argument("--commit", help="of the code, where git is not at hand")
    parser.add_argument("--parts", help=f"some of {','.join(PARTS)}")
    arguments = parser.parse_args()
    if arguments.device == "cpu" and "TRITON_INTERPRET" not in os.environ:
        # It must be there before Triton is imported.
        command = [sys.executable, "-m", "pipeline.experiments.gpu.speed", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "TRITON_INTERPRET": "1"})
    results = run_parts(
        choose_parts(PARTS, arguments.parts),
        arguments.device,
        arguments.out.absolute(),
        max_seconds=arguments.seconds,
        commit=arguments.commit,
    )
    sys.stdout.write(as_text(results))
    sys.exit(any(part["status"] != "ok" for part in results["parts"].values()))


if __name__ == "__main__":
    main()
