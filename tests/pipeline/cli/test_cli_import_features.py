"""Published features from their import to a trained, evaluated and ablated model."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pipeline.cli import main
from pipeline.datasets import load_dataset

SETTINGS = (
    *("--set", "steps=4", "--set", "steps_per_epoch=2", "--set", "bags_per_class=2"),
    *("--set", "model.embedding_dim=8", "--set", "model.relation_dim=8"),
    *("--set", "model.class_code_dim=4", "--set", "model.scorer_dim=4"),
)
N_SNIPPETS = 12


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def chosen() -> dict[str, list[str]]:
    """Two normal and two anomalous videos of each split of XD-Violence."""
    dataset = load_dataset("xd_violence")
    return {
        split: [
            entry.video_id
            for label in (0, 1)
            for entry in [e for e in dataset.split(split) if e.label == label][:2]
        ]
        for split in ("train", "test")
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, chosen: dict[str, list[str]]) -> Path:
    """Features as XDVioDet's release lays them out, imported, and a model trained on them."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    for split, place in (("train", "RGB"), ("test", "RGBTest")):
        (folder / "release" / place).mkdir(parents=True)
        for video in chosen[split]:
            for crop in range(5):
                values = rng.normal(size=(N_SNIPPETS, 1024)).astype(np.float32)
                np.save(folder / "release" / place / f"{video}__{crop}.npy", values)
    lists = []
    for split in chosen:
        lists.append(folder / f"{split}.list")
        names = [f"/media/peng/RGB/{name}__{k}.npy" for name in chosen[split] for k in range(5)]
        lists[-1].write_text("\n".join(names))
    result = run(
        *("import-features", "xd_violence", folder / "release", "--release", "xdviodet"),
        *("--list", lists[0], "--list", lists[1], "--features", folder / "features"),
    )
    assert result.exit_code == 0, result.output
    assert result.stdout == "8 imported, 0 there already, 0 without a file, 0 failed\n"
    result = run(
        *("train", "xd_violence", "--features", folder / "features"),
        *("--runs", folder / "runs", "--device", "cpu", *SETTINGS),
    )
    assert result.exit_code == 0, result.output
    return folder


def test_evaluate_takes_the_ground_truth_of_the_release_and_leaves_out_what_needs_videos(world):
    report = world / "metrics.json"
    result = run(
        *("evaluate", "--features", world / "features", "--runs", world / "runs"),
        *("--controls", "--device", "cpu", "--json", report),
    )
    assert result.exit_code == 0, result.output
    found = json.loads(report.read_text())
    assert found["ground_truth"] == "xdviodet"
    # 4 test videos have features; one frame less than 16 for each snippet is not lost.
    assert found["n_frames"] == 4 * 16 * N_SNIPPETS
    assert [each["name"] for each in found["left_out"]] == ["motion energy"]
    assert "motion energy: left out: it needs the videos" in result.stderr
    names = [row["name"] for row in found["rows"]]
    assert "clav-como" in names
    assert "clav-como, context shuffled" in names
    metrics = found["rows"][0]["metrics"]
    assert metrics["auc"]["mean"] is not None
    # Nobody knows how long the videos are, nor how long an event is.
    assert metrics["false_alarm_fraction"]["mean"] is not None
    events = ("false_alarms_per_hour", "event_precision", "event_recall", "delay_seconds")
    assert [metrics[name]["mean"] for name in events] == [None] * 4


def test_evaluate_takes_another_ground_truth_when_asked(world):
    report = world / "other.json"
    options = ("--features", world / "features", "--runs", world / "runs", "--device", "cpu")
    result = run("evaluate", *options, "--ground-truth", "annotation", "--json", report)
    assert result.exit_code == 0, result.output
    assert json.loads(report.read_text())["ground_truth"] == "annotation"
    result = run("evaluate", *options, "--ground-truth", "rtfm")
    assert result.exit_code == 1
    assert "no ground-truth convention 'rtfm'; expected annotation, xdviodet" in result.stderr


def test_ablate_works_with_imported_features(world):
    result = run(
        *("ablate", "--dataset", "xd_violence", "--features", world / "features"),
        *("--arm", "A5 CoMo", "--seeds", 1, "--device", "cpu", *SETTINGS),
    )
    assert result.exit_code == 0, result.output
    assert "A5 CoMo" in result.stdout


def test_a_new_video_is_not_scored_with_imported_features_and_one_line_says_why(
    world, counting_clip
):
    result = run("score", counting_clip, "--runs", world / "runs", "--device", "cpu")
    assert result.exit_code == 1
    (line,) = [each for each in result.stderr.splitlines() if each.startswith("Error: ")]
    assert "was trained on imported features (xdviodet: " in line
    assert "cannot compute from a video" in line


def test_a_missing_file_is_named_and_the_exit_code_is_3(world, chosen, tmp_path):
    listing = tmp_path / "missing.list"
    listing.write_text(f"/x/{chosen['test'][0]}__0.npy\n/x/absent__0.npy\n")
    result = run(
        *("import-features", "xd_violence", world / "release", "--release", "xdviodet"),
        *("--list", listing, "--features", tmp_path / "features"),
    )
    assert result.exit_code == 3
    assert "absent__0.npy: is in" in result.stdout
    # The list names one crop of five.
    assert "5 crops and D = 1024, instead got 1 crops" in result.stdout


def test_a_release_that_is_not_known_is_a_usage_error(tmp_path):
    (tmp_path / "release").mkdir()
    result = run("import-features", "xd_violence", tmp_path / "release", "--release", "mine")
    assert result.exit_code == 2
    assert "'mine' is not one of 'rtfm'" in result.stderr
