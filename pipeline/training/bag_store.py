"""The memory of training bags: one block, or a nameless file where memory is too small."""

import os
import tempfile

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from pipeline.config import Sampler
from pipeline.training.temporal_sampling import SAMPLERS

# Of the machine's memory; the rest is left to what else must fit.
MAX_FRACTION_OF_MEMORY = 0.5

FloatArray = NDArray[np.float16] | NDArray[np.float32]


class BagStore:
    """Bags of one length, filled one video at a time.

    Room is taken for bags of full length, but what is never written to takes no memory: a block of
    zeros has no pages before its first write, nor has a file with holes.

    Args:
        max_bags: How many bags there can be.
        bag_len: T.
        feature_dim: D.
        sampler: Brings a bag to its length.
        dtype: float16 where that is what the features were stored in and the sampler only picks
            among them; else float32.

    Raises:
        OSError: If neither memory nor the folder of temporary files has room.
    """

    def __init__(
        self,
        max_bags: int,
        *,
        bag_len: int,
        feature_dim: int,
        sampler: Sampler,
        dtype: type[np.float16] | type[np.float32],
    ) -> None:
        self._block = _zeros((max_bags, bag_len, feature_dim), np.dtype(dtype))
        self._sampler = sampler
        self._n_snippets = np.zeros(max_bags, dtype=np.int64)
        self._n_bags = 0

    def add(self, streams: list[NDArray[np.float32]]) -> None:
        """Bring one video's crops to their length, each a bag of its own.

        Args:
            streams: Each (n_snippets, K, D of the stream); side by side they make D.
        """
        bag_len = self._block.shape[1]
        n_crops = streams[0].shape[1]
        bags = slice(self._n_bags, self._n_bags + n_crops)
        start = 0
        for stream in streams:
            rows = SAMPLERS[self._sampler](stream, bag_len)  # (T or fewer, K, D of the stream)
            columns = slice(start, start + stream.shape[2])
            self._block[bags, : len(rows), columns] = rows.swapaxes(0, 1)  # (K, T, D)
            start = columns.stop
        self._n_snippets[bags] = len(rows)
        self._n_bags = bags.stop

    def contents(self) -> tuple[Tensor, NDArray[np.int64]]:
        """The bags (n_bags, T, D), zero beyond their ends, and how many snippets each has."""
        return from_numpy(self._block[: self._n_bags]), self._n_snippets[: self._n_bags]


def _zeros(shape: tuple[int, int, int], dtype: np.dtype[np.floating]) -> FloatArray:
    """An array of zeros in memory, or mapped from a file that ends with the process."""
    n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if n_bytes <= MAX_FRACTION_OF_MEMORY * _memory_bytes():
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile() as file:
        try:
            # A write to a page for which a full disk has no room would end the process.
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        except OSError as error:
            raise OSError(
                f"{tempfile.gettempdir()}: has no room for {n_bytes / 1e9:.1f} GB of training "
                f"features ({error.strerror}); name another folder with TMPDIR, or lower bag_len"
            ) from error
        mapped: FloatArray = np.memmap(file, dtype, mode="r+", shape=shape)
        return mapped


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
