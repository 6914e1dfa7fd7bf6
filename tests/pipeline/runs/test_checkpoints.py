"""A checkpoint rebuilds its model; whatever is not one is refused in one line."""

import dataclasses
import hashlib
import json
import pickle
import resource

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models import model_class
from models.ensemble import Ensemble
from pipeline.config import resolve_config, with_streams
from pipeline.runs.checkpoints import (
    Checkpoint,
    CheckpointError,
    TensorFile,
    load_checkpoint,
    save_checkpoint,
    write_tensors,
)

PROVENANCE = {"extractor": "i3d", "n_crops": 5, "flow_tau": 0.25, "is_pretrained": False}
SETTINGS = [
    "model.embedding_dim=8",
    "model.class_code_dim=4",
    "model.relation_dim=4",
    "model.scorer_dim=4",
]


@pytest.fixture
def checkpoint() -> Checkpoint:
    config = with_streams(
        resolve_config("clav-como", "none", settings=SETTINGS), (("rgb", 6), ("flow", 4))
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class("clav-como")(config.model)
        model.input_norm.fit(torch.randn(50, 10) * 3 + 1)
    return Checkpoint(
        model=model.eval(),
        model_name="clav-como",
        provenance=PROVENANCE,
        dataset="small",
        seed=3,
        step=700,
    )


@pytest.fixture
def path(tmp_path, checkpoint):
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, checkpoint)
    return path


def rewrite(path, change) -> None:
    """Let `change(tensors, header)` spoil a checkpoint."""
    with TensorFile(path, "lookaround checkpoint") as file:
        header = dict(file.metadata)
    tensors = load_file(path)
    change(tensors, header)
    header["sha256"] = sha256_of(header, tensors)
    save_file(tensors, path, {"lookaround": json.dumps(header)})


