import os
from pathlib import Path

import pytest

from pipeline.atomic import check_writable, replacing


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
