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
from pipeline.datasets import load_dataset
from pipeline.datasets.catalog import VideoEntry
from pipeline.evaluation.paired_jackknife import JackknifedAuc
from pipeline.evaluation.split_videos import SplitVideo
from pipeline.experiments import ablate as ablate_module
from pipeline.experiments.ablate import Plan, ablate, choose_arms
from pipeline.experiments.ablation_measures import measure
from pipeline.experiments.ablation_results import COLUMNS, DIFFERENCE, Ablation, Measured
from pipeline.experiments.ablation_variants import ABLATIONS, Arm
from pipeline.experiments.synthetic_bags import bursts, exclusive_or
from pipeline.extraction.feature_file import feature_path, write_features
from pipeline.training.bag_loading import Bag, collect_bags

CPU = torch.device("cpu")
FEW = ["--set", "steps=2", "--set", "bags_per_class=4", "--set", "steps_per_epoch=2"]


@pytest.fixture(autouse=True)
def few_videos(monkeypatch):
    """The synthetic test beds, with few videos in each."""
    synthetic = {"exclusive-or": exclusive_or, "bursts": bursts}
    few = {name: partial(draw, n_train=16, n_test=6) for name, draw in synthetic.items()}
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
    default = resolve_config(model, "none")
    assert (config.sampler, config.bag_len) == (default.sampler, default.bag_len)


@pytest.mark.parametrize(
    ("model", "arms", "columns"),
    [
        ("clav-como", ("A0", "A9 full: the default"), ("gate AUC", "context shuffled", "gap")),
        ("la-net", ("MLP", "both, prior not"), ("step gap", "step correlation")),
        ("cbcg", ("regression", "16, guidance, fused"), ("cluster AUC", "anomalous fraction")),
    ],
)
def test_the_command_trains_its_arms_and_prints_what_it_measured(tmp_path, model, arms, columns):
    chosen = [option for arm in arms for option in ("--arm", arm)]
    path = tmp_path / "table.json"
    result = CliRunner().invoke(
        main, ["ablate", "--model", model, "--seeds", "2", "--json", str(path), *chosen, *FEW]
    )
    assert result.exit_code == 0, result.output
    title, header, _, *lines = result.stdout.splitlines()[2:]
    for column in ("AUC", DIFFERENCE, "parameters", *columns):
        assert column in header
    names = [next(a.name for a in ABLATIONS[model] if a.name.startswith(arm)) for arm in arms]
    streams = ("rgb", "flow", "rgb + flow") if model == "clav-como" else ("rgb",)
    linear = [f"linear MIL, {stream}" for stream in streams]
    names += linear
    assert [line[: len(name)] for line, name in zip(lines, names, strict=True)] == names
    content = json.loads(path.read_text())
    reference = names[0 if model == "la-net" else 1]  # the default, or the first arm without it
    assert title == f"differences in AUC to: {reference}; * the interval excludes 0"
    assert content["reference"] == reference
    compared = [found["arm"] for found in content["differences"]]
    assert compared == [name for name in names if name != reference]
    runs = content["runs"]
    mean_auc = {
        name: np.mean([run["values"]["AUC"] for run in runs if run["arm"] == name])
        for name in names
    }
    for found in content["differences"]:
        expected = mean_auc[found["arm"]] - mean_auc[reference]
        assert found["auc"] == pytest.approx(expected, abs=1e-9)
        assert found["low"] <= found["auc"] <= found["high"]
    expected = [(name, seed) for name in names[: -len(linear)] for seed in (0, 1)]
    expected += [(name, seed) for seed in (0, 1) for name in linear]
    assert [(run["arm"], run["seed"]) for run in runs] == expected
    seeds = [run["values"]["AUC"] for run in runs if run["arm"] == "linear MIL, rgb"]
    assert seeds[0] != seeds[1]  # another seed draws other videos
    for run in runs:
        assert 0 <= run["values"]["AUC"] <= 1
        assert set(run["values"]) <= set(COLUMNS)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--arm", "B7"), "--arm must begin one of A0 baseline"),
        (("--set", "model.margn=1"), "unknown key model.margn; did you mean model.margin?"),
        (("--set", "ensemble=true"), "an ablation trains the network alone for all its steps"),
        (("--set", "selection=held_out"), "leave out ensemble, selection and keep_epochs"),
        (("--set", "keep_epochs=true"), "leave out ensemble, selection and keep_epochs"),
        (("--dataset", "absent.csv"), "absent.csv"),
        (("--json", "no/such/folder/table.json"), "no/such/folder"),
    ],
)
def test_what_cannot_be_ablated_is_refused_in_one_line(options, text):
    result = CliRunner().invoke(main, ["ablate", *options, *FEW])
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert text in line


