"""Median filter of planes in torch: a sorting network that is cut down to its middle output."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


def median_filter(planes: Tensor, side_len: int) -> Tensor:
    """Median of each square of side_len pixels (odd) in planes (T, C, H, W); borders repeated."""
    H, W = planes.shape[2:]
    padded = F.pad(planes, (side_len // 2,) * 4, mode="replicate")
    wires = [padded[..., i : i + H, j : j + W] for i in range(side_len) for j in range(side_len)]
    for low, high, is_low_needed, is_high_needed in median_network(len(wires)):
        a, b = wires[low], wires[high]
        if is_low_needed:
            wires[low] = torch.minimum(a, b)
        if is_high_needed:
            wires[high] = torch.maximum(a, b)
    return wires[len(wires) // 2]


@cache
def median_network(n_wires: int) -> list[tuple[int, int, bool, bool]]:
    """The part of a sorting network that matters to the middle wire.

    Steps of (wire for the smaller value, wire for the larger, is the smaller needed, the larger).
    """
    needed = {n_wires // 2}
    network = []
    for low, high in reversed(_sorting_network(n_wires)):
        if needed & {low, high}:
            network.append((low, high, low in needed, high in needed))
            needed |= {low, high}
    return network[::-1]


def _sorting_network(n_wires: int) -> list[tuple[int, int]]:
    """Batcher's odd-even merge sort: pairs of wires to be sorted, one after the other."""
    network = []
    run_len = 1  # runs of this length are sorted, and pairs of them are merged
    while run_len < n_wires:
        distance = run_len
        while distance:
            offset = distance % run_len
            for i in range(offset, n_wires - distance):
                is_lower = (i - offset) // distance % 2 == 0
                if is_lower and i // (2 * run_len) == (i + distance) // (2 * run_len):
                    network.append((i, i + distance))
            distance //= 2
        run_len *= 2
    return network
