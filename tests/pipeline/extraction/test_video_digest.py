"""The identity of a video file."""

import hashlib
import os
from pathlib import Path

import pytest

from pipeline.extraction.video_digest import identify_source

MIB = 2**20


@pytest.mark.parametrize("n_bytes", [0, 1, MIB, 3 * MIB, 3 * MIB + 1, 10 * MIB + 3])
def test_the_digest_is_what_the_layout_says(tmp_path: Path, n_bytes: int) -> None:
    content = os.urandom(n_bytes)
    (tmp_path / "v.mp4").write_bytes(content)
    middle = (n_bytes - MIB) // 2
    sampled = content
    if n_bytes > 3 * MIB:
        sampled = content[:MIB] + content[middle : middle + MIB] + content[-MIB:]
    found = identify_source(tmp_path / "v.mp4")
    assert found.n_bytes == n_bytes
    assert found.sha256 == hashlib.sha256(b"%d bytes\n" % n_bytes + sampled).hexdigest()


@pytest.mark.parametrize("position", [0, 5 * MIB, 10 * MIB - 1])
def test_a_change_without_another_size_or_time_is_noticed(tmp_path: Path, position: int) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(bytes(10 * MIB))
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    before = identify_source(path)
    with path.open("r+b") as file:
        file.seek(position)
        file.write(b"x")
    os.utime(path, ns=times)
    assert identify_source(path) != before


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "v.mp4")
    with pytest.raises(OSError, match="is not a regular file, expected a video"):
        identify_source(tmp_path / "v.mp4")
    with pytest.raises(OSError, match="is a folder; to read its frames as a video, give their"):
        identify_source(tmp_path)
    with pytest.raises(FileNotFoundError):
        identify_source(tmp_path / "absent.mp4")