def test_each_variant_of_the_full_model_changes_one_setting_of_the_default():
    full = [arm for arm in ABLATIONS["clav-como"] if arm.name.startswith("A9")]
    assert [len(arm.settings) for arm in full] == [0] + [1] * (len(full) - 1)


def test_on_exclusive_or_the_architecture_of_two_streams_is_trained(monkeypatch):
    trained_models = []

    def remember(model, *rest):
        trained_models.append(model)
        return measure(model, *rest)

    monkeypatch.setattr(ablate_module, "measure", remember)
    ablate(make_plan("clav-como", choose_arms("clav-como", ("A9 full: ",)), dataset="exclusive-or"))
    (model,) = trained_models
    assert isinstance(model, ClavComo)
    assert set(model.stems) == set(model.ica) == {"rgb", "flow"}
    # Flow and its steps, which are 4 times as wide: what microworld's features are given, too.
    assert model.como.motion_path[0].in_features == 5 * model.config.embedding_dim


@pytest.mark.parametrize(
    ("model", "dataset", "steps"),
    [("clav-como", "exclusive-or", 400), ("cbcg", "bursts", 500), ("la-net", "exclusive-or", 5000)],
)
def test_a_synthetic_set_has_its_own_recipe_where_there_is_one(model, dataset, steps):
    plan = Plan(model, dataset, Path("none"), (), (0,), (), CPU)
    assert ablate_module._config(plan, None, Arm("default")).steps == steps


def test_all_arms_are_chosen_where_none_is_named():
    assert choose_arms("cbcg", ()) == ABLATIONS["cbcg"]
    with pytest.raises(ConfigError, match=r"--arm must begin one of MLP alone.*got 'x'"):
        choose_arms("la-net", ("MLP", "x"))


def make_run(arm, seed, values):
    """A run whose AUC is the same without any of its four test videos."""
    jackknifed = JackknifedAuc(values["AUC"], np.full(4, values["AUC"]), np.arange(4) % 2 == 1)
    return Measured(arm, seed, values, jackknifed, 1.0)


def test_the_table_shows_mean_and_spread_and_nothing_where_nothing_was_measured():
    one, two = Arm("one"), Arm("two")
    done = Ablation(
        "cbcg",
        "bursts",
        two,
        (
            make_run(one, 0, {"AUC": 0.5, "gap": 1.0, "parameters": 1500.0}),
            make_run(one, 1, {"AUC": 0.5, "gap": 2.0, "parameters": 1500.0}),
            make_run(two, 0, {"AUC": 0.25, "parameters": 20.0}),
        ),
    )
    header, rows = done.table()
    assert header == ["", "seeds", "AUC", "difference, 95 % interval", "gap", "parameters"]
    assert rows == [
        ["one", "2", "50.0 ± 0.0", "+25.0 [+25.0, +25.0] *", "1.50 ± 0.71", "1.5"],
        ["two", "1", "25.0", "reference", "-", "0.0"],
    ]
    machine = done.as_json()
    assert json.loads(json.dumps(machine, allow_nan=False)) == machine
    assert machine["reference"] == "two"
    assert machine["differences"] == [
        {"arm": "one", "auc": 0.25, "low": 0.25, "high": 0.25, "excludes_zero": True}
    ]