def sha256_of(header, tensors) -> str:
    values = {key: value for key, value in header.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(values).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def test_a_checkpoint_rebuilds_its_model_with_nothing_else(path, checkpoint):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        features, mask = torch.randn(3, 7, 10), torch.ones(3, 7, dtype=torch.bool)
    loaded = load_checkpoint(path)
    assert not loaded.model.training
    assert loaded.model.config == checkpoint.model.config
    with torch.no_grad():
        expected = checkpoint.model(features, mask).logits
        found = loaded.model(features, mask).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for name in ("model_name", "provenance", "dataset", "seed", "step", "is_pretrained"):
        assert getattr(loaded, name) == getattr(checkpoint, name)


@pytest.mark.parametrize(
    ("provenance", "expected"),
    [
        ({"is_pretrained": True}, True),
        ({"is_pretrained": False}, False),
        ({}, None),
        ({"is_pretrained": "yes"}, None),
    ],
)
def test_semantics_are_claimed_only_where_the_features_say_so(checkpoint, provenance, expected):
    made = Checkpoint(checkpoint.model, "clav-como", provenance, "small", seed=0, step=1)
    assert made.is_pretrained is expected


def test_loading_leaves_the_random_numbers_alone(path):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        load_checkpoint(path)
        torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_a_missing_checkpoint_names_the_commands_that_make_one(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"checkpoint\.safetensors: .*`pipeline train --resume"
    ):
        load_checkpoint(tmp_path / "checkpoint.safetensors")
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        load_checkpoint(tmp_path)


def _drop(tensors, header):
    tensors.pop(sorted(tensors)[0])


def _add(tensors, header):
    tensors["more"] = torch.zeros(1)


def _reshape(tensors, header):
    tensors["input_norm.mean"] = torch.zeros(2, 5)


def _other_dtype(tensors, header):
    tensors["input_norm.mean"] = torch.zeros(10, dtype=torch.float64)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_drop, "1 tensors missing"),
        (_add, "1 too many ['more']"),
        (_reshape, "input_norm.mean must be [10], instead got [2, 5]"),
        (_other_dtype, "input_norm.mean must be torch.float32, got torch.float64"),
        (lambda t, h: h.update(model_name="la-net-9"), "instead got 'la-net-9'"),
        (lambda t, h: h["model"].update(embedding_dim=16), "must be [16"),
        (lambda t, h: h["model"].update(embedding_dim=10**12), "checkpoint.safetensors: "),
        (lambda t, h: h["model"].update(embedding_dim="8"), "model.embedding_dim must be"),
        (lambda t, h: h["model"].update(width=8), "instead got ['width']"),
        (lambda t, h: h["model"].update(stream_dims=[["rgb", 6]]), "0 tensors missing"),
        (lambda t, h: h.update(model=[1]), "must be a table of settings"),
        (lambda t, h: h.pop("provenance"), "'provenance' is missing"),
        (lambda t, h: h.update(provenance={"a": [1]}), "provenance must be a flat JSON object"),
        (lambda t, h: h.update(provenance={}), "instead it is empty"),
        (lambda t, h: h.update(seed="x"), "seed must be a whole number from 0 on, instead got 'x'"),
        (lambda t, h: h.update(step=float("inf")), "numbers must be finite, instead got Infinity"),
        (lambda t, h: h.update(step=1.5), "step must be a whole number"),
        (lambda t, h: h.update(format_version=1), "version 4 expected, instead got 1"),
        (
            lambda t, h: h["model"].update(stream_dims=[[f"s{i}", 1] for i in range(200_000)]),
            "at most 16 streams, instead got 200000",
        ),
        (lambda t, h: h.update(format="lookaround training state"), "another kind of file"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(path, change, text):
    rewrite(path, change)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert text in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "pipeline train" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_in_one_line(path, value):
    def spoil(tensors, header):
        tensors["input_norm.mean"][3] = value

    rewrite(path, spoil)
    with pytest.raises(CheckpointError, match=r"input_norm\.mean must be finite"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["scales", "input_norm.std", "networks.0.input_norm.std"])
def test_an_ensemble_that_would_divide_by_zero_is_refused_in_one_line(path, checkpoint, name):
    ensemble = Ensemble([checkpoint.model], has_motion=False)
    save_checkpoint(path, dataclasses.replace(checkpoint, model=ensemble))
    load_checkpoint(path)

    def spoil(tensors, header):
        tensors[name][1] = 0

    rewrite(path, spoil)
    with pytest.raises(CheckpointError, match=rf"{name} must be positive"):
        load_checkpoint(path)


@pytest.mark.parametrize("value", [-1e-3, float("nan")])
def test_an_ensemble_with_a_weight_that_is_none_is_refused_in_one_line(path, checkpoint, value):
    ensemble = Ensemble([checkpoint.model], has_motion=False)
    save_checkpoint(path, dataclasses.replace(checkpoint, model=ensemble))

    def spoil(tensors, header):
        tensors["weights"][2] = value

    rewrite(path, spoil)
    with pytest.raises(CheckpointError, match=r"weights must be (at least 0|finite)") as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_what_is_no_checkpoint_is_refused(path, tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    contents = [
        b"",
        b"hello",
        pickle.dumps({"weights": [1]}),
        b"\xff" * 100,
        (2**40).to_bytes(8, "little") + b"{}",
    ]
    for content in contents:
        foreign.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"foreign\.safetensors: is not a whole checkpo"):
            load_checkpoint(foreign)
    for metadata in (None, {"format": "pt"}, {"lookaround": "{"}, {"lookaround": "[" * 10**5}):
        save_file({"weight": torch.zeros(1)}, foreign, metadata)
        with pytest.raises(CheckpointError, match=r"foreign\.safetensors: is not a whole checkpo"):
            load_checkpoint(foreign)


def test_a_checkpoint_cut_short_anywhere_is_refused(path):
    whole = path.read_bytes()
    for length in range(0, len(whole), 501):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="train again"):
            load_checkpoint(path)


def test_a_damaged_header_gives_a_model_or_one_error_and_never_another(path):
    whole = path.read_bytes()
    header_len = 8 + int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(0)
    n_refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[rng.integers(header_len)] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_checkpoint(path)
        except CheckpointError:
            n_refused += 1
    assert n_refused > 50


def test_a_failed_write_leaves_the_old_file_and_nothing_else(path):
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write_tensors(path, {"a": torch.zeros(1)}, "kind", {"value": float("nan")})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_nothing_behind(tmp_path, checkpoint):
    limit, hard_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard_limit))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint(tmp_path / "checkpoint.safetensors", checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard_limit))
    assert not list(tmp_path.iterdir())


def test_the_digest_is_sha256_of_the_header_and_of_every_tensor(path):
    with TensorFile(path, "lookaround checkpoint") as file:
        header = dict(file.metadata)
    assert header["sha256"] == sha256_of(header, load_file(path))


def test_no_flipped_bit_goes_unnoticed(path):
    whole = path.read_bytes()
    header_len = 8 + int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(1)
    for trial in range(200):
        damaged = bytearray(whole)
        first = 0 if trial % 2 else header_len  # in the header too, and in the tensors alone
        for at in rng.integers(first, len(whole), size=3):
            damaged[at] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(whole)
    load_checkpoint(path)


def test_a_checkpoint_without_its_digest_is_refused(path):
    with TensorFile(path, "lookaround checkpoint") as file:
        header = {key: value for key, value in file.metadata.items() if key != "sha256"}
    save_file(load_file(path), path, {"lookaround": json.dumps(header)})
    with pytest.raises(CheckpointError, match="'sha256' is missing"):
        load_checkpoint(path)
