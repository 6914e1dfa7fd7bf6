"""The interface of models: bags in, snippet logits and named losses out.

Axes: bags are (B, T, D): B bags, T snippets of the longest one, D feature width. E is the width
of an embedding inside a model. `mask` (B, T) is True where a snippet is real; shorter bags are
padded at their end and padding never changes a result. `logits` are unbounded, `scores` are in
[0, 1]. A model never sees crops: each crop of a video is a bag of its own.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.layers import Standardize

# Far beyond any model of the field; sizes come from files of unknown origin, too.
MAX_STREAMS = 16
MAX_SIZE = 2**16


@dataclass(frozen=True, slots=True, eq=False)
class BagBatch:
    """Bags of one training step, padded to the longest.

    Values are checked on the CPU, where a batch is made; on a GPU the check would make every step
    wait for the device.

    Attributes:
        features: (B, T, D) float32, the streams side by side in the order of the config.
        mask: (B, T) bool, True where the snippet is real. Every bag has at least one real snippet
            and its padding is at its end.
        labels: (B,) int64, 0 for a normal bag, 1 for an anomalous one.

    Raises:
        ValueError: If a shape, a dtype or a value is not as above.
    """

    features: Tensor
    mask: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        check_bags(self.features, self.mask)
        if self.features.dtype != torch.float32:
            raise ValueError(f"features must be float32, instead got {self.features.dtype}")
        B, T, _ = self.features.shape
        if B == 0 or T == 0:
            raise ValueError(
                "features must have at least one bag and one snippet, "
                f"instead got {tuple(self.features.shape)}"
            )
        if self.labels.shape != (B,):
            raise ValueError(
                f"labels must be (B,) = ({B},), instead got {tuple(self.labels.shape)}"
            )
        if self.labels.dtype != torch.int64:
            raise ValueError(f"labels must be int64, instead got {self.labels.dtype}")
        if self.mask.device.type == "cpu":
            self._check_values()

    def _check_values(self) -> None:
        if not bool(self.mask[:, 0].all()):
            empty = torch.nonzero(~self.mask[:, 0]).flatten().tolist()
            raise ValueError(f"mask must begin with a real snippet, instead got padding in {empty}")
        if bool((self.mask[:, 1:] & ~self.mask[:, :-1]).any()):
            raise ValueError("mask must be padding at the end only, instead got real after padding")
        if not bool(((self.labels == 0) | (self.labels == 1)).all()):
            found = sorted(set(self.labels.tolist()))
            raise ValueError(f"labels must be 0 or 1, instead got {found}")

    def to(self, device: torch.device | str) -> "BagBatch":
        """The same batch on another device."""
        return BagBatch(
            features=self.features.to(device, non_blocking=True),
            mask=self.mask.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """What a model says about a batch of bags. Values at padding mean nothing.

    Attributes:
        logits: (B, T) snippet logits, higher is more anomalous.
        embeddings: (B, T, E) what the logits were computed from.

    Raises:
        ValueError: If the shapes do not agree.
    """

    logits: Tensor
    embeddings: Tensor

    def __post_init__(self) -> None:
        if self.embeddings.dim() != 3 or self.logits.shape != self.embeddings.shape[:2]:
            raise ValueError(
                "logits must be (B, T) and embeddings (B, T, E), instead got "
                f"{tuple(self.logits.shape)} and {tuple(self.embeddings.shape)}"
            )

    @property
    def scores(self) -> Tensor:
        """(B, T) anomaly scores in [0, 1]."""
        return torch.sigmoid(self.logits)


@dataclass(frozen=True, slots=True, eq=False)
class LabeledOutputs:
    """A model's outputs for one test video, with its labels: what diagnostics are computed from.

    Attributes:
        crops: One output per crop, each for one bag of T snippets.
        label: 0 for a normal video, 1 for an anomalous one.
        is_anomalous: (T,) bool, True where a snippet is anomalous.
    """

    crops: Sequence[Output]
    label: int
    is_anomalous: Tensor


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What the config of every model holds.

    Attributes:
        stream_dims: Name and feature width of each stream, in the order in which they lie side by
            side in a bag's D. Pairs and not a dict, because a dict's order is easily lost on the
            way through a file.
        input_noise: Standard deviation of the noise that training adds to standardized features. It
            keeps a model from memorizing a small dataset.
        window_len: How many snippets are scored together: as many as the longest training video
            has, and at least a bag. A longer video is scored in overlapping windows. None where the
            training videos are not known.

    Raises:
        ValueError: If there is no stream or more than `MAX_STREAMS`, a name occurs twice, a width
            is not in 1 to `MAX_SIZE`, the noise is negative, or the window is empty.
    """

    stream_dims: tuple[tuple[str, int], ...] = (("rgb", 1024), ("flow", 1024))
    input_noise: float = 0.0
    window_len: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, at_least_0=("input_noise",))
        if len(self.stream_dims) > MAX_STREAMS:
            raise ValueError(
                f"stream_dims must name at most {MAX_STREAMS} streams, "
                f"instead got {len(self.stream_dims)}"
            )
        if self.window_len is not None and self.window_len < 1:
            raise ValueError(f"window_len must be at least 1, instead got {self.window_len}")
        names = [name for name, _ in self.stream_dims]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"stream_dims must name each stream once, instead got {names}")
        if not all(1 <= dim <= MAX_SIZE for _, dim in self.stream_dims):
            raise ValueError(
                f"stream_dims must be in 1 to {MAX_SIZE}, instead got {self.stream_dims}"
            )

    @property
    def feature_dim(self) -> int:
        """D: width of all streams side by side."""
        return sum(dim for _, dim in self.stream_dims)