def test_the_table_marks_only_what_is_larger_than_the_spread_over_seeds():
    default, above, tied = Arm("default"), Arm("above"), Arm("tied")
    aucs = {
        default: (0.60, 0.70, 0.65, 0.62, 0.68),
        above: (0.69, 0.81, 0.75, 0.71, 0.79),
        tied: (0.62, 0.67, 0.66, 0.59, 0.70),
    }
    runs = [
        make_run(arm, seed, {"AUC": auc})
        for arm, of_arm in aucs.items()
        for seed, auc in enumerate(of_arm)
    ]
    _, rows = Ablation("la-net", "bursts", default, tuple(runs)).table()
    assert rows[0][3] == "reference"
    assert re.fullmatch(r"\+10\.0 \[\+\d\.\d, \+1\d\.\d\] \*", rows[1][3])
    assert re.fullmatch(r"-0\.2 \[-\d\.\d, \+\d\.\d\]", rows[2][3])


def test_before_the_reference_is_trained_nothing_is_compared():
    run = make_run(Arm("one"), 0, {"AUC": 0.5})
    done = Ablation("cbcg", "bursts", Arm("default"), (run,))
    assert done.as_json()["differences"] == []


def make_plan(model, arms, *, dataset="bursts", features=Path("none"), seeds=(0,), settings=FEW):
    return Plan(model, dataset, features, arms, seeds, settings[1::2], CPU)


@pytest.mark.parametrize(
    ("model", "default"),
    [
        ("clav-como", "A9 full: the default"),
        ("la-net", "7, both: the default"),
        ("cbcg", "16, guidance, fused: the default"),
    ],
)
def test_arms_are_compared_with_the_default_or_with_the_first_where_it_is_not_there(model, default):
    arms = choose_arms(model, ())
    (index,) = [index for index, arm in enumerate(arms) if arm.name == default]
    assert ablate(make_plan(model, (arms[0], arms[index]))).reference == arms[index]
    assert ablate(make_plan(model, arms[:1])).reference == arms[0]


def test_an_arm_that_changes_nothing_differs_by_0():
    first, *_ = choose_arms("la-net", ("MLP",))
    same = Arm("the same", first.settings)
    done = ablate(make_plan("la-net", (first, same), seeds=(3, 4)))
    found = done.differences()[same]
    assert (found.mean, found.low, found.high) == (0, 0, 0)


def test_each_seed_of_a_synthetic_set_has_its_own_videos():
    (arm,) = choose_arms("la-net", ("MLP",))
    first, second, *linear = ablate(make_plan("la-net", (arm,), seeds=(0, 1))).runs
    assert [record.seed for record in linear] == [0, 1]
    assert [each.jackknifed.video_set for each in (first, second)] == [0, 1]
    assert not np.array_equal(first.jackknifed.without, second.jackknifed.without)


def write_dataset(folder):
    """A manifest of sixteen videos, every second anomalous, eight of them for training."""
    rng = np.random.default_rng(0)
    rows = ["path,split,label,anomalies\n"]
    for index in range(16):
        features = Features(
            streams={"rgb": rng.normal(size=(4, 1, 3)).astype("float32")},
            snippet_len=16,
            n_frames=64,
            n_missing=0,
            fps=25.0,
            timestamps=np.arange(64) / 25,
            decoder="none",
        )
        path = feature_path(folder / "features" / "small", str(index))
        provenance = {"extractor": "none", "is_pretrained": False}
        write_features(path, features, provenance, video_id=str(index), source_name="none")
        split = "train" if index < 8 else "test"
        rows.append(f"{index}.mp4,{split},{index % 2},{'16-40' if index % 2 else ''}\n")
    (folder / "small.csv").write_text("".join(rows))


