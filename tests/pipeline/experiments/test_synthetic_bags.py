"""The synthetic test beds: what is anomalous in them, and what cannot tell it."""

import numpy as np
import pytest

from pipeline.config import resolve_config
from pipeline.experiments.synthetic_bags import SYNTHETIC, bursts, exclusive_or


@pytest.mark.parametrize("name", list(SYNTHETIC))
def test_every_second_video_is_anomalous_in_one_run_of_snippets(name):
    synthetic = {"exclusive-or": exclusive_or, "bursts": bursts}[name](3, n_train=6, n_test=20)
    assert [bag.label for bag in synthetic.train] == [0, 1] * 3
    shortest, longest = {"exclusive-or": (4, 8), "bursts": (8, 16)}[name]
    for index, video in enumerate(synthetic.test):
        assert video.entry.label == index % 2
        places = np.flatnonzero(video.labels)
        assert len(places) == 0 if index % 2 == 0 else shortest <= len(places) <= longest
        assert (np.diff(places) == 1).all()
        assert video.features.n_snippets == len(video.labels)


def test_a_seed_draws_the_same_videos_again():
    first, again, other = (exclusive_or(seed, n_train=4, n_test=2) for seed in (0, 0, 1))
    for bag, same, different in zip(first.train, again.train, other.train, strict=True):
        np.testing.assert_array_equal(bag.features, same.features)
        assert not np.array_equal(bag.features, different.features)


def test_neither_context_nor_motion_alone_tells_what_is_anomalous():
    synthetic = exclusive_or(0, n_train=2, n_test=800)
    snippets = np.concatenate([video.features.streams["rgb"][:, 0] for video in synthetic.test])
    labels = np.concatenate([video.labels for video in synthetic.test])
    # What is a function of context plus a function of motion is linear in the features.
    direction = np.linalg.lstsq(snippets, labels - labels.mean(), rcond=None)[0]
    scores = snippets @ direction
    assert abs(np.corrcoef(scores, labels)[0, 1]) < 0.1


def test_what_stands_out_most_in_bursts_is_normal():
    synthetic = bursts(0, n_train=2, n_test=400)
    lengths = np.concatenate(
        [np.linalg.norm(video.features.streams["rgb"][:, 0], axis=1) for video in synthetic.test]
    )
    labels = np.concatenate([video.labels for video in synthetic.test])
    longest = np.argsort(lengths)[-len(labels) // 50 :]
    assert labels[longest].mean() < 0.5


@pytest.mark.parametrize("name", list(SYNTHETIC))
def test_synthetic_videos_become_bags_of_the_length_that_the_config_says(name):
    model = "clav-como" if name == "exclusive-or" else "cbcg"
    config = resolve_config(model, name, settings=["bag_len=16"])
    synthetic = {"exclusive-or": exclusive_or, "bursts": bursts}[name](0, n_train=4, n_test=2)
    bags = synthetic.bags(config)
    assert (bags.bag_len, bags.sampler, len(bags.video_ids)) == (16, config.sampler, 4)
