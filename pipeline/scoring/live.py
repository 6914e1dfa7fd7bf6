"""Live scoring as a library function: a camera, a stream or a growing file is scored as it comes.

A stretch is video without interruption: where the source is lost and returns, or its times jump,
a new one begins. No snippet spans two stretches, events end with theirs, and the first snippet of
a stretch is scored without any before it. On a machine that does not keep up whole snippets are
dropped, counted and told; the stretch goes on after them.

A source is named once as unlike the videos of the training: `live_distance.py` says when.
"""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from extractors.decoding.live_decoder import (
    MAX_LAG_SECONDS,
    STALL_SECONDS,
    LiveDecoder,
    LiveSnippet,
    SnippetDropped,
    SourceLost,
    SourceOpened,
)
from extractors.decoding.live_source import LiveSource, LiveSourceError
from extractors.snippets import SNIPPET_LEN, n_snippets
from pipeline.device import describe_device
from pipeline.runs.feature_distance import describe_distance
from pipeline.runs.run_folder import Run
from pipeline.scoring.calibration import read_rule
from pipeline.scoring.live_connections import Connections
from pipeline.scoring.live_distance import UnlikeWindows
from pipeline.scoring.live_events import LiveEvents
from pipeline.scoring.live_records import (
    LiveEvent,
    LiveNotice,
    LiveRecord,
    LiveScore,
    json_line,
    utc_time,
)
from pipeline.scoring.live_scores import LIVE_WINDOW_LEN, FeatureValueError, LiveScorer
from pipeline.scoring.live_webhook import Webhook
from pipeline.scoring.score import RUNS_FOLDER, find_seeds
from pipeline.scoring.scorer import Scorer
from pipeline.scoring.snippet_scores import check_streams

NOTICE_SECONDS = 10.0  # from one notice of dropped snippets to the next

Receive = Callable[[LiveRecord], None]


@dataclass(slots=True)
class WatchSummary:
    """What was scored of a live source.

    Attributes:
        n_scored: Snippets that were scored.
        n_dropped: Snippets that were not.
        n_events: Events that were told.
        n_stretches: Stretches without interruption.
    """

    n_scored: int = 0
    n_dropped: int = 0
    n_events: int = 0
    n_stretches: int = 0

    def describe(self) -> str:
        """One line for a person."""
        return (
            f"{self.n_scored} snippets scored, {self.n_dropped} dropped, {self.n_events} events, "
            f"{self.n_stretches} stretches"
        )


def watch(
    source: str | Path,
    receive: Receive,
    *,
    run: Run | str | Path | None = None,
    runs: str | Path = RUNS_FOLDER,
    device: str = "auto",
    weights: str | Path | None = None,
    flow_weights: str | Path | None = None,
    threshold: float | None = None,
    merge_seconds: float | None = None,
    min_seconds: float | None = None,
    webhook: str | None = None,
    stop: threading.Event | None = None,
) -> WatchSummary:
    """Score a live source until `stop` is set, or Ctrl-C.

    Args:
        source: A camera such as /dev/video0, an address (rtsp, rtsps, http, https), or a file that
            grows and can be read from its start, as MPEG-TS, Matroska and fragmented MP4 can.
        receive: Called with each score, event and notice, in their order; notices also from
            another thread.
        run: As in `score`.
        runs: As in `score`.
        device: As in `score`.
        weights: As in `score`.
        flow_weights: As in `score`.
        threshold: The score that begins an event; None for the run's calibration, else the default.
        merge_seconds: As in `EventRule`; None likewise.
        min_seconds: As in `EventRule`; None likewise.
        webhook: Address (http, https) that each `LiveEvent` is posted to as JSON.
        stop: Ends the call within a few seconds once it is set.

    Returns:
        What was scored.

    Raises:
        LiveSourceError: If the source cannot be read at the start. Once it has been read, it is
            waited for whenever it is lost.
        WebhookError: If the address is neither http nor https.
        ConfigError: If there is no such device.
        CheckpointError: If there is no such run, or its features cannot be computed.
        WeightsError: If the weights cannot be had.
        ValueError: If a value of the event rule is out of its range.
    """
    parsed = LiveSource.parse(str(source))
    hook = None if webhook is None else Webhook(webhook, lambda text: receive(LiveNotice(text)))
    seeds = find_seeds(run, runs)
    rule, calibration = read_rule(
        seeds, threshold=threshold, merge_seconds=merge_seconds, min_seconds=min_seconds
    )
    calibrated = () if calibration is None else calibration.notices(SNIPPET_LEN, is_live=True)
    scorer = Scorer.load(
        seeds, rule, calibration, device=device, weights=weights, flow_weights=flow_weights
    )
    device_text = describe_device(scorer.device)
    loaded = (f"run: {seeds.named.folder}", f"device: {device_text}", *scorer.notices)
    for text in (*loaded, *calibrated):
        receive(LiveNotice(text, is_warning=False))
    return watch_source(parsed, scorer, receive, webhook=hook, stop=stop)


