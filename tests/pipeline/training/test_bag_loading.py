"""Bags in memory and the batches sampled from them, by their properties."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.datasets.catalog import Dataset, DatasetError, VideoEntry
from pipeline.extraction.available_features import entries_with_features
from pipeline.extraction.feature_file import FeatureFileError, feature_path, write_features
from pipeline.training import bag_loading, bag_store
from pipeline.training.bag_loading import Bag, collect_bags, load_bags
from pipeline.training.batches import BagSet, draw_batches

PROVENANCE = {"extractor": "i3d", "n_crops": 2}


def numbered(n_snippets: int, dim: int = 2) -> np.ndarray:
    """Snippet i is filled with i + 1, so that no real snippet is zero."""
    return np.repeat(np.arange(1, n_snippets + 1, dtype=np.float32)[:, None], dim, axis=1)


def make_bags(
    n_normal: int, n_anomalous: int, *, n_crops: int = 1, n_snippets: int = 5, sampler="bins"
) -> BagSet:
    """Features of video v, crop c are 10 v + c throughout; anomalous videos come first."""
    bags = [
        Bag(f"v{v}", np.full((n_snippets, 2), 10 * v + c, "float32"), int(v < n_anomalous))
        for v in range(n_normal + n_anomalous)
        for c in range(n_crops)
    ]
    return collect_bags(
        bags, sampler=sampler, bag_len=4, stream_dims=(("rgb", 2),), provenance=PROVENANCE
    )


def drawn_videos(bags: BagSet, **options) -> list[int]:
    options = {"seed": 0, "first_step": 0, "n_steps": 1, "bags_per_class": 2, **options}
    return [
        int(features[0, 0]) // 10
        for batch in draw_batches(bags, **options)
        for features in batch.features
    ]


def test_a_short_sequence_is_kept_and_padded_with_zeros_under_a_mask():
    features = numbered(3)
    features[1] = 0  # a real snippet may be all zero and is not padding
    bags = collect_bags(
        [Bag("short", features, 0), Bag("long", numbered(9), 1)],
        sampler="sequence",
        bag_len=5,
        stream_dims=(("rgb", 2),),
        provenance=PROVENANCE,
    )
    (batch,) = draw_batches(bags, seed=0, first_step=0, n_steps=1, bags_per_class=1)
    assert batch.mask.tolist() == [[True, True, True, False, False], [True] * 5]
    assert batch.features[:, :, 0].tolist() == [[1, 0, 3, 0, 0], [1, 3, 5, 7, 9]]
    assert batch.labels.tolist() == [0, 1]


@pytest.fixture
def write_video(features_of):
    """A function that writes the features of a video."""

    def write(folder: Path, video_id: str, streams: dict[str, np.ndarray], provenance=PROVENANCE):
        features = features_of(streams)
        path = feature_path(folder, video_id)
        write_features(path, features, provenance, video_id=video_id, source_name="v.mp4")

    return write


@pytest.mark.parametrize("sampler", ["sequence", "bins"])
def test_each_crop_is_a_bag_with_the_streams_side_by_side(tmp_path, sampler, write_video):
    rng = np.random.default_rng(0)
    videos = [
        {s: rng.normal(size=(n, 5, 3)).astype("float16").astype("float32") for s in ("rgb", "flow")}
        for n in (4, 2, 4)  # the middle one is shorter than the bags
    ]
    for index, streams in enumerate(videos):
        write_video(tmp_path / "small", str(index), streams)
    entries = tuple(VideoEntry(str(i), Path(f"{i}.mp4"), "train", i % 2) for i in range(3))
    bags = load_bags(Dataset("small", entries), tmp_path, sampler=sampler, bag_len=4)
    assert bags.features.shape == (15, 4, 6)
    for video, streams in enumerate(videos):
        for crop in range(5):
            side_by_side = np.concatenate([streams["rgb"], streams["flow"]], axis=2)[:, crop]
            if sampler == "bins":
                side_by_side = side_by_side[np.arange(4) * len(side_by_side) // 4]
            bag = 5 * video + crop
            assert bags.n_snippets[bag] == len(side_by_side)
            found = bags.features[bag].float().numpy()
            np.testing.assert_array_equal(found[: len(side_by_side)], side_by_side)
            assert not found[len(side_by_side) :].any()


def test_bags_that_do_not_fit_into_memory_lie_in_a_file_and_are_the_same(tmp_path, monkeypatch):
    in_memory = make_bags(n_normal=7, n_anomalous=3, n_crops=2, sampler="sequence")
    monkeypatch.setattr(bag_store, "_memory_bytes", lambda: 64)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    in_file = make_bags(n_normal=7, n_anomalous=3, n_crops=2, sampler="sequence")
    torch.testing.assert_close(in_file.features, in_memory.features, rtol=0, atol=0)
    assert drawn_videos(in_file, n_steps=5) == drawn_videos(in_memory, n_steps=5)
    assert list(tmp_path.iterdir()) == []  # the file has no name and ends with the process


def test_a_disk_without_room_for_the_bags_is_said_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(bag_store, "_memory_bytes", lambda: 64)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(OSError, match=r"has no room for .* GB.*TMPDIR, or lower bag_len"):
        bag_store.BagStore(
            2**20, bag_len=2**15, feature_dim=2**10, sampler="bins", dtype=np.float32
        )


@pytest.mark.parametrize(
    ("lengths", "expected"), [((3, 2), 3), ((1, 1), 3), ((7, 2), 7), ((2, 10), 10)]
)
@pytest.mark.parametrize("sampler", ["bins", "sequence"])
def test_the_window_of_a_model_is_its_longest_training_video_and_at_least_a_bag(
    lengths, expected, sampler
):
    bags = collect_bags(
        [Bag(f"v{label}", numbered(n), label) for label, n in enumerate(lengths)],
        sampler=sampler,
        bag_len=3,
        stream_dims=(("rgb", 2),),
        provenance=PROVENANCE,
    )
    assert bags.window_len == expected


def test_a_subset_draws_from_its_own_videos_alone():
    bags = make_bags(n_normal=7, n_anomalous=3, n_crops=2).subset(np.array([9, 1, 4]))
    assert bags.video_ids == ("v9", "v1", "v4")
    assert bags.labels.tolist() == [0, 1, 0]
    assert set(drawn_videos(bags, n_steps=20)) == {1, 4, 9}
    with pytest.raises(DatasetError, match="2 normal and 0 anomalous"):
        bags.subset(np.array([0, 2]))


def test_the_snippets_of_a_subset_are_of_its_own_videos_alone():
    bags = make_bags(n_normal=2, n_anomalous=2, n_crops=2, n_snippets=3)
    subset = bags.subset(np.array([3, 0]))
    # In the order in which they were read: v0 is the second of the subset.
    assert subset.snippets[:, 0].tolist() == [0, 0, 0, 1, 1, 1, 30, 30, 30, 31, 31, 31]
    assert subset.snippet_videos.tolist() == [1] * 6 + [0] * 6
    again = subset.subset(np.array([1, 0]))
    assert again.video_ids == ("v0", "v3")
    assert again.snippet_videos.tolist() == [0] * 6 + [1] * 6


def test_short_videos_that_the_sample_has_passed_over_give_the_snippets_of_their_bags(monkeypatch):
    monkeypatch.setattr(bag_loading, "N_SAMPLE_SNIPPETS", 4)
    lengths = {"long": 37, "a": 1, "b": 2}  # every 16th: none of the others
    bags = collect_bags(
        [Bag(name, numbered(n), int(name != "a")) for name, n in lengths.items()],
        sampler="sequence",
        bag_len=3,
        stream_dims=(("rgb", 2),),
        provenance=PROVENANCE,
    )
    assert set(bags.snippet_videos) == {0}
    subset = bags.subset(np.array([1, 2]))
    assert subset.snippets.tolist() == [[1, 1], [1, 1], [2, 2]]
    assert subset.snippets.dtype == torch.float32
    assert subset.snippet_videos.tolist() == [0, 1, 1]
    with_long = bags.subset(np.array([0, 1]))
    assert with_long.snippet_videos.tolist() == [0, 0, 0, 1]


def test_features_that_are_not_finite_are_refused_by_the_name_of_their_video(
    tmp_path, make_dataset
):
    dataset = make_dataset(tmp_path, [0, 1, 0])
    path = tmp_path / "small/cam/1.h5"
    content = bytearray(path.read_bytes())
    value = np.full(4, 1, "<f2").tobytes()  # rgb of video 1 is filled with ones
    at = content.index(value)
    content[at : at + 2] = np.array(np.nan, "<f2").tobytes()
    path.write_bytes(content)
    with pytest.raises(FeatureFileError, match=r"cam/1\.h5: .*rgb features must be finite"):
        load_bags(dataset, tmp_path, sampler="bins", bag_len=4)


def test_batches_are_balanced_and_labels_are_those_of_the_videos():
    bags = make_bags(n_normal=7, n_anomalous=3)
    for batch in draw_batches(bags, seed=1, first_step=0, n_steps=20, bags_per_class=3):
        assert batch.features.shape == (6, 4, 2)
        assert batch.labels.tolist() == [0, 0, 0, 1, 1, 1]
        videos = (batch.features[:, 0, 0] / 10).long()
        assert ((videos < 3).long() == batch.labels).all()


def test_every_video_is_drawn_equally_often_across_epochs():
    bags = make_bags(n_normal=7, n_anomalous=3)
    for n_steps in (7 * 3, 7 * 3 * 5):
        videos = []
        for epoch in range(n_steps // 7):  # as the trainer draws: a few steps at a time
            videos += drawn_videos(bags, first_step=7 * epoch, n_steps=7, bags_per_class=3)
        counts = Counter(videos)
        assert {counts[v] for v in range(3)} == {n_steps}
        assert {counts[v] for v in range(3, 10)} == {n_steps * 3 // 7}


def test_no_video_is_drawn_again_before_all_were():
    bags = make_bags(n_normal=5, n_anomalous=5)
    normal = [v for v in drawn_videos(bags, n_steps=25, bags_per_class=2) if v >= 5]
    for start in range(0, 50, 5):
        assert sorted(normal[start : start + 5]) == [5, 6, 7, 8, 9]
    assert normal[:5] != normal[5:10]


def test_draws_depend_on_the_seed_and_the_step_alone():
    bags = make_bags(n_normal=7, n_anomalous=3, n_crops=5)

    def draw(**options) -> torch.Tensor:
        options = {"seed": 0, "first_step": 0, "n_steps": 10, "bags_per_class": 4, **options}
        return torch.stack([batch.features for batch in draw_batches(bags, **options)])

    torch.testing.assert_close(draw(), draw(), rtol=0, atol=0)
    torch.testing.assert_close(draw(first_step=6, n_steps=4), draw()[6:], rtol=0, atol=0)
    assert not torch.equal(draw(seed=1), draw())


def test_crops_of_a_video_are_all_drawn_about_equally():
    bags = make_bags(n_normal=1, n_anomalous=1, n_crops=5)
    batches = draw_batches(bags, seed=0, first_step=0, n_steps=500, bags_per_class=2)
    crops = Counter(int(value) % 10 for batch in batches for value in batch.features[:, 0, 0])
    assert sorted(crops) == [0, 1, 2, 3, 4]
    assert all(320 < count < 480 for count in crops.values())


def test_the_snippets_for_statistics_are_those_before_sampling():
    bags = make_bags(n_normal=2, n_anomalous=1, n_crops=2, n_snippets=9)
    assert bags.snippets.shape == (3 * 2 * 9, 2)
    expected = [10 * v + c for v in range(3) for c in range(2) for _ in range(9)]
    assert bags.snippets[:, 0].tolist() == expected
    assert bags.snippet_videos.tolist() == [v for v in range(3) for _ in range(2 * 9)]


@pytest.mark.parametrize(
    ("features", "label", "text"),
    [
        (np.zeros((3, 2), "float64"), 0, r"\(n_snippets, D\) float32.*float64"),
        (np.zeros(3, "float32"), 0, r"\(n_snippets, D\) float32, instead got \(3,\)"),
        (np.zeros((0, 2), "float32"), 0, r"instead got \(0, 2\)"),
        (np.full((3, 2), np.nan, "float32"), 0, "features of bad must be finite"),
        (np.zeros((3, 2), "float32"), 2, "label of bad must be 0 or 1, instead got 2"),
    ],
)
def test_a_bag_refuses_what_it_cannot_be(features, label, text):
    with pytest.raises(ValueError, match=text):
        Bag("bad", features, label)


def test_bags_of_another_width_than_the_streams_are_refused():
    with pytest.raises(ValueError, match="features of v must have D = 3, instead got 2"):
        collect_bags(
            [Bag("v", numbered(3), 0)],
            sampler="bins",
            bag_len=4,
            stream_dims=(("rgb", 3),),
            provenance=PROVENANCE,
        )


def test_bags_of_one_class_are_refused():
    with pytest.raises(DatasetError, match="instead got 3 normal and 0 anomalous"):
        make_bags(n_normal=3, n_anomalous=0)


@pytest.fixture
def make_dataset(write_video):
    """A function that writes the features of a dataset's training videos."""

    def make(folder: Path, labels: list[int], provenances: dict[int, dict] | None = None):
        """Two streams, two crops; the test split has a video without features."""
        entries = []
        for index, label in enumerate(labels):
            video_id = f"cam/{index}"
            entries.append(VideoEntry(video_id, Path(f"{index}.mp4"), "train", label))
            streams = {
                "rgb": np.full((3, 2, 4), index, "float32"),
                "flow": np.full((3, 2, 2), -index, "float32"),
            }
            write_video(
                folder / "small", video_id, streams, (provenances or {}).get(index, PROVENANCE)
            )
        entries.append(VideoEntry("cam/test", Path("test.mp4"), "test", 1))
        return Dataset("small", tuple(entries), manifest=Path("small.csv"))

    return make


