"""The targets of the Makefile hand the name of a dataset on as it was given."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ["my cameras.csv", "it's.csv", 'a"b.csv', "a;touch b", "`id`"]


@pytest.fixture
def make(tmp_path):
    """A function that runs a target with a `pipeline` that prints its arguments, one a line."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    command = tmp_path / "bin/pipeline"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    command.chmod(0o755)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / ".installed").touch()

    def run(target: str, *variables: str, **environment: str) -> list[str]:
        done = subprocess.run(
            ["make", "-s", "-f", ROOT / "Makefile", target, f"VENV={tmp_path}", *variables],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    return run


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["extract", "train"])
def test_a_dataset_with_spaces_and_quotes_is_one_argument(make, target, name):
    assert make(target, f"DATASET={name}", "ARGS=--quiet -v") == [target, name, "--quiet", "-v"]
    assert make(target, DATASET=name) == [target, name]


def test_without_a_name_the_dataset_is_xd_violence(make):
    assert make("extract") == ["extract", "xd_violence"]
