"""Sharing out a dataset between machines."""

import random
from pathlib import Path

import pytest

from pipeline.config import ConfigError
from pipeline.datasets.catalog import VideoEntry
from pipeline.shards import Shard, durations_of, entries_of_shard


def make_entries(n: int) -> list[VideoEntry]:
    return [VideoEntry(f"{i:03}", Path(f"{i}.mp4"), "train", 0) for i in range(n)]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 60])
def test_the_parts_are_all_videos_each_once_and_nearly_equal(count: int) -> None:
    draw = random.Random(count)
    entries = make_entries(50)
    seconds = [draw.uniform(1, 600) for _ in entries]
    parts = [entries_of_shard(entries, seconds, Shard(i, count)) for i in range(count)]
    assert sorted(entry.video_id for part in parts for entry in part) == [
        entry.video_id for entry in entries
    ]
    by_id = {entry.video_id: s for entry, s in zip(entries, seconds, strict=True)}
    loads = [sum(by_id[entry.video_id] for entry in part) for part in parts]
    assert max(loads) - min(loads) <= max(seconds)


def test_the_parts_do_not_depend_on_the_order_of_the_list() -> None:
    entries = make_entries(20)
    seconds = [float(i % 5) for i in range(20)]
    there = entries_of_shard(entries, seconds, Shard(1, 3))
    back = entries_of_shard(entries[::-1], seconds[::-1], Shard(1, 3))
    assert set(there) == set(back)


def test_videos_of_unknown_duration_are_shared_out_by_number() -> None:
    entries = make_entries(9)
    parts = [entries_of_shard(entries, [0.0] * 9, Shard(i, 3)) for i in range(3)]
    assert [len(part) for part in parts] == [3, 3, 3]


def test_durations_are_read_from_the_headers(counting_clip: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    paths = (counting_clip, broken, tmp_path / "absent.mp4")
    entries = [VideoEntry(path.stem, path, "train", 0) for path in paths]
    assert durations_of(entries) == pytest.approx([40 / 25, 0, 0])


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
    [{"WORLD_SIZE": "2"}, {"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}],
)
def test_a_cluster_that_makes_no_sense_is_an_error(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="give --shard i/N"):
        Shard.of_environment(environment)


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "a/b", "1/b", "1//2"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="shard must be i/N with i from 1 to N"):
        Shard.parse(text)
