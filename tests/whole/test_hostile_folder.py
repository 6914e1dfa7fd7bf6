"""Nothing in the current folder is run, whatever its name: it may be a folder of others' videos."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.extraction.feature_folder import list_feature_files

# Modules that Python itself loads when a child process starts.
MODULES = ("signal", "struct", "socket", "pickle", "selectors", "subprocess", "sitecustomize")


@pytest.fixture
def hostile_folder(counting_clip, tmp_path):
    """A folder of two videos, and of modules that leave a mark when they are run."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for module in MODULES:
        mark = tmp_path / f"{module} was run"
        (folder / f"{module}.py").write_text(f"open({str(mark)!r}, 'w').close()\nraise SystemExit")
    lines = ["path,split,label,anomalies"]
    for name in "ab":
        shutil.copy(counting_clip, folder / f"{name}.mp4")
        lines.append(f"{name}.mp4,train,0,")
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    return folder


def assert_runs_nothing_of(folder, command):
    options = ["--weights", "random:0", "--flow", "none", "--crops", "1"]
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [*command, "extract", "m.csv", *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not list(folder.parent.glob("* was run"))
    assert done.returncode == 0, done.stderr
    names = [path.name for path in list_feature_files(folder / "features" / "m")]
    assert names == ["a.h5", "b.h5"]


def test_modules_in_the_current_folder_are_not_run(hostile_folder):
    assert_runs_nothing_of(hostile_folder, [Path(sys.executable).with_name("pipeline")])


def test_processes_of_several_devices_do_not_run_them_either(hostile_folder, tmp_path):
    script = tmp_path / "two_devices.py"  # a CPU cannot be named twice
    script.write_text(
        "import torch\n"
        "from pipeline import cli, device\n"
        "if __name__ == '__main__':\n"
        "    device.choose_devices = lambda _: 2 * [torch.device('cpu')]\n"
        "    cli.main()\n"
    )
    assert_runs_nothing_of(hostile_folder, [sys.executable, script])


def test_a_command_needs_no_environment_variable(tmp_path):
    done = subprocess.run(
        [Path(sys.executable).with_name("pipeline"), "bench", "absent.mp4", "--flow", "none", "-q"],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: absent.mp4 cannot be read: No such file or directory\n"