def test_the_training_split_is_read_from_its_files(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path, [0, 1, 0])
    bags = load_bags(dataset, tmp_path, sampler="bins", bag_len=4)
    assert bags.video_ids == ("cam/0", "cam/1", "cam/2")
    assert bags.labels.tolist() == [0, 1, 0]
    assert bags.stream_dims == (("rgb", 4), ("flow", 2))
    assert bags.provenance == PROVENANCE
    assert bags.n_crops.tolist() == [2, 2, 2]
    assert bags.features[5].tolist() == [[2, 2, 2, 2, -2, -2]] * 4


def test_a_video_without_features_is_left_out_with_a_warning(tmp_path, caplog, make_dataset):
    dataset = make_dataset(tmp_path, [0, 1, 0])
    (tmp_path / "small" / "cam" / "2.h5").unlink()
    bags = load_bags(dataset, tmp_path, sampler="bins", bag_len=4)
    assert bags.video_ids == ("cam/0", "cam/1")
    assert caplog.messages == [
        f"{tmp_path / 'small'}: 1 of 3 train videos have no features and are left out, first "
        "cam/2; see: pipeline extract small.csv"
    ]


def test_without_any_features_the_command_that_makes_them_is_named(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path, [0, 1])
    with pytest.raises(FeatureFileError) as caught:
        load_bags(dataset, tmp_path / "elsewhere", sampler="bins", bag_len=4)
    assert str(caught.value) == (
        f"{tmp_path / 'elsewhere/small'}: holds no features of the 2 train videos of small; "
        "name another folder with --features, or make them with: pipeline extract small.csv"
    )


