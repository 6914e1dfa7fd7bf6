"""The two blocks of CLAV-CoMo: class-activated features, and the context-motion relation."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import CrossAttention, in_float32, masked_mean, with_video_mean

Paths = Literal["both", "context", "motion"]


class Stem(nn.Sequential):
    """One stream's features (B, T, D) to embeddings (B, T, E)."""

    def __init__(self, feature_dim: int, embedding_dim: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(feature_dim, embedding_dim),
            nn.LayerNorm(embedding_dim),
            nn.GELU(),
            nn.Dropout(dropout),
        )


class ImplicitClassActivation(nn.Module):
    """ICA: each snippet's weights are a mixture that its own class code chooses.

    No label enters the forward pass, so the same code runs in training and in scoring.

    Args:
        embedding_dim: E.
        class_code_dim: Hidden width of the gate.
        by_channel: Whether a class activates channels instead of whole maps.
    """

    # Paper is silent: "weights that are implicitly activated depending on the class" could be read
    # in many ways; this is two maps, mixed by a code of two classes.

    def __init__(self, embedding_dim: int, class_code_dim: int, *, by_channel: bool) -> None:
        super().__init__()
        self._by_channel = by_channel
        self.encode = nn.Linear(2 * embedding_dim, class_code_dim)
        self.gate = nn.Linear(class_code_dim, 2)
        self.class_weights = nn.ModuleList(nn.Linear(embedding_dim, embedding_dim) for _ in "01")
        self.norm = nn.Identity() if by_channel else nn.LayerNorm(embedding_dim)
        # Equal class weights would get equal gradients for ever; equal gates are a fair start.
        for weights in self.class_weights:
            assert isinstance(weights, nn.Linear)
            nn.init.xavier_uniform_(weights.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, E) to (B, T, E) and the gate's logits (B, T, 2) for normal and anomalous."""
        code = F.relu(self.encode(with_video_mean(x, mask)))
        gate_logits = in_float32(self.gate, code)
        of_class = torch.stack([weights(x) for weights in self.class_weights], dim=3)
        if self._by_channel:
            of_class = of_class.sigmoid()
        gate = gate_logits.softmax(dim=2).to(of_class.dtype)
        mixed = torch.einsum("btec,btc->bte", of_class, gate)
        return self.norm(2 * x * mixed if self._by_channel else x + mixed), gate_logits


def context_features(x: Tensor, mask: Tensor, context_len: int) -> Tensor:
    """Low-pass part of each snippet's surroundings and the mean of the video: (B, T, 2 E)."""
    real = mask.unsqueeze(2).to(x.dtype)  # (B, T) -> (B, T, 1)
    # No window about a real snippet is empty; about padding some are, and 0 / 0 would spread.
    real_fraction = _window_mean(real, context_len).clamp(min=1 / context_len)
    local = _window_mean(x * real, context_len) / real_fraction
    return torch.cat([local, masked_mean(x, mask).expand_as(x)], dim=2)


def _window_mean(x: Tensor, window_len: int) -> Tensor:
    pooled = F.avg_pool1d(x.transpose(1, 2), window_len, stride=1, padding=window_len // 2)
    return pooled.transpose(1, 2)


def motion_features(x: Tensor, mask: Tensor) -> Tensor:
    """Steps from the last snippet and to the next, signed and absolute: (B, T, 4 E).

    At the ends of the real part the missing neighbor is a copy of the snippet itself.
    """
    is_step = (mask[:, 1:] & mask[:, :-1]).unsqueeze(2).to(x.dtype)
    step = x.diff(dim=1) * is_step  # (B, T - 1, E)
    before = F.pad(step, (0, 0, 1, 0))
    after = F.pad(step, (0, 0, 0, 1))
    return torch.cat([before, after, before.abs(), after.abs()], dim=2)


class ContextMotion(nn.Module):
    """CoMo: relates the surroundings of each snippet to the motion in it.

    There is no attention from context to context nor from motion to motion: a relation can only be
    formed between the two.

    Args:
        embedding_dim: E.
        relation_dim: Width in which context and motion meet.
        motion_dim: Width of the input of the motion path.
        reads: `both` paths, or one with zeros in the other.
        use_residual: Without it, the output is computed from the two paths alone.
        use_product: Without it, a snippet's own context and motion are not multiplied.
        use_cross_attention: Without it, context and motion meet within a snippet only.
    """

    # Paper is silent: the abstract names a relation between surroundings and motion, no layer.

    def __init__(
        self,
        embedding_dim: int,
        relation_dim: int,
        motion_dim: int,
        *,
        reads: Paths,
        use_residual: bool,
        use_product: bool,
        use_cross_attention: bool,
    ) -> None:
        super().__init__()
        E, r = embedding_dim, relation_dim
        self._reads, self._use_residual = reads, use_residual
        self._use_product, self._use_cross_attention = use_product, use_cross_attention
        self.context_path = _path(2 * E, r, r)
        self.motion_path = _path(motion_dim, 2 * r, r)
        if use_cross_attention:
            self.context_asks = CrossAttention(r)  # which motions occur in these surroundings?
            self.motion_asks = CrossAttention(r)  # in which surroundings does this motion occur?
        if use_product:
            self.own_context = nn.Linear(r, r, bias=False)
            self.own_motion = nn.Linear(r, r, bias=False)
        n_parts = 2 + 2 * use_cross_attention + use_product
        self.combine = nn.Sequential(nn.Linear(n_parts * r, E), nn.GELU(), nn.Linear(E, E))
        self.norm = nn.LayerNorm(E)

    def forward(self, y: Tensor, context: Tensor, motion: Tensor, mask: Tensor) -> Tensor:
        """(B, T, E), (B, T, 2 E) and (B, T, motion_dim) to (B, T, E)."""
        reads = self._reads
        c = self.context_path(torch.zeros_like(context) if reads == "motion" else context)
        m = self.motion_path(torch.zeros_like(motion) if reads == "context" else motion)
        parts = [c, m]
        if self._use_product:
            parts.insert(0, self.own_context(c) * self.own_motion(m))
        if self._use_cross_attention:
            parts = [self.context_asks(c, m, mask), self.motion_asks(m, c, mask), *parts]
        related = self.combine(torch.cat(parts, dim=2))
        z: Tensor = self.norm(y + related if self._use_residual else related)
        return z


def _path(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_dim, hidden_dim),
        nn.GELU(),
        nn.Linear(hidden_dim, out_dim),
        nn.LayerNorm(out_dim),
    )
