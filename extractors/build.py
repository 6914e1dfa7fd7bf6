"""Extractors by name, and all that is chosen about one."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from extractors.features import Extractor
from extractors.i3d import I3D
from extractors.precision import best_precision

EXTRACTORS: dict[str, Callable[..., Extractor]] = {"i3d": I3D}


class ExtractorError(ValueError):
    """What is chosen about an extractor does not exist, or not on the device."""


@dataclass(frozen=True, slots=True)
class ExtractorChoice:
    """What is chosen about an extractor; it is built where it runs, be it in another process.

    Attributes:
        name: A name in `EXTRACTORS`.
        flow: A name in `flow.FLOWS`; None leaves the flow stream out.
        crops: 1, 5 or 10 crops of each frame.
        weights: "kinetics", "random:SEED" or a path (see `weights.py`).
        precision: "float32" or "bfloat16"; None takes the best for the device.
    """

    name: str
    flow: str | None
    crops: int
    weights: str
    precision: str | None = None

    def build(self, device: torch.device) -> Extractor:
        """Build the extractor on a device.

        Raises:
            ExtractorError: If a choice is not one of those, or not one for this device.
            WeightsError: If the weights cannot be had.
        """
        if self.name not in EXTRACTORS:
            raise ExtractorError(
                f"extractor must be one of {', '.join(EXTRACTORS)}, instead got {self.name}"
            )
        try:
            return EXTRACTORS[self.name](
                flow=self.flow,
                crops=self.crops,
                weights=self.weights,
                precision=self.precision or best_precision(device),
                device=device,
            )
        except ValueError as error:
            raise ExtractorError(str(error)) from error
