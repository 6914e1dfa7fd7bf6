"""Extractors by name, and all that is chosen about one."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from extractors.errors import LookaroundError
from extractors.features import Extractor
from extractors.i3d import I3D
from extractors.i3d_r50 import I3DR50
from extractors.networks.precision import best_precision
from extractors.snippets import REPEAT_LAST_FRAME

EXTRACTORS: dict[str, Callable[..., Extractor]] = {"i3d": I3D, "i3d_r50": I3DR50}
RGB_EXTRACTORS = ("i3d_r50",)  # those without a flow stream
NO_FLOW = "none"


class ExtractorError(LookaroundError, ValueError):
    """What is chosen about an extractor does not exist, or not on the device."""


@dataclass(frozen=True, slots=True)
class ExtractorChoice:
    """What is chosen about an extractor; it is built where it runs, be it in another process.

    Attributes:
        extractor: A name in `EXTRACTORS`.
        flow: A name in `flow.FLOWS`; "none" leaves the flow stream out.
        crops: 1, 5 or 10 crops of each frame.
        weights: A name, "random:SEED" or a path (see `weights.py`); None for the extractor's
            published weights.
        flow_weights: The same for a flow method that is a network; None for its own default.
        tail_policy: One of `snippets.TAIL_POLICIES`.
        precision: "float32" or "bfloat16"; None takes the best for the device.
    """

    extractor: str = "i3d"
    flow: str = "tvl1"
    crops: int = 5
    weights: str | None = None
    flow_weights: str | None = None
    tail_policy: str = REPEAT_LAST_FRAME
    precision: str | None = None

    def __post_init__(self) -> None:
        if self.extractor not in EXTRACTORS:
            raise ExtractorError(
                f"extractor must be one of {', '.join(EXTRACTORS)}, instead got {self.extractor}"
            )
        if self.extractor in RGB_EXTRACTORS and self.flow != NO_FLOW:
            raise ExtractorError(
                f"extractor {self.extractor} has no flow stream, instead got flow {self.flow}; "
                f"give --flow {NO_FLOW}"
            )
        if self.flow_weights is not None and self.flow != "raft":
            raise ExtractorError(
                f"flow {self.flow} has no weights, instead got {self.flow_weights}; "
                "give --flow raft or leave out --flow-weights"
            )

    @property
    def has_random_weights(self) -> bool:
        """Whether the features will mean nothing."""
        return self.weights is not None and self.weights.startswith("random:")

    def build(self, device: torch.device) -> Extractor:
        """Build the extractor on a device, which becomes this process's own.

        Raises:
            ExtractorError: If a choice is not one of those, or not one for this device.
            WeightsError: If the weights cannot be had.
        """
        if device.type == "cuda":
            device = torch.device("cuda", device.index or 0)
            torch.cuda.set_device(device)  # for streams, events and kernels that name none
        try:
            return EXTRACTORS[self.extractor](
                flow=None if self.flow == NO_FLOW else self.flow,
                crops=self.crops,
                weights=self.weights,
                precision=self.precision or best_precision(device),
                device=device,
                flow_weights=self.flow_weights,
                tail_policy=self.tail_policy,
            )
        except ValueError as error:
            raise ExtractorError(str(error)) from error
