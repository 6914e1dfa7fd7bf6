"""The features of one video, and the protocols of extractors and flow methods."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from extractors.snippets import REPEAT_LAST_FRAME, n_snippets

Provenance = dict[str, str | int | float | bool]
# One snippet, prepared for its batch, on the extractor's device. It owns its memory: no view of the
# decoded frames.
Prepared = dict[str, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The features of all snippets of one video.

    Attributes:
        streams: By stream ("rgb", "flow"), in the extractor's order: (n_snippets, K, D), finite.
        snippet_len: Frames per snippet. The last snippet may cover fewer.
        n_frames: Frames that were decoded.
        n_missing: Frames that the file announces and that could not be decoded.
        fps: Average frames per second; NaN if unknown.
        timestamps: (n_frames,) float64 seconds at which each frame is shown, never decreasing; all
            NaN if the fps is unknown.
        decoder: Name and version: "decord 0.6.0".
        tail_policy: One of `snippets.TAIL_POLICIES`: it decides how many snippets the frames make,
            and so whether all frames belong to one.

    Raises:
        ValueError: If any of this is violated.
    """

    streams: dict[str, NDArray[np.float32]]
    snippet_len: int
    n_frames: int
    n_missing: int
    fps: float
    timestamps: NDArray[np.float64]
    decoder: str
    tail_policy: str = REPEAT_LAST_FRAME

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_timestamps()
        self._check_streams()

    @property
    def n_snippets(self) -> int:
        """Number of snippets of the frames under the tail policy; at least one."""
        return n_snippets(self.n_frames, self.snippet_len, self.tail_policy)

    @property
    def n_crops(self) -> int:
        """Number K of crops of each frame."""
        return int(next(iter(self.streams.values())).shape[1])

    @property
    def has_times(self) -> bool:
        """Whether it is known when each frame is shown."""
        return not (math.isnan(self.fps) and bool(np.isnan(self.timestamps).all()))

    def _check_counts(self) -> None:
        for name, least in (("snippet_len", 1), ("n_frames", 1), ("n_missing", 0)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} must be at least {least}, instead got {getattr(self, name)}"
                )
        if self.has_times and not (np.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps must be finite and above 0, instead got {self.fps}")

    def _check_timestamps(self) -> None:
        times = self.timestamps
        if times.shape != (self.n_frames,) or times.dtype != np.float64:
            raise ValueError(
                f"timestamps must be ({self.n_frames},) float64, "
                f"instead got {times.shape} {times.dtype}"
            )
        if self.has_times and (not np.isfinite(times).all() or (np.diff(times) < 0).any()):
            raise ValueError("timestamps must be finite and never decrease, instead they do not")

    def _check_streams(self) -> None:
        if not self.streams:
            raise ValueError("streams must hold at least one stream, instead got none")
        for name, stream in self.streams.items():
            if stream.ndim != 3 or stream.dtype != np.float32:
                raise ValueError(
                    f"{name} features must be (n_snippets, K, D) float32, "
                    f"instead got {stream.shape} {stream.dtype}"
                )
            expected = (self.n_snippets, self.n_crops)
            if stream.shape[:2] != expected or 0 in stream.shape:
                raise ValueError(
                    f"{name} features must be (n_snippets, K) = {expected} by at least one, "
                    f"instead got {stream.shape}"
                )
            if not np.isfinite(stream).all():
                raise ValueError(f"{name} features must be finite, instead some are not")


class FlowMethod(Protocol):
    """Computes the optical flow from each frame to the next."""

    def __call__(self, frames: Tensor) -> Tensor:
        """Compute the flow of T pairs of frames, of one snippet or of many.

        The flow of a pair does not depend on the other pairs.

        Args:
            frames: (..., T + 1, 3, H, W) uint8 RGB.

        Returns:
            (..., T, 2, H, W) float32 pixels, x to the right and y down, on the frames' device.

        Raises:
            ValueError: If the frames are not of this shape and type.
        """

    def describe(self) -> Provenance:
        """Return the parameters of the method: flat, JSON's types."""


class Extractor(Protocol):
    """Turns frames into features, one vector per snippet, crop and stream."""

    @property
    def snippet_len(self) -> int:
        """Frames per snippet."""

    @property
    def n_crops(self) -> int:
        """Number K of crops of each frame."""

    @property
    def tail_policy(self) -> str:
        """One of `snippets.TAIL_POLICIES`."""

    @property
    def stream_dims(self) -> dict[str, int]:
        """Width D of each stream's features; the order is the order of the streams."""

    def provenance(self) -> Provenance:
        """Return every setting that features must share to be comparable: flat, JSON's types."""

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The network of each stream."""

    @property
    def flow(self) -> FlowMethod | None:
        """The method of the flow stream; None if there is no flow stream."""

    @property
    def n_snippets_per_batch(self) -> int:
        """Batch size of `embed` in snippets, at its best speed."""

    def prepare(self, frames: Tensor) -> Prepared:
        """Preprocess one snippet before its batch is full.

        The result owns its memory: no view of the frames, which are overwritten afterwards.

        Args:
            frames: (snippet_len + 1, H, W, 3) uint8 RGB, on the CPU or on the extractor's device,
                read before this returns. The last frame is the one after the snippet, because T
                flows need T + 1 frames; at the end of a video its last frame is repeated.
        """

    def embed(self, snippets: Sequence[Prepared]) -> dict[str, Tensor]:
        """Compute the features of N snippets, of one video or of several.

        Returns:
            By stream: (N, K, D) float32 on the extractor's device.
        """
