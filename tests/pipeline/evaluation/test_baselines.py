"""Motion energy of videos, and the shuffle and resampling of another video's context."""

import itertools

import av
import numpy as np
import pytest

from extractors.decoding.frame_folder import FrameFolder
from extractors.decoding.video import VideoError
from pipeline.evaluation.baselines import (
    ControlError,
    energies_of,
    motion_energies,
    permutation_without_fixed_points,
    stretched,
)


def energy_of(path, smoothing_len):
    ((_, energy),) = motion_energies([path], smoothing_len=smoothing_len)
    return energy


def test_a_permutation_without_fixed_points_moves_everything_and_loses_nothing():
    rng = np.random.default_rng(0)
    for n in range(2, 30):
        order = permutation_without_fixed_points(n, rng)
        assert sorted(order) == list(range(n))
        assert not (order == np.arange(n)).any()


def test_one_video_cannot_change_its_place():
    with pytest.raises(ValueError, match="2 videos or more, instead got 1"):
        permutation_without_fixed_points(1, np.random.default_rng(0))


@pytest.mark.parametrize(("n_before", "n_after"), [(3, 7), (7, 3), (1, 4), (4, 4)])
def test_stretching_keeps_the_order_and_covers_the_whole(n_before, n_after):
    features = np.arange(n_before, dtype=np.float32)[:, None, None]
    after = stretched(features, n_after)[:, 0, 0]
    assert len(after) == n_after
    assert (np.diff(after) >= 0).all()
    assert after[0] == 0
    if n_after >= n_before:
        assert set(after) == set(range(n_before))


def test_motion_energy_is_the_smoothed_percentile_of_the_frame_difference(counting_clip):
    with av.open(str(counting_clip)) as container:
        grays = [
            frame.to_ndarray(format="rgb24").astype(np.float64).mean(axis=2)
            for frame in container.decode(video=0)
        ]
    raw = [np.percentile(np.abs(b - a), 99) for a, b in itertools.pairwise(grays)]
    raw = raw[:1] + raw
    expected = [np.mean(raw[max(i - 2, 0) : i + 3]) for i in range(len(raw))]
    energy = energy_of(counting_clip, smoothing_len=5)
    assert energy.shape == (len(grays),)
    np.testing.assert_allclose(energy, expected, rtol=0.02, atol=1.0)


@pytest.mark.parametrize("n_frames", [1, 2, 63, 64, 65, 130])
def test_motion_energy_covers_every_frame_wherever_chunks_end(write_clip, tmp_path, n_frames):
    path = write_clip(tmp_path / "clip.mp4", n_frames=n_frames)
    with av.open(str(path)) as container:
        grays = [
            frame.to_ndarray(format="rgb24").astype(np.float64).mean(axis=2)
            for frame in container.decode(video=0)
        ]
    raw = [np.percentile(np.abs(b - a), 99) for a, b in itertools.pairwise(grays)]
    raw = raw[:1] + raw or [0.0]
    energy = energy_of(path, smoothing_len=1)
    assert len(energy) == n_frames
    np.testing.assert_allclose(energy, raw, rtol=0.02, atol=1.0)


def test_the_energies_of_several_videos_do_not_mix(write_clip, tmp_path):
    paths = [
        write_clip(tmp_path / f"{n_frames}.mp4", n_frames=n_frames) for n_frames in (30, 70, 10)
    ]
    found = dict(motion_energies(paths, smoothing_len=3))
    assert list(found) == paths
    for path in paths:
        np.testing.assert_array_equal(found[path], energy_of(path, smoothing_len=3))


def test_a_video_that_is_not_there_is_an_error_that_names_it(tmp_path):
    with pytest.raises(VideoError, match="absent"):
        energy_of(tmp_path / "absent.mp4", smoothing_len=3)


def test_the_motion_energy_of_a_folder_of_frames_has_a_value_for_every_frame(
    tmp_path, write_frames
):
    folder = FrameFolder(write_frames(tmp_path / "01_0014", 20), 24)
    found = energies_of({folder: 20}, smoothing_len=3)
    assert found[folder.path].shape == (20,)
    assert found[folder.path].min() > 0  # every frame has other blocks
    with pytest.raises(ControlError, match="has 20 frames now, its features are of 19"):
        energies_of({folder: 19}, smoothing_len=3)
