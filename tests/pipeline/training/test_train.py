"""Training on bags that can be told apart, and training that was stopped in between."""

import json
import math
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.config import ConfigError, TrainConfig, resolve_config
from pipeline.extraction.feature_file import FeatureFileError, feature_path, write_features
from pipeline.runs.checkpoints import CheckpointError, load_checkpoint
from pipeline.runs.feature_distance import read_distance_limit
from pipeline.runs.run_folder import Run, RunDescription, create_runs, find_runs, unfinished_runs
from pipeline.training import training_loop
from pipeline.training.bag_loading import Bag, collect_bags
from pipeline.training.batches import BagSet, draw_batches
from pipeline.training.resumable_run import train_run
from pipeline.training.training_loop import Trainer, ema_decay_at, learning_rate_at
from pipeline.training.validation import hold_out, video_auc

pytestmark = pytest.mark.usefixtures("one_thread")

PROVENANCE = {"extractor": "i3d", "n_crops": 2, "is_pretrained": False}
CPU = torch.device("cpu")
SETTINGS = [
    "sampler=sequence",
    "bag_len=12",
    "bags_per_class=4",
    "steps=12",
    "steps_per_epoch=5",
    "learning_rate=5e-3",
    "model.embedding_dim=16",
    "model.class_code_dim=8",
    "model.relation_dim=8",
    "model.scorer_dim=8",
]


def make_config(*settings: str) -> TrainConfig:
    return resolve_config("clav-como", "none", settings=[*SETTINGS, *settings])


