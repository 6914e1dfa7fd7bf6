"""What live scoring tells its caller: scores and events as they come, and notices for people."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

EVENT_FORMAT, SCORE_FORMAT = "lookaround live event", "lookaround live score"
FORMAT_VERSION = 1
Cause = Literal["score", "dropped", "source", "stop"]


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """An event of a live source has begun, goes on, or has ended.

    Attributes:
        kind: What has happened to it. Each event has one "begin", then "update"s while it lasts,
            then one "end".
        event: Number of the event, from 1; the same from begin to end.
        source: Where it was seen; without a password.
        stretch: Number of the stretch of video without interruption, from 1.
        start_seconds: When its first frame is shown, by the source's own clock.
        stop_seconds: When its last frame so far is replaced by the next one.
        start_time: UTC, when its first frame was received: "2026-01-02T03:04:05.678Z".
        stop_time: UTC, when its last frame so far was received.
        peak: Its highest score so far, in [0, 1].
        peak_seconds: When the first frame with this score is shown.
        mean: The mean score of its frames so far, in [0, 1].
        threshold: The score that begins an event.
        cause: Why it has ended: the score fell below the release score, snippets after it were
            dropped, the source was lost or its times jumped, or scoring was stopped. None before
            the end.
    """

    kind: Literal["begin", "update", "end"]
    event: int
    source: str
    stretch: int
    start_seconds: float
    stop_seconds: float
    start_time: str
    stop_time: str
    peak: float
    peak_seconds: float
    mean: float
    threshold: float
    cause: Cause | None


@dataclass(frozen=True, slots=True)
class LiveScore:
    """The score of one snippet.

    Attributes:
        source: As in `LiveEvent`.
        stretch: As in `LiveEvent`.
        start_seconds: When its first frame is shown, by the source's own clock.
        stop_seconds: When its last frame is replaced by the next one.
        start_time: UTC, when its first frame was received.
        stop_time: UTC, when its last frame was received.
        score: In [0, 1]; higher is more anomalous.
        delay_seconds: From the time at which a player would show the snippet's last frame to the
            score.
    """

    source: str
    stretch: int
    start_seconds: float
    stop_seconds: float
    start_time: str
    stop_time: str
    score: float
    delay_seconds: float


@dataclass(frozen=True, slots=True)
class LiveNotice:
    """Something that a person should know: one line.

    Attributes:
        text: The line.
        is_warning: Whether something is wrong, such as that snippets are dropped; else it is said
            for information.
    """

    text: str
    is_warning: bool = True


LiveRecord = LiveEvent | LiveScore | LiveNotice


def json_line(record: LiveEvent | LiveScore) -> str:
    """A record as one line of JSON, without the line break."""
    kind = EVENT_FORMAT if isinstance(record, LiveEvent) else SCORE_FORMAT
    values = {"format": kind, "format_version": FORMAT_VERSION, **asdict(record)}
    return json.dumps(values, allow_nan=False)


def utc_time(seconds: float) -> str:
    """A time in seconds since 1970 as ISO 8601.

    >>> utc_time(1.5)
    '1970-01-01T00:00:01.500Z'
    """
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
