"""`watch` on streams that servers send in real time: events, delay, death and return, Ctrl-C.

The servers are small, and their own: RTSP with interleaved RTP (RFC 2326, section 10.12; RFC 2250
for MPEG-TS in RTP), and HTTP. What they send is muxed by PyAV, frame by frame at its time.
"""

import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from extractors.decoding.live_source import LiveSource, LiveSourceError
from extractors.snippets import DROP_TAIL
from models.interface import AnomalyModel, ModelConfig, Output
from pipeline.cli import main
from pipeline.scoring.events import EventRule
from pipeline.scoring.live import watch_source
from pipeline.scoring.live_records import LiveEvent, LiveNotice, LiveScore
from pipeline.scoring.scorer import Scorer

FPS = 100  # so that a snippet takes 0.16 s, and a test not long
PERIOD = 64  # frames: as many dark as bright
SNIPPET_SECONDS = 16 / FPS


class BrightModel(AnomalyModel):
    """Bright snippets are anomalous, whatever is around them."""

    config_type = ModelConfig

    def forward(self, features, mask):
        logits = 40 * (features.mean(dim=2) - 0.4)
        return Output(logits, features)

    def losses(self, output, batch):
        return {}


@pytest.fixture
def scorer(brightness_scorer) -> Scorer:
    model = BrightModel(ModelConfig(stream_dims=(("rgb", 3),)))
    return replace(brightness_scorer, checkpoint=replace(brightness_scorer.checkpoint, model=model))


def write_blinking(path, n_frames, *, fps=FPS, options=None):
    """Dark and bright by turns, dark first."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options=options or {"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.max_b_frames = 0
        for i in range(n_frames):
            gray = 255 * (i // PERIOD % 2)
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), gray, np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def blinking(tmp_path_factory):
    return write_blinking(tmp_path_factory.mktemp("clips") / "blinking.ts", 3000)


class Sink:
    """What PyAV writes to: passed on in whole packets of MPEG-TS."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self.send, self.rest = send, b""

    def write(self, data: bytes) -> int:
        whole = self.rest + bytes(data)
        n_bytes = len(whole) // 188 * 188
        for at in range(0, n_bytes, 7 * 188):
            self.send(whole[at : min(at + 7 * 188, n_bytes)])
        self.rest = whole[n_bytes:]
        return len(data)


class LiveServer:
    """Sends a clip in real time to each client, from its start. `speak` is the protocol."""

    def __init__(self, clip, speak) -> None:
        self.clip, self.speak = clip, speak
        self.is_sending = threading.Event()
        self.is_sending.set()
        self.sent: list[float] = []  # when each frame was sent last
        self.n_clients = 0
        self.sockets: list[socket.socket] = []
        self.port = 0
        self.start()

    def start(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, args=[self.listener], daemon=True).start()

    def die(self) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for client in self.sockets:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        self.sockets = []

    def accept(self, listener) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                self.sockets.append(client)
                self.n_clients += 1
                threading.Thread(target=self.serve, args=[client], daemon=True).start()

    def serve(self, client) -> None:
        with suppress(OSError, av.error.FFmpegError), client:
            send = self.speak(client)
            if send is not None:
                self.stream(send)

    def stream(self, send) -> None:
        self.sent = []
        options = {"flush_packets": "1"}
        with (
            av.open(str(self.clip)) as clip,
            av.open(Sink(send), "w", format="mpegts", options=options) as out,
        ):
            stream = out.add_stream_from_template(clip.streams.video[0])
            began, first = time.monotonic(), None
            for packet in clip.demux(video=0):
                if packet.dts is None:
                    continue
                first = packet.dts if first is None else first
                due = began + float((packet.dts - first) * packet.time_base)
                time.sleep(max(0.0, due - time.monotonic()))
                while not self.is_sending.wait(0.05) and client_is_there(self):
                    pass
                packet.stream = stream
                self.sent.append(time.monotonic())
                out.mux(packet)


