"""microworld: neither scene nor motion tells, and the ground truth is exact."""

import csv
from collections import Counter, defaultdict
from itertools import islice, pairwise

import av
import numpy as np
import pytest

from pipeline.datasets import load_dataset
from pipeline.datasets.catalog import DatasetError, frame_labels
from pipeline.datasets.microworld import dataset as microworld
from pipeline.datasets.microworld.actors import MOTIONS, draw_actor, make_actors
from pipeline.datasets.microworld.dataset import make_microworld, plan_microworld
from pipeline.datasets.microworld.rendering import render
from pipeline.datasets.microworld.scenes import HEIGHT, LANES, SCENES, WIDTH, draw_scene
from pipeline.progress import Progress

# What the dataset is about: which motions are normal where.
NORMAL = {
    "road": {"drive", "cycle"},
    "footpath": {"walk", "run"},
    "playground": {"run", "cycle"},
    "square": {"walk", "drive"},
}


SMALLEST = {"n_train_videos": 8, "n_test_videos": 8}


def share_anomalous(plans, key):
    """Of each kind of frame, the share that is anomalous."""
    counts = defaultdict(lambda: np.zeros(2))
    for plan in plans:
        for act in plan.acts:
            counts[key(plan, act)] += np.array([act.is_anomalous, 1]) * (act.stop - act.start)
    return {kind: float(anomalous / n) for kind, (anomalous, n) in counts.items()}


class InterruptedAfterFirstVideoError(Exception):
    """Stands for Ctrl-C."""


def make_first_video(folder, **options):
    """Make a dataset whose making is interrupted after its first video."""

    def interrupt(progress):
        raise InterruptedAfterFirstVideoError

    with pytest.raises(InterruptedAfterFirstVideoError):
        make_microworld(folder, report=interrupt, **options)
    (path,) = folder.iterdir()
    return path


def decode(path):
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        times = [float(frame.pts * frame.time_base) for frame in frames]
        return [frame.to_ndarray(format="rgb24") for frame in frames], times


def test_the_default_has_40_training_and_24_test_videos_balanced_in_everything():
    plans = plan_microworld()

    for split, n_videos in (("train", 40), ("test", 24)):
        videos = [plan for plan in plans if plan.split == split]
        assert len(videos) == n_videos
        assert sum(bool(plan.anomalies) for plan in videos) == n_videos / 2
        assert Counter(plan.scene for plan in videos) == dict.fromkeys(NORMAL, n_videos / 4)
    assert len({plan.video_id for plan in plans}) == 64


def test_an_act_is_anomalous_exactly_where_its_motion_does_not_belong():
    for plan in plan_microworld():
        for act in plan.acts:
            assert act.is_anomalous == (act.motion not in NORMAL[plan.scene])
        if not plan.anomalies:
            assert {act.motion for act in plan.acts} == NORMAL[plan.scene]


def test_every_anomalous_pair_occurs_in_both_splits_and_every_motion_in_normal_videos():
    pairs = {(scene, motion) for scene in NORMAL for motion in set(MOTIONS) - NORMAL[scene]}
    for split in ("train", "test"):
        plans = [plan for plan in plan_microworld() if plan.split == split]
        acts = [(plan.scene, act) for plan in plans for act in plan.acts]
        assert {(scene, act.motion) for scene, act in acts if act.is_anomalous} == pairs
        normal = [plan for plan in plans if not plan.anomalies]
        assert {act.motion for plan in normal for act in plan.acts} == set(MOTIONS)
        assert {plan.scene for plan in normal} == set(NORMAL)


@pytest.mark.parametrize("seed", range(5))
def test_neither_scene_nor_motion_nor_place_in_the_video_tells(seed):
    plans = plan_microworld(seed=seed)
    train = [plan for plan in plans if plan.split == "train"]
    test = [plan for plan in plans if plan.split == "test"]
    for videos, spread in ((plans, 0.05), (train, 0.08), (test, 0.13)):
        for key in (lambda plan, act: act.motion, lambda plan, act: plan.scene):
            shares = share_anomalous(videos, key)
            assert len(shares) == 4
            assert max(abs(share - 0.25) for share in shares.values()) < spread


