"""The measurement of an evaluation's memory, on a few short videos."""

import h5py

from pipeline.experiments.evaluation_memory import measure_memory


def test_the_memory_of_an_evaluation_of_all_test_videos_is_measured(tmp_path):
    measured = measure_memory(
        tmp_path, n_videos=4, mean_frames=100, stream_dims={"rgb": 8, "flow": 8}
    )
    assert measured.n_videos == 4
    assert abs(measured.n_frames - 400) <= 2
    assert 50e6 < measured.peak_bytes < 2e9
    assert measured.describe().startswith(f"4 videos, {measured.n_frames} frames, 0.00 GB of")
    with h5py.File(tmp_path / "features/synthetic-4/0.h5") as file:
        assert file["flow"].shape[1:] == (5, 8)
        assert file["flow"].dtype == "float16"