def client_is_there(server: LiveServer) -> bool:
    return bool(server.sockets)


def read_request(client) -> tuple[str, dict[str, str]]:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        if not (byte := client.recv(1)):
            raise ConnectionError("closed")
        data += byte
    first, *lines = data.decode().split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines if ": " in line)


def speak_http(client):
    first, _ = read_request(client)
    if "missing" in first:
        client.sendall(b"HTTP/1.0 404 Not Found\r\n\r\n")
        return None
    client.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")
    return client.sendall


def speak_hls(clip):
    """A playlist that names a file of this machine."""

    def speak(client):
        read_request(client)
        playlist = (
            "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:40\n#EXTINF:30.0,\n"
            f"file://{clip}\n#EXT-X-ENDLIST\n"
        )
        head = "HTTP/1.0 200 OK\r\nContent-Type: application/vnd.apple.mpegurl\r\n"
        client.sendall(f"{head}Content-Length: {len(playlist)}\r\n\r\n{playlist}".encode())

    return speak


def speak_rtsp(client):
    """Answer up to PLAY; then each packet is RTP, after `$`, a channel and a length."""
    sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\n"
    while True:
        first, headers = read_request(client)
        method = first.split()[0]
        answer, body = f"RTSP/1.0 200 OK\r\nCSeq: {headers['CSeq']}\r\nSession: 1\r\n", ""
        if method == "OPTIONS":
            answer += "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif method == "DESCRIBE":
            body = sdp
            answer += f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
        elif method == "SETUP":
            assert "TCP" in headers["Transport"]
            answer += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
        client.sendall(f"{answer}\r\n{body}".encode())
        if method == "PLAY":
            break
    numbers = iter(range(1 << 40))
    began = time.monotonic()

    def send(data: bytes) -> None:
        stamp = int((time.monotonic() - began) * 90_000) & 0xFFFFFFFF
        rtp = struct.pack(">BBHII", 0x80, 33, next(numbers) & 0xFFFF, stamp, 1) + data
        client.sendall(struct.pack(">BBH", 0x24, 0, len(rtp)) + rtp)

    return send


SPEAK = {"http": speak_http, "rtsp": speak_rtsp}


class Watch:
    """`watch_source` in a thread, and what it has told so far with the time of each."""

    def __init__(self, source: str, scorer: Scorer, **options) -> None:
        self.told: list[tuple[float, object]] = []
        self.error: BaseException | None = None
        self.summary = None
        self.stop = threading.Event()
        self.arguments = (
            LiveSource.parse(source),
            replace(scorer, rule=EventRule(0.5, merge_seconds=0.1)),
        )
        self.options = options
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        try:
            self.summary = watch_source(
                *self.arguments, self.receive, stop=self.stop, **self.options
            )
        except LiveSourceError as error:
            self.error = error

    def receive(self, record) -> None:
        self.told.append((time.monotonic(), record))

    def all(self, kind) -> list:
        return [record for _, record in self.told if isinstance(record, kind)]

    def events(self, kind) -> list[LiveEvent]:
        return [event for event in self.all(LiveEvent) if event.kind == kind]

    def wait_for(self, is_there, seconds=20.0) -> None:
        deadline = time.monotonic() + seconds
        while not is_there():
            assert time.monotonic() < deadline, [record for _, record in self.told]
            assert self.error is None
            time.sleep(0.01)


@contextmanager
def watching(source, scorer, **options):
    watch = Watch(source, scorer, **options)
    try:
        yield watch
    finally:
        watch.stop.set()
        watch.thread.join(20)
        assert not watch.thread.is_alive()


@pytest.fixture
def serve(blinking):
    servers = []

    def start(protocol) -> LiveServer:
        servers.append(LiveServer(blinking, SPEAK[protocol]))
        return servers[-1]

    yield start
    for server in servers:
        server.die()


