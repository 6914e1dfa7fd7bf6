"""The two-stream I3D extractor: 1024-d features of RGB frames and of their optical flow.

Carreira and Zisserman, CVPR 2017, https://arxiv.org/abs/1705.07750. The preprocessing follows the
README of https://github.com/google-deepmind/kinetics-i3d (see `transforms`).

Differs from it:
    - Videos are not resampled to 25 frames per second: each frame has the score of its own snippet.
    - The network is applied to snippets of 16 frames and not to a whole video, as in the published
      features of weakly supervised anomaly detection; so are the crops beside the center crop.
    - Frames are resized with antialiasing, and the result is rounded to 8 bits.
    - The flow is any of `FLOWS`; that of a video's last frame is from it to itself.

Most published features were computed from flow that was stored in 8 bits; here it is not rounded.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from extractors import transforms
from extractors.features import Prepared, Provenance
from extractors.flow import build_flow
from extractors.frame_dims import SHORT_SIDE
from extractors.names import CROP_COUNTS, CROP_NAMES
from extractors.networks import inception_i3d
from extractors.networks.inception_i3d import IN_CHANNELS, InceptionI3D
from extractors.networks.precision import DTYPES, check_precision
from extractors.networks.weights import load_weights
from extractors.snippets import REPEAT_LAST_FRAME, SNIPPET_LEN, check_tail_policy

FORMAT_VERSION = 1  # to be raised when the same settings lead to other features
# On two CPU cores larger batches are not faster; a GPU has memory for more, also with five crops.
# One at a time on a CPU would save some 3 %, and round features otherwise in their last bits.
N_SNIPPETS_PER_BATCH = {"cpu": 2, "cuda": 64}


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """The snippets of a batch whose frames have the same size.

    Attributes:
        indices: Of each snippet in the batch: several if it also pads the batch.
        values: (n, T, C, H, W), scaled to the range of the network.
    """

    indices: list[list[int]]
    values: Tensor


class I3D:
    """Inception-I3D features of snippets of 16 frames. An `Extractor`.

    Args:
        flow: A key of `FLOWS`; None leaves the flow stream out.
        crops: 1, 5 or 10 crops of each frame.
        weights: A name, "random:SEED" or a path (see `weights.py`).
        precision: One of `PRECISIONS`, for the networks; resizing and flow are float32.
        device: Where the frames are resized and the networks run.
        flow_weights: Of a flow method that is a network; None for its own default.
        tail_policy: One of `snippets.TAIL_POLICIES`.

    Raises:
        ValueError: If there is no such flow method, number of crops, precision or tail policy.
        WeightsError: If the weights cannot be found, downloaded or read, or do not fit.
    """

    name: ClassVar[str] = "i3d"  # in `EXTRACTORS` and `NETWORKS`
    feature_dim: ClassVar[int] = inception_i3d.FEATURE_DIM
    has_flow_stream: ClassVar[bool] = True
    rgb_range: ClassVar[str] = "[-1, 1]"

    def __init__(
        self,
        *,
        flow: str | None,
        crops: int,
        weights: str,
        precision: str,
        device: torch.device,
        flow_weights: str | None = None,
        tail_policy: str = REPEAT_LAST_FRAME,
    ) -> None:
        check_tail_policy(tail_policy)
        if not self.has_flow_stream and (flow, flow_weights) != (None, None):
            raise ValueError(
                f"flow and flow_weights must be None: {self.name} has no flow stream, "
                f"instead got {flow} and {flow_weights}"
            )
        if crops not in CROP_COUNTS:
            raise ValueError(f"crops must be 1, 5 or 10, instead got {crops}")
        check_precision(precision, device)
        self.snippet_len = SNIPPET_LEN
        self.n_crops = crops
        self.tail_policy = tail_policy
        self.device = device
        self.n_snippets_per_batch = N_SNIPPETS_PER_BATCH[device.type]
        self._precision = precision
        self._dtype = DTYPES[precision]
        streams = ("rgb",) if flow is None else ("rgb", "flow")
        self.stream_dims = dict.fromkeys(streams, self.feature_dim)
        self._flow_name = flow
        self.flow = None if flow is None else build_flow(flow, device, flow_weights)
        loaded = load_weights(weights, self.name, streams)
        self._weights_provenance: Provenance = {
            "weights": loaded.name,
            "is_pretrained": loaded.is_pretrained,
            **{f"weights_sha256_{stream}": loaded.sha256[stream] for stream in streams},
        }
        self.networks: dict[str, nn.Module] = {
            stream: self._build_network(stream, loaded.state_dicts[stream]).to(device, self._dtype)
            for stream in streams
        }

    def provenance(self) -> Provenance:
        """Return every setting that features must share to be comparable."""
        provenance: Provenance = {
            "format_version": FORMAT_VERSION,
            "extractor": self.name,
            "feature_dim": self.feature_dim,
            "streams": ",".join(self.stream_dims),
            "snippet_len": self.snippet_len,
            "crops": self.n_crops,
            "crop_px": transforms.CROP_SIDE,
            "crop_order": ",".join(CROP_NAMES[: self.n_crops]),
            "resize": f"short side {SHORT_SIDE}, bilinear, antialias, uint8",
            "rgb_range": self.rgb_range,
            "fps_policy": "native",
            "tail_policy": self.tail_policy,
            "precision": self._precision,
            "flow_method": self._flow_name or "none",
        }
        if self.flow is not None:
            provenance["flow_bound_px"] = transforms.FLOW_BOUND_PX
            provenance |= {f"flow_{name}": value for name, value in self.flow.describe().items()}
        return provenance | self._weights_provenance

    @torch.inference_mode()
    def prepare(self, frames: Tensor) -> Prepared:
        """Resize the frames of one snippet.

        Args:
            frames: (17, H, W, 3) uint8 RGB; the last one is the one after the snippet. On any
                device: from a CPU they are copied to this extractor's.

        Returns:
            "frames": (17, 3, H', W') uint8, min(H', W') = 256, with memory of its own.

        Raises:
            ValueError: If the frames are not of this shape and type, too large,
                or their long side is more than 8 times the short side.
        """
        _check_frames(frames)
        on_device = _to_device(frames, self.device).permute(0, 3, 1, 2)  # to (T, C, H, W)
        resized = transforms.resize_short_side(on_device)
        # Frames of the right size are not resized: the result is then a view of the input.
        is_view = resized.untyped_storage().data_ptr() == frames.untyped_storage().data_ptr()
        return {"frames": resized.clone() if is_view else resized}

    @torch.inference_mode()
    def embed(self, snippets: Sequence[Prepared]) -> dict[str, Tensor]:
        """Compute the flow and then the features of N snippets.

        Returns:
            By stream: (N, K, D) float32.
        """
        by_size = list(_stacked_by_size(snippets))
        of_rgb = [(indices, frames[:, :-1]) for indices, frames in by_size]
        features = {"rgb": self._embed_stream("rgb", of_rgb, len(snippets))}
        if self.flow is not None:
            of_flow = [(indices, self.flow(frames)) for indices, frames in by_size]
            features["flow"] = self._embed_stream("flow", of_flow, len(snippets))
        return features

    def _embed_stream(
        self, stream: str, by_size: Sequence[tuple[list[list[int]], Tensor]], n_clips: int
    ) -> Tensor:
        """Compute the features (N, K, D) of one stream.

        Args:
            stream: "rgb" or "flow".
            by_size: Of each size the indices of its snippets, and their frames (n, 16, 3, H, W)
                uint8 or flow (n, 16, 2, H, W).
            n_clips: Snippets of all sizes.
        """
        groups = [_Group(indices, self._scaled(stream, values)) for indices, values in by_size]
        # One crop of all snippets at a time: ten crops need no more memory than one.
        per_crop = [
            self._run(stream, self._clips(stream, index, n_clips, groups))
            for index in range(self.n_crops)
        ]
        return torch.stack(per_crop, dim=1)

    def _scaled(self, stream: str, values: Tensor) -> Tensor:
        """Return the input (N, 16, C, H, W) of a network, of frames or flow of these dimensions.

        Scaled once for all crops; with a single crop, only that one. In the networks' dtype, and in
        memory as (N, T, H, W, C), which the networks work with: a crop is then a plain copy.
        """
        if self.n_crops == 1:
            values = transforms.crop(values, 0)
        scaled = transforms.scale_flow(values) if stream == "flow" else self._scale_rgb(values)
        return _channels_last(scaled, self._dtype)

    def _clips(self, stream: str, index: int, n_clips: int, groups: Sequence[_Group]) -> Tensor:
        """Crop all snippets at one position.

        Returns:
            (N, C, 16, 224, 224)
        """
        clips = torch.empty(
            (n_clips, IN_CHANNELS[stream], self.snippet_len, *2 * (transforms.CROP_SIDE,)),
            dtype=self._dtype,
            device=self.device,
            memory_format=torch.channels_last_3d,
        )
        crop = transforms.crop_flow if stream == "flow" else transforms.crop
        for group in groups:
            cropped = crop(group.values, index)
            # Not indexed by a list: it would be copied to the device as a tensor, synchronously.
            for indices, clip in zip(group.indices, cropped, strict=True):
                for in_batch in indices:
                    clips[in_batch].copy_(clip.transpose(0, 1))  # (T, C, H, W) -> (C, T, H, W)
        return clips

    def _build_network(self, stream: str, state_dict: dict[str, Tensor]) -> nn.Module:
        network = InceptionI3D(IN_CHANNELS[stream])
        network.load_state_dict(state_dict)
        folded = inception_i3d.fold_batch_norm(network)
        if self.device.type == "cuda":
            # Triton is installed only with torch's builds for GPUs.
            from extractors.networks.inception_cuda import use_cuda_layers  # noqa: PLC0415

            use_cuda_layers(folded)
        return folded

    def _scale_rgb(self, frames: Tensor) -> Tensor:
        return transforms.scale_rgb(frames)

    def _run(self, stream: str, clips: Tensor) -> Tensor:
        """Map (N, C, 16, 224, 224), scaled and of the networks' dtype, to (N, D)."""
        # By default cuDNN would round convolutions to the 10 bits of TF32.
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            features: Tensor = self.networks[stream](clips)
        return features.float()


