"""Live snippet scores beside those of whole videos."""

import av
import numpy as np
import pytest
import torch

from extractors.engine import VideoFeatures, extract_videos
from extractors.features import Features
from models import MODELS, model_class
from pipeline.runs.feature_distance import snippet_distance
from pipeline.scoring.live_scores import FeatureValueError, LiveScorer
from pipeline.scoring.snippet_scores import snippet_scores

CPU = torch.device("cpu")


def snippets_of(path, read_frames):
    frames = read_frames(path)
    for start in range(0, len(frames), 16):
        index = np.minimum(np.arange(start, start + 17), len(frames) - 1)
        yield frames[index]


@pytest.fixture
def read_frames():

    def read(path):
        with av.open(str(path)) as container:
            return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])

    return read


def features_of(scorer, path):
    (features,) = [
        event.features
        for event in extract_videos(scorer.extractor, [path])
        if isinstance(event, VideoFeatures)
    ]
    return features


def first_snippets(features, start, stop):
    n_frames = min(16 * stop, features.n_frames) - 16 * start
    return Features(
        streams={name: values[start:stop] for name, values in features.streams.items()},
        snippet_len=16,
        n_frames=n_frames,
        n_missing=0,
        fps=features.fps,
        timestamps=features.timestamps[16 * start : 16 * start + n_frames],
        decoder="any",
    )


@pytest.fixture(scope="module")
def clip(write_clip, tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "long.mp4", n_frames=168)


@pytest.mark.parametrize(("max_window_len", "of_model"), [(256, None), (4, None), (256, 4)])
@pytest.mark.parametrize("name", MODELS)
def test_a_live_score_is_that_of_the_last_snippet_of_the_video_so_far(
    brightness_scorer, clip, read_frames, name, max_window_len, of_model
):
    torch.manual_seed(0)
    kind = model_class(name)
    model = kind(kind.config_type(stream_dims=(("rgb", 3),), window_len=of_model)).eval()
    live = LiveScorer(brightness_scorer.extractor, model, CPU, max_window_len)
    window_len = of_model or max_window_len
    live.warm_up()
    found = [live.score(frames) for frames in snippets_of(clip, read_frames)]
    features = features_of(brightness_scorer, clip)
    expected = [
        snippet_scores(model, first_snippets(features, max(0, i - window_len), i), device=CPU)[-1]
        for i in range(1, features.n_snippets + 1)
    ]
    assert found == pytest.approx(expected, abs=1e-5)
    assert np.ptp(found) > 1e-3
    whole = snippet_scores(model, features, device=CPU)
    if window_len == 256:
        assert found[-1] == pytest.approx(whole[-1], abs=1e-5)
    if name == "clav-como":  # earlier scores of the whole video have seen what came later
        assert np.abs(whole - found)[:-1].max() > 1e-4


def test_after_forgetting_a_snippet_is_scored_as_the_first_of_a_video(
    brightness_scorer, clip, read_frames
):
    model = brightness_scorer.checkpoint.model
    live = LiveScorer(brightness_scorer.extractor, model, CPU)
    first, second, third, *_ = snippets_of(clip, read_frames)
    alone = live.score(third)
    live.forget()
    live.score(first)
    live.score(second)
    assert live.score(third) != alone
    live.forget()
    assert live.score(third) == alone


def test_the_feature_distance_is_the_mean_over_the_last_snippets_once_there_are_enough(
    brightness_scorer, clip, read_frames
):
    model = brightness_scorer.checkpoint.model
    live = LiveScorer(brightness_scorer.extractor, model, CPU, max_window_len=3)
    live.warm_up()  # which must not count
    found = []
    for frames in snippets_of(clip, read_frames):
        live.score(frames)
        found.append(live.feature_distance)
        live.forget()  # another stretch is of the same camera
    values = features_of(brightness_scorer, clip).streams["rgb"]
    each = [snippet_distance(model.input_norm, {"rgb": value}) for value in values]
    assert np.std(each) > 1e-3
    expected = [np.mean(each[i - 3 : i]) for i in range(3, len(each) + 1)]
    assert found[:2] == [None, None]
    assert found[2:] == pytest.approx(expected, rel=1e-5)


def test_a_snippet_whose_features_are_not_finite_is_left_out(brightness_scorer, clip, read_frames):
    extractor, model = brightness_scorer.extractor, brightness_scorer.checkpoint.model
    first, second, *_ = snippets_of(clip, read_frames)
    live = LiveScorer(extractor, model, CPU)
    live.score(first)
    expected = live.score(second)
    live.forget()
    live.score(first)
    prepare = extractor.prepare
    extractor.prepare = lambda frames: {"rgb": torch.full((3,), torch.nan)}
    with pytest.raises(FeatureValueError, match="finite"):
        live.score(second)
    extractor.prepare = prepare
    assert live.score(second) == expected