@pytest.mark.parametrize("protocol", ["rtsp", "http"])
def test_a_stream_has_its_events_in_time_and_goes_on_when_its_server_returns(
    serve, scorer, protocol
):
    server = serve(protocol)
    address = f"{protocol}://user:secret@127.0.0.1:{server.port}/live?token=secret"
    with watching(address, scorer) as watch:
        watch.wait_for(lambda: watch.events("end"))
        watch.wait_for(lambda: len(watch.events("begin")) == 2)
        server.die()  # while it is bright
        sent = server.sent
        watch.wait_for(lambda: len(watch.events("end")) == 2)
        n_before = len(watch.all(LiveScore))
        server.start()
        watch.wait_for(lambda: len(watch.events("end")) == 3)
    first, second, third = watch.events("end")
    assert (first.cause, second.cause, third.cause) == ("score", "source", "score")
    assert [event.stretch for event in (first, second, third)] == [1, 1, 2]
    assert [event.event for event in (first, second, third)] == [1, 2, 3]
    # Bright from frame 64 to 128; a snippet that is half bright is an event or is not.
    scores = watch.all(LiveScore)
    begin = scores[0].start_seconds
    assert first.start_seconds - begin == pytest.approx(64 / FPS, abs=0.2)
    assert first.stop_seconds - begin == pytest.approx(128 / FPS, abs=0.2)
    # Every snippet of a stretch follows on the one before it, and none spans two.
    for stretch, part in ((1, scores[:n_before]), (2, scores[n_before:])):
        assert {score.stretch for score in part} == {stretch}
        assert part[0].start_seconds == pytest.approx(begin, abs=0.05)
        for before, after in pairwise(part):
            assert after.start_seconds == pytest.approx(before.stop_seconds, abs=2e-3)
    # In time: when the score was told, against when the server had sent the snippet.
    told = [when for when, record in watch.told if isinstance(record, LiveScore)][:n_before]
    ends = [round((score.stop_seconds - begin) * FPS) for score in scores[:n_before]]
    delays = [when - sent[end] for when, end in zip(told, ends, strict=True) if end < len(sent)]
    assert len(delays) > 5
    assert max(delays) < 2
    assert watch.summary.n_stretches == 2
    assert watch.summary.n_events == 3
    assert watch.summary.n_scored == len(scores)
    text = str([record for _, record in watch.told])
    assert "secret" not in text
    assert f"{protocol}://127.0.0.1:{server.port}/live" in text
    assert "waiting until it returns" in text


def test_a_source_that_stalls_is_lost_and_connected_to_again(serve, scorer):
    server = serve("http")
    with watching(f"http://127.0.0.1:{server.port}/", scorer, stall_seconds=1.0) as watch:
        watch.wait_for(lambda: len(watch.all(LiveScore)) > 3)
        server.is_sending.clear()
        began = time.monotonic()
        watch.wait_for(lambda: any("waiting until it returns" in n.text for n in notices(watch)))
        assert any("it sends nothing for 1 s" in notice.text for notice in notices(watch))
        assert 0.8 < time.monotonic() - began < 8
        server.is_sending.set()
        watch.wait_for(lambda: watch.all(LiveScore)[-1].stretch == 2)
    assert server.n_clients == 2


def notices(watch) -> list[LiveNotice]:
    return watch.all(LiveNotice)


def test_a_server_that_never_answers_is_an_error_at_the_start(scorer):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"rtsp://127.0.0.1:{listener.getsockname()[1]}/live"
        watch = Watch(address, scorer, stall_seconds=0.5)
        watch.thread.join(20)
    assert str(watch.error) == f"{address}: cannot be opened: it sends nothing for 0.5 s"


