"""A program: score a made-up video of so many snippets and print the peak of its memory in MiB."""

import resource
import sys
from pathlib import Path

import numpy as np
import torch

from extractors.decoding.decode_pool import SnippetDecoded, VideoEnded, VideoOpened
from models.clav_como import ClavComo, ClavComoConfig
from pipeline.scoring import score_streams as module

STREAM_DIMS = {"rgb": 1024, "flow": 1024}


class LongVideo:
    """Stands for `DecodePool`: small frames, as many as are asked for."""

    n_snippets = 0

    def __init__(self, *arguments, **options):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def decode(self, paths):
        (path,) = paths
        frames = np.zeros((17, 4, 4, 3), np.uint8)
        n_frames = 16 * self.n_snippets
        yield VideoOpened(path, 4, 4, 25.0, n_frames, "none", slot_len=17, n_slots=1)
        for index in range(self.n_snippets):
            yield SnippetDecoded(path, frames, (16 * index + np.arange(16.0)) / 25)
        yield VideoEnded(path, 0)


class NoiseExtractor:
    """Features of the usual width that are noise."""

    snippet_len = 16
    n_crops = 1
    n_snippets_per_batch = 32
    device = torch.device("cpu")
    tail_policy = "repeat last frame"
    stream_dims = STREAM_DIMS

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def prepare(self, frames):
        return {}

    def embed(self, snippets):
        shape = (len(snippets), 1, 1024)
        return {name: torch.randn(shape, generator=self.generator) for name in STREAM_DIMS}


def main() -> None:
    LongVideo.n_snippets = int(sys.argv[1])
    module.DecodePool = LongVideo
    sizes = {"embedding_dim": 8, "class_code_dim": 4, "relation_dim": 4, "scorer_dim": 4}
    streams, window_len = tuple(STREAM_DIMS.items()), int(sys.argv[2])
    model = ClavComo(ClavComoConfig(streams, window_len=window_len, **sizes)).eval()
    *_, last = module.score_streams(
        [Path("long.mp4")],
        NoiseExtractor(),
        model,
        device=torch.device("cpu"),
        stride=16,
    )
    assert last.scores.n_frames == 16 * LongVideo.n_snippets
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}\n")


if __name__ == "__main__":
    main()