def test_the_same_combinations_of_motions_make_normal_and_anomalous_videos():
    combinations = Counter(
        (frozenset(act.motion for act in plan.acts), bool(plan.anomalies))
        for plan in plan_microworld()
    )
    assert set(combinations.values()) == {8}
    assert {frozenset(pair) for pair in NORMAL.values()} == {motions for motions, _ in combinations}


def test_an_anomalous_motion_is_as_often_the_rarer_one_as_not():
    shares = [
        sum(stop - start for start, stop in plan.anomalies) / plan.n_frames
        for plan in plan_microworld()
        if plan.anomalies
    ]
    assert sum(share < 0.5 for share in shares) == sum(share > 0.5 for share in shares) == 16


def test_acts_follow_each_other_without_gaps_and_change_the_motion():
    for plan in plan_microworld(seed=3):
        assert plan.acts[0].start == 0
        assert plan.acts[-1].stop == plan.n_frames
        for before, after in pairwise(plan.acts):
            assert before.stop == after.start
            assert before.motion != after.motion
        assert min(act.stop - act.start for act in plan.acts) >= 14
        assert (
            6 * microworld.FRAMES_PER_SECOND <= plan.n_frames <= 12 * microworld.FRAMES_PER_SECOND
        )
    assert np.mean([plan.n_frames for plan in plan_microworld()]) == pytest.approx(54, abs=2)


def test_videos_come_in_pairs_that_differ_in_one_motion():
    plans = plan_microworld()
    for normal, anomalous in zip(plans[::2], plans[1::2], strict=True):
        assert (normal.scene, normal.split) == (anomalous.scene, anomalous.split)
        assert [(act.start, act.stop) for act in normal.acts] == [
            (act.start, act.stop) for act in anomalous.acts
        ]
        for act, twin in zip(normal.acts, anomalous.acts, strict=True):
            assert (act.motion != twin.motion) == twin.is_anomalous


@pytest.mark.parametrize("n_videos", [0, 4, 20, -8, 10_008])
@pytest.mark.parametrize("split", ["training", "test"])
def test_a_number_of_videos_that_cannot_be_balanced_is_refused(split, n_videos):
    sizes = {"n_train_videos": 8, "n_test_videos": 8}
    sizes["n_test_videos" if split == "test" else "n_train_videos"] = n_videos
    message = (
        f"^microworld: the number of {split} videos must be a multiple of 8 from 8 to 10000, "
        f"instead got {n_videos}$"
    )
    with pytest.raises(DatasetError, match=message):
        plan_microworld(**sizes)


def test_a_larger_test_split_adds_videos_and_leaves_the_others_as_they_are():
    default, larger = plan_microworld(seed=2), plan_microworld(seed=2, n_test_videos=480)
    assert larger[:64] == default
    assert {plan.split for plan in larger[64:]} == {"test"}
    assert len({plan.video_id for plan in larger}) == len(larger) == 40 + 480
    shares = [
        share_anomalous([plan for plan in larger if plan.split == "test"], key)
        for key in (lambda plan, act: act.motion, lambda plan, act: plan.scene)
    ]
    for share in shares:
        assert list(share.values()) == pytest.approx([0.25] * 4, abs=0.02)


def test_a_larger_test_split_has_the_same_video_files_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(microworld, "PART_LENS", (2, 3))
    files = {path.name: path.read_bytes() for path in make_microworld(tmp_path, **SMALLEST)}
    sizes = {**SMALLEST, "n_test_videos": 16}
    with pytest.raises(FileExistsError, match=r"manifest\.csv: exists already"):
        make_microworld(tmp_path, **sizes)  # it says what the folder holds
    (tmp_path / "manifest.csv").unlink()
    paths = make_microworld(tmp_path, **sizes)
    assert len(paths) == 24
    assert {path.name: path.read_bytes() for path in paths[:16]} == files
    entries = load_dataset("microworld", tmp_path).entries
    assert [entry.split for entry in entries] == ["train"] * 8 + ["test"] * 16


