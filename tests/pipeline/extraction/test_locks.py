"""Locks on videos between processes that share a folder."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.datasets.catalog import Dataset
from pipeline.extraction.feature_folder import finish_folder
from pipeline.extraction.locks import VideoLocks
from pipeline.extraction.status import StatusTable

HOLDER = """
import sys
from pathlib import Path
from pipeline.extraction.locks import VideoLocks
with VideoLocks(Path(sys.argv[1])) as locks:
    print(locks.lock("a"), locks.lock("b"), flush=True)
    sys.stdin.read()
"""


def start_holder(folder: Path) -> subprocess.Popen[str]:
    """A process that locks the videos a and b until its stdin is closed."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True True\n"
    return holder


@pytest.mark.parametrize("end", ["ends", "is killed"])
def test_a_video_that_another_process_locks_is_free_again_when_that_one_is_gone(
    tmp_path: Path, end: str
) -> None:
    holder = start_holder(tmp_path)
    with VideoLocks(tmp_path) as locks:
        assert [locks.lock(video_id) for video_id in ("a", "b", "c")] == [False, False, True]
        if end == "is killed":
            holder.kill()
        holder.communicate()
        assert locks.lock("a")


def test_a_lock_can_be_taken_twice_by_its_owner(tmp_path: Path) -> None:
    with VideoLocks(tmp_path / "new" / "folder") as locks:
        assert locks.lock("a")
        assert locks.lock("a")


INDEX_WRITER = """
import sys
from pathlib import Path
from pipeline.extraction.locks import VideoLocks
with VideoLocks(Path(sys.argv[1])) as locks:
    locks.lock_index()
    print("its turn", flush=True)
    sys.stdin.read()
"""


def test_only_one_process_at_a_time_writes_the_index(tmp_path: Path) -> None:
    """The index of a process that listed the folder early never replaces a newer one."""
    (tmp_path / "small").mkdir()
    first = subprocess.Popen(
        [sys.executable, "-c", INDEX_WRITER, str(tmp_path / "small")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "its turn\n"
    table = StatusTable(tmp_path / "small", Dataset("small", ()))
    waiting = threading.Thread(target=finish_folder, args=(table,))
    waiting.start()
    waiting.join(timeout=0.5)
    assert waiting.is_alive()
    assert not (tmp_path / "small/index.h5").exists()
    first.communicate()
    waiting.join(timeout=10)
    assert (tmp_path / "small/index.h5").exists()
