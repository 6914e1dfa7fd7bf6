"""Shards: with which part of a dataset each of several processes begins."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from pipeline.datasets.catalog import VideoEntry
from pipeline.extraction.errors import ExtractionError
from pipeline.printable import describe_error


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` equal parts of a dataset, `index` counted from 0.

    Raises:
        ExtractionError: If there is no such part.

    >>> Shard.parse("2/8")
    Shard(index=1, count=8)
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ExtractionError(
                f"shard must be i/N with i from 1 to N, instead got {self.index + 1}/{self.count}"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "i/N", i counted from 1."""
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if match is None:
            raise ExtractionError(
                f"shard must be i/N with i from 1 to N and N below a million, instead got {text}"
            )
        return cls(int(match[1]) - 1, int(match[2]))

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Self | None:
        """The part that a cluster gives this process; None where there is no cluster.

        Slurm's array tasks are one each; so are the RANKs of a WORLD_SIZE, as of torchrun.
        """
        try:
            if "SLURM_ARRAY_TASK_COUNT" in environment:
                step = int(environment.get("SLURM_ARRAY_TASK_STEP", "1"))
                offset = int(environment["SLURM_ARRAY_TASK_ID"]) - int(
                    environment["SLURM_ARRAY_TASK_MIN"]
                )
                return cls(offset // step, int(environment["SLURM_ARRAY_TASK_COUNT"]))
            if "WORLD_SIZE" in environment:
                return cls(int(environment["RANK"]), int(environment["WORLD_SIZE"]))
        except (ValueError, LookupError, ZeroDivisionError) as error:
            raise ExtractionError(
                "the variables of Slurm's array or RANK and WORLD_SIZE make no sense "
                f"({describe_error(error)}); give --shard i/N"
            ) from error
        return None

    def split(self, n_parts: int) -> list["Shard"]:
        """Split this part into equal parts, such as one for each device of a machine.

        >>> [str(part) for part in Shard.parse("2/3").split(2)]
        ['2/6', '5/6']
        """
        count = self.count * n_parts
        return [Shard(index, count) for index in range(self.index, count, self.count)]

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"


WHOLE = Shard(0, 1)


def begin_with(entries: Sequence[VideoEntry], shard: Shard) -> tuple[list[VideoEntry], int]:
    """Order videos so that those of one part come first, then those of the parts after it.

    The videos are dealt out in the order of their ids. Nothing is read from the files, so that
    every machine with the same list comes to the same parts.

    Args:
        entries: All videos.
        shard: The part that comes first.

    Returns:
        All videos, and how many of them the part has.
    """
    ranks = {video_id: i for i, video_id in enumerate(sorted(e.video_id for e in entries))}
    # How many parts after the shard a video's part comes.
    distances = {video_id: (rank - shard.index) % shard.count for video_id, rank in ranks.items()}
    ordered = sorted(entries, key=lambda entry: distances[entry.video_id])
    return ordered, sum(distance == 0 for distance in distances.values())
