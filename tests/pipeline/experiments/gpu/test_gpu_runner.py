"""The runner of the check's parts: each in a process of its own, and nothing is lost."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.experiments.gpu.runner import Part, as_text, choose_parts

# Parts must be importable in their processes: those of a script are.
SCRIPT = """
import os, subprocess, sys, time
from pathlib import Path
from pipeline.experiments.gpu import runner
from pipeline.experiments.gpu.runner import Part, run_parts

runner.CPU_TIME_FACTOR = 1

def well(context):
    yield {"small": context.is_small}
    yield {"value": 2.5}

def fails(context):
    yield {"before": 1}
    raise ValueError("not as it must be")

def hangs(context):
    child = subprocess.Popen(["sleep", "600"])
    yield {"child": child.pid}
    time.sleep(600)

if __name__ == "__main__":
    parts = {"fails": Part(fails, 100), "hangs": Part(hangs, 5), "well": Part(well, 100)}
    folder = Path(sys.argv[1])
    run_parts(parts, "cpu", folder, commit="abc")
    run_parts({"late": Part(well, 100)}, "cpu", folder / "late", max_seconds=0)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runner")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    subprocess.run([sys.executable, script, folder / "out"], check=True)
    return folder / "out"


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_a_part_that_fails_leaves_its_figures_and_does_not_stop_the_next(folder):
    parts = results(folder)["parts"]
    assert parts["fails"]["status"] == "failed (1)"
    assert parts["fails"]["figures"] == {"before": 1}
    assert "ValueError: not as it must be" in (folder / "fails.log").read_text()
    assert parts["well"]["status"] == "ok"
    assert parts["well"]["figures"] == {"small": True, "value": 2.5}
    assert results(folder)["machine"]["commit"] == "abc"


def test_a_part_that_hangs_is_stopped_with_the_processes_that_it_started(folder):
    part = results(folder)["parts"]["hangs"]
    assert part["status"] == "stopped after 5 s"
    # Killed; whether its entry is gone is up to the process that inherited it.
    stat = Path("/proc", str(part["figures"]["child"]), "stat")
    deadline = time.monotonic() + 10
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_no_part_begins_when_no_time_is_left(folder):
    late = results(folder / "late")["parts"]["late"]
    assert late == {"status": "not begun: no time was left", "seconds": 0.0, "figures": {}}


def test_results_are_laid_out_as_text():
    part = {"status": "ok", "seconds": 1.6, "figures": {"speed": {"pairs": 1234.56}, "n": 3}}
    text = as_text({"machine": {"gpu": "H100"}, "parts": {"flow": part}})
    assert text == '{"gpu": "H100"}\nflow: ok, 2 s\n    speed: pairs 1235\n    n: 3\n'


def test_parts_are_chosen_by_name():
    parts = {name: Part(iter, 1) for name in ("a", "b", "c")}
    assert list(choose_parts(parts, None)) == ["a", "b", "c"]
    assert list(choose_parts(parts, "c,a")) == ["c", "a"]
    with pytest.raises(ValueError, match="parts must be some of a, b, c, instead got d"):
        choose_parts(parts, "a,d")