def test_features_made_in_different_ways_do_not_mix(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path, [0, 1, 0], {2: {**PROVENANCE, "n_crops": 10}})
    difference = r"n_crops: 2 expected, instead got 10"
    text = rf"2\.h5: extracted with different settings than 0\.h5 \({difference}\)"
    with pytest.raises(FeatureFileError, match=text):
        load_bags(dataset, tmp_path, sampler="bins", bag_len=4)


@pytest.mark.parametrize(("n_crops", "width"), [(5, 4), (1, 4), (2, 3)])
def test_features_of_another_shape_are_refused_whatever_they_say_of_themselves(
    tmp_path, make_dataset, write_video, n_crops, width
):
    dataset = make_dataset(tmp_path, [0, 1, 0])
    streams = {
        "rgb": np.zeros((3, n_crops, width), "float32"),
        "flow": np.zeros((3, n_crops, 2), "float32"),
    }
    (tmp_path / "small" / "cam" / "2.h5").unlink()
    write_video(tmp_path / "small", "cam/2", streams, PROVENANCE)
    text = (
        r"2\.h5: must have rgb \(4-d\), flow \(2-d\) of 2 crops as 0\.h5, "
        rf"instead got rgb \({width}-d\), flow \(2-d\) of {n_crops} crops; extract it again"
    )
    with pytest.raises(FeatureFileError, match=text):
        load_bags(dataset, tmp_path, sampler="bins", bag_len=4)


