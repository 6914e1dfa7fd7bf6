"""How fast `pipeline score` is as a whole process: start-up, rate, and size of the report.

    python -m pipeline.experiments.bench_scoring

The command is run on clips of 320x240 at 25 fps, by an untrained model on features of random
weights, one crop and DIS flow: sizes and times are those of trained ones. Targets on two cores: the
rate faster than the video, start-up to the first score below 10 seconds on a warm disk, and the
report below 6 MB plus the video. Processor seconds are given beside wall seconds, because on a
machine that others use the latter say little.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from extractors.build import ExtractorChoice
from extractors.names import PRECISIONS
from models import model_class
from pipeline.config import resolve_config, with_streams
from pipeline.experiments.clips import make_clips
from pipeline.experiments.gpu.runner import describe_machine
from pipeline.runs.checkpoints import Checkpoint, save_checkpoint
from pipeline.runs.run_folder import Run

FPS, WIDTH, HEIGHT = 25, 320, 240
SNIPPET_LEN = 16
MAX_START_SECONDS = 10.0
MAX_REPORT_BYTES = 6_000_000


@dataclass(frozen=True, slots=True)
class ScoringSpeed:
    """What was measured.

    Attributes:
        start_seconds: Wall time of scoring one snippet: start-up to the first score.
        start_cpu_seconds: Processor time of the same.
        video_seconds: Length of the longer clip.
        seconds: Wall time of scoring it, start-up included.
        cpu_seconds: Processor time of the same.
        n_cores: Cores that the process may use.
        report_bytes: Size of the longer clip's report.
        video_bytes: Of the clip itself, which is inside the report.
    """

    start_seconds: float
    start_cpu_seconds: float
    video_seconds: float
    seconds: float
    cpu_seconds: float
    n_cores: int
    report_bytes: int
    video_bytes: int

    @property
    def times_real_time(self) -> float:
        """Seconds of video per second, start-up left out; above 1 is faster than the video."""
        return self._rate(self.seconds - self.start_seconds)

    @property
    def times_real_time_alone(self) -> float:
        """The same on a machine that nobody else uses, if all cores share the work evenly."""
        return self._rate((self.cpu_seconds - self.start_cpu_seconds) / self.n_cores)

    def _rate(self, seconds: float) -> float:
        return (self.video_seconds - SNIPPET_LEN / FPS) / seconds

    def describe(self) -> str:
        """The figures beside their targets, one line each."""
        report = self.report_bytes - 4 * self.video_bytes / 3  # as base64
        return (
            f"start-up to first score: {self.start_seconds:.1f} s "
            f"({self.start_cpu_seconds:.1f} s of processor); target {MAX_START_SECONDS:g} s\n"
            f"rate: {self.times_real_time:.2f} times real time, by processor time "
            f"{self.times_real_time_alone:.2f} on {self.n_cores} cores; target 1\n"
            f"report: {report / 1e6:.2f} MB plus the video; target {MAX_REPORT_BYTES / 1e6:g} MB"
        )


def measure_scoring(
    folder: Path, *, video_seconds: float, precision: str = "float32"
) -> ScoringSpeed:
    """Score a clip of one snippet and a longer one, each in a process of its own.

    Args:
        folder: For clips, run and outputs.
        video_seconds: Length of the longer clip.
        precision: Of the networks: one of `PRECISIONS`.

    Raises:
        subprocess.CalledProcessError: If a process fails.
    """
    run = make_untrained_run(folder / "run", precision)
    sizes = {"width": WIDTH, "height": HEIGHT, "n_clips": 1}
    (short,) = make_clips(folder / "short", n_frames=SNIPPET_LEN, **sizes)
    (long,) = make_clips(folder / "long", n_frames=round(video_seconds * FPS), **sizes)
    report = folder / "report.html"
    _score(short, run)  # warms the disk's cache
    start, start_cpu = _score(short, run)
    seconds, cpu = _score(long, run, "--report", str(report))
    return ScoringSpeed(
        start_seconds=start,
        start_cpu_seconds=start_cpu,
        video_seconds=video_seconds,
        seconds=seconds,
        cpu_seconds=cpu,
        n_cores=len(os.sched_getaffinity(0)),
        report_bytes=report.stat().st_size,
        video_bytes=long.stat().st_size,
    )


def make_untrained_run(folder: Path, precision: str = "float32") -> Run:
    """Write a run of CLAV-CoMo as it is before training, for one crop, DIS flow, random weights."""
    choice = ExtractorChoice("i3d", "dis", 1, weights="random:0", precision=precision)
    extractor = choice.build(torch.device("cpu"))
    config = with_streams(
        resolve_config("clav-como", "none"), tuple(extractor.stream_dims.items())
    ).model
    model = model_class("clav-como")(config).eval()
    run = Run(folder)
    checkpoint = Checkpoint(model, "clav-como", extractor.provenance(), "none", seed=0, step=0)
    save_checkpoint(run.checkpoint_path, checkpoint)
    return run


def _score(video: Path, run: Run, *options: str) -> tuple[float, float]:
    """Wall and processor seconds of `pipeline score` on one video."""
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "score", str(video)]
    command += ["--run", str(run.folder), "--out", os.devnull, "--device", "cpu", *options]
    started, used = time.perf_counter(), _children_seconds()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started, _children_seconds() - used


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure, and print the figures and the machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--video-seconds", type=float, default=30.0, help="of the longer clip")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        speed = measure_scoring(
            Path(folder),
            video_seconds=arguments.video_seconds,
            precision=arguments.precision,
        )
    sys.stdout.write(f"{json.dumps(describe_machine(None))}\n{json.dumps(asdict(speed))}\n")
    sys.stdout.write(f"{speed.describe()}\n")


if __name__ == "__main__":
    main()
