"""The training videos as one block of bags, and balanced batches sampled from it.

Which crop of a video a batch has is random. A sample depends on the seed and its place in the
sequence of all samples alone, never on a generator whose state would have to be saved. So a
training run that was stopped goes on as if it had not been.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.interface import BagBatch
from pipeline.config import Sampler
from pipeline.datasets.catalog import DatasetError
from pipeline.extraction.feature_file import Provenance

StreamDims = tuple[tuple[str, int], ...]

# Of a GPU's free memory that bags may take, so that batches need not be copied to it.
MAX_FRACTION_OF_GPU = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class BagSet:
    """The training videos, ready to be sampled.

    Attributes:
        video_ids: One per video.
        labels: (n_videos,) int64, 0 normal, 1 anomalous.
        first_bags: (n_videos,) where the bags of each video begin.
        n_crops: (n_videos,) how many bags each video has, one per crop.
        features: (n_bags, T, D) float16 or float32, zero beyond a bag's end. Subsets share it.
        n_snippets: (n_bags,) 1 to T, the length of each bag.
        max_snippets: Snippets of the longest video, before sampling. Subsets share it.
        sampler: How the bags came to their length.
        stream_dims: Name and width of each stream, in the order in which they lie in D.
        provenance: How the features were made.
        snippets: (n, D) real snippets, evenly taken from all bags as they were before sampling: of
            these videos alone, so that statistics of a subset know nothing of other videos.
        snippet_videos: (n,) the index of the video of each of them.

    Raises:
        DatasetError: If the videos are all normal or all anomalous.
    """

    video_ids: tuple[str, ...]
    labels: Tensor
    first_bags: NDArray[np.int64]
    n_crops: NDArray[np.int64]
    features: Tensor
    n_snippets: NDArray[np.int64]
    max_snippets: int
    sampler: Sampler
    stream_dims: StreamDims
    provenance: Provenance
    snippets: Tensor
    snippet_videos: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.n_anomalous in (0, len(self.video_ids)):
            raise DatasetError(
                "training needs normal and anomalous videos, instead got "
                f"{len(self.video_ids) - self.n_anomalous} normal and {self.n_anomalous} anomalous"
            )

    @property
    def n_anomalous(self) -> int:
        """How many videos are anomalous."""
        return int(self.labels.sum())

    @property
    def bag_len(self) -> int:
        """T, the most snippets of a bag; a batch is padded to its longest."""
        return self.features.shape[1]

    @property
    def window_len(self) -> int:
        """How many snippets a model that is trained on these bags scores together.

        As many as the longest video has: of surroundings farther away the model has learned
        nothing. Of short videos it is the length of a bag.
        """
        return max(self.max_snippets, self.bag_len)

    def subset(self, videos: NDArray[np.int64]) -> "BagSet":
        """Only these videos, in this order.

        Args:
            videos: Their indices, each once.

        Raises:
            DatasetError: If they are all normal or all anomalous.
        """
        snippets, snippet_videos = self._snippets_of(videos)
        return dataclasses.replace(
            self,
            video_ids=tuple(self.video_ids[video] for video in videos),
            labels=self.labels[torch.from_numpy(videos)],
            first_bags=self.first_bags[videos],
            n_crops=self.n_crops[videos],
            snippets=snippets,
            snippet_videos=snippet_videos,
        )

    def _snippets_of(self, videos: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        """Sampled snippets of some videos, and the index of each one's video among them."""
        index_of = np.full(len(self.video_ids), -1)
        index_of[videos] = np.arange(len(videos))
        snippet_videos = index_of[self.snippet_videos]
        is_kept = snippet_videos >= 0
        if len(np.unique(snippet_videos[is_kept])) >= 2:
            return self.snippets[torch.from_numpy(is_kept)], snippet_videos[is_kept]
        # Beside far longer videos the sample has nothing of these: take their bags.
        bags = [
            (index, bag)
            for index, video in enumerate(videos)
            for bag in range(self.first_bags[video], self.first_bags[video] + self.n_crops[video])
        ]
        rows = [self.features[bag, : self.n_snippets[bag]].float() for _, bag in bags]
        return torch.cat(rows), np.repeat([index for index, _ in bags], [len(row) for row in rows])

    def moved_to(self, device: torch.device) -> "BagSet":
        """The same bags in the memory of a GPU if they fit there; else, or on a CPU, as they are.

        Args:
            device: Where the model is.
        """
        if device.type != "cuda":
            return self
        free_bytes, _ = torch.cuda.mem_get_info(device)
        if self.features.nbytes > MAX_FRACTION_OF_GPU * free_bytes:
            return self
        return dataclasses.replace(self, features=self.features.to(device))

    def batch(self, videos: NDArray[np.int64], crop_draws: NDArray[np.float64]) -> BagBatch:
        """Put bags together, where the bags are.

        Args:
            videos: (B,) indices of videos.
            crop_draws: (B,) in [0, 1): which of a video's crops, as a fraction of their number.
        """
        crops = (crop_draws * self.n_crops[videos]).astype(np.int64)
        bags = self.first_bags[videos] + crops
        lengths = self.n_snippets[bags]
        longest = int(lengths.max())
        # One copy to the GPU, and from pinned memory: another would make the CPU wait for it.
        numbers = torch.from_numpy(np.stack([bags, lengths, self.labels.numpy()[videos]]))
        if self.features.device.type == "cuda":
            numbers = numbers.pin_memory().to(self.features.device, non_blocking=True)
        indices, n_real, labels = numbers
        features = self.features[:, :longest].index_select(0, indices).float()  # (B, T, D)
        # Lengths are counted and not read off rows of zeros: a real snippet may be all zero.
        mask = torch.arange(longest, device=numbers.device) < n_real[:, None]  # (B, T)
        return BagBatch(features=features, mask=mask, labels=labels)


def draw_batches(
    bags: BagSet, *, seed: int, first_step: int, n_steps: int, bags_per_class: int
) -> Iterator[BagBatch]:
    """Balanced batches: as many normal as anomalous bags, normal ones first.

    Within a class every video is sampled once before any comes again, in a new order each time.

    Args:
        bags: The training videos.
        seed: Of the run.
        first_step: The place of the first batch in the sequence of all batches of the run.
        n_steps: How many batches.
        bags_per_class: Half of a batch.
    """
    start, n_draws = first_step * bags_per_class, n_steps * bags_per_class
    sampled = [
        np.flatnonzero(bags.labels.numpy() == label)[
            _permuted(int((bags.labels == label).sum()), (seed, label), start, n_draws)
        ].reshape(n_steps, bags_per_class)
        for label in (0, 1)
    ]
    videos = np.concatenate(sampled, axis=1)  # (n_steps, 2 bags_per_class)
    for step, row in enumerate(videos, start=first_step):
        crop_draws = np.random.default_rng((seed, 2, step)).random(len(row))
        yield bags.batch(row, crop_draws)


def _permuted(n: int, key: tuple[int, int], start: int, n_draws: int) -> NDArray[np.int64]:
    """A slice of the endless sequence of permutations of n that the key names."""
    rounds = range(start // n, (start + n_draws - 1) // n + 1)
    sequence = np.concatenate([np.random.default_rng((*key, i)).permutation(n) for i in rounds])
    return sequence[start - rounds.start * n :][:n_draws]
