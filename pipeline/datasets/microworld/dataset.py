"""microworld: small surveillance videos in which only scene and motion together are anomalous.

Four fixed cameras (a road, a footpath, a playground, a square) and four motions (walk, run, cycle,
drive). Each motion is normal in two of the scenes and anomalous in the other two, so neither the
scene nor the motion alone predicts the label. Nor does anything else but the pair:

- Videos come in pairs, one normal and one anomalous, that share the scene, the light, the length
  and all but one motion. Both are in the same split.
- A video shows two motions. The same combinations of two, in the same orders, make up normal and
  anomalous videos: `ANOMALOUS_PAIRS` puts beside each anomalous motion the one with which it is
  normal elsewhere.
- The anomalous motion is as often the rarer one of its video as the other, and occurs as often at
  the start, in the middle and at the end.
- Two actors are in every frame, on the same ground, whatever they do.
"""

from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from pathlib import Path

import numpy as np

from pipeline.atomic import remove_abandoned, replacing
from pipeline.datasets.catalog import Dataset, DatasetError, DatasetSource, Split
from pipeline.datasets.manifest import COLUMNS, load_manifest
from pipeline.progress import Progress, ReportProgress, no_report

DEFAULT_FOLDER = Path("data/microworld")
FRAMES_PER_SECOND = 6

# For each scene (anomalous motion, normal motion beside it).
ANOMALOUS_PAIRS = {
    "road": (("walk", "drive"), ("run", "cycle")),
    "footpath": (("cycle", "run"), ("drive", "walk")),
    "playground": (("drive", "cycle"), ("walk", "run")),
    "square": (("run", "walk"), ("cycle", "drive")),
}

# How the two motions of a video share its three parts. Every part shows either motion equally
# often, and neither motion is the rarer one more often.
PATTERNS = ("xyx", "yxy", "xxy", "xyy", "yxx", "yyx")

# Frames of one of the three parts; 7 to 11 seconds in all.
PART_LENS = (14, 22)

# A normal and an anomalous video of each scene.
N_VIDEOS_PER_ROUND = 2 * len(ANOMALOUS_PAIRS)
N_TRAIN_VIDEOS = 5 * N_VIDEOS_PER_ROUND
N_TEST_VIDEOS = 3 * N_VIDEOS_PER_ROUND
MAX_VIDEOS = 10_000  # of a split: hours of rendering


@dataclass(frozen=True, slots=True)
class Act:
    """A stretch of a video in which both actors do the same, frames `start` to `stop` - 1."""

    motion: str
    start: int
    stop: int
    is_anomalous: bool


@dataclass(frozen=True, slots=True)
class VideoPlan:
    """What happens in one video.

    Attributes:
        video_id: The file's name without its suffix.
        scene: One of `ANOMALOUS_PAIRS`.
        split: train or test.
        acts: They cover the video without gaps.
        seeds: Of its random generators; the same for both videos of a pair.
    """

    video_id: str
    scene: str
    split: Split
    acts: tuple[Act, ...]
    seeds: tuple[int, ...]

    @property
    def n_frames(self) -> int:
        """How many frames it has."""
        return self.acts[-1].stop

    @property
    def anomalies(self) -> tuple[tuple[int, int], ...]:
        """Its anomalous frames as (start, stop), `stop` excluded."""
        return tuple((act.start, act.stop) for act in self.acts if act.is_anomalous)


def load_microworld(videos: Path | None = None, *, allow_outside: bool = False) -> Dataset:
    """Read the dataset that `make_microworld` has written.

    Args:
        videos: Its folder; `data/microworld` by default.
        allow_outside: Accept videos behind links that lead out of this folder.

    Raises:
        DatasetError: If it has not been made, or only a part of it.
    """
    manifest = (DEFAULT_FOLDER if videos is None else videos) / "manifest.csv"
    if not manifest.exists():
        raise DatasetError(
            f"{manifest}: no such file; make it with: pipeline datasets make microworld"
        )
    return replace(load_manifest(manifest, allow_outside=allow_outside), name="microworld")


