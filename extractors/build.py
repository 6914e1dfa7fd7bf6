"""The options of an extractor, checked against the registries, and building it on a device."""

from dataclasses import dataclass

import torch

from extractors.errors import LookaroundError
from extractors.features import Extractor
from extractors.names import (
    CROP_COUNTS,
    DEFAULT_CROPS,
    DEFAULT_EXTRACTOR,
    DEFAULT_FLOW,
    EXTRACTORS,
    FLOWS,
    NO_FLOW,
    load_builder,
)
from extractors.networks.precision import best_precision
from extractors.snippets import REPEAT_LAST_FRAME


class ExtractorError(LookaroundError, ValueError):
    """An option of an extractor does not exist, or is not available on the device."""


@dataclass(frozen=True, slots=True)
class ExtractorChoice:
    """The options of an extractor, which is built from them in the process where it runs.

    Attributes:
        extractor: A key of `EXTRACTORS`.
        flow: A key of `FLOWS`, or "none" for no flow stream.
        crops: 1, 5 or 10 crops of each frame.
        weights: A name, "random:SEED" or a path (see `weights.py`); None for the extractor's
            default weights.
        flow_weights: The same for a flow method with weights; None for its default.
        tail_policy: One of `snippets.TAIL_POLICIES`.
        precision: One of `PRECISIONS`; None for the best on the device.
    """

    extractor: str = DEFAULT_EXTRACTOR
    flow: str = DEFAULT_FLOW
    crops: int = DEFAULT_CROPS
    weights: str | None = None
    flow_weights: str | None = None
    tail_policy: str = REPEAT_LAST_FRAME
    precision: str | None = None

    def __post_init__(self) -> None:
        if self.extractor not in EXTRACTORS:
            raise ExtractorError(
                f"extractor must be one of {', '.join(EXTRACTORS)}, instead got {self.extractor}"
            )
        if self.flow not in (*FLOWS, NO_FLOW):
            known = ", ".join((*FLOWS, NO_FLOW))
            raise ExtractorError(f"flow must be one of {known}, instead got {self.flow}")
        if self.flow != NO_FLOW and not EXTRACTORS[self.extractor].has_flow:
            raise ExtractorError(
                f"extractor {self.extractor} has no flow stream, instead got flow {self.flow}; "
                f"give --flow {NO_FLOW}"
            )
        if type(self.crops) is not int or self.crops not in CROP_COUNTS:
            raise ExtractorError(f"crops must be 1, 5 or 10, instead got {self.crops!r}")
        takes_weights = self.flow != NO_FLOW and FLOWS[self.flow].weights is not None
        if self.flow_weights is not None and not takes_weights:
            with_weights = [name for name, entry in FLOWS.items() if entry.weights is not None]
            raise ExtractorError(
                f"flow {self.flow} has no weights, instead got {self.flow_weights}; "
                f"give --flow {' or '.join(with_weights)}, or leave out --flow-weights"
            )

    @property
    def has_random_weights(self) -> bool:
        """Whether the networks are not pretrained, so that their features have no meaning."""
        return self.weights is not None and self.weights.startswith("random:")

    def build(self, device: torch.device) -> Extractor:
        """Build the extractor on a device, which becomes this process's current device.

        Raises:
            ExtractorError: If an option is not available, or not on this device.
            WeightsError: If the weights cannot be found, downloaded or read, or do not fit.
        """
        if device.type == "cuda":
            device = torch.device("cuda", device.index or 0)
            torch.cuda.set_device(device)  # for streams, events and kernels that name none
        try:
            entry = EXTRACTORS[self.extractor]
            extractor: Extractor = load_builder(entry)(
                flow=None if self.flow == NO_FLOW else self.flow,
                crops=self.crops,
                weights=self.weights or entry.default_weights,
                precision=self.precision or best_precision(device),
                device=device,
                flow_weights=self.flow_weights,
                tail_policy=self.tail_policy,
            )
        except ValueError as error:
            raise ExtractorError(str(error)) from error
        return extractor