def test_a_machine_that_does_not_keep_up_drops_whole_snippets_says_so_and_stays_in_time(
    serve, scorer
):
    server = serve("http")
    prepare = scorer.extractor.prepare

    def prepare_slowly(frames):
        time.sleep(0.4)
        return prepare(frames)

    scorer.extractor.prepare = prepare_slowly
    address = f"http://127.0.0.1:{server.port}/"
    with watching(address, scorer, max_lag_seconds=0.3) as watch:
        watch.wait_for(lambda: len(watch.all(LiveScore)) == 8, 30)
    scores = watch.all(LiveScore)
    assert watch.summary.n_scored == len(scores)
    assert watch.summary.n_dropped >= 8
    assert any("cannot keep up: 1 of" in notice.text for notice in notices(watch))
    for score in scores:  # still the frames of one snippet each, at the place of one
        place = (score.start_seconds - scores[0].start_seconds) / SNIPPET_SECONDS
        assert place == pytest.approx(round(place), abs=0.1)
        assert score.stop_seconds - score.start_seconds == pytest.approx(SNIPPET_SECONDS, abs=2e-3)
        assert score.delay_seconds < 1.5


@pytest.mark.parametrize("suffix", ["ts", "mkv"])
def test_a_file_has_the_times_of_score_and_its_last_score(
    brightness_scorer, write_clip, tmp_path, suffix
):
    path = write_clip(tmp_path / f"clip.{suffix}", n_frames=120)
    whole = brightness_scorer.score(path)
    with watching(str(path), brightness_scorer, stall_seconds=0.5, max_lag_seconds=60) as watch:
        watch.wait_for(lambda: len(watch.all(LiveScore)) == 8)
    scores = watch.all(LiveScore)
    assert [s.start_seconds for s in scores] == pytest.approx(whole.timestamps[::16], abs=1e-3)
    assert scores[-1].score == pytest.approx(whole.per_snippet[-1], abs=1e-3)
    # And each score is the one that `score` gives to the end of the video cut there.
    for n_snippets in (1, 3, 6):
        part = write_clip(tmp_path / f"part.{suffix}", n_frames=16 * n_snippets)
        expected = brightness_scorer.score(part).per_snippet[-1]
        assert scores[n_snippets - 1].score == pytest.approx(expected, abs=1e-3)


def test_the_tail_policy_leaves_out_what_it_leaves_out_of_a_file(
    brightness_scorer, write_clip, tmp_path
):
    brightness_scorer.extractor.tail_policy = DROP_TAIL
    path = write_clip(tmp_path / "clip.ts", n_frames=48)
    assert len(brightness_scorer.score(path).per_snippet) == 2
    with watching(str(path), brightness_scorer, stall_seconds=0.5, max_lag_seconds=60) as watch:
        watch.wait_for(lambda: any("waiting until it grows" in n.text for n in notices(watch)))
    assert len(watch.all(LiveScore)) == watch.summary.n_scored == 2
    assert watch.summary.n_dropped == 0


def test_a_file_that_grows_again_or_is_replaced_is_a_new_stretch(scorer, tmp_path):
    path = tmp_path / "growing.ts"
    whole = write_blinking(tmp_path / "whole.ts", 400).read_bytes()
    half = len(whole) // 2 // 188 * 188
    path.write_bytes(whole[:half])
    with watching(str(path), scorer, stall_seconds=0.5, max_lag_seconds=60) as watch:
        watch.wait_for(lambda: any("waiting until it grows" in n.text for n in notices(watch)))
        n_first = len(watch.all(LiveScore))
        with path.open("ab") as file:
            file.write(whole[half:])
        watch.wait_for(lambda: len(notices(watch)) == 4)
        n_second = len(watch.all(LiveScore))
        new = write_blinking(tmp_path / "new.ts", 40)
        new.replace(path)
        watch.wait_for(lambda: len(watch.all(LiveScore)) == n_second + 3)
    scores = watch.all(LiveScore)
    assert [s.stretch for s in scores] == [1] * n_first + [2] * (n_second - n_first) + [3] * 3
    begin = scores[0].start_seconds
    assert scores[n_first].start_seconds == pytest.approx(
        scores[n_first - 1].stop_seconds, abs=0.03
    )
    assert scores[n_second - 1].stop_seconds - begin == pytest.approx(4.0, abs=0.03)
    assert scores[n_second].start_seconds == pytest.approx(begin, abs=1e-3)


