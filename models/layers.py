"""Layers that several models share: standardization, attention, means over real snippets."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Standardize(nn.Module):
    """Shift and scale each feature to mean 0 and standard deviation 1 over the training snippets.

    Does nothing until `fit`. The two statistics are buffers: they travel in the state dict and
    are not trained.

    Args:
        dim: Feature width D.

    Attributes:
        mean: (D,)
        std: (D,) positive; 1 where a feature never varied.
    """

    # Paper is silent: features of I3D are fed as they are in most published code. Their scale
    # differs by orders of magnitude between weights and between streams, hence this layer.

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        """Take the statistics of these snippets.

        Args:
            features: (n, D) real snippets of the training bags, all of them or a fair sample.

        Raises:
            ValueError: If the shape does not fit, there is no snippet, or one is not finite.
        """
        dim = self.mean.shape[0]
        if features.dim() != 2 or features.shape[1] != dim or len(features) == 0:
            raise ValueError(
                f"features must be (n, D) = (at least 1, {dim}), "
                f"instead got {tuple(features.shape)}"
            )
        std, mean = torch.std_mean(features.float(), dim=0, correction=0)
        if not bool((mean.isfinite() & std.isfinite()).all()):
            raise ValueError("features must be finite, instead got NaN or infinity")
        # What is left of a constant after rounding is not variation: dividing by it would blow
        # the first different value up by millions.
        is_constant = std <= 1e-6 * mean.abs()
        self.mean.copy_(mean)
        self.std.copy_(torch.where(is_constant, torch.ones_like(std), std))

    def forward(self, features: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return (features - self.mean) / self.std


def in_float32(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer in float32, also where autocast would take a narrower type.

    The 8 significant bits of a bfloat16 logit make neighboring scores equal.

    Args:
        layer: With float32 weights.
        x: Of any floating-point dtype.

    Returns:
        float32.
    """
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.float())


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real snippets of each bag.

    Args:
        values: (B, T, E), finite at padding too.
        mask: (B, T) True where the snippet is real.

    Returns:
        (B, 1, E)
    """
    weights = mask.unsqueeze(2).to(values.dtype)  # (B, T) -> (B, T, 1)
    return (values * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)


def with_video_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Each snippet beside the mean of its bag: (B, T, E) to (B, T, 2 E)."""
    return torch.cat([x, masked_mean(x, mask).expand_as(x)], dim=2)


class CrossAttention(nn.Module):
    """One attention head from one sequence to another.

    Args:
        in_dim: Width of both sequences.
        head_dim: Width of queries, keys and values; `in_dim` if None.
    """

    def __init__(self, in_dim: int, head_dim: int | None = None) -> None:
        super().__init__()
        self.query = nn.Linear(in_dim, head_dim or in_dim, bias=False)
        self.key = nn.Linear(in_dim, head_dim or in_dim, bias=False)
        self.value = nn.Linear(in_dim, head_dim or in_dim, bias=False)

    def forward(self, asking: Tensor, asked: Tensor, mask: Tensor) -> Tensor:
        """(B, T, in_dim) of each to (B, T, head_dim)."""
        return F.scaled_dot_product_attention(
            self.query(asking),
            self.key(asked),
            self.value(asked),
            attn_mask=mask.unsqueeze(1),  # (B, T) -> (B, 1, T): over the asked
        )