def watch_source(
    source: LiveSource,
    scorer: Scorer,
    receive: Receive,
    *,
    webhook: Webhook | None = None,
    stop: threading.Event | None = None,
    stall_seconds: float = STALL_SECONDS,
    max_lag_seconds: float = MAX_LAG_SECONDS,
) -> WatchSummary:
    """Score a live source with a run that is loaded; arguments and errors as those of `watch`.

    Args:
        source: What to read.
        scorer: The run, its extractor and its rule of events.
        receive: As in `watch`.
        webhook: What posts each event; None for nothing. It is entered and left here.
        stop: As in `watch`.
        stall_seconds: A source that sends nothing for longer is lost.
        max_lag_seconds: No snippet is begun with that is late by more.
    """
    model = scorer.checkpoint.model.to(scorer.device).eval()
    check_streams(model, list(scorer.extractor.stream_dims.items()), Path(source.name))
    live_scorer = LiveScorer(scorer.extractor, model, scorer.device, LIVE_WINDOW_LEN)
    live_scorer.warm_up()
    with ExitStack() as stack:
        if webhook is not None:
            stack.enter_context(webhook)

        def tell(event: LiveEvent) -> None:
            if webhook is not None:
                webhook.post(json_line(event))
            receive(event)

        events = LiveEvents(source.name, scorer.rule, tell)
        watcher = _Watcher(
            source,
            live_scorer,
            scorer.distance_limits,
            scorer.extractor.tail_policy,
            events,
            receive,
        )
        watcher.run(stop or threading.Event(), stall_seconds, max_lag_seconds)
        return watcher.summary


class _Watcher:
    """Connects to a source again and again, and scores what it sends."""

    def __init__(
        self,
        source: LiveSource,
        scorer: LiveScorer,
        distance_limits: tuple[float | None, ...],
        tail_policy: str,
        events: LiveEvents,
        receive: Receive,
    ) -> None:
        self._source, self._scorer, self._tail_policy = source, scorer, tail_policy
        self._events, self._receive = events, receive
        self._distance_limits = distance_limits  # none once the source was found to be beyond them
        self._unlike_windows = UnlikeWindows()
        self._part: int | None = None  # of this connection; None before its first snippet
        self._has_opened = False
        self._notice_at = 0.0
        self.summary = WatchSummary()

    def run(self, stop: threading.Event, stall_seconds: float, max_lag_seconds: float) -> None:
        """Score until `stop` is set."""
        connections = Connections(self._source, self._warn)
        try:
            while not stop.is_set():
                with LiveDecoder(
                    self._source,
                    SNIPPET_LEN,
                    stall_seconds=stall_seconds,
                    max_lag_seconds=max_lag_seconds,
                    n_packets_read=connections.begin(),
                ) as decoder:
                    for event in decoder.read(stop.is_set):
                        match event:
                            case SourceOpened():
                                self._open(event)
                                connections.open()
                            case LiveSnippet():
                                self._score(event)
                            case SnippetDropped():
                                self._drop("cannot keep up")
                            case SourceLost():
                                self._lose(event)
                                connections.lose(event)
                connections.wait(stop)
        finally:
            self._finish("stop")

    def _open(self, opened: SourceOpened) -> None:
        self._has_opened = True
        text = f"{self._source.name}: {opened.codec} {opened.width}x{opened.height}"
        self._receive(LiveNotice(text, is_warning=False))

    def _score(self, snippet: LiveSnippet) -> None:
        times = snippet.times
        if self._part != times.part:
            if self._part is not None:
                self._finish("source")
                self._warn("its times jump; a new stretch begins")
            self._part = times.part
            self.summary.n_stretches += 1
            self._scorer.forget()
            self._events.begin_stretch(self.summary.n_stretches)
        if not n_snippets(
            len(times.timestamps) + times.has_following, SNIPPET_LEN, self._tail_policy
        ):
            return  # as in a file, the tail policy leaves the end out
        try:
            score = self._scorer.score(snippet.frames)
        except FeatureValueError as error:
            self._drop(str(error))
            return
        self.summary.n_scored += 1
        self._receive(
            LiveScore(
                source=self._source.name,
                stretch=self.summary.n_stretches,
                start_seconds=round(float(times.timestamps[0]), 3),
                stop_seconds=round(times.stop_seconds, 3),
                start_time=utc_time(float(times.received[0])),
                stop_time=utc_time(float(times.received[-1])),
                score=round(score, 6),
                delay_seconds=round(max(0.0, time.monotonic() - times.due), 3),
            )
        )
        self._events.add(score, times)
        if self.summary.n_scored % LIVE_WINDOW_LEN == 0:
            self._compare_window()

    def _compare_window(self) -> None:
        """Name the source once if enough windows are beyond the limits."""
        unlike = describe_distance(self._scorer.feature_distance, self._distance_limits)
        if self._unlike_windows.add(is_unlike=bool(unlike)):
            self._warn(unlike)
            self._distance_limits = ()

    def _drop(self, why: str) -> None:
        self.summary.n_dropped += 1
        if time.monotonic() >= self._notice_at:
            self._notice_at = time.monotonic() + NOTICE_SECONDS
            n_all = self.summary.n_scored + self.summary.n_dropped
            self._warn(f"{why}: {self.summary.n_dropped} of {n_all} snippets dropped so far")

    def _lose(self, lost: SourceLost) -> None:
        if not self._has_opened:
            raise LiveSourceError(f"{self._source.name}: {lost.reason}")
        self._finish("source")

    def _finish(self, cause: Literal["source", "stop"]) -> None:
        if self._part is not None:
            self._part = None
            self._events.finish(cause)
        self.summary.n_events = self._events.n_events

    def _warn(self, text: str) -> None:
        self._receive(LiveNotice(f"{self._source.name}: {text}"))
