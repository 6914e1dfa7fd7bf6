"""Ablations: every arm can be trained, and what is measured is what its name says."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from extractors.features import Features
from extractors.snippets import DROP_TAIL
from models.clav_como import ClavComo, ClavComoConfig
from pipeline.cli import main
from pipeline.config import ConfigError, resolve_config
from pipeline.datasets.catalog import VideoEntry
from pipeline.evaluation.split_videos import TestVideo
from pipeline.experiments import ablate as ablate_module
from pipeline.experiments.ablate import COLUMNS, Measured, as_json, as_table, choose_arms
from pipeline.experiments.ablation_measures import measure
from pipeline.experiments.ablation_variants import ABLATIONS, Arm
from pipeline.experiments.synthetic_bags import bursts, exclusive_or
from pipeline.training.bag_loading import Bag, collect_bags

CPU = torch.device("cpu")
FEW = ["--set", "steps=2", "--set", "bags_per_class=4", "--set", "steps_per_epoch=2"]


@pytest.fixture(autouse=True)
def few_videos(monkeypatch):
    """The drawn test beds, with few videos in each."""
    drawn = {"exclusive-or": exclusive_or, "bursts": bursts}
    few = {name: partial(draw, n_train=16, n_test=6) for name, draw in drawn.items()}
    monkeypatch.setattr(ablate_module, "SYNTHETIC", few)


@pytest.mark.parametrize(
    ("model", "arm"), [(model, arm) for model, arms in ABLATIONS.items() for arm in arms], ids=str
)
def test_every_arm_is_settings_that_the_model_knows_and_differs_from_the_others(model, arm):
    config = resolve_config(model, "none", settings=arm.settings)
    same = [
        other.name
        for other in ABLATIONS[model]
        if resolve_config(model, "none", settings=other.settings) == config
    ]
    assert same == [arm.name]


@pytest.mark.parametrize(
    ("model", "arms", "columns"),
    [
        ("clav-como", ("A0", "A9 full, ICA before"), ("gate AUC", "context shuffled", "gap")),
        ("la-net", ("MLP", "both, prior not"), ("step gap", "step correlation")),
        ("cbcg", ("regression", "16, guidance, fused"), ("cluster AUC", "anomalous share")),
    ],
)
def test_the_command_trains_its_arms_and_prints_what_it_measured(tmp_path, model, arms, columns):
    chosen = [option for arm in arms for option in ("--arm", arm)]
    path = tmp_path / "table.json"
    result = CliRunner().invoke(
        main, ["ablate", "--model", model, "--seeds", "2", "--json", str(path), *chosen, *FEW]
    )
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()[2:]
    for column in ("AUC", "parameters", *columns):
        assert column in lines[0]
    names = [next(a.name for a in ABLATIONS[model] if a.name.startswith(arm)) for arm in arms]
    names.append("linear MIL, rgb")
    assert [line[: len(name)] for line, name in zip(lines[1:], names, strict=True)] == names
    trainings = json.loads(path.read_text())["trainings"]
    assert [(t["arm"], t["seed"]) for t in trainings] == [(n, s) for n in names for s in (0, 1)]
    seeds = [t["values"]["AUC"] for t in trainings if t["arm"] == "linear MIL, rgb"]
    assert seeds[0] != seeds[1]  # another seed draws other videos
    for training in trainings:
        assert 0 <= training["values"]["AUC"] <= 1
        assert set(training["values"]) <= set(COLUMNS)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--arm", "B7"), "--arm must begin one of A0 baseline"),
        (("--set", "model.margn=1"), "unknown key model.margn; did you mean model.margin?"),
        (("--dataset", "absent.csv"), "absent.csv"),
        (("--json", "no/such/folder/table.json"), "no/such/folder"),
    ],
)
def test_what_cannot_be_ablated_is_refused_in_one_line(options, text):
    result = CliRunner().invoke(main, ["ablate", *options, *FEW])
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert text in line


def test_all_arms_are_chosen_where_none_is_named():
    assert choose_arms("cbcg", ()) == ABLATIONS["cbcg"]
    with pytest.raises(ConfigError, match=r"--arm must begin one of MLP alone.*got 'x'"):
        choose_arms("la-net", ("MLP", "x"))


def test_the_table_shows_mean_and_spread_and_nothing_where_nothing_was_measured():
    one, two = Arm("one"), Arm("two")
    measured = [
        Measured(one, 0, {"AUC": 0.5, "gap": 1.0, "parameters": 1500.0}, 1.0),
        Measured(one, 1, {"AUC": 0.7, "gap": 2.0, "parameters": 1500.0}, 1.0),
        Measured(two, 0, {"AUC": 0.25, "parameters": 20.0}, 1.0),
    ]
    rows = [re.split(" {2,}", line) for line in as_table(measured).splitlines()]
    assert rows == [
        ["", "seeds", "AUC", "gap", "parameters"],
        ["one", "2", "60.0 ± 14.1", "1.50 ± 0.71", "1.5"],
        ["two", "1", "25.0", "-", "0.0"],
    ]
    machine = as_json(measured, model_name="cbcg", dataset="bursts")
    assert json.loads(json.dumps(machine, allow_nan=False)) == machine


def test_the_measures_of_videos_with_a_dropped_tail_are_those_that_a_loop_finds():
    rng = np.random.default_rng(0)
    videos = []
    for index, n_frames in enumerate((33, 48, 37, 50)):  # 2, 2, 2 and 3 whole snippets
        label = index % 2
        features = Features(
            streams={"rgb": rng.normal(size=((n_frames - 1) // 16, 2, 6)).astype("float32")},
            snippet_len=16,
            n_frames=n_frames,
            n_missing=0,
            fps=25.0,
            timestamps=np.arange(n_frames) / 25,
            decoder="none",
            tail_policy=DROP_TAIL,
        )
        labels = np.zeros(n_frames, dtype=bool)
        labels[5 : 28 if label else 5] = True
        entry = VideoEntry(str(index), Path("none"), "test", label, ((5, 28),) if label else ())
        videos.append(TestVideo(entry, features, labels))
    torch.manual_seed(0)
    model = ClavComo(ClavComoConfig(stream_dims=(("rgb", 6),), embedding_dim=16)).eval()
    bags = collect_bags(
        [Bag(str(i), rng.normal(size=(5, 6)).astype("float32"), i % 2) for i in range(8)],
        sampler="sequence",
        bag_len=8,
        stream_dims=(("rgb", 6),),
        provenance={"extractor": "none"},
    )
    values = measure(model, videos, bags, CPU)
    positive, negative = [], []
    for video in videos:
        crops = torch.from_numpy(video.features.streams["rgb"]).transpose(0, 1)
        with torch.no_grad():
            scores = model(crops, torch.ones(crops.shape[:2]).bool()).scores.mean(dim=0).tolist()
        for frame, label in enumerate(video.labels):
            score = scores[min(frame // 16, len(scores) - 1)]
            (positive if label else negative).append(score)
    wins = np.mean([[(p > n) + 0.5 * (p == n) for n in negative] for p in positive])
    assert values["AUC"] == pytest.approx(wins, abs=1e-6)
    assert values["false alarms"] == pytest.approx(np.mean(np.array(negative) >= 0.5))
