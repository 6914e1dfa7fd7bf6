"""Snippet scores of long sequences: in windows, and as features come."""

import copy
import dataclasses
import itertools
import tracemalloc
import weakref

import numpy as np
import pytest
import torch

from models import MODELS, model_class
from models.interface import ModelConfig, Output
from pipeline.config import resolve_config, with_streams
from pipeline.scoring.score_windows import WindowBlender, windows
from pipeline.scoring.snippet_scores import (
    MAX_WINDOW_LEN,
    ScoreValueError,
    StreamScorer,
    snippet_scores,
    snippet_scores_without,
    window_len,
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


def in_windows(model, window_len):
    """The same model, which scores so many snippets together."""
    windowed = copy.copy(model)
    windowed.config = dataclasses.replace(model.config, window_len=window_len)
    return windowed


def as_they_come(model, features, n_dropped=0):
    scorer = StreamScorer(model, CPU)
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
def test_windows_cover_every_snippet_and_begin_a_quarter_of_their_length_apart(n_snippets):
    found = windows(n_snippets, 8)
    assert found[0][0] == 0
    assert found[-1][1] == n_snippets
    for (start, stop), (next_start, next_stop) in itertools.pairwise(found):
        assert next_start == start + 2
        assert stop == start + 8 < next_stop


@pytest.mark.parametrize("window_len", [1, 2, 3, 5, 8, 16])
@pytest.mark.parametrize("n_snippets", [1, 2, 3, 8, 9, 17, 40])
def test_the_score_of_a_snippet_is_the_mean_over_its_windows_by_its_distance_from_their_ends(
    n_snippets, window_len
):
    rng = np.random.default_rng(n_snippets)
    blender, places = WindowBlender(window_len), windows(n_snippets, window_len)
    scores = [rng.random(stop - start).astype(np.float32) for start, stop in places]
    for of_window in scores:
        blender.add(of_window)
    found = blender.scores()
    for snippet in range(n_snippets):
        total = total_weight = 0.0
        for (start, stop), of_window in zip(places, scores, strict=True):
            if not start <= snippet < stop:
                continue
            ends = [snippet + 0.5 - start] if start > 0 else []
            ends += [stop - snippet - 0.5] if stop < n_snippets else []
            distance = min(ends, default=window_len) / window_len
            weight = min(max((distance - 1 / 8) / (3 / 8 - 1 / 8), 0), 1)
            total += weight * of_window[snippet - start]
            total_weight += weight
        assert found[snippet] == pytest.approx(total / total_weight, rel=1e-6)


@pytest.mark.parametrize("window_len", [0, -8])
def test_an_empty_window_is_refused(window_len):
    with pytest.raises(ValueError, match="window_len must be positive"):
        windows(3, window_len)
    with pytest.raises(ValueError, match=f"at least 1, instead got {window_len}"):
        ModelConfig(window_len=window_len)


def test_a_video_of_one_window_is_scored_at_once(make_features):
    model = model_class("clav-como")(
        with_streams(resolve_config("clav-como", "none"), (("rgb", 3),)).model
    )
    features = make_features(12)
    whole = snippet_scores(in_windows(model.eval(), 12), features, device=CPU)
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
    model = in_windows(model_class(model_name)(config.model).eval(), 8)
    features = make_features(n_snippets)
    expected = snippet_scores(model, features, device=CPU)
    assert as_they_come(model, features).tolist() == expected.tolist()


@pytest.mark.parametrize("n_snippets", [2, 8, 9, 10, 13, 30])
def test_a_last_snippet_that_is_dropped_is_not_scored(n_snippets, make_features):
    features = make_features(n_snippets)
    kept = make_features(n_snippets - 1)
    kept.streams["rgb"][:] = features.streams["rgb"][:-1]
    model = in_windows(Local(), 8)
    expected = snippet_scores(model, kept, device=CPU)
    assert as_they_come(model, features, n_dropped=1).tolist() == expected.tolist()


def test_windows_of_a_model_of_limited_context_give_the_scores_of_the_whole_video(make_features):
    features = make_features(9000, n_crops=1)
    whole = snippet_scores(Local(), features, device=CPU)
    blended = snippet_scores(in_windows(Local(), 2048), features, device=CPU)
    np.testing.assert_allclose(blended, whole, atol=1e-3)


def test_a_stream_holds_no_more_than_one_window():
    scorer = StreamScorer(in_windows(Local(), 8), CPU)
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

    model = in_windows(Watched(), 8)
    snippet_scores(model, make_features(20, n_crops=4), device=CPU)
    assert len(model.earlier) == 7 * 4  # windows, crops
    assert model.n_alive == 0


@pytest.mark.parametrize("window_len", [None, 9000, 10**9])
def test_a_video_no_longer_than_those_of_the_training_is_scored_as_a_whole(
    make_features, window_len
):
    model = untrained("clav-como", *(f"model.{name}=4" for name in SIZES))
    features = make_features(9000, n_crops=1)  # 1.6 hours at 25 frames per second
    with torch.inference_mode():
        bag = torch.from_numpy(features.streams["rgb"][:, 0])[None]
        whole = model(bag, torch.ones(1, 9000).bool()).scores[0]
    found = snippet_scores(in_windows(model, window_len), features, device=CPU)
    np.testing.assert_allclose(found, whole.numpy(), atol=1e-6)


def test_no_model_is_given_more_than_fits_into_memory():
    assert window_len(in_windows(Local(), 10**9)) == MAX_WINDOW_LEN
    assert window_len(Local()) == MAX_WINDOW_LEN
    assert window_len(in_windows(Local(), 64)) == 64


@pytest.mark.parametrize("model_name", list(MODELS))
def test_an_hour_has_the_same_scores_within_a_day(make_features, features_of, model_name):
    """What comes more than a window later or earlier does not reach a score, in any model."""
    model = in_windows(untrained(model_name), 16)
    hour = make_features(64, n_crops=1).streams["rgb"]
    elsewhere = 5 + 3 * np.random.default_rng(1).normal(size=(80, 1, 3)).astype(np.float32)
    alone = snippet_scores(model, features_of({"rgb": hour}), device=CPU)
    day = np.concatenate([elsewhere, hour, elsewhere])
    within = snippet_scores(model, features_of({"rgb": day}), device=CPU)[80:144]
    assert within[16:-16].tolist() == alone[16:-16].tolist()
    assert within.tolist() != alone.tolist()  # it has other surroundings at its ends


@pytest.mark.parametrize("n_snippets", [1, 8, 9, 13, 30])
def test_scores_without_a_part_of_the_model_come_as_the_scores_do(n_snippets, make_features):
    config = with_streams(resolve_config("clav-como", "none"), (("rgb", 3),))
    model = in_windows(model_class("clav-como")(config.model).eval(), 8)
    features = make_features(n_snippets)
    expected = snippet_scores_without(model, features, device=CPU)
    assert set(expected) == {"context", "motion"}
    scorer = StreamScorer(model, CPU, explain=True)
    for index in range(n_snippets):
        scorer.add({"rgb": features.streams["rgb"][index]})
    whole = scorer.finish(n_snippets)
    assert whole.tolist() == snippet_scores(model, features, device=CPU).tolist()
    found = scorer.without()
    assert {name: scores.tolist() for name, scores in found.items()} == {
        name: scores.tolist() for name, scores in expected.items()
    }


def windowed_difference(make_features, model, window_len, n_snippets=1200):
    """The largest difference between scoring in windows and scoring the whole video."""
    features = make_features(n_snippets, n_crops=1)
    whole = snippet_scores(model, features, device=CPU)
    blended = snippet_scores(in_windows(model, window_len), features, device=CPU)
    return float(np.abs(blended - whole).max())


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
    without = untrained("la-net", "model.use_attention=false")
    assert windowed_difference(make_features, without, 64) < 1e-6
    assert windowed_difference(make_features, untrained("la-net"), 64) > 1e-4


def test_the_prior_of_la_net_keeps_far_snippets_in_the_attention():
    prior = untrained("la-net").attention.location_prior(5000).detach()
    assert 0 <= float(prior.min()) <= float(prior.max()) <= 1
