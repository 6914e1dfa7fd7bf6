"""Ctrl-C while a command imports its libraries: never lost, whatever the interpreter is doing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]

# A module whose import waits in a callback, in which Python discards exceptions.
SLOW_MODULE = """
import sys, time, weakref

class Owner:
    pass

def wait(reference):
    sys.stderr.write("importing\\n")
    sys.stderr.flush()
    time.sleep(20)

owner = Owner()
kept = weakref.ref(owner, wait)
del owner
"""
PROGRAM = """
from pipeline.cli import main

@main.command()
def probe():
    import slow_module
    print("went on")

main(["probe"])
"""


@pytest.mark.skipif(
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="SIGINT is ignored here"
)
def test_ctrl_c_in_a_callback_of_an_import_ends_the_command_with_130(tmp_path):
    (tmp_path / "slow_module.py").write_text(SLOW_MODULE)
    running = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": f"{REPOSITORY}:{tmp_path}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    assert running.stderr.readline() == "importing\n"
    time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=10)
    assert (running.returncode, stdout, stderr) == (130, "", "interrupted\n")
