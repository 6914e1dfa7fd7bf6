"""The webhook: events are posted in the background, and whatever it does, scoring goes on."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.scoring import live_webhook
from pipeline.scoring.live_webhook import Webhook, WebhookError


class Receiver(ThreadingHTTPServer):
    """Keeps what is posted; answers with `statuses`, then with 200."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses: list[int] = []
        self.bodies: list[tuple[str, str, bytes]] = []
        self.wait_seconds = 0.0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/secret"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.server.wait_seconds)
        self.server.bodies.append((self.path, self.headers["Content-Type"], body))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 200)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        self.server.bodies.append(("followed", "", b""))

    def log_message(self, *arguments):
        pass


@pytest.fixture
def receiver():
    server = Receiver()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _short_times(monkeypatch):
    monkeypatch.setattr(live_webhook, "PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(live_webhook, "TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(live_webhook, "END_SECONDS", 3.0)


def test_lines_are_posted_in_order_as_json(receiver):
    told: list[str] = []
    lines = [json.dumps({"event": number, "name": "ü"}) for number in range(5)]
    with Webhook(receiver.address, told.append) as webhook:
        for line in lines:
            webhook.post(line)
    assert receiver.bodies == [("/secret", "application/json", line.encode()) for line in lines]
    assert told == []


def test_a_post_that_fails_is_tried_again(receiver):
    told: list[str] = []
    receiver.statuses = [500, 503]
    with Webhook(receiver.address, told.append) as webhook:
        webhook.post("{}")
    assert len(receiver.bodies) == 3
    assert told == []


def test_a_failing_webhook_is_told_once_and_again_when_it_works(receiver):
    told: list[str] = []
    receiver.statuses = [500] * 6
    with Webhook(receiver.address, told.append) as webhook:
        for _ in range(4):
            webhook.post("{}")
    name = f"webhook http://127.0.0.1:{receiver.server_port}"
    assert told == [
        f"{name}: events are not posted (HTTP 500); scoring goes on",
        f"{name}: works again",
    ]
    assert len(receiver.bodies) == 8


def test_nobody_waits_for_a_webhook_that_is_dead_or_hangs(receiver, monkeypatch):
    monkeypatch.setattr(live_webhook, "MAX_WAITING", 3)
    receiver.wait_seconds = 60
    told: list[str] = []
    webhook = Webhook(receiver.address, told.append).__enter__()
    began = time.monotonic()
    for _ in range(1000):
        webhook.post("{}")
    assert time.monotonic() - began < 0.2
    webhook.__exit__(None, None, None)
    assert time.monotonic() - began < 5
    assert len(told) == 1
    assert "secret" not in told[0]

    told.clear()
    with Webhook("http://user:secret@127.0.0.1:1/secret", told.append) as dead:
        dead.post("{}")
    assert told == [
        "webhook http://127.0.0.1:1: events are not posted (ConnectionError); scoring goes on"
    ]


def test_a_redirection_is_not_followed(receiver):
    told: list[str] = []
    receiver.statuses = [302] * 3
    with Webhook(receiver.address, told.append) as webhook:
        webhook.post("{}")
    assert {path for path, _, _ in receiver.bodies} == {"/secret"}
    assert "HTTP 302" in told[0]


@pytest.mark.parametrize(
    "address",
    ["file:///secret", "ftp://host/secret", "secret", "http://", "http://host:99999/secret", ""],
)
def test_other_addresses_are_refused_without_being_named(address):
    with pytest.raises(WebhookError, match="--webhook") as error:
        Webhook(address, lambda text: None)
    assert "secret" not in str(error.value)
