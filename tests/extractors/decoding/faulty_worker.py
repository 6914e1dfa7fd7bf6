"""A decoding worker that fails where a test says so: `DecodePool(worker_module="faulty_worker")`.

The folder named by FAULTS_FOLDER holds `faults.json`, read whenever a task comes:
    - name: the video's file name
    - decoder: null for its first try, "pyav" for the second
    - message: "Begun", "VideoOpened", "SlotFilled" or "VideoEnded"
    - count: which one of these messages of a task, from 1
    - is_after: whether it is sent before the fault
    - how: one of `WAYS`
    - flag: name of the file that says it has happened: each fault happens once
"""

import json
import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from extractors.decoding.decode_messages import Task
from extractors.decoding.decode_worker import serve
from extractors.decoding.video import DecoderFailure


def _raise(error):
    raise error


WAYS = {
    "error": lambda: _raise(DecoderFailure("an injected error")),
    "memory": lambda: _raise(MemoryError("an injected lack of memory")),
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "slow": lambda: time.sleep(0.2),
}


class FaultyConnection:
    """A connection that fails before or after it sends some message."""

    def __init__(self, connection, folder):
        self.connection, self.folder = connection, folder
        self.faults, self.n_sent = [], {}

    def recv(self):
        message = self.connection.recv()
        if isinstance(message, Task):
            faults = json.loads((self.folder / "faults.json").read_text())
            mine = message.path.name, message.decoder
            self.faults = [fault for fault in faults if (fault["name"], fault["decoder"]) == mine]
            self.n_sent = {}
        return message

    def poll(self):
        return self.connection.poll()

    def send(self, message):
        kind = type(message[1]).__name__
        self.n_sent[kind] = self.n_sent.get(kind, 0) + 1
        self._fail(kind, is_after=False)
        self.connection.send(message)
        self._fail(kind, is_after=True)

    def _fail(self, kind, is_after):
        for fault in self.faults:
            place = fault["message"], fault["count"], fault["is_after"]
            flag = self.folder / fault["flag"]
            if place == (kind, self.n_sent[kind], is_after) and not flag.exists():
                flag.touch()
                WAYS[fault["how"]]()


def main():
    connection = Connection(int(sys.argv[1]))
    serve(FaultyConnection(connection, Path(os.environ["FAULTS_FOLDER"])), int(sys.argv[2]))
