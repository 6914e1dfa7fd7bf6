"""From a training run to an ensemble: who is validated on what, what is kept, what is left out."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from extractors.build import ExtractorChoice
from extractors.errors import LookaroundError
from models.ensemble import Ensemble
from models.interface import Output
from pipeline.config import resolve_config
from pipeline.progress import no_report
from pipeline.runs.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from pipeline.runs.run_folder import RunDescription, create_runs
from pipeline.training import ensemble_training, training_loop
from pipeline.training.bag_loading import Bag, collect_bags
from pipeline.training.cross_validation import fuse
from pipeline.training.ensemble_training import (
    N_NETWORKS,
    _derived_seed,
    _spread_of_mean,
    fit_ensemble,
    still_flow_features,
)
from pipeline.training.resumable_run import train_run
from pipeline.training.training_loop import DivergedError, Trainer, trained

PROVENANCE = {"extractor": "i3d", "streams": "rgb,flow", "is_pretrained": False}
CPU = torch.device("cpu")
STILL = torch.tensor([100.0, 101.0, 99.0])
SETTINGS = [
    "ensemble=true",
    "sampler=sequence",
    "bag_len=12",
    "bags_per_class=4",
    "steps=6",
    "steps_per_epoch=3",
    "model.embedding_dim=8",
    "model.class_code_dim=4",
    "model.relation_dim=4",
    "model.scorer_dim=4",
]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks as small as these only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def config():
    return resolve_config("clav-como", "none", settings=SETTINGS)


def make_bags(n_videos=14, n_anomalous=7):
    """Two crops; the flow of anomalous videos is farther from the still video."""
    rng = np.random.default_rng(0)
    bags = []
    for index in range(n_videos):
        features = (rng.normal(size=(int(rng.integers(5, 12)), 8)) * 5 + 100).astype(np.float32)
        label = int(index < n_anomalous)
        if label:
            features[:2, 5:] += 40
        bags += [Bag(f"v{index}", features, label), Bag(f"v{index}", features + 1, label)]
    return collect_bags(
        bags,
        sampler="sequence",
        bag_len=12,
        stream_dims=(("rgb", 5), ("flow", 3)),
        provenance=PROVENANCE,
    )


def make_run(runs: Path, config):
    (run,) = create_runs(runs, [RunDescription("small", "a.csv", Path("f"), PROVENANCE, config)])
    return run


def test_a_run_ends_with_an_ensemble_that_loads_to_the_same_scores(tmp_path, config):
    run = make_run(tmp_path, config)
    messages = []
    list(
        train_run(
            run,
            make_bags(),
            CPU,
            still_flow=STILL,
            report=lambda progress: messages.append(progress.message),
        )
    )
    model = load_checkpoint(run.checkpoint_path).model
    expected = ("network", "linear rgb", "linear flow", "distance rgb", "distance flow", "motion")
    assert model.members == expected
    records = json.loads(run.ensemble_path.read_text())
    assert [record["name"] for record in records] == list(expected)
    assert [record["weight"] for record in records] == pytest.approx(model.weights.tolist())
    motion = records[-1]
    said = f"motion {100 * motion['held_out_auc']:.0f} x {motion['weight']:.2f}"
    assert messages[-1].endswith(said)
    row = f"| motion | {motion['held_out_auc']:.3f} | {motion['weight']:.2f} |"
    assert row in run.card_path.read_text()
    by_name = {record["name"]: record["held_out_auc"] for record in records}
    assert by_name["motion"] > 0.9
    assert all(0 <= auc <= 1 for auc in by_name.values())
    batch = make_bags().batch(np.arange(14), np.zeros(14))
    again = tmp_path / "again.safetensors"
    save_checkpoint(again, load_checkpoint(run.checkpoint_path))
    with torch.no_grad():
        scores = model(batch.features, batch.mask).scores
        assert torch.equal(load_checkpoint(again).model(batch.features, batch.mask).scores, scores)
    highest = scores.masked_fill(~batch.mask, 0).amax(dim=1)
    assert highest[:7].min() > highest[7:].max()


def test_all_videos_teach_each_network_of_an_ensemble_and_each_ends_as_another(tmp_path, config):
    run = make_run(tmp_path, config)
    list(train_run(run, make_bags(), CPU, still_flow=STILL))
    model = load_checkpoint(run.checkpoint_path).model
    assert model.n_networks == len(model.networks) == N_NETWORKS
    found = [network.state_dict() for network in model.networks]
    for index, seed in enumerate([0, *(_derived_seed(0, i) for i in range(1, N_NETWORKS))]):
        expected = trained(replace(config, seed=seed), make_bags(), CPU).state_dict()
        for name, tensor in expected.items():
            assert torch.equal(found[index][name], tensor), name
    weights = [state["scorer.0.weight"] for state in found]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(weights, 2))


class OneColumn(torch.nn.Linear):
    """Its logits are one column of the features, times a factor."""

    def __init__(self, column, factor):
        super().__init__(1, 1)
        self.column, self.factor = column, factor

    def forward(self, features, mask):
        return Output(self.factor * features[..., self.column], features)


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        ([OneColumn(0, 1.0)], 1.0),
        ([OneColumn(0, 1.0), OneColumn(0, 3.0)], 1.0),  # they agree
        ([OneColumn(0, 1.0), OneColumn(0, -1.0)], 1.0),  # nothing varies: nothing to divide by
        ([OneColumn(0, 1.0), OneColumn(1, 1.0)], 0.5**0.5),  # independent of each other
    ],
)
def test_the_mean_of_networks_varies_less_the_less_they_agree(networks, expected):
    assert _spread_of_mean(torch.nn.ModuleList(networks), make_bags(200, 100)) == pytest.approx(
        expected, rel=0.05
    )


def test_the_mean_of_networks_is_divided_by_its_own_deviation(tmp_path, config, monkeypatch):
    fused = []
    monkeypatch.setattr(
        ensemble_training,
        "fuse",
        lambda logits, labels: fused.append(fuse(logits, labels)) or fused[-1],
    )
    run = make_run(tmp_path, config)
    list(train_run(run, make_bags(), CPU, still_flow=STILL))
    model = load_checkpoint(run.checkpoint_path).model
    spread = _spread_of_mean(model.networks, make_bags())
    assert 0 < spread < 1
    expected = fused[0].scales * np.array([spread, 1, 1, 1, 1, 1])
    assert model.scales.tolist() == pytest.approx(expected.tolist(), rel=1e-6)


def test_no_two_networks_of_three_seeds_are_the_same():
    seeds = [seed for seed in range(3)]
    derived = [_derived_seed(seed, index) for seed in seeds for index in range(1, 50)]
    assert len({*seeds, *derived}) == 3 + 3 * 49
    assert 0 <= min(derived) <= max(derived) < 2**63


def test_no_fold_learns_from_the_videos_that_it_is_validated_on(monkeypatch, config):
    learned, asked = [], []

    class Recorded(Trainer):
        def __init__(self, config, bags, device):
            learned.append(set(bags.video_ids))
            super().__init__(config, bags, device)

    of_fitted = Ensemble.fit_scorers

    def fit_scorers(self, batch, still_flow):
        asked.append((len(batch.labels), set()))
        of_fitted(self, batch, still_flow)

    of_logits = ensemble_training._member_logits

    def member_logits(ensemble, bags, video):
        asked[-1][1].add(bags.video_ids[video])
        return of_logits(ensemble, bags, video)

    monkeypatch.setattr(training_loop, "Trainer", Recorded)
    monkeypatch.setattr(Ensemble, "fit_scorers", fit_scorers)
    monkeypatch.setattr(ensemble_training, "_member_logits", member_logits)
    bags = make_bags()
    network = Trainer(config, bags, CPU).average
    fit_ensemble(network, config, bags, CPU, still_flow=None, report=no_report)
    assert learned[5:] == [set(bags.video_ids)] * (N_NETWORKS - 1)
    for others, (n_fitted, validated) in zip(learned[:5], asked[:5], strict=True):
        assert others | validated == set(bags.video_ids)
        assert not others & validated
        assert n_fitted == len(others)
    assert asked[5] == (14, set())  # at last the scorers are fitted to all videos


def test_the_network_of_a_fold_is_standardized_without_the_videos_that_it_is_validated_on(
    monkeypatch, config
):
    bags = make_bags()
    bags.features[:2] *= 1000  # both crops of an outlier
    bags.snippets[torch.from_numpy(bags.snippet_videos == 0)] *= 1000
    means = {}

    class Recorded(Trainer):
        def __init__(self, config, bags, device):
            super().__init__(config, bags, device)
            means[bags.video_ids] = float(self.average.input_norm.mean.mean())

    network = Trainer(config, bags, CPU).average
    monkeypatch.setattr(training_loop, "Trainer", Recorded)
    fit_ensemble(network, config, bags, CPU, still_flow=None, report=no_report)
    assert len(means) == 6  # of five folds, and of all videos
    assert sorted("v0" in videos for videos in means) == [False, True, True, True, True, True]
    for videos, mean in means.items():
        assert (mean > 1000) == ("v0" in videos)


def test_a_training_that_was_stopped_ends_with_the_same_ensemble(tmp_path, config):
    whole = make_run(tmp_path / "whole", config)
    list(train_run(whole, make_bags(), CPU, still_flow=STILL))
    stopped = make_run(tmp_path / "stopped", config)
    records = train_run(stopped, make_bags(), CPU, still_flow=STILL)
    next(records)
    records.close()
    list(train_run(stopped, make_bags(), CPU, still_flow=STILL))
    assert stopped.checkpoint_path.read_bytes() == whole.checkpoint_path.read_bytes()
    assert stopped.ensemble_path.read_bytes() == whole.ensemble_path.read_bytes()


def test_with_one_video_of_a_class_the_network_scores_by_itself(tmp_path, config, caplog):
    bags = make_bags(6, 1)
    network = Trainer(config, bags, CPU).average
    found, records = fit_ensemble(network, config, bags, CPU, still_flow=None, report=no_report)
    assert found is network
    assert records == []
    assert caplog.messages == []  # `train` has warned once for all seeds

    run = make_run(tmp_path, config)
    list(train_run(run, bags, CPU))
    card = run.card_path.read_text()
    assert "the network scores alone" in card
    assert "needs two training videos of either class" in card
    run = make_run(tmp_path, replace(config, ensemble=False))
    list(train_run(run, bags, CPU))
    assert "the network scores alone" not in run.card_path.read_text()


def bags_of(provenance, **stream_dims):
    return replace(make_bags(), provenance=provenance, stream_dims=tuple(stream_dims.items()))


def test_a_still_video_has_features_only_where_their_extractor_can_be_had(caplog):
    assert still_flow_features(bags_of({}, rgb=8), CPU) is None
    assert caplog.messages == []
    imported = {"extractor": "imported", "streams": "rgb,flow", "source": "somebody"}
    assert still_flow_features(bags_of(imported, rgb=4, flow=4), CPU) is None
    assert len(caplog.messages) == 1
    assert "left out" in caplog.messages[0]


def test_features_that_do_not_say_their_extractor_leave_the_still_video_out(caplog):
    assert still_flow_features(bags_of(PROVENANCE, rgb=4, flow=4), CPU) is None
    (message,) = caplog.messages
    assert "the training features do not say which extractor made them" in message
    assert "'flow_method' is missing" in message
    assert "train again" not in message  # this is during training


def test_a_still_video_has_the_features_of_the_extractor_that_the_videos_had(caplog):
    extractor = ExtractorChoice("i3d", "dis", 1, weights="random:0", precision="float32").build(CPU)
    bags = bags_of(extractor.provenance(), rgb=1024, flow=1024)
    still = still_flow_features(bags, CPU)
    assert still is not None
    assert still.shape == (1024,)
    assert caplog.messages == []
    with pytest.raises(LookaroundError, match=r"mine\.pt: no such file"):
        still_flow_features(bags, CPU, weights="mine.pt")
    narrow = bags_of(extractor.provenance(), rgb=1024, flow=32)
    assert still_flow_features(narrow, CPU) is None
    assert "32 flow columns" in caplog.messages[0]


def test_a_fold_that_diverges_ends_the_run_and_is_named(tmp_path, config, monkeypatch):
    run = make_run(tmp_path, config)

    def diverge(config, bags, device):
        raise DivergedError("the loss is NaN")

    monkeypatch.setattr(ensemble_training, "trained", diverge)
    named = "ensemble of seed 0, fold 1 of 5: the loss is NaN"
    with pytest.raises(DivergedError, match=named):
        list(train_run(run, make_bags(), CPU, still_flow=STILL))
    assert run.is_diverged
    assert named in run.diverged_path.read_text()
    with pytest.raises(CheckpointError, match="diverged; train anew"):
        list(train_run(run, make_bags(), CPU, still_flow=STILL))


@pytest.mark.parametrize(
    ("members", "n_networks"),
    [
        (["motion"], 1),
        (["network", "linear rgb"], 1),
        ("network", 1),
        ([1], 1),
        ([], 2),
        ([], 10**9),
        (["network"], -1),
        ([], True),
    ],
)
def test_a_checkpoint_of_other_members_is_refused(
    tmp_path, config, monkeypatch, members, n_networks
):
    network = Trainer(config, make_bags(), CPU).average
    run = make_run(tmp_path, replace(config, ensemble=False))
    list(train_run(run, make_bags(), CPU))
    checkpoint = load_checkpoint(run.checkpoint_path)
    monkeypatch.setattr(type(network), "members", members)
    monkeypatch.setattr(type(network), "n_networks", n_networks)
    path = tmp_path / "other.safetensors"
    save_checkpoint(path, checkpoint)
    with pytest.raises(CheckpointError, match=r"members|tensors|n_networks"):
        load_checkpoint(path)
