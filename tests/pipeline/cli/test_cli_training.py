"""`train`, `evaluate` and `runs` on features that are there: what they write, and bad input."""

import errno
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result
from safetensors import safe_open

from extractors.snippets import DROP_TAIL, REPEAT_LAST_FRAME
from pipeline.atomic import replacing
from pipeline.cli import main
from pipeline.config import ConfigError
from pipeline.experiments.ablation_variants import ABLATIONS
from pipeline.extraction.feature_file import feature_path, read_features, write_features
from pipeline.runs.checkpoints import CheckpointError
from pipeline.runs.run_folder import Run
from pipeline.runs.run_lock import owned
from pipeline.scoring.calibration import Calibration, write_calibration
from pipeline.scoring.score import find_seeds
from pipeline.training.resumable_run import train_run
from pipeline.training.train import train as train_model

pytestmark = pytest.mark.usefixtures("one_thread")

PROVENANCE = {"extractor": "i3d", "crops": 2, "weights": "random:0", "is_pretrained": False}
SMALL = [
    "steps=4",
    "steps_per_epoch=2",
    "bags_per_class=2",
    "model.embedding_dim=8",
    "model.class_code_dim=4",
    "model.relation_dim=4",
    "model.scorer_dim=4",
]


def run(folder: Path, *arguments: object) -> Result:
    """Run the command as if typed in `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return CliRunner().invoke(main, [str(argument) for argument in arguments])


def train(folder: Path, *arguments: object, dataset: str = "small.csv") -> Result:
    settings = [text for setting in SMALL for text in ("--set", setting)]
    one_seed = () if {"--resume", "--seeds"} & set(arguments) else ("--seeds", 1)
    return run(folder, "train", dataset, *settings, *one_seed, *arguments)


@pytest.fixture(scope="module")
def make_world(features_of):
    """A function that writes a manifest and features of its videos."""

    def make(
        folder: Path,
        *,
        name: str = "small",
        provenance=PROVENANCE,
        n_snippets: int = 4,
        n_more_frames: int = 0,
    ):
        """A manifest of ten videos, six of them for training, and their features."""
        rng = np.random.default_rng(0)
        rows = ["path,split,label,anomalies,class\n"]
        for index in range(10):
            label = index % 2
            streams = {"rgb": rng.normal(size=(n_snippets, 2, 3)).astype("float32")}
            if label:
                streams["rgb"][0] += 4
            features = features_of(
                streams,
                16 * n_snippets + n_more_frames,
                tail_policy=provenance.get("tail_policy", REPEAT_LAST_FRAME),
            )
            path = feature_path(folder / "features" / name, str(index))
            write_features(path, features, provenance, video_id=str(index), source_name="none")
            split = "train" if index < 6 else "test"
            anomalies = "0-16" if label else ""
            rows.append(f"{index}.mp4,{split},{label},{anomalies},{'fall' if label else ''}\n")
        (folder / f"{name}.csv").write_text("".join(rows))

    return make


@pytest.fixture(scope="module")
def world(tmp_path_factory, make_world) -> Path:
    """A working folder with a dataset and a run of two seeds."""
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    trained = train(folder, "--seeds", 2, "--set", "keep_epochs=true")
    assert trained.exit_code == 0, trained.output
    return folder


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def run_folders(folder: Path) -> list[Path]:
    return sorted((folder / "runs").glob("*/*/*"))


def test_an_evaluation_leaves_its_table_its_json_its_plot_and_the_cards(world):
    result = run(world, "evaluate", "--json", "e.json", "--plot", "e.png", "--best-on-test")
    assert result.exit_code == 0, result.output
    for text in (
        "4 test videos",
        "clav-como",
        "clav-como, 2 seeds averaged",
        "best epoch on test, network alone (optimistic)",
        "  fall (2)",
        "alarms at 0.5",
        "checkpoints: after a fixed budget of 4 steps",
        "random weights: not pretrained",
    ):
        assert text in result.stdout
    values = json.loads((world / "e.json").read_text())
    kinds = ["model", "seeds averaged", "best on test", "class"]
    assert [row["kind"] for row in values["rows"]] == kinds
    assert (world / "e.png").read_bytes().startswith(b"\x89PNG")
    for folder in run_folders(world):
        assert json.loads((folder / "evaluation-small.json").read_text()) == values
        assert "frame AUC" in (folder / "README.md").read_text()


def test_a_folder_with_a_checkpoint_alone_is_evaluated_on_a_named_dataset(world, tmp_path):
    folder = tmp_path / "copy"
    copy_of(world, folder)
    (folder / "alone").mkdir()
    shutil.copy(run_folders(folder)[0] / "checkpoint.safetensors", folder / "alone")
    before = files_below(folder)
    options = ("--dataset", "small.csv", "--controls", "--json", "e.json")
    result = run(folder, "evaluate", "alone", *options)
    assert "runs: alone" in result.stdout
    assert "4 test videos" in result.stdout
    assert "checkpoints:" not in result.stdout
    assert (
        "linear MIL, rgb: left out: alone: is not a run folder, it has no config.json"
        in result.stderr
    )
    assert "Error:" not in result.stderr
    assert files_below(folder) - before == {folder / "e.json"}
    values = json.loads((folder / "e.json").read_text())
    (model,) = [row for row in values["rows"] if row["kind"] == "model"]
    assert run(folder, "evaluate", "--json", "whole.json").exit_code == 0
    auc = json.loads((folder / "whole.json").read_text())["rows"][0]["metrics"]["auc"]["per_seed"][
        0
    ]
    assert model["metrics"]["auc"]["per_seed"] == [auc]
    without_dataset = run(folder, "evaluate", "alone")
    assert without_dataset.exit_code == 1
    assert "alone: is not a run folder" in without_dataset.stderr


def test_an_evaluation_reads_each_description_once_and_once_for_the_card(world, monkeypatch):
    counted = Counter()
    read_text = Path.read_text

    def count_and_read(path, *arguments, **options):
        counted[path] += path.name == "config.json"
        return read_text(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", count_and_read)
    assert run(world, "evaluate").exit_code == 0
    assert +counted == Counter(
        {Path(*path.parts[-4:]) / "config.json": 2 for path in run_folders(world)}
    )


def test_the_alarms_are_those_of_the_calibration_unless_a_threshold_is_given(world, tmp_path):
    folder = tmp_path / "copy"
    copy_of(world, folder)
    assert "alarms at 0.5, released below 0.4" in run(folder, "evaluate").stdout
    calibration = Calibration(0.25, 2.0, 0.5, 16, 0.5, 3, 12.5, 6, 0.9, 0.95)
    write_calibration(find_seeds(None, folder / "runs"), calibration)
    result = run(folder, "evaluate", "--json", "e.json")
    assert result.exit_code == 0, result.output
    title = "alarms at 0.25 (calibrated), released below 0.2, merged within 2 s"
    assert title in result.stdout
    stored = json.loads((folder / "e.json").read_text())
    assert stored["is_calibrated"]
    assert stored["event_rule"] == {**asdict(calibration.rule), "release": 0.2}
    given = run(folder, "evaluate", "--threshold", 0.75)
    assert "alarms at 0.75, released below 0.6, merged within 1 s" in given.stdout


def test_the_best_on_test_is_only_there_on_request(world):
    assert "optimistic" not in run(world, "evaluate").stdout


def test_a_run_is_evaluated_on_another_dataset_whose_features_are_alike(world, make_world):
    make_world(world, name="abroad")
    result = run(world, "evaluate", "--dataset", "abroad.csv")
    assert result.exit_code == 0, result.output
    assert "clav-como (small -> abroad)" in result.stdout


def test_another_dataset_with_other_features_is_refused_with_what_differs(
    world, make_world, assert_one_line_error
):
    make_world(world, name="foreign", provenance={**PROVENANCE, "crops": 10})
    result = run(world, "evaluate", "--dataset", "foreign.csv", "--json", "foreign.json")
    assert_one_line_error(result, "crops: 2 expected, instead got 10")
    assert not (world / "foreign.json").exists()


def test_the_list_of_runs_has_their_metrics(world):
    assert run(world, "evaluate").exit_code == 0
    result = run(world, "runs")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["run", "state", "steps"]
    seeds = [line for line in lines[1:] if line.startswith("small/clav-como/")]
    assert len(seeds) == 2
    for line in seeds:
        assert line.split()[1:3] == ["finished", "4/4"]
    for dataset in ("small", "small.csv"):
        assert run(world, "runs", "--dataset", dataset).stdout == result.stdout
    none = run(world, "runs", "--model", "la-net")
    other = none.stdout.splitlines()
    assert [line for line in other if "/" in line] == []
    assert lines[0].split() == other[0].split()
    assert "no such runs there" in none.stderr


def test_an_output_that_cannot_be_written_is_found_out_before_the_work(
    world, assert_one_line_error
):
    result = run(world, "evaluate", "--plot", "absent/e.png")
    assert_one_line_error(result, "absent/e.png")
    assert "clav-como" not in result.stdout


@pytest.mark.parametrize(("settings", "n_seeds"), [((), 3), (("--set", "ensemble=false"), 1)])
def test_an_ensemble_is_trained_with_three_seeds_unless_their_number_is_given(
    tmp_path, make_world, settings, n_seeds
):
    make_world(tmp_path)
    small = [text for setting in SMALL for text in ("--set", setting)]
    assert run(tmp_path, "train", "small.csv", *small, *settings).exit_code == 0
    assert len(run_folders(tmp_path)) == n_seeds


def test_without_kept_epochs_there_is_no_best_on_test(tmp_path, make_world, assert_one_line_error):
    make_world(tmp_path)
    assert train(tmp_path).exit_code == 0
    result = run(tmp_path, "evaluate", "--best-on-test")
    assert_one_line_error(result, "kept no epochs", "--set keep_epochs=true")


def test_held_out_videos_select_on_request(tmp_path, make_world, assert_one_line_error):
    make_world(tmp_path)
    refused = train(tmp_path, "--set", "selection=held_out")
    assert_one_line_error(refused, "selection must be budget for an ensemble", "ensemble=false")
    trained = train(tmp_path, "--set", "selection=held_out", "--set", "ensemble=false")
    assert trained.exit_code == 0, trained.output
    (folder,) = run_folders(tmp_path)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= line["held_out_auc"] <= 1 for line in lines)
    assert "ranks held-out training videos best" in run(tmp_path, "evaluate").stdout


def test_each_epoch_is_shown_with_its_loss_and_speed(tmp_path, monkeypatch, make_world):
    make_world(tmp_path)
    monkeypatch.setattr("pipeline.cli.terminal.SECONDS_BETWEEN_LINES", 0)
    result = train(tmp_path, "--device", "cpu")
    assert result.exit_code == 0, result.output
    (folder,) = run_folders(tmp_path)
    shown = [line for line in result.stderr.splitlines() if folder.name in line]
    detail = r"loss \d+\.\d{4}, \d+\.\d steps/s, \d+ s left"
    assert len(shown) == 2
    for epoch, line in enumerate(shown, start=1):
        assert re.fullmatch(rf"train {folder.name}: {epoch}/2 epochs, {detail}", line)


def test_tensorboard_that_is_not_installed_is_said_before_the_training(
    tmp_path, monkeypatch, make_world, assert_one_line_error
):
    make_world(tmp_path)
    # Importing it now fails.
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    before = files_below(tmp_path)
    assert_one_line_error(train(tmp_path, "--tensorboard"), "pip install tensorboard")
    assert files_below(tmp_path) == before


def test_bags_of_one_snippet_can_be_trained_on_and_evaluated(tmp_path, make_world):
    make_world(tmp_path, n_snippets=1)
    (tmp_path / "small.csv").write_text((tmp_path / "small.csv").read_text().replace("0-16", "0-8"))
    trained = train(tmp_path, "--set", "sampler=sequence", "--set", "model.top_k_divisor=1")
    assert trained.exit_code == 0, trained.output
    assert run(tmp_path, "evaluate").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--set", "stepps=3"], "did you mean steps?"),
        (["--set", "steps=0"], "steps must be greater than or equal to 1, instead got 0"),
        (["--set", "held_out_fraction=0.9"], "held_out_fraction"),
        (["--set", "selection=test"], "selection must be 'budget' or 'held_out'"),
        (["--set", "model.scorer_dropout=1.5"], "scorer_dropout must be in [0, 1)"),
        (
            ["--recipe", "absent.toml"],
            "absent.toml: cannot be read (No such file or directory), expected a recipe",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_one_line_and_nothing_is_written(
    tmp_path, arguments, expected, make_world, assert_one_line_error
):
    make_world(tmp_path)
    before = files_below(tmp_path)
    assert_one_line_error(train(tmp_path, *arguments), expected)
    assert files_below(tmp_path) == before


def test_a_recipe_with_an_unknown_key_is_named_with_the_key(
    tmp_path, make_world, assert_one_line_error
):
    make_world(tmp_path)
    (tmp_path / "mine.toml").write_text("[model]\nmargins = 1\n")
    before = files_below(tmp_path)
    result = train(tmp_path, "--recipe", "mine.toml")
    assert_one_line_error(result, "mine.toml: unknown key model.margins", "did you mean")
    assert files_below(tmp_path) == before


def test_a_training_split_of_one_class_is_one_line_and_nothing_is_written(
    tmp_path, make_world, assert_one_line_error
):
    make_world(tmp_path)
    lines = (tmp_path / "small.csv").read_text().splitlines()
    (tmp_path / "small.csv").write_text("\n".join(x for x in lines if ",train,1," not in x))
    before = files_below(tmp_path)
    assert_one_line_error(train(tmp_path), "3 normal and 0 anomalous")
    assert files_below(tmp_path) == before


def test_features_that_are_not_finite_are_one_line_that_names_the_video(
    tmp_path, make_world, assert_one_line_error
):
    make_world(tmp_path)
    path = tmp_path / "features/small/3.h5"
    first_value = read_features(path).features.streams["rgb"].astype("<f2").tobytes()[:12]
    content = bytearray(path.read_bytes())
    at = content.index(first_value)
    content[at : at + 2] = np.array(np.nan, "<f2").tobytes()
    path.write_bytes(content)
    before = files_below(tmp_path)
    assert_one_line_error(train(tmp_path), "small/3.h5", "rgb features must be finite")
    assert files_below(tmp_path) == before


def copy_of(world: Path, target: Path) -> Path:
    """A run's folder with the features, to be spoilt."""
    shutil.copytree(world / "features", target / "features")
    shutil.copy(world / "small.csv", target)
    source = run_folders(world)[0]
    folder = target / "runs" / source.relative_to(world / "runs")
    shutil.copytree(source, folder)
    return folder / "checkpoint.safetensors"


