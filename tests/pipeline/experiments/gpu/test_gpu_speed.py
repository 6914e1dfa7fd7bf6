"""The measurements for a GPU, rehearsed on a CPU."""

import json
import subprocess
import sys

import pytest

from pipeline.experiments.gpu.speed import PARTS, TILINGS

OTHER_TILINGS = [f"tvl1-{a}x{b}x{c}-{d}Mpx" for a, b, c, d in TILINGS[1:]]  # run the same code


def rehearse(folder, names):
    command = [sys.executable, "-m", "pipeline.experiments.gpu.speed", "--device", "cpu"]
    command += ["--out", str(folder), "--seconds", "5000", "--parts", ",".join(names)]
    done = subprocess.run(command, check=False)
    parts = json.loads((folder / "results.json").read_text())["parts"]
    assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(names, "ok")
    assert done.returncode == 0
    return {name: part["figures"] for name, part in parts.items()}


@pytest.mark.slow
def test_a_tiling_is_measured_before_it_is_compared(tmp_path):
    names = ["snippets", "tvl1-6x2x64-96Mpx", "agreement"]
    figures = rehearse(tmp_path / "out", names)
    assert figures["tvl1-6x2x64-96Mpx"]["pairs_per_second"] > 0
    assert figures["agreement"]["tvl1-6x2x64-96Mpx"]["worst_pair_px"] < 1e-4


@pytest.mark.slow
def test_every_other_part_runs_on_a_cpu(tmp_path):
    names = [name for name in PARTS if name not in OTHER_TILINGS]
    figures = rehearse(tmp_path / "out", names)
    assert figures["network"]["RGB + dis, 1 crops"]["without_flow_per_bare"] > 0
    assert figures["extraction-tvl1-5"]["1 clips"]["n_frames"] == 40


def test_the_figures_wanted_most_come_first():
    order = list(PARTS)
    assert order[:4] == ["snippets", "tvl1-6x2x64-96Mpx", "network", "extraction-tvl1-5"]
    assert order[-1] == "agreement"  # with TV-L1 in torch, which takes longest
    assert set(OTHER_TILINGS) < set(order)
