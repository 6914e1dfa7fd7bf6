"""Snippet scores as frame scores: alignment, strides, tail policies and the CSV."""

import numpy as np
import pytest

from extractors.snippets import DROP_TAIL, REPEAT_LAST_FRAME
from pipeline.scoring.events import Event
from pipeline.scoring.frame_scores import Scores, csv_bytes, n_strided_snippets


def make_scores(n_frames, snippet_len=16, first_seconds=0.0):
    n_snippets = -(-n_frames // snippet_len)
    per_snippet = np.linspace(0, 1, n_snippets, dtype=np.float32)
    return Scores(per_snippet, snippet_len, first_seconds + np.arange(n_frames) / 24)


@pytest.mark.parametrize("n_frames", [1, 15, 16, 17, 31, 32, 33, 100])
def test_every_frame_has_the_score_of_its_snippet(n_frames):
    scores = make_scores(n_frames)
    assert scores.per_frame.tolist() == [scores.per_snippet[i // 16] for i in range(n_frames)]


def test_csv_has_one_row_per_frame_with_its_own_time():
    scores = Scores(np.array([0.25, 1], np.float32), 2, np.array([-0.333, 0.0, 0.0671]))
    assert csv_bytes(scores).decode().splitlines() == [
        "frame,time_seconds,score",
        "0,-0.333,0.250000",
        "1,0.000,0.250000",
        "2,0.067,1.000000",
    ]


@pytest.mark.parametrize(
    ("per_snippet", "n_frames", "message"),
    [
        ([0.5], 17, "17 frames in snippets of 16 need 2 scores, at least one; instead got 1"),
        ([], 0, "0 frames in snippets of 16 need 0 scores, at least one; instead got 0"),
        ([1.5], 3, "scores must be in"),
        ([np.nan], 3, "scores must be in"),
    ],
)
def test_what_cannot_be_scores_is_refused(per_snippet, n_frames, message):
    with pytest.raises(ValueError, match=message):
        Scores(np.array(per_snippet, np.float32), 16, np.arange(n_frames) / 24)


def test_a_dropped_tail_needs_a_score_less_and_leaves_no_frame_without_one():
    times = np.arange(40) / 24
    scores = Scores(np.array([0.25, 0.75], np.float32), 16, times, DROP_TAIL)
    assert scores.per_frame.tolist() == [0.25] * 16 + [0.75] * 24
    with pytest.raises(ValueError, match="40 frames in snippets of 16 need 2 scores"):
        Scores(np.array([0.25, 0.75, 1], np.float32), 16, times, DROP_TAIL)


def mean_of_covering_snippets(scores):
    """Frame by frame: which snippets cover it, by where each begins."""
    expected = []
    for frame in range(scores.n_frames):
        covering = [
            float(score)
            for i, score in enumerate(scores.per_snippet)
            if i * scores.stride <= frame < i * scores.stride + scores.snippet_len
        ]
        expected.append(
            sum(covering) / len(covering) if covering else float(scores.per_snippet[-1])
        )
    return expected


@pytest.mark.parametrize("tail_policy", [REPEAT_LAST_FRAME, DROP_TAIL])
@pytest.mark.parametrize("stride", [16, 8, 4, 2, 1])
@pytest.mark.parametrize("n_frames", [17, 33, 40, 64])
def test_a_frame_has_the_mean_score_of_the_snippets_that_cover_it(n_frames, stride, tail_policy):
    n_scores = n_strided_snippets(n_frames, 16, stride, tail_policy)
    per_snippet = np.random.default_rng(0).random(n_scores, dtype=np.float32)
    scores = Scores(per_snippet, 16, np.arange(n_frames) / 8, tail_policy, stride)
    np.testing.assert_allclose(scores.per_frame, mean_of_covering_snippets(scores), rtol=1e-6)


@pytest.mark.parametrize(("n_frames", "stride", "n_kept"), [(33, 8, 5), (32, 8, 4), (3, 1, 3)])
def test_snippets_begin_at_every_stride_up_to_the_last_frame(n_frames, stride, n_kept):
    assert n_strided_snippets(n_frames, 16, stride, REPEAT_LAST_FRAME) == n_kept


def test_no_strided_snippet_goes_beyond_a_dropped_tail():
    # Snippets need 17 frames, because 16 flows need one more: they begin at frames 0 to 4 of 21.
    assert n_strided_snippets(21, 16, 1, DROP_TAIL) == 5
    assert n_strided_snippets(21, 16, 4, DROP_TAIL) == 2


@pytest.mark.parametrize("stride", [-1, 3, 32])
def test_a_stride_that_does_not_divide_the_snippet_is_refused(stride):
    with pytest.raises(ValueError, match="stride must be a divisor of 16"):
        Scores(np.array([0.5], np.float32), 16, np.arange(16) / 8, stride=stride)


def test_events_have_the_frames_and_times_of_the_video():
    scores = Scores(np.array([0, 0.75, 0], np.float32), 2, np.array([0, 1, 3, 4, 6, 7.0]))
    assert scores.events() == (Event(2, 4, 3.0, 6.0, 0.75, 2, 0.75),)
    assert scores.events(0.8) == ()
    assert scores.events(min_seconds=3.5) == ()


def test_the_csv_is_written_where_it_is_asked_for(tmp_path):
    scores = make_scores(20)
    scores.to_csv(tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_bytes() == csv_bytes(scores)
