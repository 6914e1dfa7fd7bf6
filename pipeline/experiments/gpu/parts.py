"""The parts of the check on a GPU: each compares with the CPU, or measures, and returns figures.

Every part also runs on a CPU, at a small size, so that it is known to work before a GPU is at hand.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from extractors.engine import VideoFeatures, extract_videos
from extractors.features import Extractor
from extractors.flow import build_flow
from extractors.flow.tvl1 import TVL1Flow, tvl1_flow
from extractors.i3d import I3D
from extractors.transforms import to_gray
from pipeline.config import resolve_config
from pipeline.experiments.bench_extraction import bench_decoding, bench_whole, seconds_of
from pipeline.experiments.gpu.context import Context
from pipeline.experiments.gpu.profile import profile_extraction
from pipeline.experiments.gpu.runner import Figures, Part
from pipeline.extraction.feature_file import read_features
from pipeline.training.batches import BagSet
from pipeline.training.training_loop import Trainer

CPU = torch.device("cpu")
MAX_FLOW_DIFFERENCE_PX = 0.01  # mean, of two implementations of TV-L1
MIN_COSINE = 0.999  # of features with the CPU's in float32

# XD-Violence: training videos, anomalous ones among them, crops of its features.
XD_N_VIDEOS, XD_N_ANOMALOUS, XD_N_CROPS = 3954, 1905, 5
N_EPOCHS = 50


class CheckFailedError(RuntimeError):
    """A figure of the check is not what it must be."""


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise CheckFailedError(complaint)


def _min_cosine(found: Tensor, expected: Tensor) -> float:
    """The smallest cosine of two vectors (..., D) of features of the same snippet."""
    return float(torch.cosine_similarity(found, expected, dim=-1).min())


def check_tests(context: Context) -> Iterator[Figures]:
    """The tests marked `gpu`, which must not be skipped where there is a GPU."""
    command = [sys.executable, "-m", "pytest", "tests", "-m", "gpu", "-rf", "--tb=short"]
    environment = {**os.environ}
    if context.device.type == "cuda":
        environment["REQUIRE_CUDA"] = "1"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    sys.stderr.write(done.stdout + done.stderr)
    last_line = done.stdout.strip().rpartition("\n")[2]
    yield {"pytest": last_line}
    _require(done.returncode == 0, f"pytest ended with {done.returncode}: {last_line}")


def check_flow(context: Context) -> Iterator[Figures]:
    """Optical flow: TV-L1's two implementations against the CPU's, and the speed of all methods."""
    device, frames = context.device, context.snippets(2 if context.is_small else 32)
    n_reference = 1 if context.is_small else 6
    gray = to_gray(frames[:1, : n_reference + 1]).float()
    expected = tvl1_flow(gray)
    implementations = ["torch", "triton"] if device.type == "cuda" else ["torch"]
    on_device = frames.to(device)
    flows = {}
    for implementation in implementations:
        method = TVL1Flow(implementation)  # type: ignore[arg-type]
        error = (method(on_device[:1, : n_reference + 1]).cpu() - expected).norm(dim=2)
        figures = {"mean_px": float(error.mean()), "max_px": float(error.max())}
        yield {f"{implementation}_against_cpu": figures}
        flows[implementation] = method
    if len(flows) == 2:
        some = on_device[:8]
        error = (flows["triton"](some) - flows["torch"](some)).norm(dim=2)
        worst = float(error.mean(dim=(2, 3)).max())
        figures = {"mean_px": float(error.mean()), "worst_pair_px": worst}
        yield {"triton_against_torch": figures | {"max_px": float(error.max())}}
        _require(
            figures["mean_px"] < MAX_FLOW_DIFFERENCE_PX,
            f"Triton's TV-L1 differs from torch's by {figures['mean_px']:.4f} px on average",
        )
    methods = dict(flows, dis=build_flow("dis", device))
    methods["raft"] = build_flow("raft", device, str(context.untrained_raft()))
    for name, flow in methods.items():
        part = on_device[:8] if name == "torch" else on_device
        n_pairs = len(part) * (part.shape[1] - 1)
        work = partial(flow, part)
        seconds_of(work, device)  # kernels are compiled
        n_times = 1 if context.is_small or name == "torch" else 3
        seconds = min(seconds_of(work, device) for _ in range(n_times))
        yield {f"{name}_pairs_per_second": n_pairs / seconds}


def check_features(context: Context) -> Iterator[Figures]:
    """Features of the device against those of the CPU in float32."""
    frames = context.snippets(1 if context.is_small else 3)
    # (T, C, H, W) -> (T, H, W, C), as decoders give them
    given = [snippet.permute(0, 2, 3, 1).contiguous() for snippet in frames]
    precisions = ["float32", "bfloat16"] if context.device.type == "cuda" else ["float32"]
    for flow in (None, "dis", "tvl1") if not context.is_small else (None, "dis"):
        reference = context.extractor(flow, 1, "float32", CPU)
        expected = reference.embed([reference.prepare(snippet) for snippet in given])
        for precision in precisions:
            extractor = context.extractor(flow, 1, precision)
            found = extractor.embed([extractor.prepare(snippet) for snippet in given])
            for stream, values in found.items():
                values = values.cpu()
                figures = {
                    "min_cosine": _min_cosine(values, expected[stream]),
                    "max_difference": float((values - expected[stream]).abs().max()),
                }
                yield {f"{stream}_flow_{flow}_{precision}": figures}
                _require(
                    figures["min_cosine"] > MIN_COSINE,
                    f"{stream} features in {precision} with flow {flow}: {figures}",
                )


def check_extraction(context: Context) -> Iterator[Figures]:
    """The speed of the whole extraction: every flow method, 1, 5 and 10 crops, two sizes."""
    sizes = {"340x256": (340, 256, 16, 256), "1920x1080": (1920, 1080, 16, 64)}
    for size, (width, height, n_clips, n_frames) in sizes.items():
        paths = context.clips(width, height, n_clips, n_frames)
        n_slow = n_clips // 4  # clips for the methods that take most of the time
        for flow in ("none", "tvl1", "raft", "dis", "tvl1 by torch"):
            extractor = _bench_extractor(context, flow)
            if flow == "none":
                row, _ = bench_decoding(extractor, paths)
                yield {f"{size} decoding": {row.unit: row.value}}
            for crops in (1,) if context.is_small else (1, 5, 10):
                if flow == "tvl1 by torch" and (crops, size) != (5, "340x256"):
                    continue  # slow, and only there to compare with
                extractor.n_crops = crops
                fewer = {"tvl1 by torch": 1, "raft": n_slow, "dis": n_slow}
                some = paths[: fewer.get(flow, n_clips)]
                rows = bench_whole(extractor, some, n_rounds=1)
                figures = {f"{row.name}, {row.unit}": row.value for row in rows}
                yield {f"{size} {flow}, {crops} crops": figures}


def _bench_extractor(context: Context, flow: str) -> I3D:
    if context.is_small and flow.startswith("tvl1"):
        flow = "dis"  # on a CPU TV-L1 takes half a second for each pair
    by_name = {"none": None, "tvl1 by torch": "tvl1"}
    extractor = context.extractor(by_name.get(flow, flow), 1, context.precision)
    if flow == "tvl1 by torch":
        extractor.flow = TVL1Flow("torch")
    return extractor


def check_profile(context: Context) -> Iterator[Figures]:
    """What the time of an extraction with TV-L1 and five crops goes into."""
    flow = "dis" if context.is_small else "tvl1"
    extractor = context.extractor(flow, 1 if context.is_small else 5, context.precision)
    paths = context.clips(340, 256, n_clips=16, n_frames=256)
    yield from profile_extraction(extractor, paths, context.folder)


def check_training(context: Context) -> Iterator[Figures]:
    """Training at XD-Violence's size, on features of random numbers."""
    for model in ("clav-como", "la-net", "cbcg"):
        settings = ["steps_per_epoch=2", "steps=8"] if context.is_small else ["steps_per_epoch=100"]
        config = resolve_config(model, "xd_violence", settings=settings)
        bags = _random_bags(context, config.sampler, config.bag_len)
        trainer = Trainer(config, bags, context.device)
        trainer.run_epoch(0)  # kernels are chosen and buffers allocated
        rate = max(trainer.run_epoch(epoch).steps_per_second for epoch in (1, 2, 3))
        n_bags = 2 * config.bags_per_class
        minutes = N_EPOCHS * len(bags.video_ids) / n_bags / rate / 60
        yield {
            model: {
                "steps_per_second": rate,
                "bags_per_step": n_bags,
                f"minutes_for_{N_EPOCHS}_epochs_of_videos": minutes,
                f"minutes_for_{N_EPOCHS}_epochs_of_crops": minutes * XD_N_CROPS,
                "minutes_for_all_steps": config.steps / rate / 60,
            }
        }


