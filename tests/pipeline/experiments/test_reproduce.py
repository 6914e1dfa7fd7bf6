"""The command that reproduces a paper's row, and the recipes that it trains by."""

import re
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from models import MODELS
from pipeline.cli import main
from pipeline.config import RECIPES, resolve_config
from pipeline.datasets import DATASETS, load_dataset
from pipeline.evaluation.ground_truth_conventions import conventions_of
from pipeline.evaluation.measure import measure
from pipeline.evaluation.results import Row
from pipeline.experiments.published_results import METRICS, PUBLISHED
from pipeline.experiments.reproduce import ReproduceError, Reproduction, reproduce
from pipeline.extraction.import_features import import_features
from pipeline.runs.checkpoints import load_checkpoint
from pipeline.training.train import train

BENCHMARKS = ("ucf_crime", "shanghaitech", "xd_violence")
PAIRS = [(model, dataset) for model in MODELS for dataset in BENCHMARKS]
# Learning rate, weight decay, steps, sampler, T, bags of either class.
BINS, SEQUENCE = ("bins", 32, 32), ("sequence", 200, 64)
VALUES = {
    ("clav-como", "ucf_crime"): (5e-4, 5e-4, 5000, *BINS),
    ("clav-como", "shanghaitech"): (5e-4, 5e-3, 5000, *BINS),
    ("clav-como", "xd_violence"): (5e-4, 5e-4, 5000, *BINS),
    ("la-net", "ucf_crime"): (5e-4, 0.0, 16_100 // 128 * 50, *SEQUENCE),
    ("la-net", "shanghaitech"): (5e-4, 0.0, 2_380 // 128 * 50, *SEQUENCE),
    ("la-net", "xd_violence"): (5e-4, 0.0, 19_770 // 128 * 50, *SEQUENCE),
    ("cbcg", "ucf_crime"): (5e-4, 5e-4, 5000, *BINS),
    ("cbcg", "shanghaitech"): (5e-4, 5e-4, 3000, *BINS),
    ("cbcg", "xd_violence"): (5e-4, 5e-4, 5000, *BINS),
}
PRIORS = {"ucf_crime": (0.6, 0.2), "shanghaitech": (0.08, 0.1), "xd_violence": (0.06, 0.02)}


@pytest.mark.parametrize(("model", "dataset"), PAIRS)
def test_there_is_a_recipe_with_the_known_values_for_every_model_and_benchmark(model, dataset):
    assert (RECIPES / f"{model}-{dataset}.toml").is_file()
    config = resolve_config(model, dataset)
    found = (config.learning_rate, config.weight_decay, config.steps)
    found += (config.sampler, config.bag_len, config.bags_per_class)
    assert found == VALUES[model, dataset]
    if model != "la-net":  # for 1024-d features, the default; the recipe says the other rate
        text = " ".join((RECIPES / f"{model}-{dataset}.toml").read_text().split())
        assert re.search(r"2048-d[^.]* take --set learning_rate=1e-3\.", text.replace("# ", ""))
    else:
        assert (config.model.prior_slope, config.model.prior_offset) == PRIORS[dataset]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_resolves_and_its_values_are_taken(path):
    model = next(name for name in MODELS if path.stem.startswith(f"{name}-"))
    config = resolve_config(model, path.stem.removeprefix(f"{model}-"))
    assert config == resolve_config(model, "no such dataset", recipe=path)


def test_every_pair_has_a_published_number_or_says_that_there_is_none():
    assert set(PUBLISHED) == set(PAIRS)
    assert set(METRICS) == set(BENCHMARKS) <= set(DATASETS)
    for (_, dataset), published in PUBLISHED.items():
        assert published.source
        assert published.ground_truth in conventions_of(dataset)
    assert PUBLISHED["clav-como", "ucf_crime"].percent == 86.1
    assert PUBLISHED["clav-como", "xd_violence"].percent == 81.3
    assert PUBLISHED["la-net", "ucf_crime"].percent == 85.12
    assert PUBLISHED["cbcg", "ucf_crime"].percent is None


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Path:
    """Imported features of four training and four test videos of UCF-Crime, of RTFM's kind."""
    folder = tmp_path_factory.mktemp("reproduce")
    (folder / "release").mkdir()
    dataset = load_dataset("ucf_crime", allow_duplicates=True)
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in (0, 1):
            entries = [entry for entry in dataset.split(split) if entry.label == label]
            # The shortest, so that the test is fast.
            entries.sort(key=lambda entry: dataset.frame_counts.get(entry.video_id, 0))
            for entry in entries[:2]:
                n_frames = dataset.frame_counts.get(entry.video_id, 160)
                values = rng.normal(size=(-(-n_frames // 16), 10, 2048)).astype(np.float32)
                np.save(folder / "release" / f"{entry.video_id}_i3d.npy", values)
    import_features(dataset, folder / "release", release="rtfm", features=folder / "features")
    return folder / "features"


SETTINGS = (
    *("steps=3", "steps_per_epoch=1", "bags_per_class=2", "model.embedding_dim=8"),
    *("model.relation_dim=4", "model.class_code_dim=4", "model.scorer_dim=4"),
)


def test_a_row_has_our_numbers_by_both_ground_truths_beside_the_published_one(features, tmp_path):
    options = [argument for setting in SETTINGS for argument in ("--set", setting)]
    folders = ["--features", str(features), "--runs", str(tmp_path)]
    result = CliRunner().invoke(
        main, ["reproduce", "clav-como", "ucf_crime", *folders, "--device", "cpu", *options]
    )
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0].startswith(
        "clav-como on ucf_crime, in percent; features: imported, Tian et al."
    )
    ours, published_way, best, published = (
        line for line in lines if re.match("ours|published", line)
    )
    number = r"\d+\.\d\d ± \d+\.\d\d"
    by_annotation = re.fullmatch(rf"ours, 3 seeds, last step annotation 4 (\d+) {number}", ours)
    by_rtfm = re.fullmatch(rf"ours, 3 seeds, last step rtfm 4 (\d+) ({number})", published_way)
    assert by_annotation is not None
    assert by_rtfm is not None
    dataset = load_dataset("ucf_crime", allow_duplicates=True)
    counts = [
        dataset.frame_counts[path.stem]
        for path in (features / "ucf_crime").glob("*.h5")
        if path.stem in dataset.frame_counts
    ]
    assert int(by_annotation[1]) == sum(counts)
    assert int(by_rtfm[1]) == sum(-(-count // 16) * 16 for count in counts)
    by_best = re.fullmatch(
        r"ours, 3 seeds, best epoch on test \(optimistic, as papers report\) rtfm 4 (\d+) "
        rf"({number})",
        best,
    )
    assert by_best is not None
    assert by_best[1] == by_rtfm[1]
    assert float(by_best[2].split()[0]) >= float(by_rtfm[2].split()[0])
    assert published == "published: arXiv 2405.19387, table 2 86.1"


@pytest.mark.parametrize("alone", ["", ", network alone"])
def test_the_best_epoch_of_an_ensemble_is_said_to_be_its_network(alone):
    measured = SimpleNamespace(frames=SimpleNamespace(auc=0.75))
    row = Row(f"best epoch on test{alone} (optimistic)", "best on test", (measured,))
    evaluation = SimpleNamespace(rows=[row], ground_truth="rtfm", n_videos=4, n_frames=640)
    published = PUBLISHED["clav-como", "ucf_crime"]
    reproduction = Reproduction("clav-como", "ucf_crime", None, "", published, (evaluation,))
    label = f"ours, 1 seeds, best epoch on test{alone} (optimistic, as papers report)"
    assert reproduction.rows()[0] == (label, "rtfm", "4", "640", "75.00")


def test_the_best_epoch_is_chosen_by_the_metric_of_the_benchmark(features, tmp_path):
    settings = [*SETTINGS, "steps=12", "keep_epochs=true", "learning_rate=0.3", "ema_decay=0"]
    run = train("ucf_crime", features=features, runs=tmp_path, settings=settings, device="cpu")
    dataset = load_dataset("ucf_crime", allow_duplicates=True)

    def measured(epochs, best_by="auc"):
        checkpoints = [load_checkpoint(epochs[0])]
        cpu = torch.device("cpu")
        found = measure(checkpoints, dataset, features, cpu, epochs=[epochs], best_by=best_by)
        (row,) = [row for row in found.rows if row.kind == "best on test"]
        return row.per_seed[0].frames

    frames = {path: measured([path]) for path in run.epoch_checkpoints()}
    pair = next(  # one epoch is better by the AUC, the other by the AP
        [one, other]
        for one, other in combinations(frames, 2)
        if frames[one].auc > frames[other].auc
        and frames[one].ap_trapezoid < frames[other].ap_trapezoid
    )
    assert measured(pair, "auc") == frames[pair[0]]
    assert measured(pair, "ap_trapezoid") == frames[pair[1]]


def test_a_pair_without_a_row_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ReproduceError, match="expected a model of cbcg, clav-como, la-net"):
        reproduce("clav-como", "microworld", runs=tmp_path)
    assert list(tmp_path.iterdir()) == []