def stream_columns(stream_dims: Iterable[tuple[str, int]]) -> dict[str, slice]:
    """Which columns of D each stream has.

    >>> stream_columns([("rgb", 4), ("flow", 2)])
    {'rgb': slice(0, 4, None), 'flow': slice(4, 6, None)}
    """
    columns, start = {}, 0
    for name, dim in stream_dims:
        columns[name] = slice(start, start + dim)
        start += dim
    return columns


class AnomalyModel(nn.Module, ABC):
    """Scores the snippets of bags; learns from the labels of whole bags.

    Attributes:
        config_type: The class of the config, all fields of which have defaults.
        config: What rebuilds this model: `type(model)(model.config)`.
        input_norm: Standardization of the features, the first layer of `forward`. It is the
            identity until the trainer has called its `fit`.
        members: Of an ensemble (`models.ensemble`), by name; empty for a single network.
        n_networks: How many networks an ensemble averages.
    """

    config_type: ClassVar[type[ModelConfig]]
    config: ModelConfig
    input_norm: Standardize
    members: tuple[str, ...] = ()
    n_networks: int = 1

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.input_norm = Standardize(config.feature_dim)

    def standardized(self, features: Tensor) -> Tensor:
        """(B, T, D) features as the network reads them: standardized, in training with noise."""
        standard: Tensor = self.input_norm(features)
        if self.training and self.config.input_noise:
            standard = standard + self.config.input_noise * torch.randn_like(standard)
        return standard

    @abstractmethod
    def forward(self, features: Tensor, mask: Tensor) -> Output:
        """Score every snippet.

        Args:
            features: (B, T, D), the streams side by side in the order of `config.stream_dims`.
            mask: (B, T) bool, True where the snippet is real; padding at the end of a bag only.

        Returns:
            (B, T) logits and (B, T, E) embeddings; their values at padding mean nothing.

        Raises:
            ValueError: If a shape or dtype is not as above.
        """

    @abstractmethod
    def losses(self, output: Output, batch: BagBatch) -> dict[str, Tensor]:
        """The terms of the training loss, by name.

        Args:
            output: What `forward` returned for this batch.
            batch: The bags and their labels.

        Returns:
            Scalars, already weighted: their sum is what is minimized.
        """

    @property
    def accepts_context(self) -> bool:
        """Whether `forward` has an argument `context` of the shape of `features`.

        The model then reads the surroundings of snippets from it instead of from `features`, and an
        evaluation also measures the model with shuffled context.
        """
        return False

    def part_scores(self, output: Output) -> dict[str, Tensor]:
        """Snippet scores of single parts of the model, which an ablation ranks by themselves.

        Args:
            output: What `forward` returned.

        Returns:
            By name, each (B, T) in [0, 1]; empty where no part scores by itself.
        """
        return {}

    def controls(self) -> dict[str, "AnomalyModel"]:
        """Trained copies of this model with one mechanism disabled, by name, for an ablation."""
        return {}

    def diagnostics(
        self, videos: Sequence[LabeledOutputs], training: tuple[Output, BagBatch]
    ) -> dict[str, float]:
        """What an ablation reports about the inside of this model, beside its AUC.

        Args:
            videos: Outputs for the test videos; normal and anomalous ones.
            training: The output for a batch of training bags, and the batch.

        Returns:
            Scalars by name; empty where the model has nothing to report.
        """
        return {}

    def scores_without(self, features: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Snippet scores when one part of the model reads nothing of the video, or is left out.

        A score that falls without a part is owed to it: a report says so of an event's peak.

        Args:
            features: As in `forward`.
            mask: As in `forward`.

        Returns:
            By the name of the part, each (B, T) in [0, 1]; empty where the model has no such parts.
        """
        return {}


def check_fields(
    config: object,
    *,
    at_least_1: Iterable[str] = (),
    at_least_0: Iterable[str] = (),
    below_1: Iterable[str] = (),
) -> None:
    """Check the numbers of a config.

    Args:
        config: A dataclass.
        at_least_1: Names of its counts and widths, at most `MAX_SIZE`.
        at_least_0: Names of its finite numbers that must not be negative.
        below_1: Names of its fractions in [0, 1).

    Raises:
        ValueError: If one is out of its range; the text names it.
    """
    for name in at_least_1:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, instead got {getattr(config, name)}")
        if getattr(config, name) > MAX_SIZE:
            raise ValueError(
                f"{name} must be at most {MAX_SIZE}, instead got {getattr(config, name)}"
            )
    for name in at_least_0:
        value = getattr(config, name)
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be at least 0 and finite, instead got {value}")
    for name in below_1:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} must be in [0, 1), instead got {getattr(config, name)}")


def check_bags(features: Tensor, mask: Tensor, feature_dim: int | None = None) -> None:
    """Check the shapes and dtypes of bags; never looks at values.

    Args:
        features: Must be (B, T, D), floating point.
        mask: Must be (B, T) bool.
        feature_dim: D where it is known.

    Raises:
        ValueError: If they are not; the text says what came.
    """
    if features.dim() != 3:
        raise ValueError(f"features must be (B, T, D), instead got {tuple(features.shape)}")
    if not features.is_floating_point():
        raise ValueError(f"features must be floating point, instead got {features.dtype}")
    B, T, D = features.shape
    if feature_dim is not None and feature_dim != D:
        raise ValueError(f"features must have D = {feature_dim}, instead got {D}")
    if mask.shape != (B, T):
        raise ValueError(f"mask must be (B, T) = ({B}, {T}), instead got {tuple(mask.shape)}")
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, instead got {mask.dtype}")
