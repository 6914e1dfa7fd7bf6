"""Videos scored as they are decoded: which frames are in which snippet, at every stride."""

import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
import pytest
import torch

from extractors.decoding.decode_pool import DecodePool, SnippetDecoded, VideoLost
from extractors.engine import FramesDecoded, VideoFeatures, extract_videos
from extractors.snippets import DROP_TAIL, REPEAT_LAST_FRAME
from extractors.uploads import FrameUploads
from pipeline.scoring.score_streams import FrameCutter, VideoScored, score_streams
from pipeline.scoring.snippet_scores import snippet_scores

CPU = torch.device("cpu")


def decoded_frames(path):
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


@pytest.mark.parametrize("stride", [16, 8, 4, 1])
@pytest.mark.parametrize("n_frames", [5, 16, 17, 33, 40])
def test_every_pass_cuts_the_frames_from_its_own_first_frame_on(
    write_clip, read_number, tmp_path, n_frames, stride
):
    path = write_clip(tmp_path / "clip.mp4", n_frames=n_frames)
    found: dict[int, list[list[int]]] = {}
    cutter = FrameCutter(16, stride)

    def keep(snippets):
        for index, frames in snippets:
            found.setdefault(index, []).append([read_number(frame.numpy()) for frame in frames])

    with DecodePool(1, 16) as pool:
        for event in pool.decode([path]):
            if isinstance(event, SnippetDecoded):
                keep(cutter.cut(torch.from_numpy(event.frames), len(event.timestamps)))
    keep(cutter.rest())
    for index, first in enumerate(range(0, 16, stride)):
        expected = [
            [min(frame, n_frames - 1) for frame in range(begin, begin + 17)]
            for begin in range(first, n_frames, 16)
        ]
        assert found.get(index, []) == expected


def score_one(scorer, path, stride, **options):
    *_, last = score_streams(
        [path], scorer.extractor, scorer.checkpoint.model, device=CPU, stride=stride, **options
    )
    assert isinstance(last, VideoScored)
    return last.scores


def test_the_default_stride_gives_the_scores_of_extracted_features(
    brightness_scorer, counting_clip
):
    (features,) = [
        event.features
        for event in extract_videos(brightness_scorer.extractor, [counting_clip])
        if isinstance(event, VideoFeatures)
    ]
    expected = snippet_scores(brightness_scorer.checkpoint.model, features, device=CPU)
    scores = score_one(brightness_scorer, counting_clip, 16)
    assert scores.per_snippet.tolist() == expected.tolist()
    assert scores.timestamps.tolist() == features.timestamps.tolist()


