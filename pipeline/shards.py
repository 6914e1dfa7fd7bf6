"""Which part of a dataset one of several machines extracts."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from extractors.video import read_duration
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
        index, slash, count = text.partition("/")
        if not (slash and index.isascii() and index.isdigit() and count.isascii()):
            raise ConfigError(f"shard must be i/N with i from 1 to N, instead got {text}")
        if not count.isdigit():
            raise ConfigError(f"shard must be i/N with i from 1 to N, instead got {text}")
        return cls(int(index) - 1, int(count))

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
        except (ValueError, LookupError) as error:
            raise ConfigError(
                f"the variables of Slurm's array or RANK and WORLD_SIZE make no sense ({error}); "
                "give --shard i/N"
            ) from error
        return None

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"


def durations_of(entries: Sequence[VideoEntry]) -> list[float]:
    """What the files' headers say of their durations in seconds; 0 where they say nothing."""
    return [read_duration(entry.path) for entry in entries]


def entries_of_shard(
    entries: Sequence[VideoEntry], durations_seconds: Sequence[float], shard: Shard
) -> tuple[VideoEntry, ...]:
    """The videos of one part; all parts together are all videos, each once.

    The longest video goes to the part that has the least so far, then the next one, and so on: no
    part is longer than the mean by more than one video. Every machine comes to the same parts.

    Args:
        entries: All videos.
        durations_seconds: Theirs.
        shard: The part.
    """
    order = sorted(range(len(entries)), key=lambda i: (-durations_seconds[i], entries[i].video_id))
    loads = [(0.0, 0, part) for part in range(shard.count)]
    mine = []
    for i in order:
        seconds, n_videos, part = min(loads)
        loads[part] = (seconds + durations_seconds[i], n_videos + 1, part)
        if part == shard.index:
            mine.append(i)
    return tuple(entries[i] for i in sorted(mine))