def make_microworld(
    folder: Path,
    *,
    seed: int = 0,
    n_train_videos: int = N_TRAIN_VIDEOS,
    n_test_videos: int = N_TEST_VIDEOS,
    report: ReportProgress = no_report,
) -> list[Path]:
    """Write the videos, and after all of them the manifest that makes them a dataset.

    A file that exists already must be the one that would be written: nobody's own videos or
    manifest are replaced, and a call that was interrupted can be repeated.

    Args:
        folder: Made if it is missing.
        seed: The same seed makes the same pixels.
        n_train_videos: A multiple of 8.
        n_test_videos: A multiple of 8. More of them leave the other videos of both splits as they
            are, to the bit.
        report: Called after each video.

    Returns:
        The paths of the videos.

    Raises:
        DatasetError: If a number of videos is not a multiple of 8, or out of its range.
        FileExistsError: If a file of other content exists under one of the names.
        OSError: If a file cannot be written.
    """
    # OpenCV and PyAV are loaded only where videos are made.
    from pipeline.datasets.microworld.rendering import render  # noqa: PLC0415
    from pipeline.video_writer import write_video  # noqa: PLC0415

    plans = plan_microworld(seed=seed, n_train_videos=n_train_videos, n_test_videos=n_test_videos)
    manifest = folder / "manifest.csv"
    rows = [",".join((*COLUMNS, "scene", "acts")), *map(_describe, plans)]
    content = ("\n".join(rows) + "\n").encode()
    _check_same(manifest, content)
    remove_abandoned(folder)
    paths = []
    for plan in plans:
        path = folder / f"{plan.video_id}.mp4"
        with replacing(path) as temporary:
            write_video(temporary, render(plan), fps=FRAMES_PER_SECOND)
            _check_same(path, temporary.read_bytes())
        paths.append(path)
        report(Progress("make microworld", len(paths), len(plans), "videos"))
    with replacing(manifest) as temporary:
        temporary.write_bytes(content)
    return paths


def _check_same(path: Path, content: bytes) -> None:
    exists = path.exists() or path.is_symlink()
    if exists and not (path.is_file() and path.read_bytes() == content):
        raise FileExistsError(
            f"{path}: exists already, with other content than would be written; "
            "remove it, or name another folder with --videos"
        )


def plan_microworld(
    *,
    seed: int = 0,
    n_train_videos: int = N_TRAIN_VIDEOS,
    n_test_videos: int = N_TEST_VIDEOS,
) -> list[VideoPlan]:
    """Decide what happens in each video, first in those of the training split.

    Only the lengths depend on the seed.

    Raises:
        DatasetError: If a number of videos is not a multiple of 8, or out of its range.
    """
    for split, n_videos in (("training", n_train_videos), ("test", n_test_videos)):
        is_in_range = N_VIDEOS_PER_ROUND <= n_videos <= MAX_VIDEOS
        if n_videos % N_VIDEOS_PER_ROUND or not is_in_range:
            raise DatasetError(
                f"microworld: the number of {split} videos must be a multiple of "
                f"{N_VIDEOS_PER_ROUND} from {N_VIDEOS_PER_ROUND} to {MAX_VIDEOS}, "
                f"instead got {n_videos}"
            )
    n_train_rounds = n_train_videos // N_VIDEOS_PER_ROUND
    n_rounds = n_train_rounds + n_test_videos // N_VIDEOS_PER_ROUND
    return [
        plan
        for round_index in range(n_rounds)
        for scene_index in range(len(ANOMALOUS_PAIRS))
        for plan in _plan_twins(
            seed, round_index, scene_index, "train" if round_index < n_train_rounds else "test"
        )
    ]


def _plan_twins(
    seed: int, round_index: int, scene_index: int, split: Split
) -> tuple[VideoPlan, VideoPlan]:
    """Plan a normal and an anomalous video of one scene, alike but for one of their motions."""
    seeds = (seed, round_index, scene_index)
    scene, pairs = list(ANOMALOUS_PAIRS.items())[scene_index]
    turn = round_index % 2
    anomalous, beside = pairs[turn]
    replaced = pairs[1 - turn][1]  # the scene's other normal motion
    pattern = PATTERNS[(round_index // 2 + 3 * turn + scene_index) % len(PATTERNS)]
    rng = np.random.default_rng((*seeds, 0))
    part_lens = rng.integers(PART_LENS[0], PART_LENS[1] + 1, len(pattern)).tolist()
    normal_twin, anomalous_twin = (
        VideoPlan(
            video_id=f"{scene}_{2 * round_index + label:02d}",
            scene=scene,
            split=split,
            acts=_plan_acts(pattern, part_lens, {"x": motion, "y": beside}, bool(label)),
            seeds=seeds,
        )
        for label, motion in enumerate((replaced, anomalous))
    )
    return normal_twin, anomalous_twin


def _plan_acts(
    pattern: str, part_lens: list[int], motions: dict[str, str], has_anomaly: bool
) -> tuple[Act, ...]:
    """Turn a pattern into acts; adjacent parts of one motion become one act."""
    acts: list[Act] = []
    stops = list(accumulate(part_lens))
    for role, parts in groupby(range(len(pattern)), key=pattern.__getitem__):
        start = acts[-1].stop if acts else 0
        acts.append(Act(motions[role], start, stops[max(parts)], has_anomaly and role == "x"))
    return tuple(acts)


def _describe(plan: VideoPlan) -> str:
    """One row of the manifest; none of its values needs quotes."""
    anomalies = ";".join(f"{start}-{stop}" for start, stop in plan.anomalies)
    acts = ";".join(f"{act.motion}:{act.start}-{act.stop}" for act in plan.acts)
    label = int(bool(anomalies))
    return f"{plan.video_id}.mp4,{plan.split},{label},{anomalies},{plan.scene},{acts}"


SOURCE = DatasetSource(
    load_microworld, "synthetic surveillance videos, 40 training and 24 test", make=make_microworld
)