@pytest.fixture
def command(scorer, monkeypatch, tmp_path):
    """Run `pipeline watch` and press Ctrl-C after some snippets."""
    monkeypatch.setattr(Scorer, "load", lambda run, rule, *_, **__: replace(scorer, rule=rule))
    monkeypatch.chdir(tmp_path)

    n_calls = 0
    forward = scorer.checkpoint.model.forward

    def count(features, mask):
        nonlocal n_calls
        n_calls += 1
        return forward(features, mask)

    def press(number, n_snippets) -> None:
        deadline = time.monotonic() + 30
        while n_calls < 2 * (n_snippets + 1) and time.monotonic() < deadline:  # 2 crops; warm-up
            time.sleep(0.01)
        time.sleep(0.3)
        os.kill(os.getpid(), number)

    scorer.checkpoint.model.forward = count

    def run(*arguments, end_after=0, number=signal.SIGTERM):
        if end_after:
            threading.Thread(target=press, args=[number, end_after]).start()
        return CliRunner().invoke(main, ["watch", "--run", "run", *map(str, arguments)])

    return run


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [
        pytest.param(
            signal.SIGINT,
            130,
            marks=pytest.mark.skipif(
                signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="SIGINT is ignored here"
            ),
        ),
        (signal.SIGTERM, 0),  # a service manager's way to stop what is healthy
    ],
)
def test_ctrl_c_and_sigterm_end_the_open_event_and_the_command(
    command, tmp_path, number, exit_code
):
    path = write_blinking(tmp_path / "clip.ts", 2 * PERIOD)  # bright at its end
    handler = signal.getsignal(signal.SIGTERM)  # the default, or another test's
    result = command(path, end_after=7, number=number)
    assert result.exit_code == exit_code
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["kind"] for event in events] == ["begin", "end"]
    assert events[1]["cause"] == "stop"
    assert set(events[0]) == {"format", "format_version", *LiveEvent.__dataclass_fields__}
    assert events[0]["source"] == str(path)
    assert "7 snippets scored, 0 dropped, 1 events, 1 stretches" in result.stderr
    assert result.stderr.endswith("interrupted\n") == (number == signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is handler


def test_scores_are_lines_too_on_request_and_events_are_posted(command, tmp_path):
    posted = []
    listener = socket.create_server(("127.0.0.1", 0))

    def receive() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client:
                    _, headers = read_request(client)
                    posted.append(client.recv(int(headers["Content-Length"])))
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    threading.Thread(target=receive, daemon=True).start()
    path = write_blinking(tmp_path / "clip.ts", 2 * PERIOD)
    hook = f"http://127.0.0.1:{listener.getsockname()[1]}/hook"
    result = command(path, "--scores", "--webhook", hook, "--quiet", end_after=7)
    listener.close()
    lines = result.stdout.splitlines()
    scores = [json.loads(line) for line in lines if "score" in json.loads(line)]
    assert len(scores) == 7
    assert set(scores[0]) == {"format", "format_version", *LiveScore.__dataclass_fields__}
    events = [line for line in lines if "kind" in json.loads(line)]
    assert [line.decode() for line in posted] == events
    assert len(events) == 2
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_source_that_cannot_be_read_at_the_start_ends_the_command_in_one_line(command, serve):
    server = serve("http")
    address = f"http://user:secret@127.0.0.1:{server.port}/missing?token=secret"
    result = command(address)
    assert result.exit_code == 1
    *_, last = result.stderr.splitlines()
    name = f"http://127.0.0.1:{server.port}/missing"
    assert last == f"Error: {name}: cannot be opened: Server returned 404 Not Found"
    assert "secret" not in result.output


def test_no_file_of_this_machine_is_read_because_a_playlist_names_it(blinking, scorer):
    server = LiveServer(blinking, speak_hls(blinking))
    watch = Watch(f"http://127.0.0.1:{server.port}/x.m3u8", scorer, stall_seconds=1.0)
    watch.thread.join(20)
    server.die()
    assert server.n_clients == 1
    assert watch.all(LiveScore) == []
    assert isinstance(watch.error, LiveSourceError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/dev/null"], "/dev/null: cannot be opened: "),  # a device, but no camera
        (["tcp://host"], "expected a camera such as /dev/video0"),
        (["missing.ts"], "missing.ts: cannot be read (No such file or directory)"),
        (["clip.ts", "--webhook", "ftp://host"], "--webhook: expected an address"),
    ],
)
def test_what_cannot_be_watched_is_said_in_one_line(command, tmp_path, arguments, message):
    (tmp_path / "clip.ts").touch()
    result = command(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr.splitlines()[-1]


def test_an_event_rule_out_of_its_range_is_a_usage_error(command):
    assert command("clip.ts", "--threshold", "2").exit_code == 2


@pytest.mark.parametrize(("limit", "n_notices"), [(1e-6, 1), (5.0, 0)])
def test_a_camera_unlike_the_training_videos_is_named_once(
    brightness_scorer, write_clip, tmp_path, monkeypatch, limit, n_notices
):
    monkeypatch.setattr("pipeline.scoring.live.LIVE_WINDOW_LEN", 3)
    path = str(write_clip(tmp_path / "clip.ts", n_frames=120))
    limited = replace(brightness_scorer, distance_limits=(limit, None))
    with watching(path, limited, stall_seconds=0.5, max_lag_seconds=60) as watch:
        watch.wait_for(lambda: len(watch.all(LiveScore)) == 8)
    told = [n for n in watch.all(LiveNotice) if "its features are unlike those" in n.text]
    assert len(told) == n_notices
    assert all(notice.is_warning and notice.text.startswith(f"{path}: ") for notice in told)


@pytest.mark.parametrize(
    ("distances", "n_scores_before"),
    [
        ([3, 3, 0, 0, 3, 3, 0, 0], None),  # as a camera like the training does in the long run
        ([0, 0, 3, 3, 3, 3, 0, 0], None),
        ([0, 0, 3, 3, 3, 3, 3, 3], 8),
        ([0, 3, 3, 3, 0, 3, 3, 3], 4),  # the means of windows of two count
    ],
)
def test_only_the_first_two_windows_or_three_later_in_a_row_make_a_camera_unlike_the_training(
    brightness_scorer, write_clip, tmp_path, monkeypatch, distances, n_scores_before
):
    monkeypatch.setattr("pipeline.scoring.live_distance.N_LATER_WINDOWS", 3)
    monkeypatch.setattr("pipeline.scoring.live.LIVE_WINDOW_LEN", 2)
    left = iter([9, *distances])  # the first one is of the warm-up
    monkeypatch.setattr("pipeline.scoring.live_scores.snippet_distance", lambda *_: next(left))
    path = str(write_clip(tmp_path / "clip.ts", n_frames=120))
    limited = replace(brightness_scorer, distance_limits=(1.25, None))
    with watching(path, limited, stall_seconds=0.5, max_lag_seconds=60) as watch:
        watch.wait_for(lambda: len(watch.all(LiveScore)) == 8)
    records = watch.all((LiveScore, LiveNotice))
    told = ["score" if isinstance(record, LiveScore) else record.text for record in records]
    n_scores = [told[:index].count("score") for index, text in enumerate(told) if "unlike" in text]
    assert n_scores == ([] if n_scores_before is None else [n_scores_before])


def test_the_model_is_warmed_up_but_remembers_nothing_of_it(scorer):
    seen: list[int] = []
    forward = scorer.checkpoint.model.forward
    scorer.checkpoint.model.forward = lambda x, mask: seen.append(x.shape[1]) or forward(x, mask)
    with pytest.raises(LiveSourceError):
        watch_source(LiveSource("file", "/missing", "missing"), scorer, print)
    assert set(seen) == {1}
    assert torch.is_tensor(scorer.checkpoint.model.input_norm(torch.zeros(1, 1, 3)))
