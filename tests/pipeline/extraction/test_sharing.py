"""Processes that share a folder, are killed, or have no room to write."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.datasets.catalog import Dataset
from pipeline.extraction.feature_file import read_features
from pipeline.extraction.feature_folder import list_feature_files
from pipeline.extraction.shards import Shard
from pipeline.extraction.status import Failure, note_failure
from pipeline.extraction.summary import VideoOutcome

REPOSITORY = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("videos_folder")


def statuses(ends):
    """How the videos a, b and c ended."""
    return [ends[name].status for name in "abc"]


def status_by_id(folder):
    lines = (folder / "status.csv").read_text().splitlines()[1:]
    return {line.split(",")[0]: line.split(",")[1] for line in lines}


def test_a_video_in_the_hands_of_another_process_is_left_to_it(
    dataset, tmp_path, brightness, extract_dataset, endings
):
    code = (
        "import sys; from pathlib import Path; from pipeline.extraction.locks import VideoLocks\n"
        "with VideoLocks(Path(sys.argv[1])) as locks:\n"
        "    print(locks.lock('b'), flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "small"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert other.stdout.readline() == b"True\n"
    ends = endings(extract_dataset(dataset, tmp_path, brightness()))
    other.communicate()
    assert statuses(ends) == ["done", "taken", "done"]
    assert status_by_id(tmp_path / "small")["b"] == "waiting"


def run_where(mounts: str, program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program where other file systems are mounted, seen by itself alone."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-m", "true"], check=False).returncode:
        pytest.skip("only who may mount file systems can fill one up")
    (folder / "program.py").write_text(program)
    return subprocess.run(
        [unshare, "-m", "sh", "-c", f"{mounts} && '{sys.executable}' program.py out"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


def write_small_dataset(folder: Path, write_clip) -> None:
    lines = ["path,split,label,anomalies"]
    for i in range(8):
        write_clip(folder / f"videos/{i}.mp4", n_frames=10 + 7 * i, width=96, height=64)
        lines.append(f"videos/{i}.mp4,train,{i % 2},")
    (folder / "small.csv").write_text("\n".join(lines) + "\n")


def test_a_full_shared_memory_is_no_hindrance(write_clip, tmp_path):
    write_small_dataset(tmp_path, write_clip)
    full = "mount -t tmpfs -o size=4k tmpfs /dev/shm && ! head -c 9999 /dev/zero > /dev/shm/full"
    done = run_where(full, LIGHT_RUN, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list_feature_files(tmp_path / "out/small")) == 8


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("size=16k", "cannot be written (No space left on device)"),
        ("ro", "out/small: Read-only file system"),
    ],
)
def test_a_full_or_read_only_disk_ends_the_command_in_one_line(
    write_clip, tmp_path, options, complaint
):
    write_small_dataset(tmp_path, write_clip)
    (tmp_path / "out").mkdir()
    # The folder cannot be seen from outside: what is in it at the end is listed from within.
    mounts = f"mount -t tmpfs -o {options} tmpfs out && trap 'find out -name \"*.tmp\"' EXIT"
    done = run_where(mounts, REAL_RUN, tmp_path)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert complaint in errors[0]
    assert "Traceback" not in done.stderr
    assert not any(line.endswith(".tmp") for line in done.stdout.splitlines())


# A run like the command's, whose extractor takes next to no time but for a moment per snippet.
LIGHT_RUN = """
import sys, time
from pathlib import Path
import tests.pipeline.extraction.conftest as here
from pipeline.datasets import load_dataset
from pipeline.extraction.shards import WHOLE, Shard
from pipeline.extraction.summary import VideoOutcome

class Slow(here.Brightness):
    def prepare(self, frames):
        time.sleep(0.05)
        return super().prepare(frames)

if __name__ == "__main__":
    shard = Shard.parse(sys.argv[2]) if sys.argv[2:] else WHOLE
    dataset = load_dataset("small.csv", None)
    for event in here.extract_dataset(dataset, Path(sys.argv[1]), Slow(), shard=shard):
        if isinstance(event, VideoOutcome) and event.status == "done":
            print(event.video_id, flush=True)
"""
REAL_RUN = """
import sys
from pipeline.cli import main
options = ["--flow", "none", "--crops", "1", "--weights", "random:0", "--device", "cpu"]
if __name__ == "__main__":
    main(["extract", "small.csv", *options, "--features", sys.argv[1]])
