"""Trained models on disk: one safetensors file that rebuilds its model with nothing else.

The tensors are the model's state dict; the file's metadata holds the rest as JSON, with the SHA-256
of all of it, which is verified at loading. Nothing is pickled, so a checkpoint from elsewhere is
only data.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from extractors.errors import LookaroundError
from models import model_class
from models.ensemble import Ensemble
from models.interface import AnomalyModel, ModelConfig
from pipeline.atomic import replacing
from pipeline.config import model_config_from_json
from pipeline.extraction.feature_file import Provenance
from pipeline.printable import describe_error

FORMAT = "lookaround checkpoint"
FORMAT_VERSION = 4
METADATA_KEY = "lookaround"
SHA256_KEY = "sha256"
MAX_NETWORKS = 64


class CheckpointError(LookaroundError, OSError):
    """A run or its checkpoint is missing, cut short, or does not fit its model."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A trained model and what must be known to use it.

    Attributes:
        model: In evaluation mode; on the CPU when it was loaded.
        model_name: Key of `MODELS`.
        provenance: How the features were made that it was trained on.
        dataset: Name of the dataset that it was trained on.
        seed: Of the training run.
        step: Steps that it was trained for.
        n_averaged: How many seeds the model averages; `seed` is then the first of them.
    """

    model: AnomalyModel
    model_name: str
    provenance: Provenance
    dataset: str
    seed: int
    step: int
    n_averaged: int = 1

    @property
    def is_pretrained(self) -> bool | None:
        """Whether the features came from trained weights or random ones; None if it is not known.

        Features that another program made need not say it.
        """
        value = self.provenance.get("is_pretrained")
        return value if isinstance(value, bool) else None


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the file appears whole or not at all.

    Raises:
        OSError: If the file cannot be written.
    """
    metadata = {
        "model_name": checkpoint.model_name,
        "model": dataclasses.asdict(checkpoint.model.config),
        "members": list(checkpoint.model.members),
        "n_networks": checkpoint.model.n_networks,
        "provenance": checkpoint.provenance,
        "dataset": checkpoint.dataset,
        "seed": checkpoint.seed,
        "step": checkpoint.step,
        "is_pretrained": checkpoint.is_pretrained,  # for people; it follows from the provenance
    }
    write_tensors(path, checkpoint.model.state_dict(), FORMAT, metadata)


def load_checkpoint(path: Path) -> Checkpoint:
    """Rebuild a trained model.

    Args:
        path: A run's `checkpoint.safetensors`.

    Raises:
        CheckpointError: If the file is missing, cut short, of another program, or its tensors are
            not those of the model that it names.
    """
    with TensorFile(path, FORMAT) as file:
        metadata = file.metadata
        model_name = str(metadata["model_name"])
        config = model_config_from_json(model_name, metadata["model"])
        members, n_networks = metadata["members"], _whole_number(metadata, "n_networks")
        # First without memory: no size is taken from the file before it is known to fit.
        with torch.device("meta"):
            expected = _build(model_name, config, members, n_networks).state_dict()
        tensors = file.read_all(expected)
        _check_values(tensors)
        with torch.random.fork_rng(devices=[]):  # initial weights are random, and replaced
            model = _build(model_name, config, members, n_networks)
        model.load_state_dict(tensors)
        return Checkpoint(
            model=model.eval(),
            model_name=model_name,
            provenance=_as_provenance(metadata["provenance"]),
            dataset=str(metadata["dataset"]),
            seed=_whole_number(metadata, "seed"),
            step=_whole_number(metadata, "step"),
        )


