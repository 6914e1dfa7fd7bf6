"""What the parts of the check on a GPU work with: clips, snippets, an extractor."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from extractors.decoding.video import Video
from extractors.i3d import I3D
from extractors.networks.raft_network import build as build_raft
from extractors.transforms import resize_short_side
from pipeline.experiments.clips import make_clips


@dataclass(frozen=True, slots=True)
class Context:
    """What a part works with.

    Attributes:
        device: What is checked.
        folder: Shared by all parts, which may write there.
        is_small: Whether everything is cut down to what a CPU does in seconds.
    """

    device: torch.device
    folder: Path
    is_small: bool

    def clips(self, width: int, height: int, n_clips: int, n_frames: int) -> list[Path]:
        """Clips of one size, made when they are first asked for."""
        if self.is_small:
            n_clips, n_frames = 2, 40
        folder = self.folder / "clips" / f"{width}x{height}-{n_clips}x{n_frames}"
        paths = [folder / f"{index}.mp4" for index in range(n_clips)]
        if not all(path.exists() for path in paths):
            make_clips(folder, n_clips=n_clips, n_frames=n_frames, width=width, height=height)
        return paths

    def extractor(
        self, flow: str | None, crops: int, precision: str, device: torch.device | None = None
    ) -> I3D:
        """The I3D with random weights."""
        return I3D(
            flow=flow,
            crops=crops,
            weights="random:0",
            precision=precision,
            device=self.device if device is None else device,
            flow_weights=str(self.untrained_raft()) if flow == "raft" else None,
        )

    def untrained_raft(self) -> Path:
        """A file of RAFT's weights before any training: the speed does not depend on them."""
        path = self.folder / "raft.pth"
        if not path.exists():
            torch.save(build_raft("raft-small").state_dict(), path)
        return path

    def snippets(self, n_snippets: int) -> Tensor:
        """Frames (N, 17, 3, 256, 340) uint8 of clips."""
        paths = self.clips(340, 256, n_clips=16, n_frames=256)
        found: list[Tensor] = []
        for path in paths:
            for chunk in Video(path).read(17):
                if len(chunk.frames) == 17:
                    frames = torch.from_numpy(chunk.frames).permute(0, 3, 1, 2)
                    found.append(resize_short_side(frames).clone())
                if len(found) == n_snippets:
                    return torch.stack(found)
        return torch.stack(found)

    @property
    def precision(self) -> str:
        """What is measured: bfloat16 on a GPU, float32 on a CPU."""
        return "bfloat16" if self.device.type == "cuda" else "float32"