@pytest.mark.parametrize("change", ["extra", "missing", "shape", "other model"])
def test_a_checkpoint_that_does_not_fit_its_model_is_one_line(
    world, tmp_path, change, assert_one_line_error
):
    path = copy_of(world, tmp_path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = "scorer.0.weight" if "scorer.0.weight" in tensors else next(iter(tensors))
    if change == "extra":
        tensors["more"] = torch.zeros(1)
    elif change == "missing":
        del tensors[name]
    elif change == "shape":
        tensors[name] = torch.zeros(7, 7)
    else:
        header = json.loads(metadata["lookaround"])
        metadata = {"lookaround": json.dumps({**header, "model_name": "no-such-model"})}
    safetensors.torch.save_file(tensors, path, metadata)
    before = files_below(tmp_path)
    result = run(tmp_path, "evaluate", "--json", "e.json")
    assert_one_line_error(result, str(path.relative_to(tmp_path)))
    assert files_below(tmp_path) == before


def test_an_ablation_of_features_with_a_dropped_tail_is_measured(tmp_path, make_world):
    make_world(tmp_path, provenance={**PROVENANCE, "tail_policy": DROP_TAIL}, n_more_frames=9)
    settings = [text for setting in SMALL for text in ("--set", setting)]
    options = ["--arm", "A0", "--seeds", 1, "--json", "a.json"]
    result = run(tmp_path, "ablate", "--dataset", "small.csv", *options, *settings)
    assert result.exit_code == 0, result.output
    alone = ("--set", "ensemble=false")  # an ablation measures the network by itself
    assert train(tmp_path, *alone, *(text for text in ablated_settings())).exit_code == 0
    assert run(tmp_path, "evaluate", "--json", "e.json").exit_code == 0
    ablated = json.loads((tmp_path / "a.json").read_text())["runs"][0]["values"]
    evaluated = json.loads((tmp_path / "e.json").read_text())["rows"][0]["metrics"]
    assert ablated["AUC"] == pytest.approx(evaluated["auc"]["mean"], abs=1e-9)


def ablated_settings():
    arm = ABLATIONS["clav-como"][0]
    assert arm.name.startswith("A0")
    return [text for setting in arm.settings for text in ("--set", setting)]


@pytest.mark.parametrize(
    "options", [["--set", "steps=9"], ["--seed", 0], ["--seeds", 1], ["--recipe", "x.toml"]]
)
def test_resume_refuses_the_settings_that_it_would_ignore(tmp_path, options):
    result = run(tmp_path, "train", "small.csv", "--resume", *options)
    assert result.exit_code == 2
    assert f"{options[0]} cannot be given with --resume" in result.stderr


def test_only_training_videos_that_have_features_count_as_many(tmp_path, monkeypatch, make_world):
    monkeypatch.setattr("pipeline.config.FEW_VIDEOS", 6)
    make_world(tmp_path)
    for n_missing, sampler in ((0, "bins"), (1, "sequence")):
        for index in range(n_missing):
            (tmp_path / f"features/small/{index}.h5").unlink()
        assert train(tmp_path).exit_code == 0
        config = json.loads((run_folders(tmp_path)[-1] / "config.json").read_text())["train"]
        assert config["sampler"] == sampler
        assert config["ensemble"] == bool(n_missing)


@pytest.mark.parametrize(("options", "n_seeds"), [((), 1), (("--seeds", 3), 3)])
def test_where_the_network_is_alone_one_seed_is_the_default_and_it_is_said_once(
    tmp_path, monkeypatch, make_world, caplog, options, n_seeds
):
    make_world(tmp_path)
    for index in (1, 3):
        (tmp_path / f"features/small/{index}.h5").unlink()
    monkeypatch.setattr("pipeline.training.train.still_flow_features", lambda *_, **__: 1 / 0)
    settings = [text for setting in SMALL for text in ("--set", setting)]
    result = run(tmp_path, "train", "small.csv", *settings, *options)
    assert result.exit_code == 0, result.output
    assert caplog.text.count("fewer than two training videos of a class") == 1
    folders = run_folders(tmp_path)
    assert len(folders) == n_seeds
    for folder in folders:
        assert "the network scores alone" in (folder / "README.md").read_text()


def test_a_run_is_resumed_on_the_features_that_it_began_with_unless_others_are_named(
    tmp_path, make_world, assert_one_line_error
):
    make_world(tmp_path)
    (tmp_path / "features").rename(tmp_path / "elsewhere")
    assert train(tmp_path, "--features", "elsewhere").exit_code == 0
    (folder,) = run_folders(tmp_path)
    expected = (folder / "checkpoint.safetensors").read_bytes()

    def stop():
        (folder / "checkpoint.safetensors").unlink()

    make_world(tmp_path, n_snippets=9)  # other features, in the folder of the default
    stop()
    resumed = run(tmp_path, "train", "small.csv", "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert (folder / "checkpoint.safetensors").read_bytes() == expected
    stop()
    named = run(tmp_path, "train", "small.csv", "--resume", "--features", "features")
    assert named.exit_code == 0, named.output
    assert (folder / "checkpoint.safetensors").read_bytes() != expected
    stop()
    shutil.rmtree(tmp_path / "elsewhere")
    lost = run(tmp_path, "train", "small.csv", "--resume")
    assert_one_line_error(lost, str(tmp_path / "elsewhere"), "name another folder with --features")


def test_an_ensemble_is_not_resumed_without_the_features_of_a_still_video(
    tmp_path, make_world, assert_one_line_error
):
    make_world(tmp_path)
    assert train(tmp_path).exit_code == 0
    (folder,) = run_folders(tmp_path)
    (folder / "checkpoint.safetensors").unlink()  # as if it had been stopped
    config = json.loads((folder / "config.json").read_text())
    assert config["has_motion"] is False  # these features have no flow
    (folder / "config.json").write_text(json.dumps({**config, "has_motion": True}))
    result = run(tmp_path, "train", "small.csv", "--resume")
    assert_one_line_error(result, folder.name, "name them with --weights")
    del config["has_motion"]  # of an earlier version: as it can be had
    (folder / "config.json").write_text(json.dumps(config))
    assert run(tmp_path, "train", "small.csv", "--resume").exit_code == 0


def test_a_run_that_is_being_trained_is_not_resumed_by_another(
    tmp_path, make_world, assert_one_line_error
):
    make_world(tmp_path)
    assert train(tmp_path).exit_code == 0
    (folder,) = run_folders(tmp_path)
    (folder / "checkpoint.safetensors").unlink()
    before = files_below(tmp_path)
    with owned([Run(folder)]):
        result = run(tmp_path, "train", "small.csv", "--resume")
        assert_one_line_error(result, folder.name, "is being trained by another process")
    assert files_below(tmp_path) == before
    assert run(tmp_path, "train", "small.csv", "--resume").exit_code == 0


def test_a_training_holds_all_its_runs_from_the_start(tmp_path, monkeypatch, make_world):
    make_world(tmp_path)
    refused = []

    def spy(*arguments, **options):
        for folder in run_folders(tmp_path):
            with pytest.raises(CheckpointError, match="another process"):
                owned([Run(folder)]).__enter__()
            refused.append(folder.name)
        yield from train_run(*arguments, **options)

    monkeypatch.setattr("pipeline.training.train.train_run", spy)
    assert train(tmp_path, "--seeds", 2).exit_code == 0
    assert len(refused) == 4


def test_settings_that_cannot_be_built_leave_no_run_behind(
    tmp_path, make_world, assert_one_line_error
):
    make_world(tmp_path)
    before = files_below(tmp_path)
    for setting in ("model.embedding_dim=10000000", "model.embedding_dim=60000"):
        assert_one_line_error(train(tmp_path, "--set", setting), "at most")
        assert files_below(tmp_path) == before


def test_a_run_finds_its_manifest_from_every_folder(world, tmp_path, assert_one_line_error):
    result = run(tmp_path, "evaluate", run_folders(world)[0], "--features", world / "features")
    assert result.exit_code == 0, result.output
    moved = copy_of(world, tmp_path).parent
    values = json.loads((moved / "config.json").read_text())
    values["dataset_source"] = str(tmp_path / "gone/small.csv")
    (moved / "config.json").write_text(json.dumps(values))
    assert_one_line_error(run(tmp_path, "evaluate", moved), str(tmp_path / "gone/small.csv"))


def test_outputs_of_an_evaluation_never_replace_what_it_reads(
    world, tmp_path, assert_one_line_error
):
    checkpoint = copy_of(world, tmp_path)
    contents = {path: path.read_bytes() for path in files_below(tmp_path)}
    for name in ("small.csv", "features/small/7.h5", checkpoint.relative_to(tmp_path)):
        for option in ("--json", "--plot"):
            result = run(tmp_path, "evaluate", "--dataset", "small.csv", option, name)
            assert_one_line_error(result, str(name), option)
    result = run(tmp_path, "evaluate", "--json", "x", "--plot", "./x")
    assert_one_line_error(result, "is named by --json and by --plot")
    result = run(tmp_path, "ablate", "--dataset", "small.csv", "--json", "small.csv")
    assert_one_line_error(result, "small.csv: --json must not replace an input")
    assert {path: path.read_bytes() for path in files_below(tmp_path)} == contents


def test_an_evaluation_as_json_goes_to_stdout_on_request(world):
    result = run(world, "evaluate", "--json", "-")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout[result.stdout.index("{") :])["dataset"] == "small"
    assert not (world / "-").exists()


def test_features_of_another_width_are_one_line_that_names_the_file(
    world, tmp_path, assert_one_line_error
):
    copy_of(world, tmp_path)
    path = tmp_path / "features/small/7.h5"
    stored = read_features(path)
    wide = replace(stored.features, streams={"rgb": np.ones((4, 2, 5), "float32")})
    write_features(path, wide, PROVENANCE, video_id="7", source_name="none")
    assert_one_line_error(run(tmp_path, "evaluate"), "7.h5", "rgb (3-d), instead got rgb (5-d)")
    path = tmp_path / "features/small/3.h5"
    write_features(path, wide, PROVENANCE, video_id="3", source_name="none")
    before = files_below(tmp_path)
    assert_one_line_error(train(tmp_path), "3.h5", "instead got rgb (5-d)")
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"format": "lookaround evaluation"}', "[" * 10**5, "\0", "\xff"]
)
def test_a_damaged_run_does_not_hide_the_others(world, tmp_path, content):
    shutil.copytree(world / "runs", tmp_path / "runs")
    first, second = run_folders(tmp_path)
    for name in ("evaluation-small.json", "metrics.jsonl", "config.json"):
        path = first / name
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(f"{content}\n".encode("latin-1"))
        result = run(tmp_path, "runs")
        assert result.exit_code == 3, result.output
        assert second.name in result.stdout
        assert first.name not in result.stdout
        (line,) = [line for line in result.stderr.splitlines() if "left out" in line]
        assert name in line
        assert "Traceback" not in result.output
        path.unlink() if before is None else path.write_bytes(before)
    assert run(tmp_path, "runs").exit_code == 0


