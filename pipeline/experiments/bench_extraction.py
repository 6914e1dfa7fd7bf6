"""Benchmark of extraction: decoding, flow and writing alone, and the whole against the network."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from extractors.decoding.decode_pool import DecodePool, SnippetDecoded, VideoLost
from extractors.decoding.video import VideoError
from extractors.engine import VideoFeatures, default_workers, extract_videos
from extractors.features import Extractor, Features
from extractors.transforms import CROP_SIDE
from pipeline.extraction.feature_file import write_features
from pipeline.progress import Progress, ReportProgress, no_report

N_ROWS = 8  # of the table, without that of the optical flow
N_SAMPLED = 32  # snippets by which resizing and flow are measured
N_ROUNDS = 2  # of the network and the whole in turn, so that a machine that slows down slows both


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One line of the table.

    Attributes:
        name: What was measured.
        value: The figure.
        unit: Its unit.
    """

    name: str
    value: float
    unit: str


def bench_extraction(
    extractor: Extractor, paths: Sequence[Path], *, report: ReportProgress = no_report
) -> list[BenchRow]:
    """Measure the extraction of some videos.

    Args:
        extractor: Computes features from frames.
        paths: Videos, read several times over.
        report: Gets the progress in rows.

    Returns:
        The rows of the table.

    Raises:
        VideoError: If a video cannot be read.
    """
    n_rows = N_ROWS + (extractor.flow is not None)
    rows: list[BenchRow] = []
    for row in _measure(extractor, paths):
        rows.append(row)
        report(Progress("bench", len(rows), n_rows, "rows", row.name))
    return rows


def _measure(extractor: Extractor, paths: Sequence[Path]) -> Iterator[BenchRow]:
    """Measure one row after the other."""
    decoding, sample = bench_decoding(extractor, paths)
    yield decoding
    yield from bench_preparation(extractor, sample)
    yield BenchRow("writing, each file to the disk", _write_rate(extractor), "MB/s")
    yield from bench_whole(extractor, paths)


def bench_decoding(
    extractor: Extractor, paths: Sequence[Path]
) -> tuple[BenchRow, list[torch.Tensor]]:
    """Measure decoding alone.

    Returns:
        The row, and the frames (T + 1, H, W, 3) of a few snippets.

    Raises:
        VideoError: If a video cannot be read.
    """
    n_frames = 0
    sample: list[NDArray[np.uint8]] = []
    n_workers = default_workers(extractor.device)
    started = time.perf_counter()
    with DecodePool(n_workers, extractor.snippet_len) as pool:
        for event in pool.decode(paths):
            if isinstance(event, VideoLost):
                raise VideoError(event.reason)
            if isinstance(event, SnippetDecoded):
                n_frames += len(event.timestamps)
                if len(sample) < N_SAMPLED:
                    sample.append(event.frames.copy())
    rate = n_frames / (time.perf_counter() - started)
    row = BenchRow(f"decoding, processes: {n_workers}", rate, "frames/s")
    return row, [torch.from_numpy(frames) for frames in sample]


def bench_preparation(extractor: Extractor, sample: Sequence[torch.Tensor]) -> Iterator[BenchRow]:
    """Measure resizing and optical flow on the frames (T + 1, H, W, 3) of some snippets."""

    def resize() -> list[torch.Tensor]:
        return [extractor.prepare(frames)["frames"] for frames in sample]

    flow, device = extractor.flow, extractor.device
    resized = resize()  # the first time buffers are allocated
    seconds = seconds_of(resize, device)
    yield BenchRow(
        "copying and resizing", len(sample) * extractor.snippet_len / seconds, "frames/s"
    )
    if flow is None:
        return
    batches = [torch.stack(list(group)) for _, group in groupby(resized, key=lambda f: f.shape)]
    n_pairs = sum(len(batch) for batch in batches) * extractor.snippet_len
    seconds_of(lambda: [flow(batch) for batch in batches], device)  # compiles and records kernels
    seconds = seconds_of(lambda: [flow(batch) for batch in batches], device)
    yield BenchRow("optical flow", n_pairs / seconds, "pairs/s")


def bench_whole(
    extractor: Extractor, paths: Sequence[Path], *, n_rounds: int = N_ROUNDS
) -> Iterator[BenchRow]:
    """Measure the whole extraction, and the bare networks on as many snippets, in turn.

    Args:
        extractor: Computes features from frames.
        paths: Videos.
        n_rounds: How often.

    Raises:
        VideoError: If a video cannot be read.
    """
    _extract(extractor, paths[:1])  # the first time kernels are compiled and chosen
    bare = whole = 0.0
    for _ in range(n_rounds):
        started = time.perf_counter()
        features = _extract(extractor, paths)
        whole += time.perf_counter() - started
        n_snippets = sum(video.n_snippets for video in features)
        bare += seconds_of(partial(run_networks, extractor, n_snippets), extractor.device)
    n_frames = sum(video.n_frames for video in features)
    video_seconds = sum(video.n_frames / video.fps for video in features)
    yield BenchRow(
        "bare network, all crops and streams", n_rounds * n_snippets / bare, "snippets/s"
    )
    yield BenchRow("whole extraction", n_rounds * n_frames / whole, "frames/s")
    yield BenchRow("whole extraction / bare network", whole / bare, "of the time")
    speed = n_rounds * video_seconds / whole
    yield BenchRow("whole extraction", speed, "times real time")
    yield BenchRow("1000 hours of such video take", 1000 / speed, "hours on this device")


def _extract(extractor: Extractor, paths: Sequence[Path]) -> list[Features]:
    features = []
    for event in extract_videos(extractor, paths):
        if isinstance(event, VideoLost):
            raise VideoError(event.reason)
        if isinstance(event, VideoFeatures):
            features.append(event.features)
    return features


@torch.inference_mode()
def run_networks(extractor: Extractor, n_snippets: int) -> None:
    """Run the networks on random clips, as many as so many snippets have."""
    batch_len = extractor.n_snippets_per_batch
    for stream, network in extractor.networks.items():
        weight = next(network.parameters())
        n_channels = 2 if stream == "flow" else 3
        clips = torch.rand(
            (batch_len, n_channels, extractor.snippet_len, CROP_SIDE, CROP_SIDE),
            dtype=weight.dtype,
            device=weight.device,
        ).contiguous(memory_format=torch.channels_last_3d)
        for _ in range(-(-n_snippets // batch_len) * extractor.n_crops):
            network(clips)


def _write_rate(extractor: Extractor) -> float:
    """Megabytes per second of feature files of ten minutes of video each."""
    n_snippets = 1000
    n_frames = n_snippets * extractor.snippet_len
    features = Features(
        streams={
            stream: np.ones((n_snippets, extractor.n_crops, dim), np.float32)
            for stream, dim in extractor.stream_dims.items()
        },
        snippet_len=extractor.snippet_len,
        n_frames=n_frames,
        n_missing=0,
        fps=25.0,
        timestamps=np.arange(n_frames) / 25,
        decoder="none",
    )
    n_bytes = 0
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        for index in range(5):
            path = Path(folder, f"{index}.h5")
            write_features(path, features, {}, video_id=path.stem, source_name=path.name)
            n_bytes += path.stat().st_size
        return n_bytes / 1e6 / (time.perf_counter() - started)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Measure how long some work takes, including that of a GPU."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
