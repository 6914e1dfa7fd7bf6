"""Files that appear under their final name only when they are complete."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.atomic import check_writable, remove_abandoned, replacing


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "result.csv"
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "result.csv"
    path.write_text("old")

    def write_half_and_fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), replacing(path) as temporary:
        write_half_and_fail(temporary)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_no_name_for_a_result(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder, expected the name of a file"):
        check_writable(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; make it first"):
        check_writable(tmp_path / "absent" / "result.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder_is_found_out_beforehand(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="cannot be written"):
        check_writable(tmp_path / "result.csv")


def test_checking_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "result.csv")
    assert list(tmp_path.iterdir()) == []


def test_the_longest_file_name_can_be_written(tmp_path):
    path = tmp_path / ("x" * 255)
    with replacing(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole"


WRITER = """
import sys
from pathlib import Path
from pipeline.atomic import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    sys.stdin.read()
"""


def start_writer(path: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that is writing `path` until its stdin is closed."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert writer.stdout is not None
    return writer, Path(writer.stdout.readline().strip())


def test_only_temporary_files_whose_process_is_gone_are_removed(tmp_path):
    killed, abandoned = start_writer(tmp_path / "below" / "killed.csv")
    alive, in_use = start_writer(tmp_path / "alive.csv")
    (tmp_path / "notes.tmp").write_text("of the user")
    assert remove_abandoned(tmp_path) == 0
    killed.kill()
    killed.wait()
    assert abandoned.exists()
    assert remove_abandoned(tmp_path) == 1
    assert not abandoned.exists()
    assert in_use.exists()
    alive.communicate()
    assert alive.returncode == 0
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {
        "alive.csv",
        "notes.tmp",
    }


def test_files_that_are_written_while_others_clean_up_are_all_there(tmp_path):
    """Cleaning never removes a file between its creation and its lock."""
    stop = threading.Event()

    def clean() -> None:
        while not stop.is_set():
            remove_abandoned(tmp_path)

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        for index in range(300):
            with replacing(tmp_path / f"{index}.csv") as temporary:
                temporary.write_text(str(index))
    finally:
        stop.set()
        cleaner.join()
    assert sorted(int(path.read_text()) for path in tmp_path.glob("*.csv")) == list(range(300))


def test_a_full_disk_is_reported_with_the_name_of_the_file(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space left") as caught, replacing(tmp_path / "a.csv"):
        raise full
    assert caught.value.filename == str(tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_by_a_folder_is_reported_and_not_the_temporary_file(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(IsADirectoryError) as caught, replacing(tmp_path / "a.csv") as temporary:
        temporary.write_text("content")
    assert caught.value.filename == str(tmp_path / "a.csv")
    assert str(caught.value) == f"[Errno 21] Is a directory: '{tmp_path / 'a.csv'}'"


def test_an_error_that_names_a_file_descriptor_is_raised_as_it_is(tmp_path):
    not_open = 2**30
    with pytest.raises(OSError, match="Bad file descriptor") as caught, replacing(tmp_path / "a"):
        os.stat(not_open)
    assert caught.value.filename == not_open
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_files_is_reported_with_the_name_of_the_file():
    # Nobody, not even the administrator, can make a file there.
    with pytest.raises(OSError, match=r"'/proc/self/a\.csv'"), replacing(Path("/proc/self/a.csv")):
        pass