def make_video(rng: np.random.Generator, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise (n_snippets, 8) with a large offset; two anomalous snippets are shifted."""
    features = rng.normal(size=(int(rng.integers(6, 20)), 8))
    is_anomalous = np.zeros(len(features), dtype=bool)
    if label:
        start = int(rng.integers(len(features) - 1))
        is_anomalous[start : start + 2] = True
        features[is_anomalous, :4] += 3
    return (features * 5 + 100).astype(np.float32), is_anomalous


def make_bags(config: TrainConfig, *, n_videos: int = 20, n_crops: int = 2) -> BagSet:
    rng = np.random.default_rng(0)
    bags = []
    for index in range(n_videos):
        features, _ = make_video(rng, label=index % 2)
        for crop in range(n_crops):
            bags.append(Bag(f"v{index}", features + np.float32(0.1 * crop), index % 2))
    return collect_bags(
        bags,
        sampler=config.sampler,
        bag_len=config.bag_len,
        stream_dims=(("rgb", 5), ("flow", 3)),
        provenance=PROVENANCE,
    )


def make_run(runs: Path, config: TrainConfig) -> Run:
    description = RunDescription("small", "small.csv", Path("features"), PROVENANCE, config)
    (run,) = create_runs(runs, [description])
    return run


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """The fraction of pairs in the right order, counted."""
    positive, negative = scores[labels], scores[~labels]
    wins = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    return float(wins)


def test_training_learns_which_snippets_of_new_videos_are_anomalous(tmp_path):
    config = make_config("steps=100", "steps_per_epoch=25")
    run = make_run(tmp_path, config)
    records = list(train_run(run, make_bags(config), CPU))
    assert records[-1].loss < 0.7 * records[0].loss
    model = load_checkpoint(run.checkpoint_path).model
    rng = np.random.default_rng(99)
    scores, labels = [], []
    for index in range(20):
        features, is_anomalous = make_video(rng, label=index % 2)
        mask = torch.ones(1, len(features), dtype=torch.bool)
        with torch.no_grad():
            scores.append(model(torch.from_numpy(features)[None], mask).scores[0].numpy())
        labels.append(is_anomalous)
    assert auc(np.concatenate(scores), np.concatenate(labels)) > 0.95


@pytest.mark.parametrize("ensemble", ["false", "true"])
def test_a_checkpoint_knows_how_long_the_longest_training_video_was(tmp_path, ensemble):
    config = make_config(f"ensemble={ensemble}", "steps=2")
    bags = make_bags(config)
    longest = max(len(make_video(np.random.default_rng(0), label=0)[0]), config.bag_len)
    run = make_run(tmp_path, config)
    list(train_run(run, bags, CPU))
    found = load_checkpoint(run.checkpoint_path).model.config.window_len
    assert found == bags.window_len >= longest
    assert "window_len" not in run.config_path.read_text()


def test_a_finished_run_holds_its_config_its_metrics_and_its_checkpoint(tmp_path):
    config = make_config("seed=4")
    run = make_run(tmp_path, config)
    assert not run.is_finished
    records = list(train_run(run, make_bags(config), CPU))
    assert run.is_finished
    assert {path.name for path in run.folder.iterdir()} == {
        "README.md",
        "checkpoint.safetensors",
        "config.json",
        "losses.png",
        "metrics.jsonl",
        "training.json",
    }
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [record.epoch for record in records] == [1, 2, 3]
    assert [line["step"] for line in lines] == [5, 10, 12]
    for line in lines:
        assert line["loss"] == pytest.approx(sum(line["losses"].values()), rel=1e-4)
        assert line["grad_norm"] > 0
        assert line["steps_per_second"] > 0
    checkpoint = load_checkpoint(run.checkpoint_path)
    assert (checkpoint.dataset, checkpoint.seed, checkpoint.step) == ("small", 4, 12)
    assert checkpoint.provenance == PROVENANCE
    assert checkpoint.model.config.stream_dims == (("rgb", 5), ("flow", 3))
    assert 0 < read_distance_limit(run) <= 5


def test_a_finished_run_is_left_as_it_is(tmp_path):
    config = make_config()
    run = make_run(tmp_path, config)
    list(train_run(run, make_bags(config), CPU))
    before = run.checkpoint_path.read_bytes()
    assert list(train_run(run, make_bags(config), CPU)) == []
    assert run.checkpoint_path.read_bytes() == before


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory) -> Run:
    """A training run that nothing stopped."""
    config = make_config()
    run = make_run(tmp_path_factory.mktemp("whole"), config)
    list(train_run(run, make_bags(config), CPU))
    return run


@pytest.mark.parametrize("n_epochs", [0, 1, 2, 3])
def test_a_training_that_was_stopped_and_resumed_ends_with_the_same_bits(
    tmp_path, whole_run, n_epochs
):
    config, bags = make_config(), make_bags(make_config())
    stopped = make_run(tmp_path, config)
    records = train_run(stopped, bags, CPU)
    for _ in range(n_epochs):
        next(records)
    records.close()
    assert not stopped.is_finished
    with stopped.metrics_path.open("a") as lines:  # killed after a line, before its state
        lines.write('{"epoch": 9, "los')
    torch.manual_seed(n_epochs)  # what the process did before must not matter
    resumed = list(train_run(stopped, bags, CPU))
    assert [record.epoch for record in resumed] == [1, 2, 3][n_epochs:]
    assert stopped.checkpoint_path.read_bytes() == whole_run.checkpoint_path.read_bytes()
    assert [measured(line) for line in stopped.metrics_path.read_text().splitlines()] == [
        measured(line) for line in whole_run.metrics_path.read_text().splitlines()
    ]


def measured(line: str) -> dict:
    """A line of the metrics without the one number that is of the clock."""
    values = json.loads(line)
    values.pop("steps_per_second")
    return values


def test_seeds_differ_and_the_same_seed_repeats(tmp_path):
    bags = make_bags(make_config())
    contents = []
    for index, seed in enumerate((0, 1, 0)):
        run = make_run(tmp_path / str(index), make_config(f"seed={seed}"))
        list(train_run(run, bags, CPU))
        contents.append(run.checkpoint_path.read_bytes())
    assert contents[0] == contents[2] != contents[1]


def test_training_leaves_the_random_numbers_of_its_caller_alone(tmp_path):
    config = make_config()
    run = make_run(tmp_path, config)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = torch.rand(4)
        torch.manual_seed(5)
        found = [torch.rand(1) for _ in train_run(run, make_bags(config), CPU)] + [torch.rand(1)]
    torch.testing.assert_close(torch.cat(found), expected, rtol=0, atol=0)


@pytest.mark.parametrize("device", [CPU, torch.device("cuda", 1)])
def test_of_all_gpus_only_the_one_that_trains_is_seeded_and_its_state_comes_back(
    monkeypatch, device
):
    states = {index: f"the caller's on GPU {index}" for index in range(3)}
    current = [0]

    @contextmanager
    def make_current(chosen):
        current[0] = chosen.index
        yield
        current[0] = 0

    def seed_all(seed):
        for index in states:
            states[index] = seed

    monkeypatch.setattr(torch.cuda, "device", make_current)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seed_all)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda s: states.update({current[0]: s}))
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda chosen: states[chosen.index])
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, chosen: states.update({chosen.index: state})
    )
    before = dict(states)
    with training_loop._seeded(device, 3, 4):
        seeded = {index for index in states if states[index] != before[index]}
    assert seeded == ({1} if device.type == "cuda" else set())
    assert states == before


@pytest.mark.gpu
def test_training_on_a_gpu_leaves_the_random_numbers_of_its_caller_alone():
    device = torch.device("cuda", 0)
    torch.cuda.manual_seed_all(5)
    expected = torch.rand(4, device=device)
    torch.cuda.manual_seed_all(5)
    with training_loop._seeded(device, 3, 4):
        inside = torch.rand(4, device=device)
    with training_loop._seeded(CPU, 3, 4):
        torch.rand(4)
    assert torch.equal(torch.rand(4, device=device), expected)
    with training_loop._seeded(device, 3, 4):
        assert torch.equal(torch.rand(4, device=device), inside)


def test_the_input_is_standardized_over_all_training_snippets():
    config = make_config()
    bags = make_bags(config)
    norm = Trainer(config, bags, CPU).average.input_norm
    features = np.concatenate(
        [
            video + np.float32(0.1 * crop)
            for rng in [np.random.default_rng(0)]
            for video in [make_video(rng, label=index % 2)[0] for index in range(20)]
            for crop in range(2)
        ]
    )
    np.testing.assert_allclose(norm.mean, features.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(norm.std, features.std(axis=0), rtol=1e-4)


def test_the_kept_weights_are_the_moving_average_of_those_at_each_step(monkeypatch):
    config = make_config("steps=6", "steps_per_epoch=6", "ema_decay=0.4")
    trainer = Trainer(config, make_bags(config), CPU)
    name = next(name for name, _ in trainer.average.named_parameters())
    expected = trainer.average.state_dict()[name].double()
    seen = []
    adam_step = torch.optim.Adam.step

    def step_and_look(optimizer, *args, **kwargs):
        result = adam_step(optimizer, *args, **kwargs)
        seen.append(optimizer.param_groups[0]["params"][0].detach().double().clone())
        return result

    monkeypatch.setattr(torch.optim.Adam, "step", step_and_look)
    trainer.run_epoch(0)
    assert len(seen) == 6
    for step, weights in enumerate(seen):
        decay = min(0.4, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights
    found = trainer.average.state_dict()[name].double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_learning_rate_falls_along_a_cosine():
    config = make_config("steps=100", "learning_rate=0.02")
    rates = [learning_rate_at(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.02)
    assert rates[25] == pytest.approx(0.01 * (1 + math.sqrt(0.5)))
    assert rates[50] == pytest.approx(0.01)
    assert 0 < rates[99] < 1e-5
    assert rates == sorted(rates, reverse=True)


def test_the_average_grows_to_its_length_and_stays_there():
    config = make_config("ema_decay=0.9")
    decays = [ema_decay_at(step, config) for step in range(200)]
    assert decays[0] == pytest.approx(0.1)
    assert decays == sorted(decays)
    assert decays[79] < 0.9
    assert decays[80:] == [0.9] * 120


def test_a_large_gradient_is_scaled_down():
    config = make_config("max_grad_norm=1e-3", "steps=1")
    trainer = Trainer(config, make_bags(config), CPU)
    parameters = trainer._optimizer.param_groups[0]["params"]
    record = trainer.run_epoch(0)
    norm = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()
    assert record.grad_norm > 0.01  # as it was before
    assert norm == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("n_steps", [1, 3])
def test_a_loss_that_runs_away_ends_the_training_with_a_remedy(tmp_path, monkeypatch, n_steps):
    """After one step the loss is that of the first weights; only the weights are not finite."""
    monkeypatch.setattr(training_loop, "learning_rate_at", lambda step, config: math.inf)
    config = make_config(f"steps={n_steps}", "steps_per_epoch=3")
    run = make_run(tmp_path, config)
    with pytest.raises(ConfigError, match=r"must stay finite.*lower learning_rate"):
        list(train_run(run, make_bags(config), CPU))
    assert not run.is_finished
    assert {path.name for path in run.folder.iterdir()} == {"config.json", "diverged.txt"}
    assert "lower learning_rate" in run.diverged_path.read_text()


def test_a_training_that_diverged_is_not_resumed(tmp_path, monkeypatch):
    config = make_config("steps=6", "steps_per_epoch=3")
    run = make_run(tmp_path, config)
    records = train_run(run, make_bags(config), CPU)
    next(records)
    monkeypatch.setattr(training_loop, "learning_rate_at", lambda step, config: math.inf)
    with pytest.raises(ConfigError, match="in epoch 2"):
        next(records)
    monkeypatch.undo()
    assert not run.state_path.exists()
    with pytest.raises(CheckpointError, match="no unfinished run to resume"):
        unfinished_runs(tmp_path, dataset="small", model_name="clav-como")
    with pytest.raises(CheckpointError, match="this training run diverged; train anew"):
        next(train_run(run, make_bags(config), CPU))


def test_held_out_videos_select_the_epoch_that_ranks_them_best(tmp_path):
    config = make_config("selection=held_out", "keep_epochs=true", "steps=30")
    run = make_run(tmp_path, config)
    learned, held_out = hold_out(make_bags(config), 0.3)
    records = list(train_run(run, learned, CPU, held_out=held_out))
    aucs = [record.held_out_auc for record in records]
    assert None not in aucs
    best = max(index for index, auc in enumerate(aucs) if auc == max(aucs))  # the last of equals
    kept = load_checkpoint(run.checkpoint_path)
    assert kept.step == records[best].step
    paths = run.epoch_checkpoints()
    assert len(paths) == len(records) == 6
    assert paths[best].read_bytes() == run.checkpoint_path.read_bytes()
    assert not run.selected_path.exists()
    for path, auc_then in zip(paths, aucs, strict=True):
        assert video_auc(load_checkpoint(path).model, held_out, CPU) == pytest.approx(auc_then)


def test_a_selecting_training_that_was_stopped_ends_with_the_same_bits(tmp_path):
    config = make_config("selection=held_out")
    learned, held_out = hold_out(make_bags(config), 0.3)
    contents = []
    for n_epochs in (0, 2):
        run = make_run(tmp_path / str(n_epochs), config)
        records = train_run(run, learned, CPU, held_out=held_out)
        for _ in range(n_epochs):
            next(records)
        records.close()
        list(train_run(run, learned, CPU, held_out=held_out))
        contents.append(run.checkpoint_path.read_bytes())
    assert contents[0] == contents[1]


def write_features_of_small(folder: Path, features_of) -> Path:
    """The manifest of twelve videos whose features are there."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(12):
        features, _ = make_video(rng, label=index % 2)
        write_features(
            feature_path(folder / "features/small", str(index)),
            features_of({"rgb": features[:, None, :5], "flow": features[:, None, 5:]}),
            PROVENANCE,
            video_id=str(index),
            source_name="none",
        )
        rows.append(f"{index}.mp4,train,{index % 2},\n")
    (folder / "small.csv").write_text("path,split,label,anomalies\n" + "".join(rows))
    return folder / "small.csv"


@pytest.mark.slow
def test_a_process_that_was_killed_and_resumed_ends_with_the_same_bits(tmp_path, features_of):
    manifest = write_features_of_small(tmp_path, features_of)
    settings = [
        text for setting in SETTINGS for text in ("--set", setting) if "steps" not in setting
    ] + ["--set", "steps=200", "--set", "steps_per_epoch=10", "--seeds", "1"]

    def arguments(runs: str, *more: str) -> list[str]:
        places = ["--features", str(tmp_path / "features"), "--runs", str(tmp_path / runs)]
        return ["train", str(manifest), *places, "--device", "cpu", *more]

    code = "import sys; from pipeline.cli import main; main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments("killed", *settings)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as many as the `one_thread` fixture sets
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None and not list(tmp_path.glob("killed/*/*/*/state.safetensors")):
        time.sleep(0.05)
    process.kill()
    process.wait()
    (killed,) = find_runs(tmp_path / "killed")
    assert not killed.is_finished
    assert killed.state_path.exists()
    for arguments_now in (arguments("killed", "--resume"), arguments("whole", *settings)):
        result = CliRunner().invoke(main, arguments_now)
        assert result.exit_code == 0, result.output
    (whole,) = find_runs(tmp_path / "whole")
    assert killed.checkpoint_path.read_bytes() == whole.checkpoint_path.read_bytes()
    assert [measured(line) for line in killed.metrics_path.read_text().splitlines()] == [
        measured(line) for line in whole.metrics_path.read_text().splitlines()
    ]


def test_a_run_is_not_continued_on_features_made_in_another_way(tmp_path):
    config = make_config()
    bags = replace(make_bags(config), provenance={**PROVENANCE, "n_crops": 10})
    run = make_run(tmp_path, config)
    with pytest.raises(FeatureFileError, match="n_crops: 2 expected, instead got 10"):
        next(train_run(run, bags, CPU))


def test_a_run_is_not_continued_on_other_videos(tmp_path):
    config = make_config()
    run = make_run(tmp_path, config)
    next(train_run(run, make_bags(config), CPU))
    with pytest.raises(CheckpointError, match="began with other training videos; train anew"):
        next(train_run(run, make_bags(config, n_videos=18), CPU))


def test_a_damaged_state_is_refused(tmp_path):
    config = make_config()
    run = make_run(tmp_path, config)
    next(train_run(run, make_bags(config), CPU))
    run.state_path.write_bytes(run.state_path.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match=r"state\.safetensors: is not a whole"):
        next(train_run(run, make_bags(config), CPU))


def test_bags_of_another_length_than_the_config_says_are_refused(tmp_path):
    config = make_config()
    run = make_run(tmp_path, config)
    with pytest.raises(ValueError, match="bags must be sequence of 12, instead got bins of 12"):
        next(train_run(run, make_bags(replace(config, sampler="bins")), CPU))


@pytest.mark.parametrize(
    ("model_name", "sizes"),
    [
        ("la-net", ("attention_dim=16", "embedding_dim=8")),
        ("cbcg", ("hidden_dim=16", "embedding_dim=8", "memory_start=3", "guide_start=3")),
    ],
)
def test_the_other_models_resume_to_the_same_bits_with_all_that_they_remember(
    tmp_path, model_name, sizes
):
    settings = [*SETTINGS[:6], *(f"model.{size}" for size in sizes)]
    config = resolve_config(model_name, "none", settings=settings)
    whole, stopped = make_run(tmp_path / "whole", config), make_run(tmp_path / "stopped", config)
    list(train_run(whole, make_bags(config), CPU))
    next(train_run(stopped, make_bags(config), CPU))
    assert [record.epoch for record in train_run(stopped, make_bags(config), CPU)] == [2, 3]
    assert stopped.checkpoint_path.read_bytes() == whole.checkpoint_path.read_bytes()
    if model_name == "cbcg":
        kept = load_checkpoint(whole.checkpoint_path).model.state_dict()
        assert int(kept["n_steps"]) == 12
        assert kept["memory"].abs().sum(dim=2).count_nonzero() == 2 * 12


@pytest.mark.gpu
def test_training_on_a_gpu_comes_to_the_losses_of_the_cpu():
    config = make_config("model.stem_dropout=0", "model.scorer_dropout=0", "mixed_precision=false")
    bags = make_bags(config)
    on_cpu = Trainer(config, bags, CPU).run_epoch(0)
    on_gpu = Trainer(config, bags, torch.device("cuda", 0)).run_epoch(0)
    assert on_gpu.losses == pytest.approx(on_cpu.losses, rel=1e-3)
    assert on_gpu.grad_norm == pytest.approx(on_cpu.grad_norm, rel=1e-2)


@pytest.mark.gpu
def test_mixed_precision_on_a_gpu_comes_close_to_the_losses_of_the_cpu():
    config = make_config("model.stem_dropout=0", "model.scorer_dropout=0")
    bags = make_bags(config)
    on_cpu = Trainer(config, bags, CPU).run_epoch(0)
    on_gpu = Trainer(config, bags, torch.device("cuda", 0)).run_epoch(0)
    assert on_gpu.losses == pytest.approx(on_cpu.losses, rel=0.05)


def test_losses_are_computed_in_float32_whatever_the_forward_pass_gave():
    config = make_config()
    bags = make_bags(config)
    model = Trainer(config, bags, CPU).average
    (batch,) = draw_batches(bags, seed=0, first_step=0, n_steps=1, bags_per_class=4)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch.features, batch.mask)
    assert output.embeddings.dtype == torch.bfloat16
    losses = model.losses(training_loop._in_float32(output), batch)
    exact = model.losses(model(batch.features, batch.mask), batch)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    for name, loss in losses.items():
        assert float(loss) == pytest.approx(float(exact[name]), rel=0.1, abs=1e-4)


@pytest.mark.gpu
def test_bags_that_lie_on_the_gpu_make_the_batches_that_those_on_the_cpu_make():
    bags = make_bags(make_config())
    moved = bags.moved_to(torch.device("cuda", 0))
    assert moved.features.is_cuda
    options = {"seed": 0, "first_step": 0, "n_steps": 3, "bags_per_class": 4}
    for here, there in zip(
        draw_batches(bags, **options), draw_batches(moved, **options), strict=True
    ):
        torch.testing.assert_close(there.features.cpu(), here.features, rtol=0, atol=0)
        torch.testing.assert_close(there.mask.cpu(), here.mask)
        torch.testing.assert_close(there.labels.cpu(), here.labels)
