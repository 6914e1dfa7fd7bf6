"""Snippet scores of long sequences: in windows, and as features come."""

import itertools
import tracemalloc
import weakref

import numpy as np
import pytest
import torch

from models import MODELS, model_class
from models.interface import ModelConfig, Output
from pipeline.config import resolve_config, with_streams
from pipeline.scoring.score_windows import windows
from pipeline.scoring.snippet_scores import (
    ScoreValueError,
    StreamScorer,
    snippet_scores,
    snippet_scores_without,
)

CPU = torch.device("cpu")
SIZES = ("embedding_dim", "class_code_dim", "relation_dim", "scorer_dim")  # of CLAV-CoMo


@pytest.fixture
def make_features(features_of):
    """A function that makes random features, the same for the same number of snippets."""

    def make(n_snippets, n_crops=2, dim=3):
        values = np.random.default_rng(0).normal(size=(n_snippets, n_crops, dim))
        return features_of({"rgb": values.astype(np.float32)})

    return make


def as_they_come(model, features, max_window_len, n_dropped=0):
    scorer = StreamScorer(model, CPU, max_window_len)
    for index in range(features.n_snippets):
        scorer.add({name: values[index] for name, values in features.streams.items()})
    return scorer.finish(features.n_snippets - n_dropped)


class Local(torch.nn.Module):
    """The logit of a snippet is the mean of the three around it: a context of one snippet."""

    config = ModelConfig(stream_dims=(("rgb", 3),))

    def forward(self, features, mask):
        padded = torch.nn.functional.pad(features[..., 0], (1, 1), mode="replicate")
        return Output(padded.unfold(1, 3, 1).mean(dim=2), features)


class Broken(Local):
    """Weights so large that infinity is taken from infinity."""

    def forward(self, features, mask):
        return Output(features[..., 0] * torch.inf - torch.inf, features)


