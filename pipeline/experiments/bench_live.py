"""Measure the delay of live scores: from the last frame of a snippet to its score.

A file grows as a camera would make it, one frame at its time, and `watch_source` scores it. A delay
is the time from writing a snippet's last frame to receiving its score; it includes the muxer, the
file, the decoder, which knows a frame's end only when the next one begins, and the model. Weights
are random: they do not affect the speed.

    python -m pipeline.experiments.bench_live --flow none --fps 25 --seconds 30
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from extractors.build import ExtractorChoice
from extractors.decoding.live_source import LiveSource
from extractors.decoding.pyav_file import open_video, select_stream
from extractors.decoding.pyav_reader import read_index
from extractors.names import FLOWS, NO_FLOW
from models import model_class
from pipeline.device import choose_device, describe_device
from pipeline.experiments.clips import make_clips
from pipeline.runs.checkpoints import Checkpoint
from pipeline.scoring.live import WatchSummary, watch_source
from pipeline.scoring.live_records import LiveRecord, LiveScore
from pipeline.scoring.live_scores import LiveScorer
from pipeline.scoring.scorer import Scorer

STALL_SECONDS = 60.0
START_SECONDS, END_SECONDS = 5.0, 5.0  # until the file is open; until the last score


@dataclass(frozen=True, slots=True)
class LiveDelays:
    """What was measured.

    Attributes:
        delays: Seconds, of each snippet that was scored.
        summary: How many were scored and dropped.
    """

    delays: Sequence[float]
    summary: WatchSummary

    def describe(self) -> str:
        """One line: delays in seconds, and what was dropped."""
        if not self.delays:
            return f"no snippet was scored in time; {self.summary.describe()}"
        median, high = np.percentile(self.delays, [50, 95])
        return (
            f"delay: median {median:.2f} s, 95% {high:.2f} s, maximum {max(self.delays):.2f} s; "
            f"{self.summary.describe()}"
        )


def bench_live(
    scorer: Scorer, *, fps: int = 25, seconds: float = 30.0, width: int = 320, height: int = 240
) -> LiveDelays:
    """Score a file while it is written in real time.

    Args:
        scorer: The run and its extractor.
        fps: Frames per second.
        seconds: Length of the video.
        width: Pixels, even.
        height: Pixels, even.

    Raises:
        OSError: If the files cannot be written or read.
    """
    LiveScorer(scorer.extractor, scorer.checkpoint.model.eval(), scorer.device).warm_up()
    stop = threading.Event()
    told: list[tuple[float, LiveScore]] = []

    def receive(record: LiveRecord) -> None:
        if isinstance(record, LiveScore):
            told.append((time.monotonic(), record))

    with tempfile.TemporaryDirectory() as folder:
        n_frames = round(fps * seconds)
        (clip,) = make_clips(Path(folder), n_clips=1, n_frames=n_frames, width=width, height=height)
        growing = Path(folder, "growing.ts")
        growing.touch()
        written: list[float] = []
        camera = threading.Thread(
            target=_write_in_real_time, args=[clip, growing, fps, written, stop]
        )
        camera.start()
        source = LiveSource.parse(str(growing))
        summary = watch_source(source, scorer, receive, stop=stop, stall_seconds=STALL_SECONDS)
        camera.join()
        first_seconds = float(read_index(growing).timestamps[0])
    return LiveDelays(_delays(told, written, first_seconds, fps), summary)


def _write_in_real_time(
    clip: Path, path: Path, fps: int, written: list[float], stop: threading.Event
) -> None:
    """Copy a clip to MPEG-TS, each frame at its time; `written` receives the times."""
    options = {"flush_packets": "1"}
    with (
        open_video(clip) as source,
        av.open(str(path), "w", format="mpegts", options=options) as out,
    ):
        stream = out.add_stream_from_template(select_stream(source, clip))
        time_base = 1 / Fraction(fps)
        time.sleep(START_SECONDS)
        begin = time.monotonic()
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            time.sleep(max(0.0, begin + number / fps - time.monotonic()))
            packet.stream, packet.time_base = stream, time_base
            packet.pts = packet.dts = number
            out.mux(packet)
            written.append(time.monotonic())
    stop.wait(END_SECONDS)
    stop.set()


def _delays(
    told: Sequence[tuple[float, LiveScore]],
    written: Sequence[float],
    first_seconds: float,
    fps: int,
) -> list[float]:
    """Of each scored snippet: from writing its last frame to its score."""
    lasts = [round((score.stop_seconds - first_seconds) * fps) - 1 for _, score in told]
    return [when - written[last] for (when, _), last in zip(told, lasts, strict=True)]


def _random_scorer(choice: ExtractorChoice, device: str) -> Scorer:
    """CLAV-CoMo and an extractor, neither of them trained."""
    chosen = choose_device(device)
    extractor = choice.build(chosen)
    kind = model_class("clav-como")
    model = kind(kind.config_type(stream_dims=tuple(extractor.stream_dims.items())))
    checkpoint = Checkpoint(model, "clav-como", extractor.provenance(), "none", seed=0, step=0)
    return Scorer(checkpoint, extractor, chosen)


def main() -> None:
    """Measure with the options of the command line, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flow", default=NO_FLOW, choices=[*FLOWS, NO_FLOW])
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    choice = ExtractorChoice(flow=arguments.flow, crops=1, weights="random:0")
    scorer = _random_scorer(choice, arguments.device)
    delays = bench_live(scorer, fps=arguments.fps, seconds=arguments.seconds)
    device = describe_device(scorer.device)
    sys.stdout.write(f"{device}, flow {arguments.flow}, {arguments.fps} fps: {delays.describe()}\n")


if __name__ == "__main__":
    main()