def _random_bags(context: Context, sampler: Any, bag_len: int) -> BagSet:
    n_videos, n_anomalous = (40, 20) if context.is_small else (XD_N_VIDEOS, XD_N_ANOMALOUS)
    n_bags, width = n_videos * XD_N_CROPS, 2048
    features = torch.empty((n_bags, bag_len, width), dtype=torch.float16, device=context.device)
    for start in range(0, n_bags, 1000):
        features[start : start + 1000].normal_()
    return BagSet(
        video_ids=tuple(map(str, range(n_videos))),
        labels=(torch.arange(n_videos) < n_anomalous).long(),
        first_bags=np.arange(n_videos) * XD_N_CROPS,
        n_crops=np.full(n_videos, XD_N_CROPS),
        features=features,
        n_snippets=np.full(n_bags, bag_len),
        max_snippets=bag_len,
        sampler=sampler,
        stream_dims=(("rgb", width // 2), ("flow", width // 2)),
        provenance={},
        snippets=features[:4096, 0].float().cpu(),
        snippet_videos=np.arange(n_bags)[:4096] // XD_N_CROPS,
    )


def check_memory(context: Context) -> Iterator[Figures]:
    """A device without room for a whole batch: smaller batches, and the same features."""
    extractor = context.extractor(None if context.is_small else "tvl1", 1, context.precision)
    paths = context.clips(340, 256, n_clips=16, n_frames=256)[:4]
    expected = _features_by_path(extractor, paths)
    if context.device.type == "cuda":
        peak, (_, total) = torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()
        del extractor  # what it keeps from batch to batch was allocated with room enough
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(0.6 * peak / total)
        extractor = context.extractor("tvl1", 1, context.precision)
    else:
        extractor = _WithoutRoom(extractor)  # type: ignore[assignment]
    found = _features_by_path(extractor, paths)
    _require(len(found) == len(paths), "videos were lost when memory was short")
    cosines = [
        _min_cosine(torch.from_numpy(values), torch.from_numpy(expected[path][stream]))
        for path, streams in found.items()
        for stream, values in streams.items()
    ]
    yield {"n_videos": len(found), "min_cosine": min(cosines)}
    _require(min(cosines) > MIN_COSINE, f"features have a cosine of {min(cosines)} only")


class _WithoutRoom:
    """An extractor on a device that has room for one snippet only."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._extractor, name)

    def embed(self, snippets: list[Any]) -> dict[str, Tensor]:
        if len(snippets) > 1:
            raise torch.OutOfMemoryError("no room, on purpose")
        return self._extractor.embed(snippets)


def _features_by_path(extractor: Extractor, paths: list[Path]) -> dict[Path, dict[str, Any]]:
    events = extract_videos(extractor, paths)
    return {
        event.path: event.features.streams for event in events if isinstance(event, VideoFeatures)
    }


def _pipeline(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from pipeline.cli import main; main()", *arguments]


def check_demo(context: Context) -> Iterator[Figures]:
    """Videos to scores by the command line alone."""
    folder = context.folder / "demo"
    folder.mkdir()
    device = ("--device", str(context.device))
    n_steps = 4 if context.is_small else 300
    commands = {
        "make": ("datasets", "make", "microworld"),
        "extract": (
            *("extract", "microworld", "--crops", "1", "--weights", "random:0"),
            *("--flow", "dis" if context.is_small else "tvl1", *device),
        ),
        "train": (
            *("train", "microworld", "--set", f"steps={n_steps}"),
            *("--set", "steps_per_epoch=100", *device),
        ),
        "score": ("score", "data/microworld/footpath_11.mp4", "--out", "scores.csv", *device),
        "evaluate": ("evaluate", "--json", "evaluation.json", *device),
    }
    for name, arguments in commands.items():
        command = _pipeline(*arguments)
        started = time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        sys.stderr.write(done.stdout + done.stderr)
        yield {f"{name}_seconds": time.perf_counter() - started}
        _require(done.returncode == 0, f"{name} ended with {done.returncode}: {done.stderr[-500:]}")
    n_rows = len((folder / "scores.csv").read_text(encoding="utf-8").splitlines())
    yield {"n_scores": n_rows - 1, "table": done.stdout}


def check_restart(context: Context) -> Iterator[Figures]:
    """An extraction that is killed and started again gives the bits of one that was not."""
    paths = context.clips(340, 256, n_clips=16, n_frames=256)
    folder = paths[0].parent
    rows = [f"{path.name},train,{index % 2}," for index, path in enumerate(paths)]
    manifest = folder / "clips.csv"
    manifest.write_text("\n".join(["path,split,label,anomalies", *rows]) + "\n", encoding="utf-8")
    arguments = [
        *("extract", str(manifest), "--crops", "1", "--weights", "random:0"),
        *("--flow", "dis" if context.is_small else "tvl1", "--device", str(context.device)),
    ]
    whole, killed = context.folder / "whole", context.folder / "killed"
    command = _pipeline(*arguments, "--features")
    subprocess.run([*command, str(whole)], check=True)
    process = subprocess.Popen([*command, str(killed)])
    while process.poll() is None and not any(killed.glob("clips/[0-9]*.h5")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    n_before = len(list(killed.glob("clips/[0-9]*.h5")))
    subprocess.run([*command, str(killed)], check=True)
    names = sorted(path.name for path in whole.glob("clips/[0-9]*.h5"))
    n_different = sum(
        not np.array_equal(values, read_features(killed / "clips" / name).features.streams[stream])
        for name in names
        for stream, values in read_features(whole / "clips" / name).features.streams.items()
    )
    yield {"n_done_when_killed": n_before, "n_videos": len(names), "n_different": n_different}
    _require(n_different == 0, f"{n_different} streams differ after the restart")


# The important ones first. Where the disk is cold, to import torch takes a minute; `restart` and
# `demo` do so in several processes.
PARTS = {
    "flow": Part(check_flow, 120),
    "features": Part(check_features, 60),
    "tests": Part(check_tests, 120),
    "profile": Part(check_profile, 90),
    "extraction": Part(check_extraction, 180),
    "restart": Part(check_restart, 150),
    "demo": Part(check_demo, 180),
    "training": Part(check_training, 60),
    "memory": Part(check_memory, 40),
}