def test_a_model_whose_scores_are_no_numbers_is_refused_in_one_line(make_features):
    with pytest.raises(ScoreValueError, match="not numbers: its weights are damaged") as caught:
        snippet_scores(Broken(), make_features(5), device=CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("n_snippets", [1, 2, 7, 8, 9, 12, 13, 16, 17, 40])
def test_windows_cover_every_snippet_and_overlap_by_half(n_snippets):
    found = windows(n_snippets, 8)
    assert found[0][0] == 0
    assert found[-1][1] == n_snippets
    for (start, stop), (next_start, next_stop) in itertools.pairwise(found):
        assert next_start == start + 4
        assert stop == start + 8 < next_stop


@pytest.mark.parametrize("max_window_len", [0, 1, 7])
def test_a_window_that_has_no_half_is_refused(max_window_len):
    with pytest.raises(ValueError, match="max_window_len must be even"):
        windows(3, max_window_len)


def test_a_video_of_one_window_is_scored_at_once(make_features):
    model = model_class("clav-como")(
        with_streams(resolve_config("clav-como", "none"), (("rgb", 3),)).model
    )
    features = make_features(12)
    whole = snippet_scores(model.eval(), features, device=CPU, max_window_len=12)
    with torch.no_grad():
        per_crop = [
            model(
                torch.from_numpy(features.streams["rgb"][:, crop])[None], torch.ones(1, 12).bool()
            )
            for crop in (0, 1)
        ]
    expected = torch.stack([output.scores[0].double() for output in per_crop]).mean(dim=0)
    assert whole.tolist() == expected.float().tolist()


@pytest.mark.parametrize("model_name", list(MODELS))
@pytest.mark.parametrize("n_snippets", [1, 7, 8, 9, 10, 12, 13, 17, 30])
def test_features_that_come_one_by_one_give_the_scores_of_all_at_once(
    model_name, n_snippets, make_features
):
    config = with_streams(resolve_config(model_name, "none"), (("rgb", 3),))
    model = model_class(model_name)(config.model).eval()
    features = make_features(n_snippets)
    expected = snippet_scores(model, features, device=CPU, max_window_len=8)
    assert as_they_come(model, features, 8).tolist() == expected.tolist()


@pytest.mark.parametrize("n_snippets", [2, 8, 9, 10, 13, 30])
def test_a_last_snippet_that_is_dropped_is_not_scored(n_snippets, make_features):
    features = make_features(n_snippets)
    kept = make_features(n_snippets - 1)
    kept.streams["rgb"][:] = features.streams["rgb"][:-1]
    expected = snippet_scores(Local(), kept, device=CPU, max_window_len=8)
    assert as_they_come(Local(), features, 8, n_dropped=1).tolist() == expected.tolist()


def test_windows_of_a_model_of_limited_context_give_the_scores_of_the_whole_video(make_features):
    features = make_features(9000, n_crops=1)
    whole = snippet_scores(Local(), features, device=CPU, max_window_len=9000)
    in_windows = snippet_scores(Local(), features, device=CPU, max_window_len=2048)
    np.testing.assert_allclose(in_windows, whole, atol=1e-3)


def test_a_stream_holds_no_more_than_one_window():
    scorer = StreamScorer(Local(), CPU, 8)
    most = 0
    for _ in range(100):
        scorer.add({"rgb": np.zeros((1, 3), np.float32)})
        most = max(most, len(scorer._window))
    assert most == 9
    assert scorer.finish(100).shape == (100,)


def test_of_a_window_only_one_crop_is_copied_at_a_time():
    n_snippets, n_crops, dim = 200, 10, 1000
    scorer = StreamScorer(Local(), CPU)
    for _ in range(n_snippets):
        scorer.add({"rgb": np.zeros((n_crops, dim), np.float32)})
    tracemalloc.start()
    scorer.finish(n_snippets)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * n_snippets * dim * 4  # half of the window


def test_what_a_model_says_of_a_crop_is_not_held_while_the_next_one_is_scored(make_features):
    class Watched(Local):
        """Counts the embeddings of earlier crops that are still there."""

        earlier, n_alive = (), 0

        def forward(self, features, mask):
            self.n_alive += sum(reference() is not None for reference in self.earlier)
            embeddings = features.clone()
            self.earlier = (*self.earlier, weakref.ref(embeddings))
            return Output(features[..., 0], embeddings)

    model = Watched()
    snippet_scores(model, make_features(20, n_crops=4), device=CPU, max_window_len=8)
    assert len(model.earlier) == 4 * 4
    assert model.n_alive == 0


def test_a_video_of_hours_is_scored_as_a_whole(make_features):
    model = untrained("clav-como", *(f"model.{name}=4" for name in SIZES))
    features = make_features(9000, n_crops=1)  # 1.6 hours at 25 frames per second
    whole = snippet_scores(model, features, device=CPU, max_window_len=9000)
    assert snippet_scores(model, features, device=CPU).tolist() == whole.tolist()


@pytest.mark.parametrize("n_snippets", [1, 8, 9, 13, 30])
def test_scores_without_a_part_of_the_model_come_as_the_scores_do(n_snippets, make_features):
    config = with_streams(resolve_config("clav-como", "none"), (("rgb", 3),))
    model = model_class("clav-como")(config.model).eval()
    features = make_features(n_snippets)
    expected = snippet_scores_without(model, features, device=CPU, max_window_len=8)
    assert set(expected) == {"context", "motion"}
    scorer = StreamScorer(model, CPU, 8, explain=True)
    for index in range(n_snippets):
        scorer.add({"rgb": features.streams["rgb"][index]})
    whole = scorer.finish(n_snippets)
    assert whole.tolist() == snippet_scores(model, features, device=CPU, max_window_len=8).tolist()
    found = scorer.without()
    assert {name: scores.tolist() for name, scores in found.items()} == {
        name: scores.tolist() for name, scores in expected.items()
    }


def windowed_difference(make_features, model, max_window_len, n_snippets=1200):
    """The largest difference between scoring in windows and scoring the whole video."""
    features = make_features(n_snippets, n_crops=1)
    whole = snippet_scores(model, features, device=CPU, max_window_len=n_snippets)
    in_windows = snippet_scores(model, features, device=CPU, max_window_len=max_window_len)
    return float(np.abs(in_windows - whole).max())


def untrained(model_name, *settings):
    config = with_streams(resolve_config(model_name, "none", settings=settings), (("rgb", 3),))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model_class(model_name)(config.model).eval()


@pytest.mark.parametrize(
    ("model_name", "bound"), [("clav-como", 3e-3), ("la-net", 1e-2), ("cbcg", 1e-6)]
)
def test_windows_change_the_scores_of_a_model_with_global_context_little(
    make_features, model_name, bound
):
    assert windowed_difference(make_features, untrained(model_name), 600) < bound


def test_it_is_the_attention_that_makes_windows_of_la_net_differ_and_not_their_overlap(
    make_features,
):
    # Without it a score reads seven snippets, which the overlap covers.
    assert (
        windowed_difference(make_features, untrained("la-net", "model.use_attention=false"), 64)
        < 1e-6
    )
    assert windowed_difference(make_features, untrained("la-net"), 64) > 1e-4


def test_the_prior_of_la_net_keeps_far_snippets_in_the_attention():
    prior = untrained("la-net").attention.location_prior(5000).detach()
    assert 0 <= float(prior.min()) <= float(prior.max()) <= 1
