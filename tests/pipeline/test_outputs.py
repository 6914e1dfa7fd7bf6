"""Outputs: never in place of an input, a run or each other, and devices are left devices."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.cli.output_paths import check_outputs
from pipeline.outputs import OutputError, write_output


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(b"frames")
    return path


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "runs/small/la-net/20260101-000000-seed0"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"format": "lookaround run", "format_version": 1}')
    (folder / "checkpoint.safetensors").touch()
    (folder / "epochs").mkdir()
    return folder


def refused(outputs, inputs=()):
    with pytest.raises(OutputError) as caught:
        check_outputs(outputs, inputs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_input_is_never_an_output_whatever_it_is_called(video, tmp_path, monkeypatch):
    (tmp_path / "symbolic.csv").symlink_to(video)
    (tmp_path / "hard.csv").hardlink_to(video)
    (tmp_path / "folder").mkdir()
    names = ("v.mp4", "./v.mp4", "folder/../v.mp4", "symbolic.csv", "hard.csv", str(video))
    monkeypatch.chdir(tmp_path)
    for name in names:
        text = refused({"--out": Path(name)}, [video])
        assert text == f"{Path(name)}: --out must not replace an input of the command; " + (
            "name another file"
        )


def test_two_outputs_are_two_files(tmp_path, video):
    (tmp_path / "link.csv").symlink_to(tmp_path / "x.csv")  # neither exists
    for other in ("x.csv", "link.csv"):
        text = refused({"--out": tmp_path / "x.csv", "--plot": tmp_path / other}, [video])
        assert "is named by --out and by --plot" in text
    check_outputs({"--out": tmp_path / "x.csv", "--plot": tmp_path / "y.png"}, [video])
    check_outputs({"--out": None, "--plot": None}, [video, None, tmp_path / "absent"])


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "new.csv", "epochs/new.csv"])
def test_nothing_is_written_into_a_run(run_folder, tmp_path, name):
    assert "must not write into the run" in refused({"--json": run_folder / name})
    (tmp_path / "link").symlink_to(run_folder)
    assert "must not write into the run" in refused({"--json": tmp_path / "link" / name})


def test_other_folders_with_a_config_are_no_runs(tmp_path):
    for content in ("{}", "[]", "[" * 10**5, "\0", '{"format": "another program"}'):
        (tmp_path / "config.json").write_text(content)
        check_outputs({"--json": tmp_path / "x.json"})


def test_a_link_is_followed(tmp_path):
    target = tmp_path / "target.csv"
    target.write_bytes(b"old")
    (tmp_path / "link.csv").symlink_to("target.csv")
    check_outputs({"--out": tmp_path / "link.csv"})
    write_output(tmp_path / "link.csv", b"new")
    assert (tmp_path / "link.csv").is_symlink()
    assert target.read_bytes() == b"new"
    (tmp_path / "dangling.csv").symlink_to("later.csv")
    write_output(tmp_path / "dangling.csv", b"new")
    assert (tmp_path / "later.csv").read_bytes() == b"new"


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    check_outputs({"--out": path})
    received = []
    reader = threading.Thread(target=lambda: received.append(path.read_bytes()))
    reader.start()
    write_output(path, b"rows")
    reader.join(timeout=10)
    assert received == [b"rows"]
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_the_null_device_stays_a_device(tmp_path):
    # By a link of our own, which would be replaced instead of the machine's device.
    path = tmp_path / "null"
    path.symlink_to(os.devnull)
    for _ in range(2):
        check_outputs({"--out": path, "--plot": Path(os.devnull)})
        write_output(path, b"rows")
    assert path.is_symlink()
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1"])
@pytest.mark.parametrize("is_file", [True, False])
def test_stdout_is_appended_to_be_it_a_pipe_or_a_file(tmp_path, name, is_file):
    code = (
        "from pathlib import Path; from pipeline.cli.output_paths import check_outputs;"
        "from pipeline.outputs import write_output;"
        f"print('before', flush=True); path = Path({name!r}); check_outputs({{'--out': path}});"
        "write_output(path, b'rows\\n'); print('after')"
    )
    command = [sys.executable, "-c", code]
    if is_file:
        with (tmp_path / "captured").open("ab") as file:
            subprocess.run(command, check=True, stdout=file)
        captured = (tmp_path / "captured").read_bytes()
    else:
        captured = subprocess.run(command, check=True, capture_output=True).stdout
    assert captured == b"before\nrows\nafter\n"
    assert {path.name for path in tmp_path.iterdir()} <= {"captured"}


@pytest.mark.parametrize("name", ["absent/x.csv", "."])
def test_what_cannot_be_written_is_found_before_the_work(tmp_path, name):
    with pytest.raises(OSError, match=r"make it first|is a folder"):
        check_outputs({"--out": tmp_path / name})
    assert not list(tmp_path.iterdir())


def test_a_link_that_leads_to_itself_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop: ") as caught:
        check_outputs({"--out": tmp_path / "loop"})
    assert "\n" not in str(caught.value)
