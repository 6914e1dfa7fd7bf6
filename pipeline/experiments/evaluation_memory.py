"""The peak memory of an evaluation, on synthetic features of the size of XD-Violence's test split.

    python -m pipeline.experiments.evaluation_memory --out memory

800 videos of 2,330,384 frames together (their lengths vary as those of films' parts do), five
crops, two streams of 1,024: 3 GB as float16 on the disk. A model is trained for one step; what is
measured is a process of its own that evaluates it. `--videos 20` shows whether memory grows with
the number of videos.

Measured with CLAV-CoMo on two EPYC cores (torch 2.14, 2026-11-26): 0.99 GB at the peak for 800
videos (3.01 GB of features, 223 s on a busy machine), 0.95 GB for 20. `--controls` is not part of
it: the linear scorers hold the first crop of all training videos.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import pipeline
from extractors.features import Features, Provenance
from extractors.snippets import n_snippets
from pipeline.extraction.feature_file import feature_path, write_features

# Of the test split of XD-Violence.
N_VIDEOS = 800
MEAN_FRAMES = 2_330_384 / N_VIDEOS

N_CROPS = 5
STREAM_DIMS = {"rgb": 1024, "flow": 1024}
LENGTH_SPREAD = 0.8  # standard deviation of the logarithm: the longest is some ten times the mean
PROVENANCE: Provenance = {"extractor": "synthetic", "n_crops": N_CROPS, "is_pretrained": False}

CHILD_CODE = """
import json, sys
from pathlib import Path
import pipeline
run, features = sys.argv[1:]
evaluation = pipeline.evaluate(run, features=features, device="cpu")
# Not ru_maxrss, which begins with what the process that started this one held.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
peak = 1024 * int(status["VmHWM"].split()[0])
print(json.dumps([peak, evaluation.n_videos, evaluation.n_frames]))
"""


@dataclass(frozen=True, slots=True)
class EvaluationMemory:
    """What an evaluation took.

    Attributes:
        n_videos: Test videos.
        n_frames: Frames of them.
        feature_bytes: Size of their feature files.
        peak_bytes: Peak of the resident memory of the process that evaluates.
        seconds: Its wall time.
    """

    n_videos: int
    n_frames: int
    feature_bytes: int
    peak_bytes: int
    seconds: float

    def describe(self) -> str:
        """One line for a user."""
        return (
            f"{self.n_videos} videos, {self.n_frames} frames, {self.feature_bytes / 1e9:.2f} GB of "
            f"features: {self.peak_bytes / 1e9:.2f} GB at the peak, {self.seconds:.0f} s"
        )


def main() -> None:
    """Measure it and print a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for features and the run")
    parser.add_argument("--videos", type=int, default=N_VIDEOS)
    parser.add_argument("--mean-frames", type=float, default=MEAN_FRAMES)
    arguments = parser.parse_args()
    measured = measure_memory(
        arguments.out, n_videos=arguments.videos, mean_frames=arguments.mean_frames
    )
    sys.stdout.write(f"{measured.describe()}\n")


def measure_memory(
    out: Path, *, n_videos: int, mean_frames: float, stream_dims: dict[str, int] | None = None
) -> EvaluationMemory:
    """Write features, train for a step, and evaluate in another process.

    Args:
        out: Takes `features/synthetic-<n_videos>`, the manifest and the run.
        n_videos: Videos of the test split; a video of each label is added to train on.
        mean_frames: Their mean number of frames.
        stream_dims: Widths of the streams.

    Raises:
        subprocess.CalledProcessError: If the evaluation fails.
        OSError: If the disk is full.
    """
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(sigma=LENGTH_SPREAD, size=n_videos)
    n_frames = np.maximum(1, np.round(lengths * mean_frames / lengths.mean())).astype(int).tolist()
    name, features = f"synthetic-{n_videos}", out / "features"
    rows = [f"train-{label}.mp4,train,{label}," for label in (0, 1)]
    rows += [
        f"{i}.mp4,test,{i % 2},{f'{n // 3}-{n // 2 + 1}' if i % 2 else ''}"
        for i, n in enumerate(n_frames)
    ]
    out.mkdir(parents=True, exist_ok=True)
    manifest = out / f"{name}.csv"
    manifest.write_text("\n".join(["path,split,label,anomalies", *rows]) + "\n")
    videos = {"train-0": 800, "train-1": 800, **{str(i): n for i, n in enumerate(n_frames)}}
    for video_id, length in videos.items():
        _write_random(features / name, video_id, length, stream_dims or STREAM_DIMS, rng)
    run = pipeline.train(
        str(manifest), features=features, runs=out / "runs", settings=["steps=1"], device="cpu"
    )
    command = [sys.executable, "-c", CHILD_CODE, str(run.folder), str(features)]
    began = time.monotonic()
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    peak_bytes, n_evaluated, n_labels = json.loads(result.stdout)
    return EvaluationMemory(
        n_evaluated,
        n_labels,
        feature_bytes=sum(
            feature_path(features / name, str(i)).stat().st_size for i in range(n_videos)
        ),
        peak_bytes=peak_bytes,
        seconds=time.monotonic() - began,
    )


def _write_random(
    folder: Path,
    video_id: str,
    n_frames: int,
    stream_dims: dict[str, int],
    rng: np.random.Generator,
) -> None:
    shape = n_snippets(n_frames), N_CROPS
    features = Features(
        streams={
            stream: rng.standard_normal((*shape, dim), dtype=np.float32)
            for stream, dim in stream_dims.items()
        },
        snippet_len=16,
        n_frames=n_frames,
        n_missing=0,
        fps=24.0,
        timestamps=np.arange(n_frames) / 24,
        decoder="none",
    )
    write_features(
        feature_path(folder, video_id),
        features,
        PROVENANCE,
        video_id=video_id,
        source_name=f"{video_id}.mp4",
    )


if __name__ == "__main__":
    main()