"""


def test_two_processes_share_one_folder_and_extract_each_video_once(write_clip, tmp_path):
    write_small_dataset(tmp_path, write_clip)
    both = [start(LIGHT_RUN, tmp_path, "shared", stdout=subprocess.PIPE) for _ in range(2)]
    done = [process.communicate()[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(done[0] + done[1]) == [f"videos/{i}".encode() for i in range(8)]
    for path in list_feature_files(tmp_path / "shared/small"):
        read_features(path)


def test_a_process_begins_with_its_shard_and_then_does_the_others(write_clip, tmp_path):
    write_small_dataset(tmp_path, write_clip)
    process = start(LIGHT_RUN, tmp_path, "shared", "2/2", stdout=subprocess.PIPE)
    done = [line.decode() for line in process.communicate()[0].split()]
    assert set(done[:4]) == {f"videos/{i}" for i in (1, 3, 5, 7)}
    assert set(done[4:]) == {f"videos/{i}" for i in (0, 2, 4, 6)}


def test_what_a_killed_process_leaves_is_done_by_one_of_another_shard(write_clip, tmp_path):
    write_small_dataset(tmp_path, write_clip)
    killed = start(LIGHT_RUN, tmp_path, "shared", "1/2", stdout=subprocess.PIPE)
    first = killed.stdout.readline()
    os.killpg(killed.pid, signal.SIGKILL)
    rest, _ = killed.communicate()
    other = start(LIGHT_RUN, tmp_path, "shared", "2/2", stdout=subprocess.PIPE)
    done = other.communicate()[0].split()
    assert first.strip() in [f"videos/{i}".encode() for i in (0, 2, 4, 6)]
    assert not set(done) & set((first + rest).split())
    assert len(list_feature_files(tmp_path / "shared/small")) == 8
    for path in list_feature_files(tmp_path / "shared/small"):
        read_features(path)


def test_what_another_process_extracts_meanwhile_is_kept(
    dataset, tmp_path, brightness, extract_dataset, endings
):
    events = extract_dataset(dataset, tmp_path, brightness())
    next(events)
    last = Dataset("small", dataset.entries[2:])
    assert endings(extract_dataset(last, tmp_path, brightness()))["c"].status == "done"
    assert statuses(endings(events)) == ["done", "done", "kept"]


@pytest.mark.parametrize("retry_failed", [False, True])
def test_a_video_that_fails_meanwhile_in_another_process_is_not_tried_again(
    dataset, tmp_path, brightness, extract_dataset, endings, retry_failed
):
    failure = Failure("c", "VideoError", "c.mp4: no video stream", is_quarantined=False)
    if retry_failed:
        note_failure(tmp_path / "small", failure)
    events = extract_dataset(dataset, tmp_path, brightness(), retry_failed=retry_failed)
    next(events)
    note_failure(tmp_path / "small", failure)
    ends = endings(events)
    assert statuses(ends) == ["done", "done", "failed"]
    assert ends["c"] == VideoOutcome("c", "failed", failure=failure, is_earlier=True)


def test_the_file_of_a_video_is_compared_by_the_process_that_begins_with_it(
    dataset, write_clip, tmp_path, brightness, extract_dataset, endings
):
    list(extract_dataset(dataset, tmp_path, brightness()))
    write_clip(dataset.entries[1].path, n_frames=48)
    for shard, status in ((Shard(0, 2), "kept"), (Shard(1, 2), "done")):  # a and c; b
        ends = endings(extract_dataset(dataset, tmp_path, brightness(), shard=shard))
        assert statuses(ends) == ["kept", status, "kept"]


@pytest.mark.parametrize(
    ("program", "n_kills"),
    [(LIGHT_RUN, 3), pytest.param(REAL_RUN, 30, marks=pytest.mark.slow)],
    ids=["light, 3 kills", "real, 30 kills"],
)
def test_kills_at_random_moments_change_nothing_in_the_features(
    write_clip, tmp_path, program, n_kills
):
    write_small_dataset(tmp_path, write_clip)
    started = time.monotonic()
    assert start(program, tmp_path, "whole").wait() == 0
    seconds = time.monotonic() - started
    moments = random.Random(n_kills)
    inodes: dict[Path, int] = {}
    n_killed = 0
    for _ in range(n_kills):
        run = start(program, tmp_path, "killed")
        try:
            run.wait(timeout=moments.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            n_killed += 1
        # What is there is whole, and stays what it is: nothing is extracted twice.
        for path in sorted((tmp_path / "killed").rglob("*.h5")):
            if path.name != "index.h5":
                read_features(path)
                assert inodes.setdefault(path, path.stat().st_ino) == path.stat().st_ino
    assert start(program, tmp_path, "killed").wait() == 0
    assert n_killed > 0
    assert not list((tmp_path / "killed").rglob("*.tmp"))
    for i in range(8):
        name = f"small/videos/{i}.h5"
        found = read_features(tmp_path / "killed" / name)
        expected = read_features(tmp_path / "whole" / name)
        assert found.provenance == expected.provenance
        assert (found.features.streams["rgb"] == expected.features.streams["rgb"]).all()
        assert (found.features.timestamps == expected.features.timestamps).all()


def start(
    program: str, folder: Path, *arguments: str, stdout: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """A program, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
