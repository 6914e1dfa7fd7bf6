"""The library function `extract`, with an extractor that takes no time."""

import inspect

import numpy as np
import pytest

from extractors.build import ExtractorChoice, ExtractorError
from extractors.decoding.video import FrameFolder, Video
from extractors.names import EXTRACTORS
from pipeline.cli.extract import extract as command
from pipeline.extraction.errors import ExtractionError
from pipeline.extraction.extract import extract
from pipeline.extraction.feature_file import FeatureFileError, read_features
from pipeline.extraction.profiles import PROFILES


@pytest.fixture
def manifest(dataset, tmp_path, brightness, monkeypatch):
    """The path of a manifest of three videos; extractors are built in no time."""
    monkeypatch.setattr(ExtractorChoice, "build", lambda choice, device: brightness())
    path = tmp_path / "videos/small.csv"
    rows = "".join(f"{name}.mp4,train,0,\n" for name in "abc")
    path.write_text("path,split,label,anomalies\n" + rows)
    return path


def test_a_manifest_becomes_feature_files_a_summary_and_reports(manifest, tmp_path):
    (manifest.parent / "b.mp4").write_bytes(b"no video")
    reports = []
    summary = extract(
        manifest,
        features=tmp_path / "features",
        crops=1,
        flow="none",
        weights="random:0",
        device="cpu",
        report=reports.append,
    )
    assert (summary.n_done, summary.n_kept, summary.n_frames) == (2, 0, 400)
    assert [failure.video_id for failure in summary.failures] == ["b"]
    assert summary.folder == tmp_path / "features/small"
    assert sorted(path.name for path in summary.folder.glob("*.h5")) == ["a.h5", "c.h5", "index.h5"]
    assert {report.stage for report in reports} == {"extract"}
    assert reports[-1].done == reports[-1].total == 3
    messages = [report.message for report in reports if report.message]
    assert messages[0].startswith("device: cpu")
    assert "random weights: not pretrained" in messages
    assert any(message.startswith("failed: b: ") for message in messages)
    again = extract(manifest, features=tmp_path / "features", device="cpu")
    assert (again.n_done, again.n_kept, again.n_earlier) == (0, 2, 1)
    retried = extract(manifest, features=tmp_path / "features", device="cpu", retry_failed=True)
    assert (retried.n_kept, len(retried.failures), retried.n_earlier) == (2, 1, 0)


def test_a_shard_and_a_profile_are_messages(manifest, tmp_path):
    reports = []
    options = {"profile": "xd-official", "shard": "1/2", "device": "cpu"}
    summary = extract(manifest, features=tmp_path / "f", **options, report=reports.append)
    messages = [report.message for report in reports]
    assert "shard 1/2: begins with 2 of 3 videos" in messages
    assert any(message.startswith("profile xd-official: follows") for message in messages)
    assert summary.n_done == 3


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"engine": "spark"}, "engine must be local or ray, instead got spark"),
        ({"ray_address": "auto"}, "ray_address needs engine ray, instead got engine local"),
        ({"profile": "ucf"}, "profile must be one of default, xd-official"),
        ({"shard": "3/2"}, "shard must be i/N with i from 1 to N, instead got 3/2"),
    ],
)
def test_options_that_cannot_be_are_refused_and_nothing_is_written(
    manifest, tmp_path, options, complaint
):
    with pytest.raises(ExtractionError, match=complaint):
        extract(manifest, features=tmp_path / "f", **options)
    assert not (tmp_path / "f").exists()


def test_the_function_takes_every_option_of_the_command():
    ours = set(inspect.signature(extract).parameters) - {"report"}
    theirs = {parameter.name for parameter in command.params}
    assert ours == theirs - {"devices", "verbose", "quiet"}  # devices: given as `device`


def test_profiles_name_registered_extractors_and_fields_of_the_choice():
    for profile in PROFILES.values():
        assert set(profile.options) <= set(ExtractorChoice.__dataclass_fields__)
        assert profile.options.get("extractor", "i3d") in EXTRACTORS


