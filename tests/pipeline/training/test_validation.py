"""Which videos select an epoch."""

import numpy as np
import pytest
import torch
from torch import nn

from models.interface import Output
from pipeline.config import resolve_config
from pipeline.datasets.catalog import Dataset, DatasetError, VideoEntry
from pipeline.extraction.feature_file import FeatureFileError, feature_path, write_features
from pipeline.training.bag_loading import Bag, collect_bags, load_bags
from pipeline.training.batches import BagSet
from pipeline.training.validation import hold_out, training_bags, video_auc


def make_bags(labels: list[int], values: list[list[float]] | None = None) -> BagSet:
    """One bag per video and crop, with one feature: the logit that `Echo` gives back."""
    rows = values or [[0.0]] * len(labels)
    bags = [
        Bag(f"v{video}", np.array(row, "float32")[:, None], label)
        for video, (label, row) in enumerate(zip(labels, rows, strict=True))
    ]
    return collect_bags(
        bags, sampler="sequence", bag_len=4, stream_dims=(("rgb", 1),), provenance={}
    )


class Echo(nn.Module):
    """Its logits are the features."""

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> Output:
        return Output(logits=features[..., 0], embeddings=features)


def test_a_fraction_of_both_classes_is_held_out_and_no_video_is_in_both():
    bags = make_bags([0] * 20 + [1] * 10)
    learned, held_out = hold_out(bags, 0.1)
    assert held_out.labels.tolist() == [0, 0, 1]
    assert sorted(learned.video_ids + held_out.video_ids) == sorted(bags.video_ids)
    assert hold_out(bags, 0.1)[1].video_ids == held_out.video_ids


def test_no_snippet_of_a_held_out_video_is_among_those_that_standardize_features():
    bags = make_bags([0, 0, 1, 1], [[float(video)] * 3 for video in range(4)])
    for part in hold_out(bags, 0.5):
        numbers = [float(name.removeprefix("v")) for name in part.video_ids]
        assert part.snippets[:, 0].tolist() == [numbers[i] for i in part.snippet_videos]
        assert part.snippet_videos.tolist() == [0, 0, 0, 1, 1, 1]


def test_at_least_one_video_of_each_class_is_held_out():
    _, held_out = hold_out(make_bags([0, 0, 1, 1]), 0.1)
    assert held_out.labels.tolist() == [0, 1]


def test_a_class_of_one_video_cannot_be_split():
    with pytest.raises(DatasetError, match="instead got 1 with label 1; use selection=budget"):
        hold_out(make_bags([0, 0, 0, 1]), 0.1)


def test_a_video_ranks_by_its_most_anomalous_snippet_and_padding_never_counts():
    values = [[-3, -1], [2.0], [-9, -9, -9, 0], [-2, -2]]  # highest: -1, 2, 0, -2
    bags = make_bags([0, 1, 0, 1], values)
    # pairs (anomalous, normal): 2 > -1, 2 > 0, -2 < -1, -2 < 0
    assert video_auc(Echo(), bags, torch.device("cpu")) == pytest.approx(0.5)
    assert video_auc(Echo(), make_bags([0, 1], [[-3.0], [-2.0]]), torch.device("cpu")) == 1


def test_crops_are_averaged_before_videos_are_ranked():
    bags = collect_bags(
        [
            Bag("normal", np.array([[1.0]], "float32"), 0),
            Bag("normal", np.array([[1.0]], "float32"), 0),
            Bag("anomalous", np.array([[9.0]], "float32"), 1),  # mean score 0.5
            Bag("anomalous", np.array([[-9.0]], "float32"), 1),
        ],
        sampler="bins",
        bag_len=1,
        stream_dims=(("rgb", 1),),
        provenance={},
    )
    assert video_auc(Echo(), bags, torch.device("cpu")) == 0


@pytest.mark.parametrize(
    ("splits", "selection", "expected"),
    [
        (["train"] * 8, "budget", None),
        (["train"] * 8, "held_out", 2),  # at least one of each class
        (["train"] * 4 + ["val"] * 4, "held_out", 4),
        (["train"] * 4 + ["val"] * 4, "budget", None),
    ],
)
def test_the_val_split_selects_where_there_is_one(
    tmp_path, splits, selection, expected, features_of
):
    entries = []
    for index, split in enumerate(splits):
        entries.append(VideoEntry(str(index), tmp_path / f"{index}.mp4", split, index % 2))
        features = features_of({"rgb": np.ones((2, 1, 3), "float32")})
        name = str(index)
        path = feature_path(tmp_path / "small", name)
        made = {"extractor": "i3d"}
        write_features(path, features, made, video_id=name, source_name="none")
    config = resolve_config("clav-como", "small", settings=[f"selection={selection}"])
    learned, held_out = training_bags(Dataset("small", tuple(entries)), tmp_path, config)
    if expected is None:
        assert held_out is None
        assert len(learned.video_ids) == splits.count("train")
        return
    assert len(held_out.video_ids) == expected
    if "val" in splits:
        assert held_out.video_ids == ("4", "5", "6", "7")
    assert set(learned.video_ids) == set("01234567") - set(held_out.video_ids)


def test_features_that_do_not_say_how_they_were_made_are_refused(tmp_path, features_of):
    dataset = Dataset(
        "small",
        tuple(VideoEntry(str(label), tmp_path / "none", "train", label) for label in (0, 1)),
    )
    features = features_of({"rgb": np.ones((2, 1, 1), "float32")})
    for name in "01":
        path = feature_path(tmp_path / "small", name)
        write_features(path, features, {}, video_id=name, source_name="none")
    with pytest.raises(FeatureFileError, match="does not say how it was made"):
        load_bags(dataset, tmp_path, sampler="sequence", bag_len=4)