def test_a_seed_fixes_the_pixels_and_another_one_changes_them():
    first, again, other = (
        np.stack(list(islice(render(plan_microworld(seed=seed)[3]), 5))) for seed in (7, 7, 8)
    )
    assert first.shape == (5, 240, 320, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_pair_of_videos_shares_all_but_noise_and_the_anomalous_act():
    normal, anomalous = plan_microworld()[:2]
    first, second = anomalous.acts[:2]
    assert (first.is_anomalous, second.is_anomalous) == (True, False)

    twins = [
        np.stack(list(islice(render(plan), first.stop - 2, first.stop + 2))).astype(float)
        for plan in (normal, anomalous)
    ]

    difference = np.abs(twins[0] - twins[1])
    assert difference[:2].max() > 60
    assert difference[2:].max() < 40
    assert 1 < difference[2:].mean() < 5


def test_each_scene_looks_like_itself_at_any_time_of_day():
    pictures = {
        scene: [draw_scene(np.random.default_rng(seed), scene) for seed in range(4)]
        for scene in SCENES
    }
    means = {scene: [p[140:].mean((0, 1)) for p in shots] for scene, shots in pictures.items()}
    for scene, shots in pictures.items():
        assert all(shot.shape == (HEIGHT, WIDTH, 3) for shot in shots)
        assert all(shot.dtype == np.uint8 for shot in shots)
        assert not np.array_equal(shots[0], shots[1])
        color = np.mean(means[scene], 0)
        for other in set(SCENES) - {scene}:
            assert np.abs(color - np.mean(means[other], 0)).max() > 15


def test_the_speeds_of_the_motions_do_not_meet():
    speeds = {
        motion: [
            abs(actor.speed)
            for seed in range(300)
            for actor in make_actors(np.random.default_rng(seed), motion, LANES)
        ]
        for motion in MOTIONS
    }
    for slower, faster in pairwise(MOTIONS):
        assert max(speeds[slower]) < min(speeds[faster])
    assert min(speeds["walk"]) > 1.5
    assert max(speeds["drive"]) < 16


@pytest.mark.parametrize("motion", MOTIONS)
def test_an_actor_moves_as_fast_as_it_says_and_one_is_always_in_view(motion):
    for seed in range(100):
        actors = make_actors(np.random.default_rng(seed), motion, LANES)
        assert actors[0].ground_y + 20 < actors[1].ground_y
        assert all(0 < actor.x_at(0, WIDTH) < WIDTH for actor in actors)
        for n_frames in range(44):
            places = [actor.x_at(n_frames, WIDTH) for actor in actors]
            assert any(-10 < x < WIDTH + 10 for x in places)
            for actor, x in zip(actors, places, strict=True):
                step = actor.x_at(n_frames + 1, WIDTH) - x
                assert step == pytest.approx(actor.speed) or abs(step) > WIDTH / 2


@pytest.mark.parametrize("motion", MOTIONS)
def test_an_actor_is_drawn_where_it_is_and_changes_from_frame_to_frame(motion):
    actor = make_actors(np.random.default_rng(1), motion, LANES)[1]
    before, after = (np.full((HEIGHT, WIDTH, 3), 128, np.uint8) for _ in range(2))
    draw_actor(before, actor, 6)
    draw_actor(after, actor, 7)
    before, after = before.astype(float), after.astype(float)

    rows, columns = np.nonzero(np.abs(before - 128).max(2) > 30)

    assert len(rows) > 250
    assert rows.max() == pytest.approx(actor.ground_y, abs=4)
    assert 20 < actor.ground_y - rows.min() < 55
    assert (columns.min() + columns.max()) / 2 == pytest.approx(actor.x_at(6, WIDTH), abs=12)
    assert np.abs(before - after).max() > 30


def test_the_video_file_shows_each_frame_at_its_time(tmp_path):
    plans = plan_microworld(**SMALLEST)
    path = make_first_video(tmp_path, **SMALLEST)
    drawn = np.stack(list(render(plans[0]))).astype(float)

    frames, times = decode(path)

    assert len(frames) == plans[0].n_frames
    assert times == pytest.approx(np.arange(len(frames)) / 6)
    for index, frame in enumerate(frames):
        near = range(max(index - 1, 0), min(index + 2, len(drawn)))
        errors = {other: np.mean((drawn[other] - frame) ** 2) for other in near}
        assert min(errors, key=errors.__getitem__) == index


def test_the_folder_becomes_a_dataset(tmp_path, monkeypatch):
    monkeypatch.setattr(microworld, "PART_LENS", (2, 3))
    folder = tmp_path / "deep" / "er"
    plans = plan_microworld(**SMALLEST)

    reports: list[Progress] = []

    written = make_microworld(folder, **SMALLEST, report=reports.append)

    assert [(report.done, report.total, report.unit) for report in reports] == [
        (done, 16, "videos") for done in range(1, 17)
    ]
    assert written == [folder / f"{plan.video_id}.mp4" for plan in plans]
    assert set(folder.iterdir()) == {*written, folder / "manifest.csv"}
    dataset = load_dataset("microworld", folder)
    assert dataset.name == "microworld"
    assert dataset.missing_videos() == []
    for entry, plan in zip(dataset.entries, plans, strict=True):
        assert (entry.video_id, entry.split) == (plan.video_id, plan.split)
        assert entry.label == int(bool(plan.anomalies))
        n_frames = len(decode(entry.path)[0])
        labels = [act.is_anomalous for act in plan.acts for _ in range(act.start, act.stop)]
        assert frame_labels(entry, n_frames).tolist() == labels
    with (folder / "manifest.csv").open(newline="") as file:
        row = list(csv.DictReader(file))[1]
    assert row["scene"] == plans[1].scene
    assert row["acts"] == ";".join(f"{a.motion}:{a.start}-{a.stop}" for a in plans[1].acts)


def test_making_that_is_interrupted_leaves_no_dataset_and_can_be_repeated(tmp_path, monkeypatch):
    monkeypatch.setattr(microworld, "PART_LENS", (2, 3))
    first = make_first_video(tmp_path, **SMALLEST)
    content = first.read_bytes()

    with pytest.raises(DatasetError) as caught:
        load_dataset("microworld", tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'manifest.csv'}: no such file; make it with: "
        "pipeline datasets make microworld"
    )
    for _ in range(2):
        assert len(make_microworld(tmp_path, **SMALLEST)) == 16
    assert first.read_bytes() == content
    assert len(load_dataset("microworld", tmp_path).entries) == 16


