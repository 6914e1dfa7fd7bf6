"""Extraction on a Ray cluster of two nodes on this machine, one of which is killed."""

import pytest

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402

from extractors.build import ExtractorChoice  # noqa: E402
from pipeline.datasets.catalog import Dataset, VideoEntry  # noqa: E402
from pipeline.extraction.feature_file import read_features  # noqa: E402
from pipeline.extraction.ray_extract import RayError, extract_on_ray  # noqa: E402

CHOICE = ExtractorChoice("i3d", "none", 1, "random:0")


@pytest.mark.slow
def test_a_node_that_dies_in_mid_run_costs_nothing(write_clip, tmp_path):
    paths = [write_clip(tmp_path / f"{i}.mp4", n_frames=40) for i in range(10)]
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    paths.append(tmp_path / "broken.mp4")
    dataset = Dataset("small", tuple(VideoEntry(path.stem, path, "train", 0) for path in paths))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        outcomes = []
        for outcome in extract_on_ray(
            dataset.entries,
            tmp_path / "features/small",
            CHOICE,
            address=cluster.address,
            device="cpu",
            retry_failed=False,
        ):
            outcomes.append(outcome)
            if len(outcomes) == 2:
                cluster.remove_node(nodes[0], allow_graceful=False)
    finally:
        ray.shutdown()
        cluster.shutdown()
    ends = {outcome.video_id: outcome for outcome in outcomes}
    assert len(outcomes) == len(ends) == 11  # each video ends once
    assert ends.pop("broken").status == "failed"
    # What a dead node had just finished is found by the one that takes over.
    assert all(end.status in ("done", "kept") for end in ends.values())
    for video_id in ends:
        assert read_features(tmp_path / f"features/small/{video_id}.h5").features.n_frames == 40


def test_a_cluster_that_is_not_there_is_an_error_in_one_line(counting_clip, tmp_path):
    dataset = Dataset("small", (VideoEntry("a", counting_clip, "train", 0),))
    outcomes = extract_on_ray(
        dataset.entries,
        tmp_path,
        CHOICE,
        address="not an address",
        device="cpu",
        retry_failed=False,
    )
    with pytest.raises(RayError, match="no Ray cluster at not an address"):
        list(outcomes)
