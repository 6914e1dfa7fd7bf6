"""The benchmark compares like with like; its speeds are not tested."""

import itertools

import pytest
import torch
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.config import resolve_config
from pipeline.experiments import bench_training as bench_module
from pipeline.experiments.bench_training import (
    Comparison,
    Round,
    TrainingSpeed,
    UsualBags,
    usual_batches,
    write_both,
)
from pipeline.training.bag_loading import load_bags


@pytest.fixture(autouse=True)
def small_features(monkeypatch):
    monkeypatch.setattr(bench_module, "FEATURE_DIM", 3)
    monkeypatch.setattr(bench_module, "MEAN_SNIPPETS", 20)


@pytest.mark.parametrize("sampler", ["bins", "sequence"])
def test_both_loaders_give_the_same_bags(tmp_path, sampler):
    dataset, paths = write_both(tmp_path, 6)
    bags = load_bags(dataset, tmp_path, sampler=sampler, bag_len=16)
    usual = UsualBags(list(itertools.chain(*paths)), sampler, 16)
    assert len(usual) == len(bags.features) == 30
    for index in range(30):
        features, n_real = usual[index]
        assert n_real == bags.n_snippets[index]
        torch.testing.assert_close(features, bags.features[index].float(), rtol=1e-6, atol=1e-6)


def test_the_usual_loader_gives_balanced_batches_without_end(tmp_path):
    _, paths = write_both(tmp_path, 4)
    config = resolve_config("clav-como", "none", settings=["bags_per_class=4", "bag_len=8"])
    for batch in itertools.islice(usual_batches(config, paths, 0), 7):
        assert batch.features.shape == (8, 8, 3)
        assert batch.labels.tolist() == [0] * 4 + [1] * 4


def test_the_ratio_is_the_median_of_the_rounds():
    rounds = tuple(Round(usual, 6, 2 * usual, 12, 24) for usual in (1, 3, 2))
    assert TrainingSpeed(20, 5.0, 100, 0.5, rounds).comparisons() == [
        Comparison("batches", "usual loader", 2, 1.0),
        Comparison("batches", "lookaround", 6, 3.0),
        Comparison("steps", "usual loader", 4, 1.0),
        Comparison("steps", "lookaround", 12, 3.0),
        Comparison("steps", "one batch again and again", 24, 6.0),
    ]


def test_the_command_prints_a_table_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path.parent))  # torch makes it if not set
    options = ["--videos", "4", "--rounds", "1", "--steps", "1", "--device", "cpu"]
    settings = ["bags_per_class=2", "model.embedding_dim=8", "model.relation_dim=4"]
    arguments = [*options, *(text for setting in settings for text in ("--set", setting))]
    result = CliRunner().invoke(main, ["bench-training", *arguments])
    assert result.exit_code == 0, result.output
    assert "20 bags" in result.stdout
    table = [line.split() for line in result.stdout.splitlines()[-5:]]
    assert [row[0] for row in table] == ["batches"] * 2 + ["steps"] * 3
    assert [row[-1] for row in table if "usual" in row] == ["1.0", "1.0"]
    assert all(float(cell) > 0 for row in table for cell in row[-2:])
    assert list(tmp_path.iterdir()) == []


def test_too_few_videos_for_a_batch_are_one_line():
    result = CliRunner().invoke(main, ["bench-training", "--videos", "2"])
    assert result.exit_code == 1
    assert "must give 32 bags of each class, instead got 5" in result.stderr
