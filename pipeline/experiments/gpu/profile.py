"""Profile of an extraction: fractions of its time by kind of GPU kernel and by Python function."""

import cProfile
import io
import pstats
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from extractors.engine import extract_videos
from extractors.features import Extractor

# What a kernel is for, by its name; the first that matches.
KINDS = {
    "flow": r"advance_kernel|linearize_kernel|median_kernel",
    "copy": r"Memcpy|Memset",
    "resize": r"upsample|interpolate",
    "network": r"conv|cudnn|gemm|xmma|cutlass|pool|implicit|nchw|nhwc|sm\d\d_|relu|reduce|cat",
}
N_FUNCTIONS = 25


def profile_extraction(
    extractor: Extractor, paths: Sequence[Path], folder: Path
) -> Iterator[dict[str, Any]]:
    """Profile the extraction of some videos.

    Args:
        extractor: What is profiled.
        paths: The videos.
        folder: Where the tables of kernels and of functions are written.

    Yields:
        Fractions of the wall time.
    """

    def extract() -> float:
        started = time.perf_counter()
        for _ in extract_videos(extractor, paths):
            pass
        if extractor.device.type == "cuda":
            torch.cuda.synchronize(extractor.device)
        return time.perf_counter() - started

    yield {"first_seconds": extract(), "seconds": extract()}
    python = cProfile.Profile()
    seconds = python.runcall(extract)
    yield {"python": _functions(python, seconds, folder / "functions.txt")}
    if extractor.device.type == "cuda":
        with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as kernels:
            seconds = extract()
        yield {"gpu": _kernels(kernels, seconds, folder / "kernels.txt")}


def _functions(python: cProfile.Profile, seconds: float, path: Path) -> dict[str, float]:
    """The functions that take most of the time by themselves, as fractions of it."""
    text = io.StringIO()
    stats = pstats.Stats(python, stream=text)
    stats.sort_stats("tottime").print_stats(2 * N_FUNCTIONS)
    path.write_text(text.getvalue(), encoding="utf-8")
    rows = [(own, name) for name, (_, _, own, _, _) in stats.stats.items()]  # type: ignore[attr-defined]
    return {
        f"{Path(name[0]).name}:{name[2]}": own / seconds
        for own, name in sorted(rows, reverse=True)[:N_FUNCTIONS]
    }


def _kernels(kernels: Any, seconds: float, path: Path) -> dict[str, float]:
    """The time of the GPU by kind of kernel, and how much of it is idle, as fractions."""
    spans: list[tuple[float, float]] = []
    by_kind: Counter[str] = Counter()
    by_name: Counter[str] = Counter()
    for event in kernels.events():
        if event.device_type.name != "CUDA":
            continue
        start, stop = event.time_range.start, event.time_range.end  # microseconds
        spans.append((start, stop))
        by_kind[_kind(event.name)] += (stop - start) / 1e6
        by_name[event.name] += (stop - start) / 1e6
    busy = last = 0.0
    for start, stop in sorted(spans):
        busy += max(0.0, stop - max(start, last)) / 1e6
        last = max(last, stop)
    lines = [f"{value / seconds:7.2%}  {name}" for name, value in by_name.most_common()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    fractions = {kind: value / seconds for kind, value in by_kind.most_common()}
    return {**fractions, "idle": 1 - busy / seconds, "seconds": seconds}


def _kind(name: str) -> str:
    return next(
        (kind for kind, pattern in KINDS.items() if re.search(pattern, name)), "elementwise"
    )
