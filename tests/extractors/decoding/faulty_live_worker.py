"""A live decoding worker that fails after its first snippets, in the way that LIVE_FAULT names."""

import os
import signal
import sys
import time
from multiprocessing.connection import Connection

from extractors.decoding.live_messages import LiveSlotFilled
from extractors.decoding.live_worker import serve


class FaultyConnection(Connection):
    def send(self, message):
        super().send(message)
        if isinstance(message, LiveSlotFilled) and os.environ["LIVE_FAULT"] == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if isinstance(message, LiveSlotFilled):
            time.sleep(600)


def main() -> None:
    serve(FaultyConnection(int(sys.argv[1])), int(sys.argv[2]))