def _stacked_by_size(snippets: Sequence[Prepared]) -> Iterator[tuple[list[list[int]], Tensor]]:
    """Yield the frames (n, 17, 3, H, W) of each size, and each snippet's indices in the batch.

    A snippet that occurs several times, because it pads the last batch, is stacked once.
    """
    indices = defaultdict(list)
    for index, snippet in enumerate(snippets):
        indices[id(snippet)].append(index)
    by_size = defaultdict(list)
    for of_snippet in indices.values():
        by_size[snippets[of_snippet[0]]["frames"].shape].append(of_snippet)
    for of_size in by_size.values():
        yield of_size, torch.stack([snippets[first]["frames"] for first, *_ in of_size])


def _channels_last(frames: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a copy of frames (N, T, C, H, W), in memory as (N, T, H, W, C)."""
    N, T, C, H, W = frames.shape
    copied = torch.empty((N, T, H, W, C), dtype=dtype, device=frames.device)
    return copied.permute(0, 1, 4, 2, 3).copy_(frames)  # (N, T, H, W, C) -> (N, T, C, H, W)


def _to_device(frames: Tensor, device: torch.device) -> Tensor:
    """Copy frames to the device; to a GPU asynchronously through pinned memory."""
    if frames.device.type == device.type:
        return frames
    return frames.pin_memory().to(device, non_blocking=True)


def _check_frames(frames: Tensor) -> None:
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != torch.uint8:
        raise ValueError(
            f"frames must be ({SNIPPET_LEN} + 1, H, W, 3) uint8, "
            f"instead got {tuple(frames.shape)} {frames.dtype}"
        )
    if len(frames) != SNIPPET_LEN + 1:
        raise ValueError(
            f"frames must be a snippet of {SNIPPET_LEN} and one frame more, "
            f"instead got {len(frames)}"
        )
