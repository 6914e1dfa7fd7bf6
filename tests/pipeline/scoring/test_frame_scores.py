import numpy as np
import pytest

from extractors.snippets import DROP_TAIL
from pipeline.scoring.frame_scores import Scores, csv_bytes


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
