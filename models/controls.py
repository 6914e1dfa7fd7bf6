"""Ablation controls of CLAV-CoMo: blocks of equal size without the mechanism they replace."""

import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import CrossAttention, with_video_mean


class WideMap(nn.Module):
    """In place of ICA: one map of width 2 E from what its gate reads, without a class code."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.weights = nn.Linear(2 * embedding_dim, embedding_dim)
        self.norm = nn.LayerNorm(embedding_dim)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, None]:
        """(B, T, E) to (B, T, E), and no gate."""
        return self.norm(x + F.gelu(self.weights(with_video_mean(x, mask)))), None


class SelfAttention(nn.Module):
    """In place of CoMo: a transformer block of one head, which reads the sum of the streams.

    Args:
        embedding_dim: E.
        n_parameters: How many it has, approximately.
    """

    def __init__(self, embedding_dim: int, n_parameters: int) -> None:
        super().__init__()
        E = embedding_dim
        self.attention = CrossAttention(E, max(1, E // 2))
        self.out = nn.Linear(max(1, E // 2), E)
        self.norms = nn.ModuleList([nn.LayerNorm(E), nn.LayerNorm(E)])
        n_left = n_parameters - sum(parameter.numel() for parameter in self.parameters()) - E
        hidden_dim = max(1, round(n_left / (2 * E + 1)))
        self.feed_forward = nn.Sequential(
            nn.Linear(E, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, E)
        )

    def forward(self, y: Tensor, mask: Tensor) -> Tensor:
        """(B, T, E) to (B, T, E)."""
        y = self.norms[0](y + self.out(self.attention(y, y, mask)))
        z: Tensor = self.norms[1](y + self.feed_forward(y))
        return z