def test_features_are_read_once_for_all_arms_and_seeds(tmp_path):
    write_dataset(tmp_path)
    features = tmp_path / "features"

    def remove_test_features(progress):
        for index in range(8, 16):
            feature_path(features / "small", str(index)).unlink(missing_ok=True)

    dataset = str(tmp_path / "small.csv")
    arms = choose_arms("la-net", ("MLP", "7, both"))
    plan = make_plan("la-net", arms, dataset=dataset, features=features, seeds=(0, 1))
    done = ablate(plan, report=remove_test_features)
    names = [(record.arm.name, record.seed) for record in done.runs]
    assert names == [(arm.name, seed) for arm in arms for seed in (0, 1)] + [("linear MIL, rgb", 0)]


def test_only_training_videos_that_have_features_count_as_many(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.config.FEW_VIDEOS", 8)
    write_dataset(tmp_path)
    features = tmp_path / "features"
    dataset = load_dataset(tmp_path / "small.csv", allow_outside=True)
    plan = make_plan("la-net", (), dataset=str(tmp_path / "small.csv"), features=features)
    assert ablate_module._config(plan, dataset, Arm("default")).model.input_noise == 0
    feature_path(features / "small", "0").unlink()
    assert ablate_module._config(plan, dataset, Arm("default")).model.input_noise == 2


def test_all_seeds_are_compared_on_the_same_test_videos_of_a_dataset(tmp_path, monkeypatch):
    write_dataset(tmp_path)
    monkeypatch.setattr(ablate_module, "with_seed", lambda config, seed: config)  # one model
    dataset, features = str(tmp_path / "small.csv"), tmp_path / "features"
    arms = choose_arms("la-net", ("MLP",))
    plan = make_plan("la-net", arms, dataset=dataset, features=features, seeds=(0, 1))
    first, second, _ = ablate(plan).runs
    assert len(np.unique(first.jackknifed.without)) == 8
    assert first.jackknifed.video_set == second.jackknifed.video_set
    assert np.array_equal(first.jackknifed.without, second.jackknifed.without)


def test_five_seeds_are_the_default(tmp_path):
    path = tmp_path / "a.json"
    options = ["--model", "la-net", "--arm", "MLP", "--json", str(path)]
    result = CliRunner().invoke(main, ["ablate", *options, *FEW])
    assert result.exit_code == 0, result.output
    runs = json.loads(path.read_text())["runs"]
    assert [run["seed"] for run in runs if run["arm"] == "MLP alone"] == [0, 1, 2, 3, 4]


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
        videos.append(SplitVideo(entry, features, labels))
    torch.manual_seed(0)
    model = ClavComo(ClavComoConfig(stream_dims=(("rgb", 6),), embedding_dim=16)).eval()
    bags = collect_bags(
        [Bag(str(i), rng.normal(size=(5, 6)).astype("float32"), i % 2) for i in range(8)],
        sampler="sequence",
        bag_len=8,
        stream_dims=(("rgb", 6),),
        provenance={"extractor": "none"},
    )
    values, _ = measure(model, videos, bags, CPU)
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


def test_with_one_test_video_of_a_kind_the_table_has_a_dash_and_the_command_says_why(monkeypatch):
    few = {"bursts": partial(bursts, n_train=16, n_test=2)}
    monkeypatch.setattr(ablate_module, "SYNTHETIC", few)
    options = ["--model", "la-net", "--arm", "MLP", "--seeds", "2", *FEW]
    result = CliRunner().invoke(main, ["ablate", *options])
    assert result.exit_code == 0, result.output
    assert (
        result.stdout.count("[-]: no interval; it needs two test videos with and two without") == 1
    )
    (linear,) = [line for line in result.stdout.splitlines() if line.startswith("linear MIL")]
    assert re.search(r"[-+]\d+\.\d \[-\]( |$)", linear)