def test_what_a_killed_process_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(microworld, "PART_LENS", (2, 3))
    (tmp_path / ".lookaround-0123456789abcdef.tmp").write_bytes(b"half a video")
    first = make_first_video(tmp_path, **SMALLEST)
    assert list(tmp_path.iterdir()) == [first]
    assert first.suffix == ".mp4"


@pytest.mark.parametrize("name", ["manifest.csv", "road_00.mp4"])
def test_files_of_others_are_not_replaced(tmp_path, monkeypatch, name):
    monkeypatch.setattr(microworld, "PART_LENS", (2, 3))
    (tmp_path / name).write_text("of the user")
    with pytest.raises(FileExistsError, match=rf"{name}: exists already, with other content"):
        make_microworld(tmp_path, **SMALLEST)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "of the user"


def test_a_missing_microworld_is_refused_with_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError) as caught:
        load_dataset("microworld")
    assert str(caught.value) == (
        "data/microworld/manifest.csv: no such file; make it with: "
        "pipeline datasets make microworld"
    )


@pytest.mark.slow
def test_motion_energy_does_not_tell(tmp_path):
    n_pairs = n_above = 0.0
    energies: dict[bool, list[float]] = {False: [], True: []}
    for plan in plan_microworld():
        if plan.split != "test":
            continue
        gray = np.stack(list(render(plan))).mean(3)
        energy = np.percentile(np.abs(np.diff(gray, axis=0)), 99, axis=(1, 2))
        for act in plan.acts:
            energies[act.is_anomalous].extend(energy[act.start : act.stop - 1])
    for value in energies[True]:
        n_above += np.sum(value > np.array(energies[False]))
        n_pairs += len(energies[False])
    assert 0.4 < n_above / n_pairs < 0.6