def test_folders_of_frames_are_extracted_as_the_lossless_video_is(
    tmp_path, write_frames, brightness, monkeypatch
):
    monkeypatch.setattr(ExtractorChoice, "build", lambda choice, device: brightness())
    folder = write_frames(tmp_path / "videos/gate", 20)
    manifest = tmp_path / "videos/small.csv"
    manifest.write_text("path,split,label,anomalies\ngate,train,0,\n")
    options = {"features": tmp_path / "features", "device": "cpu"}
    (without_rate,) = extract(manifest, **options).failures
    assert without_rate.reason == (
        f"{folder} is a folder; to read its frames as a video, give their rate with --fps"
    )

    assert extract(manifest, fps=24, **options).n_done == 1

    stored = read_features(tmp_path / "features/small/gate.h5").features
    frames = np.concatenate([chunk.frames for chunk in Video(FrameFolder(folder, 24)).read(16)])
    padded = np.concatenate([frames, np.repeat(frames[-1:], 12, axis=0)])
    expected = padded.reshape(2, -1, 3).mean(axis=1)
    assert stored.streams["rgb"][:, 0] == pytest.approx(expected, rel=1e-3)  # float16
    assert stored.fps == 24
    assert stored.timestamps == pytest.approx(np.arange(20) / 24)
    assert extract(manifest, fps=24, **options).n_kept == 1
    # Another rate, or another frame, is another video.
    assert extract(manifest, fps=25, **options).n_done == 1
    (folder / "019.jpg").unlink()
    assert extract(manifest, fps=25, **options).n_done == 1
    (folder / "007.jpg").unlink()
    (damaged,) = extract(manifest, fps=25, **options).failures
    assert damaged.reason.startswith(f"{folder / '008.jpg'} follows frame 6, expected frame 7")


def test_a_folder_of_videos_may_be_named_by_text(manifest, tmp_path):
    elsewhere = (manifest.parent).rename(tmp_path / "elsewhere")
    manifest = (elsewhere / "small.csv").rename(tmp_path / "small.csv")
    summary = extract(manifest, videos=str(elsewhere), features=tmp_path / "f", device="cpu")
    assert summary.n_done == 3


def test_weights_may_be_named_by_a_path(manifest, tmp_path, monkeypatch, brightness):
    chosen = []
    monkeypatch.setattr(
        ExtractorChoice, "build", lambda choice, device: chosen.append(choice) or brightness()
    )
    weights, flow_weights = tmp_path / "mine.pt", tmp_path / "raft.pt"
    extract(
        manifest,
        weights=weights,
        flow="raft",
        flow_weights=flow_weights,
        features=tmp_path / "f",
        device="cpu",
    )
    assert (chosen[0].weights, chosen[0].flow_weights) == (str(weights), str(flow_weights))


@pytest.mark.parametrize("crops", ["5", 5.0, True, 3])
def test_what_is_no_number_of_crops_is_refused_as_it_was_given(manifest, tmp_path, crops):
    with pytest.raises(ExtractorError) as caught:
        extract(manifest, crops=crops, features=tmp_path / "f", device="cpu")
    assert str(caught.value) == f"crops must be 1, 5 or 10, instead got {crops!r}"


@pytest.mark.parametrize(("dataset", "kind"), [(None, "NoneType"), (["a.mp4"], "list")])
def test_what_is_no_dataset_is_refused_with_what_is_expected(dataset, kind):
    with pytest.raises(TypeError) as caught:
        extract(dataset)
    assert str(caught.value) == (
        f"dataset must be a name or the path of a manifest CSV, instead got {kind}"
    )


@pytest.mark.parametrize("is_link", [False, True])
def test_a_file_in_the_place_of_the_folder_of_features_is_named(manifest, tmp_path, is_link):
    place = tmp_path / "f/small"
    place.parent.mkdir()
    if is_link:
        place.symlink_to("nowhere")
    else:
        place.touch()
    with pytest.raises(FeatureFileError) as caught:
        extract(manifest, features=tmp_path / "f", device="cpu")
    assert str(caught.value) == (
        f"{place}: is not a folder, expected that of the dataset's features; remove it, or give "
        "another folder with --features"
    )
