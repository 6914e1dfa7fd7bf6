"""Median filter of planes in torch, and the sorting networks that are cut down to what it needs."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


def median_filter(planes: Tensor, side_len: int) -> Tensor:
    """Median of each square of side_len pixels (odd) in planes (T, C, H, W); borders repeated."""
    H, W = planes.shape[2:]
    padded = F.pad(planes, (side_len // 2,) * 4, mode="replicate")
    wires = [padded[..., i : i + H, j : j + W] for i in range(side_len) for j in range(side_len)]
    middle = len(wires) // 2
    for low, high, is_low_needed, is_high_needed in selection_network(len(wires), (middle,)):
        a, b = wires[low], wires[high]
        if is_low_needed:
            wires[low] = torch.minimum(a, b)
        if is_high_needed:
            wires[high] = torch.maximum(a, b)
    return wires[middle]


@cache
def selection_network(n_wires: int, ranks: tuple[int, ...]) -> list[tuple[int, int, bool, bool]]:
    """The part of a sorting network that matters to some of its outputs.

    Args:
        n_wires: Values that are sorted.
        ranks: Of the outputs, counted from the smallest, which is 0.

    Returns:
        Steps of (wire for the smaller value, wire for the larger, is the smaller needed, is the
        larger). After the last one, the value of each of these ranks is on the wire of its number.
    """
    needed = set(ranks)
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