def _check_values(tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights with which no score is a number.

    Raises:
        ValueError: If one is infinite or NaN, a scale of an ensemble or a deviation is not
            positive, or a weight of a member of an ensemble is negative.
    """
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name} must be finite, instead it has infinite or NaN values")
        if name.rpartition(".")[2] in ("scales", "std") and not (tensor > 0).all():
            raise ValueError(f"{name} must be positive, instead it goes down to {tensor.min():g}")
        if name == "weights" and (tensor < 0).any():  # of an ensemble alone: networks are below it
            raise ValueError(
                f"weights must be at least 0, instead they go down to {tensor.min():g}"
            )


def _build(model_name: str, config: ModelConfig, members: object, n_networks: int) -> AnomalyModel:
    """The model that a file describes, with random weights.

    Raises:
        ValueError: If the members are not those of an ensemble of this program, or the networks too
            many.
    """
    if not 1 <= n_networks <= MAX_NETWORKS:
        raise ValueError(f"n_networks must be in 1 to {MAX_NETWORKS}, instead got {n_networks}")
    networks = [model_class(model_name)(config) for _ in range(n_networks)]
    if members == [] and n_networks == 1:
        return networks[0]
    if not isinstance(members, list) or not all(isinstance(name, str) for name in members):
        raise ValueError(f"members must be a list of names, instead got {members!r:.40}")
    ensemble = Ensemble(networks, has_motion="motion" in members)
    if list(ensemble.members) != members:
        raise ValueError(f"members must be {list(ensemble.members)}, instead got {members!r:.80}")
    return ensemble


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], file_format: str, metadata: Mapping[str, Any]
) -> None:
    """Write named tensors with metadata; the file appears whole or not at all.

    Args:
        path: Where to; what is there is replaced.
        tensors: On any device.
        file_format: What kind of file it is.
        metadata: Plain values.

    Raises:
        OSError: If the file cannot be written.
    """
    header = {"format": file_format, "format_version": FORMAT_VERSION, **metadata}
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header[SHA256_KEY] = content_sha256(header, on_cpu)
    # One key, because safetensors writes several in an order that changes.
    image = safetensors.torch.save(on_cpu, {METADATA_KEY: json.dumps(header)})
    with replacing(path) as temporary:
        temporary.write_bytes(image)


def content_sha256(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """The digest that tells a damaged file from a whole one.

    Args:
        header: Plain values; an earlier digest among them does not count.
        tensors: By name, contiguous, on the CPU.

    Returns:
        SHA-256 in hexadecimal digits, of the header as JSON and, in the order of their names, of
        each tensor's name, dtype, shape and bytes.

    Raises:
        ValueError: If the header is no JSON.
    """
    values = {key: value for key, value in header.items() if key != SHA256_KEY}
    digest = hashlib.sha256(json.dumps(values, allow_nan=False).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class TensorFile(AbstractContextManager["TensorFile"]):
    """A file of named tensors, open for reading.

    Whatever is found wrong in the file, here or in the body of the `with`, becomes one line.

    Args:
        path: The file.
        file_format: What kind of file it must be.

    Attributes:
        metadata: What was written beside the tensors.

    Raises:
        CheckpointError: If the file is missing, cut short, damaged or of another kind.
    """

    def __init__(self, path: Path, file_format: str) -> None:
        self._path = path
        if not path.is_file():
            raise CheckpointError(
                f"{path}: there is no such checkpoint; `pipeline train` makes one, "
                "`pipeline train --resume` completes a run that was stopped"
            )
        try:
            self._file = _open(path)
        except (SafetensorError, OSError) as error:
            raise self._complaint(error) from error
        try:
            self.metadata = _parse_metadata(self._file.metadata(), file_format)
        except (ValueError, RecursionError) as error:
            raise self._complaint(error) from error

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Turn what does not fit into a `CheckpointError`."""
        wrong = (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OverflowError)
        if isinstance(error, wrong):
            raise self._complaint(error) from error

    def read_all(self, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Read the tensors, which must be these by name, shape and dtype, and undamaged.

        Args:
            expected: May be without values (device "meta").

        Raises:
            ValueError: If one is missing, too many, or of another shape or dtype, or if a bit of
                the file is not as it was written.
        """
        found = set(self._file.keys())
        if found != set(expected):
            missing, extra = sorted(set(expected) - found), sorted(found - set(expected))
            raise ValueError(
                f"{len(missing)} tensors missing {missing[:1]}, {len(extra)} too many {extra[:1]}"
            )
        for name, tensor in expected.items():
            shape = self._file.get_slice(name).get_shape()
            if shape != list(tensor.shape):
                raise ValueError(f"{name} must be {list(tensor.shape)}, instead got {shape}")
        tensors = {name: self._file.get_tensor(name) for name in expected}
        for name, tensor in expected.items():
            if tensors[name].dtype != tensor.dtype:
                raise ValueError(f"{name} must be {tensor.dtype}, got {tensors[name].dtype}")
        if content_sha256(self.metadata, tensors) != self.metadata[SHA256_KEY]:
            raise ValueError("its checksum is not that of its content: the file is damaged")
        return tensors

    def _complaint(self, error: BaseException) -> CheckpointError:
        return CheckpointError(
            f"{self._path}: is not a whole checkpoint of this program ({describe_error(error)}); "
            "train again with `pipeline train`"
        )


def _open(path: Path) -> Any:  # safetensors has no types
    return safe_open(path, framework="pt", device="cpu")


def _parse_metadata(metadata: Mapping[str, str] | None, file_format: str) -> dict[str, Any]:
    text = (metadata or {}).get(METADATA_KEY, "null")
    parsed = json.loads(text, parse_constant=_refuse_constant)
    if not isinstance(parsed, dict) or parsed.get("format") != file_format:
        raise ValueError(f"{file_format!r} expected, instead got another kind of file")
    if parsed.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"format version {FORMAT_VERSION} expected, instead got {parsed.get('format_version')}"
        )
    return parsed


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"numbers must be finite, instead got {name}")


def _whole_number(metadata: Mapping[str, Any], name: str) -> int:
    number = metadata[name]
    if type(number) is not int or number < 0:
        raise ValueError(f"{name} must be a whole number from 0 on, instead got {number!r:.40}")
    return number


def _as_provenance(provenance: object) -> Provenance:
    if not isinstance(provenance, dict) or not all(
        isinstance(value, str | int | float) for value in provenance.values()
    ):
        raise ValueError("provenance must be a flat JSON object")
    if not provenance:
        raise ValueError("provenance must say how the features were made, instead it is empty")
    return provenance
