"""Thumbnails: which frames are chosen, and what a thumbnail is."""

import base64
import io
from dataclasses import replace

import numpy as np
from PIL import Image

from pipeline.scoring.events import EventRule
from pipeline.scoring.frame_scores import Scores
from pipeline.scoring.thumbnails import WIDTH, choose_frames, make_thumbnails


def test_frames_at_equal_distances_and_all_peaks_are_chosen(scores):
    chosen = choose_frames(replace(scores, rule=EventRule(merge_seconds=0)), n_regular=4)
    assert {5, 15, 25, 35} <= set(chosen)  # the middles of four equal parts
    assert {8, 32} <= set(chosen)  # the peaks at the threshold
    assert chosen == sorted(set(chosen))


def test_the_highest_peaks_are_chosen_where_there_are_many():
    per_frame = np.zeros(1000, np.float32)
    peaks = np.arange(10, 1000, 20)
    per_frame[peaks] = np.linspace(0.6, 0.99, len(peaks))
    scores = Scores(per_frame, 1, np.arange(1000.0), rule=EventRule(merge_seconds=0))
    chosen = choose_frames(scores, n_regular=1, n_peaks=5)
    assert chosen == [500, *peaks[-5:].tolist()]


def test_a_video_of_one_frame_has_one_thumbnail():
    scores = Scores(np.array([0.2], np.float32), 16, np.array([0.0]))
    assert choose_frames(scores) == [0]


def test_a_wide_frame_is_made_small_and_a_small_one_stays(tmp_path, write_clip, scores):
    wide = write_clip(tmp_path / "wide.mp4", width=640, height=360)
    (thumbnail,) = make_thumbnails(wide, scores, [3])
    assert Image.open(io.BytesIO(thumbnail.jpeg)).size == (WIDTH, WIDTH * 360 // 640)
    assert (thumbnail.frame, thumbnail.seconds) == (3, 0.12)
    small = write_clip(tmp_path / "small.mp4")
    (thumbnail,) = make_thumbnails(small, scores, [3])
    assert Image.open(io.BytesIO(thumbnail.jpeg)).size == (64, 48)


def test_the_address_of_a_thumbnail_holds_its_bytes(counting_clip, scores):
    (thumbnail,) = make_thumbnails(counting_clip, scores, [3])
    kind, content = thumbnail.data_uri.split(",")
    assert kind == "data:image/jpeg;base64"
    assert base64.b64decode(content) == thumbnail.jpeg