def test_a_folder_of_runs_that_is_not_there_is_an_error(tmp_path, assert_one_line_error):
    assert_one_line_error(run(tmp_path, "runs", "--runs", "absent"), "absent", "no such folder")


def test_an_evaluation_in_a_run_that_is_read_only_is_shown_and_not_kept(
    world, tmp_path, monkeypatch, caplog
):
    folder = copy_of(world, tmp_path).parent
    for path in folder.glob("evaluation-*.json"):
        path.unlink()

    def refuse(path):
        if path.parent == folder.resolve():
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return replacing(path)

    monkeypatch.setattr("pipeline.outputs.replacing", refuse)
    result = run(tmp_path, "evaluate", "--json", "e.json")
    assert result.exit_code == 0, result.output
    assert "4 test videos" in result.stdout
    assert json.loads((tmp_path / "e.json").read_text())["dataset"] == "small"
    assert "the evaluation is not kept there (Read-only file system)" in caplog.text


def test_a_run_in_bfloat16_scores_features_in_float32_with_a_notice(tmp_path, caplog, make_world):
    make_world(tmp_path, provenance={**PROVENANCE, "precision": "bfloat16"})
    assert train(tmp_path).exit_code == 0
    make_world(tmp_path, name="exact", provenance={**PROVENANCE, "precision": "float32"})
    result = run(tmp_path, "evaluate", "--dataset", "exact.csv")
    assert result.exit_code == 0, result.output
    notices = [record for record in caplog.records if "features are in float32" in record.message]
    assert len(notices) == 1


