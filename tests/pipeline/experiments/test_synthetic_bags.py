"""The synthetic test beds: what is anomalous in them, and what cannot tell it."""

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from pipeline.config import resolve_config
from pipeline.experiments.synthetic_bags import (
    SYNTHETIC,
    bursts,
    exclusive_or,
    synthetic_recipe,
)


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


def snippets_of(videos):
    """(n, D) features of all snippets, the same beside the mean of their video, and (n,) labels."""
    alone, beside_mean = [], []
    for video in videos:
        features = np.hstack([video.features.streams[name][:, 0] for name in ("rgb", "flow")])
        alone.append(features)
        mean = np.broadcast_to(features.mean(axis=0), features.shape)
        beside_mean.append(np.hstack([features, mean]))
    labels = np.concatenate([video.labels for video in videos])
    return np.concatenate(alone), np.concatenate(beside_mean), labels


@pytest.fixture(scope="module")
def exclusive_or_snippets():
    """Snippets of training and of test videos, with their true labels."""
    videos = exclusive_or(0, n_train=2, n_test=900).test
    return snippets_of(videos[:500]), snippets_of(videos[500:])


def linear_classifier():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))


def quadratic_classifier():
    return make_pipeline(PCA(8), PolynomialFeatures(2), linear_classifier())


def auc_of(classifier, columns, snippets, *, with_mean=False):
    """The AUC on test snippets of a classifier that learned from the labels of snippets."""
    (train, test), index = snippets, int(with_mean)
    classifier.fit(train[index][:, columns], train[2])
    return roc_auc_score(test[2], classifier.decision_function(test[index][:, columns]))


RGB, FLOW, BOTH = range(64), range(64, 128), range(128)


@pytest.mark.parametrize("columns", [RGB, FLOW, BOTH], ids=["rgb", "flow", "both"])
def test_with_true_labels_a_linear_classifier_is_at_chance(columns, exclusive_or_snippets):
    assert abs(auc_of(linear_classifier(), columns, exclusive_or_snippets) - 0.5) < 0.05


@pytest.mark.parametrize("first", [0, 64], ids=["rgb", "flow"])
def test_one_stream_over_the_whole_video_is_at_chance_too(first, exclusive_or_snippets):
    snippet_and_mean = [*range(first, first + 64), *range(128 + first, 192 + first)]
    found = auc_of(quadratic_classifier(), snippet_and_mean, exclusive_or_snippets, with_mean=True)
    assert abs(found - 0.5) < 0.06


def test_a_quadratic_classifier_of_both_streams_solves_it(exclusive_or_snippets):
    assert auc_of(quadratic_classifier(), BOTH, exclusive_or_snippets) > 0.99


def test_no_linear_score_of_both_streams_ranks_the_snippets():
    rng = np.random.default_rng(0)
    snippets, _, labels = snippets_of(exclusive_or(0, n_train=2, n_test=1500).test)
    # Directions in which the codes themselves lie: noise hides nothing.
    codes = PCA(4).fit(snippets[:5000]).components_
    aucs = [roc_auc_score(labels, snippets @ (rng.normal(size=4) @ codes)) for _ in range(40)]
    assert np.abs(np.array(aucs) - 0.5).max() < 0.03


def test_contexts_change_with_shots_of_at_least_four_snippets_and_one_shot_is_anomalous():
    videos = exclusive_or(5, n_train=2, n_test=60).test
    rgb = np.stack([video.features.streams["rgb"][:, 0] for video in videos])
    context = KMeans(4, n_init=3, random_state=0).fit_predict(rgb.reshape(-1, 64)).reshape(60, 32)
    n_cuts = 0
    for video, of_video in zip(videos, context, strict=True):
        cuts = np.flatnonzero(np.diff(of_video)) + 1
        assert np.diff([0, *cuts, 32]).min() >= 4
        inside = video.labels[1:] & video.labels[:-1]
        assert not inside[cuts - 1].any()  # the anomalous run is within one shot
        n_cuts += len(cuts)
    assert 60 * 2 < n_cuts < 60 * 7  # of 3 to 7 cuts a video, one in four is to the same context


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
    recipe = synthetic_recipe(model, name)
    assert recipe is not None
    config = resolve_config(model, name, recipe=recipe, settings=["bag_len=16"])
    synthetic = {"exclusive-or": exclusive_or, "bursts": bursts}[name](0, n_train=4, n_test=2)
    bags = synthetic.bags(config)
    assert (bags.bag_len, bags.sampler, len(bags.video_ids)) == (16, config.sampler, 4)
