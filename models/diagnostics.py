"""Statistics of embeddings over test videos, for the diagnostics that models report."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models.interface import LabeledOutputs, Output

# Distances computed at a time: 64 MiB in float32.
MAX_DISTANCES = 2**24


def per_snippet(
    videos: Sequence[LabeledOutputs], vectors: Callable[[Output], Tensor]
) -> tuple[Tensor, Tensor]:
    """Vectors of all snippets of all videos, averaged over crops, and which are anomalous.

    Args:
        videos: At least one.
        vectors: Selects (1, T, E) from an output.

    Returns:
        (n, E) and (n,) bool.
    """
    means = [torch.cat([vectors(crop) for crop in video.crops]).mean(dim=0) for video in videos]
    is_anomalous = torch.cat([video.is_anomalous for video in videos])
    return torch.cat(means), is_anomalous.to(means[0].device)


def relative_gap(videos: Sequence[LabeledOutputs]) -> float:
    """How much farther anomalous snippets are from the normal center than normal ones are.

    The ratio of mean squared distances between embeddings of length 1; 1 is no gap.
    """
    directions, is_anomalous = per_snippet(videos, lambda o: F.normalize(o.embeddings, dim=2))
    center = directions[~is_anomalous].mean(dim=0)
    distances = (directions - center).square().sum(dim=1)
    return float(distances[is_anomalous].mean() / distances[~is_anomalous].mean())


def silhouette(vectors: Tensor, is_anomalous: Tensor) -> float:
    """How much nearer vectors are to their own class than to the other, in [-1, 1].

    The mean over vectors of (b - a) / max(a, b), with a the mean distance to the others of its own
    class and b that to the other class; 0 for the only vector of a class.

    Args:
        vectors: (n, E).
        is_anomalous: (n,) bool; both classes occur.
    """
    classes = torch.stack([~is_anomalous, is_anomalous]).float()  # (2, n)
    sizes = classes.sum(dim=1)  # (2,)
    blocks = torch.split(vectors, max(1, MAX_DISTANCES // len(vectors)))
    exact = "donot_use_mm_for_euclid_dist"  # the faster way rounds small distances away
    totals = torch.cat(
        [torch.cdist(block, vectors, compute_mode=exact) @ classes.T for block in blocks]
    )  # (n, 2)
    index = is_anomalous.long()
    n_own = sizes[index]
    own = totals.gather(1, index[:, None])[:, 0] / (n_own - 1).clamp(min=1)
    other = totals.gather(1, 1 - index[:, None])[:, 0] / sizes[1 - index]
    widths = (other - own) / torch.maximum(own, other)
    return float(torch.where(n_own > 1, widths.nan_to_num(), 0).mean())
