"""The library: importing it is light, and the README's example of it runs as it is printed."""

import doctest
import os
import subprocess
import sys
from pathlib import Path

import pipeline
from pipeline.evaluation import evaluate as evaluation
from pipeline.extraction import extract as extraction
from pipeline.scoring import live
from pipeline.scoring import score as scoring
from pipeline.training import train as training

REPOSITORY = Path(__file__).parents[2]
SLOW_MODULES = ("torch", "cv2", "av", "decord", "h5py", "matplotlib", "sklearn")


def test_importing_the_library_loads_none_of_the_slow_modules():
    code = (
        "import sys, pipeline; assert 'extract' in dir(pipeline)\n"
        f"print([name for name in {SLOW_MODULES} if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_each_function_is_the_one_that_its_command_calls():
    assert pipeline.extract is extraction.extract
    assert pipeline.train is training.train
    assert pipeline.evaluate is evaluation.evaluate
    assert pipeline.score is scoring.score
    assert pipeline.watch is live.watch


def test_the_readmes_example_of_the_library_runs_as_it_is_printed(
    tmp_path, monkeypatch, write_clip
):
    (tmp_path / "cameras").mkdir()
    rows = ["path,split,label,anomalies"]
    for index, (split, label, anomalies) in enumerate(
        [("train", 0, ""), ("train", 1, ""), ("test", 0, ""), ("test", 1, "16-32")]
    ):
        write_clip(tmp_path / "cameras" / f"{index}.mp4", n_frames=48)
        rows.append(f"{index}.mp4,{split},{label},{anomalies}")
    (tmp_path / "cameras" / "cameras.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = readme.split("## As a library")[1].split("\n## ")[0]
    example = doctest.DocTestParser().get_doctest(section, {}, "README.md", "README.md", 0)
    assert len(example.examples) >= 5
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
    assert result.failed == 0
