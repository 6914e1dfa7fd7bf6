"""The training loop: optimizer steps, averaged weights, and the state between epochs.

Random numbers in an epoch depend on the seed and the epoch's number alone, and the state holds all
the rest. So a training run that was killed and resumed ends with the same bits as one that was not
(on one machine's CPU; GPUs add in no fixed order).
"""

import copy
import dataclasses
import hashlib
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models import model_class
from models.interface import AnomalyModel, BagBatch, Output
from pipeline.config import ConfigError, TrainConfig, with_streams
from pipeline.runs.checkpoints import CheckpointError, TensorFile, write_tensors
from pipeline.training.batches import BagSet, draw_batches

STATE_FORMAT = "lookaround training state"
# Second key of a random generator after the seed; sampling of bags uses (seed, 0 to 2, ...).
_INITIAL_WEIGHTS, _DROPOUT = 3, 4


class DivergedError(ConfigError):
    """The loss of a training run became infinite or NaN."""


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What an epoch came to; a line of `metrics.jsonl`.

    Attributes:
        epoch: From 1.
        step: Steps done so far, of all epochs.
        loss: What was minimized, mean over the epoch's steps.
        losses: Its terms by name, weighted as they were summed.
        learning_rate: At the epoch's last step.
        grad_norm: Before clipping, mean over the epoch's steps.
        steps_per_second: Of this epoch.
        held_out_auc: How well held-out videos are ranked by their labels; None without any.
    """

    epoch: int
    step: int
    loss: float
    losses: dict[str, float]
    learning_rate: float
    grad_norm: float
    steps_per_second: float
    held_out_auc: float | None = None


class Trainer:
    """A model in training: the model, the average of its weights, and the optimizer.

    Args:
        config: The settings; the streams and the length of videos are taken from the bags.
        bags: The training videos.
        device: Where to train.

    Attributes:
        config: With the streams of the bags and the window that their longest video makes.
        provenance: How the features were made.
        average: The model with averaged weights, in evaluation mode: what is kept in the end.

    Raises:
        ValueError: If the bags have another length or sampler than the config says.
    """

    def __init__(self, config: TrainConfig, bags: BagSet, device: torch.device) -> None:
        if (bags.sampler, bags.bag_len) != (config.sampler, config.bag_len):
            raise ValueError(
                f"bags must be {config.sampler} of {config.bag_len}, "
                f"instead got {bags.sampler} of {bags.bag_len}"
            )
        self.config = with_streams(config, bags.stream_dims, window_len=bags.window_len)
        self._bags, self._device = bags.moved_to(device), device
        self.provenance = bags.provenance
        with _seeded(torch.device("cpu"), config.seed, _INITIAL_WEIGHTS):
            model = model_class(config.model_name)(self.config.model)
        model.input_norm.fit(bags.snippets)
        self._model: AnomalyModel = model.to(device)
        self.average: AnomalyModel = copy.deepcopy(self._model).eval().requires_grad_(False)
        self._optimizer = torch.optim.Adam(
            self._model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,  # a sixth of the time of the default on a CPU, too
        )

    def run_epoch(self, epoch: int) -> EpochRecord:
        """Do the steps of one epoch.

        Args:
            epoch: From 0.

        Raises:
            DivergedError: If the loss or a weight becomes infinite or NaN.
        """
        config, started = self.config, time.perf_counter()
        first_step = epoch * config.steps_per_epoch
        n_steps = min(config.steps_per_epoch, config.steps - first_step)
        self._model.train()
        sums: dict[str, Tensor] = {}  # stay on the device: reading one would make each step wait
        batches = draw_batches(
            self._bags,
            seed=config.seed,
            first_step=first_step,
            n_steps=n_steps,
            bags_per_class=config.bags_per_class,
        )
        with _seeded(self._device, config.seed, _DROPOUT, epoch):
            for step, batch in enumerate(batches, start=first_step):
                for name, value in self.step(step, self._on_device(batch)).items():
                    sums[name] = sums[name] + value if name in sums else value
        for averaged, current in zip(self.average.buffers(), self._model.buffers(), strict=True):
            averaged.copy_(current)
        means = (torch.stack(list(sums.values())) / n_steps).tolist()
        losses = dict(zip(sums, means, strict=True))
        loss, grad_norm = losses.pop("loss"), losses.pop("grad_norm")
        # A step that is too large ruins the weights before a loss has been computed with them.
        weights = [weight.isfinite().all() for weight in self.average.parameters()]
        is_finite = {
            "the loss": math.isfinite(loss),
            "the gradient": math.isfinite(grad_norm),
            "every weight": bool(torch.stack(weights).all()),
        }
        for name, holds in is_finite.items():
            if not holds:
                raise DivergedError(
                    f"{name} must stay finite, instead it did not in epoch {epoch + 1} (loss "
                    f"{loss:g}); lower learning_rate, which is {config.learning_rate:g}"
                )
        return EpochRecord(
            epoch=epoch + 1,
            step=first_step + n_steps,
            loss=loss,
            losses=losses,
            learning_rate=learning_rate_at(first_step + n_steps - 1, config),
            grad_norm=grad_norm,
            steps_per_second=n_steps / (time.perf_counter() - started),
        )

    def step(self, step: int, batch: BagBatch) -> dict[str, Tensor]:
        """Do one step of the optimizer. Nothing here waits for a GPU.

        Args:
            step: Its place, from 0.
            batch: On the trainer's device.

        Returns:
            The loss terms, their sum `loss` and the gradient norm `grad_norm`: scalars on the
            device, detached.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate_at(step, self.config)
        with torch.autocast("cuda", torch.bfloat16, enabled=self._is_mixed):
            output = self._model(batch.features, batch.mask)
        # Sums of small terms and logarithms near 0 or 1 need more than the 8 bits of bfloat16.
        losses = self._model.losses(_in_float32(output), batch)
        loss = torch.stack(list(losses.values())).sum()
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        grad_norm = torch.nn.utils.clip_grad_norm_(
            self._model.parameters(), self.config.max_grad_norm
        )
        self._optimizer.step()
        self._move_average(1 - ema_decay_at(step, self.config))
        measured = {**losses, "loss": loss, "grad_norm": grad_norm}
        return {name: value.detach() for name, value in measured.items()}

    @torch.no_grad()
    def _move_average(self, fraction: float) -> None:
        """Move the averaged weights toward the current ones by this fraction of the way."""
        averaged: list[Tensor] = list(self.average.parameters())
        current: list[Tensor] = list(self._model.parameters())
        torch._foreach_lerp_(averaged, current, fraction)

    @property
    def _is_mixed(self) -> bool:
        return self.config.mixed_precision and self._device.type == "cuda"

    def _on_device(self, batch: BagBatch) -> BagBatch:
        if batch.features.device.type == self._device.type:
            return batch
        pinned = BagBatch(  # a copy from ordinary memory would make the CPU wait for the GPU
            batch.features.pin_memory(), batch.mask.pin_memory(), batch.labels.pin_memory()
        )
        return pinned.to(self._device)

    def save(self, path: Path, *, n_epochs_done: int) -> None:
        """Write where training stands, so that `restore` can go on from there."""
        metadata = {"n_epochs_done": n_epochs_done, "videos": _digest(self._bags)}
        write_tensors(path, self._state(), STATE_FORMAT, metadata)

    def restore(self, path: Path) -> int:
        """Go back to where a training run was stopped.

        Returns:
            How many epochs were done.

        Raises:
            CheckpointError: If the file is damaged or the training began with other videos.
        """
        with TensorFile(path, STATE_FORMAT) as file:
            videos, n_epochs_done = file.metadata["videos"], int(file.metadata["n_epochs_done"])
            tensors = file.read_all(self._state())
        if videos != _digest(self._bags):
            raise CheckpointError(
                f"{path}: the run began with other training videos; train anew without --resume"
            )
        self._model.load_state_dict(_below("model.", tensors))
        self.average.load_state_dict(_below("average.", tensors))
        state = self._optimizer.state_dict()
        state["state"] = {
            index: _below(f"adam.{index}.", tensors)
            for index in range(len(state["param_groups"][0]["params"]))
        }
        self._optimizer.load_state_dict(state)
        return n_epochs_done

    def _state(self) -> dict[str, Tensor]:
        """All tensors of the training state by name; Adam's begin as zeros."""
        state = {f"model.{name}": tensor for name, tensor in self._model.state_dict().items()}
        state |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        for index, parameter in enumerate(self._model.parameters()):
            moments = self._optimizer.state.get(parameter) or {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
            state |= {f"adam.{index}.{name}": tensor for name, tensor in moments.items()}
        return state


def trained(config: TrainConfig, bags: BagSet, device: torch.device) -> AnomalyModel:
    """Train a model from its first step to its last, without saving any state.

    Args:
        config: The settings.
        bags: The training videos.
        device: Where to train, and where the model is.

    Raises:
        DivergedError: If the loss becomes infinite or NaN.
        ValueError: If the bags have another length or sampler than the config says.
    """
    trainer = Trainer(config, bags, device)
    for epoch in range(trainer.config.n_epochs):
        trainer.run_epoch(epoch)
    return trainer.average


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """A cosine from the config's rate at step 0 to 0 at the end.

    Args:
        step: From 0.
        config: The settings.
    """
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def ema_decay_at(step: int, config: TrainConfig) -> float:
    """Fraction of the old average that a step keeps.

    Args:
        step: From 0.
        config: The settings.
    """
    # Paper is silent: the average rises to its length. At 0.999 from the start it would still
    # hold a third of the random initial weights after 1,000 steps.
    return min(config.ema_decay, (1 + step) / (10 + step))


def _in_float32(output: Output) -> Output:
    """The same output with its half-precision tensors widened."""
    widened = {
        field.name: value.float()
        for field in dataclasses.fields(output)
        if isinstance(value := getattr(output, field.name), Tensor) and value.is_floating_point()
    }
    return dataclasses.replace(output, **widened)


@contextmanager
def _seeded(device: torch.device, *key: int) -> Iterator[None]:
    """Random numbers from the key alone; the caller's own sequences go on afterwards."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        # `torch.manual_seed` would seed all GPUs, even those that are initialized later.
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield


def _digest(bags: BagSet) -> str:
    """A name for the training videos: their order, their labels and the length of the longest."""
    labels = bags.labels.tolist()
    lines = [f"{name} {label}" for name, label in zip(bags.video_ids, labels, strict=True)]
    return hashlib.sha256("\n".join([*lines, str(bags.max_snippets)]).encode()).hexdigest()


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
