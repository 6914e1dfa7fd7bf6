"""The check on a GPU: all of its parts, one after the other, each in a process of its own.

    make check-gpu

A part that fails or takes too long never stops the next. Everything is left in one folder:
`results.json` (figures, machine, driver, versions, commit), a log for each part, the profiles.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from pipeline.device import choose_device
from pipeline.experiments.clips import find_real_videos
from pipeline.experiments.gpu_context import Context
from pipeline.experiments.gpu_parts import PARTS

PACKAGES = (
    "torch",
    "torchvision",
    "triton",
    "numpy",
    "av",
    "decord",
    "h5py",
    "opencv-python-headless",
)


def main() -> None:
    """Run the whole check, or one part of it for its parent."""
    arguments = _parse()
    context = Context(
        choose_device(arguments.device), arguments.out.absolute(), arguments.device == "cpu"
    )
    if arguments.part:
        _run_part(arguments.part, context)
        return
    shutil.rmtree(context.folder, ignore_errors=True)
    context.folder.mkdir(parents=True)
    results: dict[str, Any] = {"machine": describe_machine(arguments.commit), "parts": {}}
    names = arguments.parts.split(",") if arguments.parts else list(PARTS)
    for name in names:
        results["parts"][name] = _run_in_process(name, arguments)
        text = json.dumps(results, indent=2) + "\n"
        (context.folder / "results.json").write_text(text, encoding="utf-8")
        sys.stderr.write(f"{name}: {results['parts'][name]['status']}\n")
    sys.stdout.write(_table(results))
    sys.exit(any(part["status"] != "ok" for part in results["parts"].values()))


def describe_machine(commit: str | None) -> dict[str, Any]:
    """What the figures belong to."""
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit or _output("git", "rev-parse", "HEAD"),
        "python": platform.python_version(),
        "n_cpus": len(os.sched_getaffinity(0)),
        "packages": {name: _version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "clips": "real" if find_real_videos() else "synthetic",
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name(0)
        query = ("--query-gpu=driver_version,memory.total", "--format=csv,noheader")
        found["driver, memory"] = _output("nvidia-smi", *query)
    return found


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a small rehearsal")
    parser.add_argument("--out", type=Path, default=Path("check-gpu"), help="replaced")
    parser.add_argument("--commit", help="of the code, where git is not at hand")
    parser.add_argument("--parts", help=f"some of {','.join(PARTS)}")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    return parser.parse_args()


def _run_part(name: str, context: Context) -> None:
    """Run one part in this process; its figures are written as they come."""
    figures: dict[str, Any] = {}
    path = context.folder / f"{name}.json"
    for found in PARTS[name].run(context):
        figures.update(found)
        path.write_text(json.dumps(figures), encoding="utf-8")
        sys.stderr.write(f"{found}\n")


def _run_in_process(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    folder = arguments.out.absolute()
    command = [sys.executable, "-m", "pipeline.experiments.check_gpu", "--part", name]
    command += ["--device", arguments.device, "--out", str(folder)]
    # A CPU is many times slower, however small the parts are.
    max_seconds = PARTS[name].max_seconds * (10 if arguments.device == "cpu" else 1)
    started = time.perf_counter()
    with (folder / f"{name}.log").open("w", encoding="utf-8") as log:
        try:
            done = subprocess.run(command, stdout=log, stderr=log, check=False, timeout=max_seconds)
            status = "ok" if done.returncode == 0 else f"failed ({done.returncode})"
        except subprocess.TimeoutExpired:
            status = f"stopped after {max_seconds:.0f} s"
    path = folder / f"{name}.json"
    figures = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {"status": status, "seconds": time.perf_counter() - started, "figures": figures}


def _table(results: dict[str, Any]) -> str:
    lines = [json.dumps(results["machine"])]
    for name, part in results["parts"].items():
        lines.append(f"{name}: {part['status']}, {part['seconds']:.0f} s")
        for figure, value in part["figures"].items():
            lines.append(f"    {figure}: {_short(value)}")
    return "\n".join(lines) + "\n"


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(inner)}" for name, inner in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    main()
