"""The benchmark compares like with like; its speeds are not tested."""

import itertools
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.config import resolve_config
from pipeline.experiments import bench_training as bench_module
from pipeline.experiments.bench_training import (
    Round,
    UsualBags,
    describe,
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


def test_the_ratio_is_the_median_of_the_rounds(tmp_path):
    rounds = [Round(1, own, 2, 2 * own, 10) for own in (3, 9, 5)]
    lines = describe(rounds).splitlines()
    assert [line.split()[-1] for line in lines] == ["5.0", "5.0", "5.0"]
    assert np.isclose(float(lines[0].split()[2]), 5)


def test_the_command_prints_both_ratios_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    options = ["--videos", "4", "--rounds", "1", "--steps", "1", "--device", "cpu"]
    settings = ["bags_per_class=2", "model.embedding_dim=8", "model.relation_dim=4"]
    arguments = [*options, *(text for setting in settings for text in ("--set", setting))]
    result = CliRunner().invoke(main, ["bench-training", *arguments])
    assert result.exit_code == 0, result.output
    assert "20 bags" in result.stdout
    assert len(re.findall(r"ratio +[0-9.]+", result.stdout)) == 3
    assert list(tmp_path.iterdir()) == []


def test_too_few_videos_for_a_batch_are_one_line():
    result = CliRunner().invoke(main, ["bench-training", "--videos", "2"])
    assert result.exit_code == 1
    assert "must give 32 bags of each class, instead got 5" in result.stderr