@pytest.mark.parametrize("tail_policy", [REPEAT_LAST_FRAME, DROP_TAIL])
@pytest.mark.parametrize("stride", [8, 2])
def test_each_pass_is_scored_as_a_video_that_begins_at_its_first_frame(
    brightness_scorer, counting_clip, stride, tail_policy, features_of
):
    brightness_scorer.extractor.tail_policy = tail_policy
    scores = score_one(brightness_scorer, counting_clip, stride)
    frames = decoded_frames(counting_clip)
    n_passes = 16 // stride
    for index in range(n_passes):
        rest = frames[index * stride :]
        n_kept = -(-len(rest) // 16) if tail_policy == REPEAT_LAST_FRAME else (len(rest) - 1) // 16
        padded = np.concatenate([rest, np.repeat(rest[-1:], 16, axis=0)])
        means = np.stack(
            [padded[16 * i : 16 * i + 16].mean(axis=(0, 1, 2)) / 255 for i in range(n_kept)]
        ).astype(np.float32)
        streams = {"rgb": np.stack([means, means / 2], axis=1)}
        features = features_of(streams, len(rest), tail_policy=tail_policy)
        expected = snippet_scores(brightness_scorer.checkpoint.model, features, device=CPU)
        np.testing.assert_allclose(scores.per_snippet[index::n_passes], expected, atol=1e-6)
    assert scores.n_frames == 40
    assert scores.stride == stride


def test_a_video_that_fails_does_not_stop_the_others(brightness_scorer, counting_clip, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video")
    received = []
    failures = brightness_scorer.score_all(
        [bad, counting_clip], lambda path, scores: received.append((path, scores.n_frames))
    )
    assert received == [(counting_clip, 40)]
    assert [failure.video for failure in failures] == [bad]
    assert "bad.mp4" in failures[0].reason


def test_features_that_are_no_numbers_fail_the_video_alone(
    brightness_scorer, counting_clip, write_clip, tmp_path
):
    dark = write_clip(tmp_path / "dark.mp4", n_frames=16)
    embed = brightness_scorer.extractor.embed

    def embed_with_nan(snippets):
        features = embed(snippets)
        features["rgb"][features["rgb"][:, 0, 0] > 0.3] = float("nan")
        return features

    brightness_scorer.extractor.embed = embed_with_nan
    received = []
    failures = brightness_scorer.score_all(
        [counting_clip, dark], lambda path, scores: received.append(path)
    )
    assert [failure.video for failure in failures] == [counting_clip]
    assert received == [dark]
    assert "features must be finite" in failures[0].reason


def test_a_video_too_short_for_its_tail_policy_is_named(brightness_scorer, write_clip, tmp_path):
    brightness_scorer.extractor.tail_policy = DROP_TAIL
    short = write_clip(tmp_path / "short.mp4", n_frames=9)
    *_, last = score_streams(
        [short],
        brightness_scorer.extractor,
        brightness_scorer.checkpoint.model,
        device=CPU,
        stride=16,
    )
    assert isinstance(last, VideoLost)
    assert "short.mp4: too short: 9 frames make no snippet" in last.reason


def test_several_videos_are_counted_together(
    brightness_scorer, counting_clip, write_clip, tmp_path
):
    other = write_clip(tmp_path / "other.mp4", n_frames=20)
    events = list(
        score_streams(
            [counting_clip, other],
            brightness_scorer.extractor,
            brightness_scorer.checkpoint.model,
            device=CPU,
            stride=16,
        )
    )
    decoded = [event for event in events if isinstance(event, FramesDecoded)]
    assert {event.path: event.n_frames for event in decoded} == {counting_clip: 40, other: 20}
    assert [event.path for event in events if isinstance(event, VideoScored)] == [
        counting_clip,
        Path(other),
    ]


@pytest.mark.parametrize("stride", [0, 3, 17])
def test_a_stride_that_does_not_divide_the_snippet_is_refused(
    brightness_scorer, counting_clip, stride
):
    with pytest.raises(ValueError, match="stride must be a divisor of 16"):
        brightness_scorer.score(counting_clip, stride=stride)


def peak_mebibytes(n_snippets: int, window_len: int) -> float:
    program = Path(__file__).with_name("score_long_video.py")
    done = subprocess.run(
        [sys.executable, str(program), str(n_snippets), str(window_len)],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_video_except_by_scores_and_times():
    short, long = (peak_mebibytes(n, 2048) for n in (4096, 40960))
    # The features that are not held are 8 KiB a snippet: 288 MiB. Scores and times are 20 MiB.
    assert long - short < 40
    whole = peak_mebibytes(12288, 16384)  # the measurement sees features that are held: 96 MiB
    assert whole - short > 70


def test_videos_that_are_decoded_side_by_side_have_the_scores_of_each_alone(
    brightness_scorer, write_clip, tmp_path, monkeypatch
):
    clips = [write_clip(tmp_path / f"{n}.mp4", n_frames=n) for n in (5, 90, 33, 16)]
    alone = {clip: brightness_scorer.score(clip, stride=8).per_snippet.tolist() for clip in clips}
    monkeypatch.setattr("pipeline.scoring.score_streams.default_workers", lambda device: 3)
    together = {}
    failures = brightness_scorer.score_all(
        clips,
        lambda path, scores: together.update({path: scores.per_snippet.tolist()}),
        stride=8,
    )
    assert failures == []
    assert together == alone


@pytest.mark.parametrize("stride", [16, 4])
def test_scores_without_each_part_of_the_model_are_computed_on_request(
    brightness_scorer, counting_clip, stride
):
    plain = score_one(brightness_scorer, counting_clip, stride)
    explained = score_one(brightness_scorer, counting_clip, stride, explain=True)
    assert plain.without == {}
    assert explained.per_snippet.tolist() == plain.per_snippet.tolist()
    assert set(explained.per_frame_without) == {"context", "motion"}
    for per_frame in explained.per_frame_without.values():
        assert per_frame.shape == (40,)
        assert ((per_frame >= 0) & (per_frame <= 1)).all()
    # Each pass is explained by itself, as it is scored by itself.
    of_pass = {name: values[:: 16 // stride] for name, values in explained.without.items()}
    alone = score_one(brightness_scorer, counting_clip, 16, explain=True).without
    for name, values in alone.items():
        assert of_pass[name].tolist() == values.tolist()


@pytest.mark.parametrize("stride", [16, 8])
def test_the_distance_of_the_features_is_measured_on_the_way(
    brightness_scorer, counting_clip, stride
):
    found = score_one(brightness_scorer, counting_clip, stride).feature_distance
    # The model was not fitted, so the mean is 0 and the deviation 1; the second crop is a half.
    frames = decoded_frames(counting_clip).astype(np.float64) / 255
    rows = [np.minimum(np.arange(first, first + 16), 39) for first in range(0, 40, stride)]
    means = [frames[row].mean(axis=(0, 1, 2)).mean() for row in rows]
    assert found == pytest.approx(np.mean(means) * 0.75, abs=1e-4)


class RecordedUploads(FrameUploads):
    """Uploads to a device whose memory is not the decoders', as that of a GPU."""

    n_registered = 0
    uploaded: ClassVar[list[torch.Tensor]] = []

    def register(self, memory):
        type(self).n_registered += 1
        return lambda: None

    def upload(self, frames, *, is_pinned):
        assert is_pinned
        copied = torch.from_numpy(frames.copy())
        frames[:] = 255  # as if the decoder had gone on: nothing may read them any more
        self.uploaded.append(copied)
        return copied, None


@pytest.mark.parametrize("stride", [16, 4])
def test_scoring_uploads_each_decoded_snippet_once_from_pinned_memory(
    brightness_scorer, counting_clip, monkeypatch, stride
):
    expected = score_one(brightness_scorer, counting_clip, stride)
    monkeypatch.setattr(RecordedUploads, "n_registered", 0)
    monkeypatch.setattr(RecordedUploads, "uploaded", [])
    monkeypatch.setattr("pipeline.scoring.score_streams.FrameUploads", RecordedUploads)
    found = score_one(brightness_scorer, counting_clip, stride)
    assert found.per_snippet.tolist() == expected.per_snippet.tolist()
    assert RecordedUploads.n_registered == 1
    assert [len(frames) for frames in RecordedUploads.uploaded] == [17, 17, 17]
