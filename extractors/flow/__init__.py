"""Optical flow methods by name: the registry `FLOWS`, and building one of its methods."""

from typing import TYPE_CHECKING

from extractors.names import FLOWS as FLOWS
from extractors.names import load_builder

if TYPE_CHECKING:  # the registry can be read without torch
    import torch

    from extractors.features import FlowMethod


def build_flow(name: str, device: "torch.device", weights: str | None = None) -> "FlowMethod":
    """Build a flow method by name.

    Args:
        name: A key of `FLOWS`.
        device: Where the frames will be.
        weights: Of a method that is a network, as its class says; None for its default.

    Raises:
        ValueError: If there is no such method, or if it has no weights and some are named.
        WeightsError: If the weights cannot be found, downloaded or read.
    """
    if name not in FLOWS:
        raise ValueError(f"flow must be one of {', '.join(FLOWS)} or None, instead got {name}")
    entry = FLOWS[name]
    if entry.weights is None and weights is not None:
        raise ValueError(f"flow {name} has no weights, instead got {weights}")
    arguments = (device,) if entry.weights is None else (device, weights or entry.weights[0])
    method: FlowMethod = load_builder(entry)(*arguments)
    return method