def test_a_run_in_float32_refuses_features_in_bfloat16(tmp_path, make_world, assert_one_line_error):
    make_world(tmp_path, provenance={**PROVENANCE, "precision": "float32"})
    assert train(tmp_path).exit_code == 0
    make_world(tmp_path, name="rounded", provenance={**PROVENANCE, "precision": "bfloat16"})
    result = run(tmp_path, "evaluate", "--dataset", "rounded.csv")
    assert_one_line_error(result, "precision: float32 expected, instead got bfloat16")


@pytest.mark.parametrize("place", ["before", "after"])
def test_verbose_says_more_wherever_it_stands(world, place, caplog):
    quiet = run(world, "evaluate")
    assert quiet.exit_code == 0
    assert not [record for record in caplog.records if record.levelname == "INFO"]
    arguments = ["-v", "evaluate"] if place == "before" else ["evaluate", "-v"]
    assert run(world, *arguments).exit_code == 0
    said = [record.message for record in caplog.records if record.levelname == "INFO"]
    assert any("small/7.h5: 64 frames" in line for line in said)


def test_a_controlled_evaluation_keeps_its_rows_where_a_video_is_gone(world, tmp_path):
    copy_of(world, tmp_path)
    result = run(tmp_path, "evaluate", "--controls", "--json", "e.json")
    assert result.exit_code == 3, result.output
    assert "motion energy: left out: " in result.stderr
    assert "6.mp4" in result.stderr
    rows = json.loads((tmp_path / "e.json").read_text())["rows"]
    names = ["clav-como", "linear MIL, rgb", "clav-como, context shuffled", "fall"]
    assert [row["name"] for row in rows] == names
    assert "motion energy" not in result.stdout


