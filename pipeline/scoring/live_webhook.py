"""Posting live events to an address, as JSON, without ever keeping the scores waiting."""

import queue
import threading
from collections.abc import Callable
from typing import Self
from urllib.parse import urlsplit

import requests

from extractors.errors import LookaroundError

TIMEOUT_SECONDS = 5.0  # to connect, and for each answer
TRIES = 3
PAUSE_SECONDS = 1.0  # after a try that failed; twice as long after the second
MAX_WAITING = 100
END_SECONDS = 5.0  # for the events that are still to be posted when scoring ends


class WebhookError(LookaroundError, ValueError):
    """The address is not one that can be posted to."""


class Webhook:
    """Posts lines of JSON in the background. A context manager.

    An event that cannot be posted is given up after some tries. The first failure is told, and that
    it works again.

    Args:
        address: http or https.
        warn: Called with a line for people, also from the background.

    Raises:
        WebhookError: If it is another address.
    """

    def __init__(self, address: str, warn: Callable[[str], None]) -> None:
        try:
            parts = urlsplit(address)
            port = parts.port
        except ValueError:
            raise WebhookError("--webhook: the address cannot be read") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise WebhookError(
                "--webhook: expected an address that begins with http:// or https://, "
                f"instead got one that begins with {parts.scheme or 'no scheme'!r}"
            )
        # The rest of such an address is often a secret.
        self._name = f"{parts.scheme}://{parts.hostname}{f':{port}' if port else ''}"
        self._address, self._warn = address, warn
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_WAITING)
        self._is_failing = False
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="webhook")

    def __enter__(self) -> Self:
        """Begin to post."""
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Post what is left, for a short time."""
        self._is_ending.set()
        self._put(None)
        self._thread.join(END_SECONDS)
        if self._thread.is_alive():
            self._fail("it did not answer in time for the last events")

    def post(self, line: str) -> None:
        """Post a line of JSON as soon as possible."""
        self._put(line)

    def _put(self, line: str | None) -> None:
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._fail(f"{MAX_WAITING} events are waiting")

    def _run(self) -> None:
        while (line := self._next()) is not None:
            problem = ""
            for attempt in range(TRIES):
                if not (problem := self._try(line)):
                    break
                if attempt < TRIES - 1:
                    self._is_ending.wait(PAUSE_SECONDS * 2**attempt)
            if problem:
                self._fail(problem)
            elif self._is_failing:
                self._is_failing = False
                self._warn(f"webhook {self._name}: works again")

    def _next(self) -> str | None:
        """The next line; None at the end."""
        while True:
            try:
                return self._lines.get(timeout=PAUSE_SECONDS)
            except queue.Empty:
                if self._is_ending.is_set():
                    return None

    def _try(self, line: str) -> str:
        """Post a line once; returns why it failed, "" if it did not."""
        try:
            with requests.post(
                self._address,
                data=line.encode(),
                headers={"Content-Type": "application/json"},
                timeout=TIMEOUT_SECONDS,
                allow_redirects=False,
                stream=True,  # the answer is not read
            ) as answer:
                return "" if answer.ok and not answer.is_redirect else f"HTTP {answer.status_code}"
        except requests.Timeout:
            return f"no answer within {TIMEOUT_SECONDS:g} s"
        except (requests.RequestException, ValueError, OSError) as error:
            return type(error).__name__  # its text contains the address

    def _fail(self, problem: str) -> None:
        if not self._is_failing:
            self._is_failing = True
            self._warn(f"webhook {self._name}: events are not posted ({problem}); scoring goes on")
