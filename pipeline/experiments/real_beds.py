"""Extract, train and evaluate with default settings on four data sets, and write one table.

    python -m pipeline.experiments.real_beds --data ../shared/data --out beds --seeds 5

The data sets are microworld, which is generated, and three sets of real videos that are not part of
this repository. All commands run as a user would run them: DIS flow, one crop, random weights, and
no setting that depends on the data set. No test video chooses anything. What is extracted or
trained already is kept and what was interrupted is resumed, so a call can be repeated.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.atomic import replacing
from pipeline.runs.run_folder import descriptions_of_command, find_runs

# Folder of the manifest and its videos below --data; None is generated.
BEDS = {"microworld": None, "gmdcsa24": "gmdcsa24", "upcam": "upcam/clips30s", "surv": "surv"}
EXTRACT = ["--flow", "dis", "--crops", "1", "--weights", "random:0", "--precision", "float32"]
DONE = (0, 3)  # 3: some videos failed, or a control was left out


class CommandFailedError(Exception):
    """A command of the pipeline did not end as it should."""


def main() -> None:
    """Measure all beds that are there, or those that were named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real videos")
    parser.add_argument("--out", type=Path, default=Path("beds"), help="folder for all results")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--bed", action="append", choices=list(BEDS), help="only this one")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    evaluations = {
        name: evaluate_bed(name, arguments.data.absolute(), out, n_seeds=arguments.seeds)
        for name in arguments.bed or BEDS
    }
    table = as_markdown(evaluations)
    with replacing(out / "table.md") as temporary:
        temporary.write_text(table, encoding="utf-8")
    sys.stdout.write(table)


def evaluate_bed(name: str, data: Path, out: Path, *, n_seeds: int) -> dict[str, Any]:
    """Run the commands on one data set.

    Args:
        name: Key of `BEDS`.
        data: Folder of the real videos.
        out: Where features, runs and the JSON of the evaluation go.
        n_seeds: Of the training.

    Returns:
        The evaluation as JSON.

    Raises:
        CommandFailedError: If a command fails.
        CheckpointError: If the latest run cannot be read.
        OSError: If the bed's manifest cannot be read.
    """
    folder = BEDS[name]
    dataset, videos = name, []
    if folder is None:
        if not (out / "data" / name).is_dir():
            _pipeline(out, "datasets", "make", name)
    else:
        dataset, videos = f"{name}.csv", ["--videos", str(data / folder)]
        shutil.copyfile(data / folder / "manifest.csv", out / dataset)
    _pipeline(out, "extract", dataset, *videos, *EXTRACT)
    path = out / f"evaluation-{name}.json"
    _train(name, dataset, out, n_seeds=n_seeds)
    latest = find_runs(out / "runs", dataset=name)[-1]
    options = ["--dataset", dataset, *videos, "--controls", "--json", str(path)]
    _pipeline(out, "evaluate", str(latest.folder), *options)
    evaluation: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return evaluation


def _train(name: str, dataset: str, out: Path, *, n_seeds: int) -> None:
    """Train until the latest command's runs are as many as wanted, and all of them finished."""
    runs = find_runs(out / "runs", dataset=name)
    seeds = list(descriptions_of_command(runs[-1])) if runs else []
    if len(seeds) != n_seeds:
        _pipeline(out, "train", dataset, "--seeds", str(n_seeds))
    elif not all(run.is_finished for run in seeds):
        _pipeline(out, "train", dataset, "--resume")


def _pipeline(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", *arguments]
    code = subprocess.run(command, cwd=folder, check=False).returncode
    if code not in DONE:
        raise CommandFailedError(f"pipeline {' '.join(arguments)} ended with exit code {code}")


def as_markdown(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """Frame AUC in percent, a column per data set: mean and standard deviation over seeds.

    Args:
        evaluations: By data set, as `pipeline evaluate --json` writes them.
    """
    cells = {
        bed: {row["name"]: _cell(row["metrics"]["auc"]) for row in _systems(evaluation)}
        for bed, evaluation in evaluations.items()
    }
    names = list(dict.fromkeys(name for column in cells.values() for name in column))
    heads = [f"{bed}, {len(evaluation['seeds'])} seeds" for bed, evaluation in evaluations.items()]
    lines = [["frame AUC, %", *heads], ["---"] * (1 + len(heads))]
    lines += [[name, *(column.get(name, "-") for column in cells.values())] for name in names]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _systems(evaluation: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [
        row for row in evaluation["rows"] if row["kind"] in ("model", "seeds averaged", "control")
    ]


def _cell(auc: Mapping[str, Any]) -> str:
    spread = "" if auc["std"] is None else f" ± {100 * auc['std']:.1f}"
    return f"{100 * auc['mean']:.1f}{spread}"


if __name__ == "__main__":
    main()