def test_linear_scorers_are_left_out_where_the_training_manifest_is_gone(tmp_path, make_world):
    make_world(tmp_path)
    make_world(tmp_path, name="other")
    assert train(tmp_path).exit_code == 0
    (tmp_path / "small.csv").unlink()
    options = ["--dataset", "other.csv", "--controls", "--json", "e.json"]
    result = run(tmp_path, "evaluate", *options)
    assert result.exit_code == 3, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("linear MIL")]
    assert line.startswith("linear MIL, rgb: left out: ")
    assert "small.csv: cannot be read (No such file or directory)" in line
    rows = json.loads((tmp_path / "e.json").read_text())["rows"]
    names = ["clav-como (small -> other)", "clav-como, context shuffled", "fall"]
    assert [row["name"] for row in rows] == names


@pytest.mark.parametrize("options", [(), ("--features", "features")])
def test_linear_scorers_are_fitted_to_the_features_that_the_run_was_trained_from(
    tmp_path, make_world, options
):
    make_world(tmp_path)
    (tmp_path / "features").rename(tmp_path / "elsewhere")
    make_world(tmp_path, name="other")
    assert train(tmp_path, "--features", "elsewhere").exit_code == 0
    arguments = ["--dataset", "other.csv", "--controls", "--json", "e.json", *options]

    def linear_rows():
        rows = json.loads((tmp_path / "e.json").read_text())["rows"]
        return [row for row in rows if row["name"] == "linear MIL, rgb"]

    assert "linear MIL, rgb: left out" not in run(tmp_path, "evaluate", *arguments).stderr
    found = linear_rows()
    assert len(found) == 1
    shutil.copytree(tmp_path / "elsewhere/small", tmp_path / "features/small")
    run(tmp_path, "evaluate", *arguments)
    assert linear_rows() == found
    shutil.rmtree(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "features/small")
    gone = run(tmp_path, "evaluate", *arguments)
    assert gone.exit_code == 3, gone.output
    (line,) = [line for line in gone.stderr.splitlines() if line.startswith("linear MIL")]
    assert line.startswith("linear MIL, rgb: left out: features/small: holds no features of the 6")
    assert linear_rows() == []


