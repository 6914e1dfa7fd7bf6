"""Runs the parts of a GPU check one after the other, each in a process with a time limit.

The processes are forked from one that has imported torch already. Figures go to `NAME.json` as
they are found, and to `results.json` after each part: a run that is killed loses nothing.
"""

import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from pipeline.atomic import replacing
from pipeline.device import choose_device
from pipeline.experiments.clips import find_real_videos
from pipeline.experiments.gpu.context import Context

Figures = dict[str, Any]
CPU_TIME_FACTOR = 10  # a CPU is many times slower, however small the parts are
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


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a check.

    Attributes:
        run: Yields figures as they are found; raises if something is not as it must be. Defined
            at the top of a module, so that it can be named to another process.
        max_seconds: After which it is stopped.
    """

    run: Callable[[Context], Iterator[Figures]]
    max_seconds: float


def run_parts(
    parts: Mapping[str, Part],
    device: str,
    folder: Path,
    *,
    max_seconds: float = float("inf"),
    commit: str | None = None,
) -> dict[str, Any]:
    """Run parts one after the other. One that fails or takes too long never stops the next.

    Args:
        parts: By name.
        device: "cuda", or "cpu" for a rehearsal at small size.
        folder: Where results, logs and clips go.
        max_seconds: For all parts together: what is not done by then is left out.
        commit: Of the code, where git is not at hand.

    Returns:
        "machine", and "parts": by name the status ("ok" if all is well), seconds and figures.

    Raises:
        OSError: If the results cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": describe_machine(commit), "parts": {}}
    deadline = time.monotonic() + max_seconds
    for name, part in parts.items():
        limit = part.max_seconds * (CPU_TIME_FACTOR if device == "cpu" else 1)
        results["parts"][name] = _run_in_process(
            name, part, device, folder, min(limit, deadline - time.monotonic())
        )
        _write_json(folder / "results.json", results)
        sys.stderr.write(f"{name}: {results['parts'][name]['status']}\n")
    return results


def _run_in_process(
    name: str, part: Part, device: str, folder: Path, max_seconds: float
) -> dict[str, Any]:
    if max_seconds <= 0:
        return {"status": "not begun: no time was left", "seconds": 0.0, "figures": {}}
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["pipeline.experiments.gpu.parts"])
    process = processes.Process(target=_run_part, args=(name, part, device, folder))
    started = time.perf_counter()
    process.start()
    process.join(max_seconds)
    status = "ok" if process.exitcode == 0 else f"failed ({process.exitcode})"
    if process.exitcode is None:
        status = f"stopped after {max_seconds:.0f} s"
    _kill(process)
    path = folder / f"{name}.json"
    figures = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {"status": status, "seconds": time.perf_counter() - started, "figures": figures}


def _kill(process: BaseProcess) -> None:
    """End a part and the processes that it has started."""
    assert process.pid is not None
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _run_part(name: str, part: Part, device: str, folder: Path) -> None:
    """Run one part in this process, which leads a process group of its own."""
    os.setsid()
    log = os.open(folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    context = Context(choose_device(device), folder, device == "cpu")
    figures: Figures = {}
    for found in part.run(context):
        figures.update(found)
        _write_json(folder / f"{name}.json", figures)


def _write_json(path: Path, content: object) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def describe_machine(commit: str | None) -> dict[str, Any]:
    """Describe what the figures belong to: date, commit, versions, GPU and driver."""
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


def as_text(results: Mapping[str, Any]) -> str:
    """Lay out the results of all parts as indented lines."""
    lines = [json.dumps(results["machine"])]
    for name, part in results["parts"].items():
        lines.append(f"{name}: {part['status']}, {part['seconds']:.0f} s")
        for figure, value in part["figures"].items():
            lines.append(f"    {figure}: {_short(value)}")
    return "\n".join(lines) + "\n"


def choose_parts(parts: Mapping[str, Part], names: str | None) -> dict[str, Part]:
    """Return the parts with these names, separated by commas, in this order; all if None.

    Raises:
        ValueError: If there is no such part.
    """
    if names is None:
        return dict(parts)
    unknown = sorted(set(names.split(",")) - set(parts))
    if unknown:
        raise ValueError(f"parts must be some of {', '.join(parts)}, instead got {unknown[0]}")
    return {name: parts[name] for name in names.split(",")}


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