@pytest.mark.parametrize("labels", [[0, 0], [1]])
def test_a_dataset_of_one_class_cannot_be_trained_on(tmp_path, labels, make_dataset):
    dataset = make_dataset(tmp_path, labels)
    with pytest.raises(DatasetError, match="small: training needs normal and anomalous videos"):
        load_bags(dataset, tmp_path, sampler="bins", bag_len=4)


class CountingEntry(VideoEntry):
    """A video that counts how often it is compared with another one."""

    n_comparisons = 0

    def __eq__(self, other):
        CountingEntry.n_comparisons += 1
        return super().__eq__(other)

    __hash__ = VideoEntry.__hash__


def test_looking_for_features_compares_no_video_with_all_the_others(tmp_path, write_video):
    entries = [CountingEntry(str(i), tmp_path / str(i), "train", i % 2) for i in range(400)]
    for entry in entries[::2]:
        write_video(tmp_path / "small", entry.video_id, {"rgb": np.ones((2, 1, 3), "float32")})
    CountingEntry.n_comparisons = 0
    found = entries_with_features(Dataset("small", tuple(entries)), "train", tmp_path)
    assert [entry.video_id for entry in found] == [str(i) for i in range(0, 400, 2)]
    assert CountingEntry.n_comparisons <= 400


def test_features_of_another_video_under_its_name_are_refused(tmp_path, write_video):
    entries = [VideoEntry(str(i), tmp_path / str(i), "train", i % 2) for i in range(4)]
    for entry in entries:
        write_video(tmp_path / "small", entry.video_id, {"rgb": np.ones((2, 1, 3), "float32")})
    shutil.copy(tmp_path / "small/0.h5", tmp_path / "small/3.h5")
    with pytest.raises(FeatureFileError, match=r"3\.h5: holds the features of the video '0'"):
        load_bags(Dataset("small", tuple(entries)), tmp_path, sampler="bins", bag_len=4)