def test_a_manifest_that_is_not_there_is_said_without_loading_torch(tmp_path):
    code = (
        "import sys; from pipeline.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: sys.exit(9 if 'torch' in sys.modules else end.code)"
    )
    for command in (
        ["train", "absent.csv"],
        ["evaluate", "--dataset", "absent.csv"],
        ["datasets", "check", "absent.csv"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *command], cwd=tmp_path, check=False, capture_output=True
        )
        assert done.returncode == 1, done.stderr
        assert b"absent.csv" in done.stderr


def test_an_interrupted_training_ends_with_130_and_no_traceback(tmp_path, make_world):
    make_world(tmp_path)
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "train"]
    options = ["small.csv", "--set", "steps=1000000", "--set", "steps_per_epoch=1"]
    small = [text for setting in SMALL[2:] for text in ("--set", setting)]
    with subprocess.Popen(
        [*command, *options, *small], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        while not list(tmp_path.glob("runs/*/*/*/metrics.jsonl")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "interrupted" in said


def test_no_output_of_score_replaces_the_checkpoint_of_any_seed(world, assert_one_line_error):
    (world / "v.mp4").write_bytes(b"not a video")
    seeds = run_folders(world)
    before = [(seed / "checkpoint.safetensors").read_bytes() for seed in seeds]
    assert len(before) > 1
    for named in seeds:
        for seed in seeds:
            out = seed / "checkpoint.safetensors"
            result = run(world, "score", "v.mp4", "--run", named, "--out", out)
            assert_one_line_error(result, "--out must not replace an input")
    assert [(seed / "checkpoint.safetensors").read_bytes() for seed in seeds] == before


def test_features_that_are_not_here_are_found_where_the_run_was_trained_from(tmp_path, make_world):
    make_world(tmp_path)
    (tmp_path / "features").rename(tmp_path / "elsewhere")
    assert train(tmp_path, "--features", "elsewhere").exit_code == 0
    shown = run(tmp_path, "evaluate")
    assert shown.exit_code == 0, shown.output
    (tmp_path / "elsewhere").rename(tmp_path / "features")
    assert run(tmp_path, "evaluate").stdout == shown.stdout
    assert run(tmp_path, "evaluate", "--features", "elsewhere").exit_code == 1


@pytest.mark.parametrize("seeds", [0, -1])
def test_at_least_one_seed_is_trained(seeds):
    with pytest.raises(ConfigError, match=f"seeds must be 1 or more, instead got {seeds}"):
        train_model("absent.csv", seeds=seeds)
