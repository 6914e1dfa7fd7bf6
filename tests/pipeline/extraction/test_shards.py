"""Which videos each of several processes begins with."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.datasets.catalog import VideoEntry
from pipeline.extraction.errors import ExtractionError
from pipeline.extraction.shards import Shard, begin_with


def entries_of_shard(entries: Sequence[VideoEntry], shard: Shard) -> list[VideoEntry]:
    """The videos with which a process begins; checks that the others come after them."""
    ordered, n_first = begin_with(entries, shard)
    assert sorted(entry.video_id for entry in ordered) == sorted(e.video_id for e in entries)
    return ordered[:n_first]


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


def test_after_its_own_part_a_process_goes_on_with_the_next_ones_and_ends_with_the_one_before() -> (
    None
):
    entries = make_entries(7)
    ordered, _ = begin_with(entries, Shard(1, 3))
    assert [entry.video_id for entry in ordered] == [
        "001",
        "004",
        "002",
        "005",
        "000",
        "003",
        "006",
    ]


def test_the_whole_keeps_the_order_of_the_list() -> None:
    entries = make_entries(5)[::-1]
    assert begin_with(entries, Shard(0, 1)) == (entries, 5)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_part_is_split_into_parts_of_its_own_videos(count: int) -> None:
    entries = make_entries(50)
    for index in range(count):
        whole = entries_of_shard(entries, Shard(index, count))
        parts = [entries_of_shard(entries, part) for part in Shard(index, count).split(4)]
        assert len(parts) == 4
        assert sorted(e.video_id for part in parts for e in part) == [e.video_id for e in whole]


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
    with pytest.raises(ExtractionError, match="give --shard i/N"):
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
    with pytest.raises(ExtractionError, match="shard must be i/N with i from 1 to N"):
        Shard.parse(text)


def test_a_variable_of_the_cluster_that_is_missing_is_named():
    with pytest.raises(ExtractionError) as caught:
        Shard.of_environment({"WORLD_SIZE": "2"})
    assert str(caught.value) == (
        "the variables of Slurm's array or RANK and WORLD_SIZE make no sense ('RANK' is missing); "
        "give --shard i/N"
    )
