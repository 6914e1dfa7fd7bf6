"""`pipeline watch`: score a camera, a stream or a growing file as it comes, and tell its events."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from pipeline.cli.scoring_options import (
    extractor_weights_options,
    merge_seconds_option,
    min_seconds_option,
    run_option,
    threshold_option,
)
from pipeline.cli.shared import (
    device_option,
    errors_in_one_line,
    runs_option,
    say,
    warn,
)

if TYPE_CHECKING:
    from pipeline.scoring.live_records import LiveRecord

END_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@click.command()
@click.argument("source")
@click.option("--scores", is_flag=True, help="Write a line for each snippet's score, too.")
@click.option(
    "--webhook",
    metavar="URL",
    help="Post each line of an event to this address (http or https), too.",
)
@threshold_option
@merge_seconds_option
@min_seconds_option
@run_option
@runs_option
@extractor_weights_options
@device_option
def watch(
    source: str,
    scores: bool,
    webhook: str | None,
    threshold: float | None,
    merge_seconds: float | None,
    min_seconds: float | None,
    run_folder: Path | None,
    runs: Path,
    weights: str | None,
    flow_weights: str | None,
    device: str,
) -> None:
    """Score live video and write a line of JSON when an event begins, continues and ends.

    SOURCE is a camera such as /dev/video0, an address (rtsp, rtsps, http, https), or a file that
    is being written as MPEG-TS, Matroska or fragmented MP4. Each 16 frames are scored when they
    have been received. A machine that is too slow leaves out some of them, 16 at a time, and says
    how many. A source that ends, or sends nothing for 10 seconds, is opened again when it returns.
    A score depends on at most the last 256 snippets, of 16 frames each, fewer where the training
    videos were shorter; `pipeline score` also uses the frames that follow, so that its scores
    differ. A source that is unlike the training videos is named once: at 25 frames per second after
    5.5 minutes if it is so from the start, else after 44.
    Ctrl-C and SIGTERM end the open event and the command; the exit code is 130 after Ctrl-C, and 0
    after SIGTERM, with which a service is stopped.

    \b
    pipeline watch rtsp://user:password@camera/stream --webhook http://localhost:8000/alarm
    pipeline watch /dev/video0 --threshold 0.7 --min-seconds 2
    pipeline watch recording.ts --scores
    """
    with errors_in_one_line(), _stop_on_signals() as stop:
        from pipeline.scoring.live import watch as watch_live
        from pipeline.scoring.live_records import LiveNotice, LiveScore, json_line

        def show(record: LiveRecord) -> None:
            if isinstance(record, LiveNotice):
                (warn if record.is_warning else say)(record.text)
            elif scores or not isinstance(record, LiveScore):
                click.echo(json_line(record))

        summary = watch_live(
            source,
            show,
            run=run_folder,
            runs=runs,
            device=device,
            weights=weights,
            flow_weights=flow_weights,
            threshold=threshold,
            merge_seconds=merge_seconds,
            min_seconds=min_seconds,
            webhook=webhook,
            stop=stop,
        )
        say(summary.describe())
    if stop.signal_number == signal.SIGINT:
        raise KeyboardInterrupt


class _Stop(threading.Event):
    """Says also which signal it was set by; None before."""

    signal_number: int | None = None


@contextmanager
def _stop_on_signals() -> Iterator[_Stop]:
    """An event that is set by the first Ctrl-C or SIGTERM; the second one interrupts."""
    stop = _Stop()

    def end(signal_number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.signal_number = signal_number
        stop.set()

    before = {number: signal.getsignal(number) for number in END_SIGNALS}
    heeded = [number for number in END_SIGNALS if before[number] is not signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, end)
    try:
        yield stop
    finally:
        for number in heeded:
            signal.signal(number, before[number])
