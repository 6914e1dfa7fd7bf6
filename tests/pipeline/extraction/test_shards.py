"""Sharing out a dataset between machines."""

import os
from pathlib import Path

import pytest

from pipeline.config import ConfigError
from pipeline.datasets.catalog import VideoEntry
from pipeline.extraction.shards import Shard, entries_of_shard


def make_entries(n: int) -> list[VideoEntry]:
    return [VideoEntry(f"{i:03}", Path(f"{i}.mp4"), "train", 0) for i in range(n)]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 60, 999_999])
def test_the_parts_are_all_videos_each_once_and_equal(count: int) -> None:
    entries = make_entries(50)
    indices = range(min(count, 60))
    parts = [entries_of_shard(entries, Shard(i, count)) for i in indices]
    assert sorted(entry.video_id for part in parts for entry in part) == [
        entry.video_id for entry in entries
    ]
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_the_parts_do_not_depend_on_the_order_of_the_list() -> None:
    entries = make_entries(20)
    there = entries_of_shard(entries, Shard(1, 3))
    back = entries_of_shard(entries[::-1], Shard(1, 3))
    assert set(there) == set(back)


def test_the_parts_do_not_depend_on_the_files(tmp_path: Path) -> None:
    """One machine sees the videos, another one does not, and a pipe would block a reader."""
    os.mkfifo(tmp_path / "000.mp4")
    ids = [f"{i:03}" for i in range(5)]
    here = [VideoEntry(i, tmp_path / f"{i}.mp4", "train", 0) for i in ids]
    absent = [VideoEntry(i, tmp_path / "elsewhere" / f"{i}.mp4", "train", 0) for i in ids]
    for index in range(2):
        mine, theirs = (entries_of_shard(some, Shard(index, 2)) for some in (here, absent))
        assert [entry.video_id for entry in mine] == [entry.video_id for entry in theirs]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "5"}, None),
        (
            {
                "SLURM_ARRAY_TASK_ID": "7",
                "SLURM_ARRAY_TASK_MIN": "3",
                "SLURM_ARRAY_TASK_STEP": "2",
                "SLURM_ARRAY_TASK_COUNT": "4",
                "RANK": "0",
                "WORLD_SIZE": "9",
            },
            Shard(2, 4),
        ),
        ({"RANK": "3", "WORLD_SIZE": "8"}, Shard(3, 8)),
    ],
)
def test_a_cluster_says_which_part_is_meant(
    environment: dict[str, str], expected: Shard | None
) -> None:
    assert Shard.of_environment(environment) == expected


@pytest.mark.parametrize(
    "environment",
    [
        {"WORLD_SIZE": "2"},
        {"RANK": "x", "WORLD_SIZE": "2"},
        {"RANK": "2", "WORLD_SIZE": "2"},
        {
            "SLURM_ARRAY_TASK_ID": "7",
            "SLURM_ARRAY_TASK_MIN": "3",
            "SLURM_ARRAY_TASK_STEP": "0",
            "SLURM_ARRAY_TASK_COUNT": "4",
        },
    ],
)
def test_a_cluster_that_makes_no_sense_is_an_error(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="give --shard i/N"):
        Shard.of_environment(environment)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "0/2",
        "3/2",
        "1/0",
        "-1/2",
        "a/b",
        "1/b",
        "1//2",
        "1/1000000",
        f"1/{10**20 - 1}",
        "1/" + "9" * 5000,
        "1/2\n",
    ],
)
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="shard must be i/N with i from 1 to N"):
        Shard.parse(text)
