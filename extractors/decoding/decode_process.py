"""Starting and ending the process of a decoding worker."""

import logging
import os
import signal
import subprocess
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

logger = logging.getLogger(__name__)

END_SECONDS = 10.0  # until a process that is ending, or was killed, has ended

# The worker's `main`, in a process that looks for modules where this one does: nowhere else, and
# not in the current folder, which may not be trusted. Only the parent handles SIGINT (Ctrl-C), and
# ends its workers.
CHILD_CODE = """
import sys
sys.path[:] = sys.argv[3:]
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from {module} import main
main()
"""


def start_process(module: str) -> tuple[subprocess.Popen[bytes], Connection, int]:
    """Start a worker in a new interpreter, which does not import this one's main module again.

    Args:
        module: Its `main` runs in the process.

    Returns:
        The process, the connection to it, and the descriptor of the memory shared with it.

    Raises:
        OSError: If the process cannot be started.
    """
    ours, theirs = Pipe()
    memory_fd = os.memfd_create("frames")
    fds = theirs.fileno(), memory_fd
    folders = [folder for folder in sys.path if folder]
    folders.append(str(Path(__file__).parents[2]))  # if this one was found by the current folder
    code = CHILD_CODE.format(module=module)
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, *map(str, fds), *folders],
        stdin=subprocess.DEVNULL,
        # NumPy would start a thread for each core, which a decoder never uses.
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        pass_fds=fds,
    )
    theirs.close()
    return process, ours, memory_fd


def wait_for_end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was killed, but not for ever."""
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        logger.warning(
            "decoding process %d was killed and is still there after %g s; going on without it",
            process.pid,
            END_SECONDS,
        )


def describe_end(process: subprocess.Popen[bytes]) -> str:
    """Describe how a process ended that closed its pipe: "was killed by SIGSEGV"."""
    try:
        code = process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        return "closed its pipe"
    if code < 0:
        names = {one.value: one.name for one in signal.Signals}
        return f"was killed by {names.get(-code, f'signal {-code}')}"
    return f"ended with exit code {code}"
