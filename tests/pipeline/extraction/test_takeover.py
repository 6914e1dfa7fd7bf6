"""A process that is already extracting takes over the video of one that is killed meanwhile."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.extraction.summary import VideoOutcome

REPOSITORY = Path(__file__).parents[3]
HOLDER = """
import sys, time
from pathlib import Path
from pipeline.extraction.locks import VideoLocks

locks = VideoLocks(Path(sys.argv[1]))
print(locks.lock("a"), flush=True)
time.sleep(600)
"""
pytestmark = pytest.mark.usefixtures("videos_folder")


def test_a_running_process_does_the_video_of_one_that_is_killed_meanwhile(
    dataset, tmp_path, brightness, extract_dataset
):
    command = [sys.executable, "-c", HOLDER, tmp_path / "small"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout.readline() == b"True\n"
            events = extract_dataset(dataset, tmp_path, brightness())
            next(events)  # a is passed over and b is being read
        finally:
            holder.kill()
    outcomes = [event for event in events if isinstance(event, VideoOutcome)]
    # In the order of their ends: had a not been locked at first, it would be the first.
    assert [(outcome.video_id, outcome.status) for outcome in outcomes] == [
        ("b", "done"),
        ("c", "done"),
        ("a", "done"),
    ]
