"""Which part of a dataset one of several machines extracts."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from pipeline.config import ConfigError
from pipeline.datasets.catalog import VideoEntry


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts, `index` counted from 0.

    Raises:
        ConfigError: If there is no such part.

    >>> Shard.parse("2/8")
    Shard(index=1, count=8)
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ConfigError(
                f"shard must be i/N with i from 1 to N, instead got {self.index + 1}/{self.count}"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "i/N", i counted from 1."""
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if match is None:
            raise ConfigError(
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
            raise ConfigError(
                f"the variables of Slurm's array or RANK and WORLD_SIZE make no sense ({error}); "
                "give --shard i/N"
            ) from error
        return None

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"


def entries_of_shard(entries: Sequence[VideoEntry], shard: Shard) -> tuple[VideoEntry, ...]:
    """The videos of one part; all parts together are all videos, each once.

    The videos are dealt out in the order of their ids. Nothing is read from the files, so that
    every machine with the same list comes to the same parts.

    Args:
        entries: All videos.
        shard: The part.
    """
    ids = sorted(entry.video_id for entry in entries)
    mine = set(ids[shard.index :: shard.count])
    return tuple(entry for entry in entries if entry.video_id in mine)
