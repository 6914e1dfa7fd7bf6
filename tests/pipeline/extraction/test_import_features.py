"""The import of published features, on miniature copies of the layouts as they are published."""

import math
import os
import pickle
import re
import tracemalloc
import unicodedata
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from extractors.snippets import DROP_TAIL, REPEAT_LAST_FRAME
from pipeline.datasets import load_dataset
from pipeline.datasets.catalog import Dataset, VideoEntry
from pipeline.evaluation.ground_truth import convention_labels
from pipeline.evaluation.ground_truth_conventions import WITHOUT_LAST_SNIPPET
from pipeline.extraction.feature_check import check_feature_file
from pipeline.extraction.feature_file import FeatureFileError, feature_path, read_features
from pipeline.extraction.import_features import ImportSummary, import_features
from pipeline.extraction.published_arrays import read_published
from pipeline.extraction.published_video import check_length, covered_frames
from pipeline.extraction.releases import IMPORTED_FROM, RELEASES, ImportFeaturesError

UCF = ("Abuse001_x264", "Arson011_x264", "Normal_Videos_003_x264")
XD = (
    "v=S-7rRLrxnVQ__#1_label_B4-0-0",
    "-Bad&Boys__#00-01-45_00-02-50_label_A",
    "Amélie.2001__#00-00-00_00-01-00_label_G-B2-B6",
)


def dataset(
    name: str, videos: tuple[str, ...], frame_counts: Mapping[str, int] | None = None
) -> Dataset:
    return Dataset(
        name,
        tuple(
            VideoEntry(video, Path(f"{video}.mp4"), "train", index % 2)
            for index, video in enumerate(videos)
        ),
        frame_counts=frame_counts or {},
    )


def values_of(n_snippets: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_snippets, *shape)).astype(np.float32)


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)
    return path


def write_rtfm(folder: Path, videos: tuple[str, ...] = UCF) -> dict[str, np.ndarray]:
    arrays = {name: values_of(index + 3, 10, 2048, seed=index) for index, name in enumerate(videos)}
    for name, values in arrays.items():
        save(folder / "UCF_Train_ten_crop_i3d" / f"{name}_i3d.npy", values)
    return arrays


def write_matlab_hdf5(path: Path, values: np.ndarray) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        # MATLAB stores its columns first.
        file.create_dataset("feature", data=values.T, chunks=values.T.shape, compression="gzip")
    content = bytearray(path.read_bytes())
    content[:19] = b"MATLAB 7.3 MAT-file"
    path.write_bytes(content)


def run(tmp_path: Path, videos: Dataset, folder: Path, **options: Any) -> ImportSummary:
    return import_features(videos, folder, features=tmp_path / "features", **options)


def stored(tmp_path: Path, name: str, video: str):
    path = feature_path(tmp_path / "features" / name, video)
    assert check_feature_file(path) == []
    return read_features(path, video_id=video)


def test_files_with_all_crops_become_feature_files_with_an_honest_provenance(tmp_path):
    arrays = write_rtfm(tmp_path / "rtfm")
    summary = run(tmp_path, dataset("ucf_crime", UCF), tmp_path / "rtfm", release="rtfm")
    assert (summary.n_imported, summary.problems, summary.extra) == (3, [], [])
    for name, values in arrays.items():
        video = stored(tmp_path, "ucf_crime", name)
        np.testing.assert_array_equal(video.features.streams["rgb"], values.astype(np.float16))
        assert video.features.n_frames == 16 * len(values)
        assert math.isnan(video.features.fps)
        assert "not known" in video.features.decoder
        assert video.provenance[IMPORTED_FROM] == "rtfm"
        assert "RTFM" in str(video.provenance["made_by"])
        assert video.provenance["streams"] == "rgb 2048-d"
        assert video.provenance["crops"] == 10
        assert video.provenance["fps"] == "not known"
        assert video.provenance["ground_truth"] == "rtfm"


def test_one_file_per_crop_is_put_together_in_the_order_of_the_crops(tmp_path):
    folder = tmp_path / "deepmil"
    crops = [values_of(4, 1024, seed=crop) for crop in range(10)]
    for crop, values in enumerate(crops):
        save(folder / "Abuse" / f"Abuse001_x264__{crop}.npy", values)
    summary = run(tmp_path, dataset("ucf_crime", UCF[:1]), folder, release="deepmil")
    assert summary.problems == []
    found = stored(tmp_path, "ucf_crime", UCF[0]).features.streams["rgb"]
    for crop, values in enumerate(crops):
        np.testing.assert_array_equal(found[:, crop], values.astype(np.float16))


def test_flow_beside_rgb_trims_rgb_to_the_length_of_the_flow(tmp_path):
    folder = tmp_path / "i3d-features"
    for video in XD:
        for crop in range(5):
            save(folder / "RGB" / f"{video}__{crop}.npy", values_of(5, 1024, seed=crop))
            save(folder / "FlowTest" / f"{video}__{crop}.npy", values_of(4, 1024, seed=crop + 50))
    summary = run(tmp_path, dataset("xd_violence", XD), folder, release="xdviodet")
    assert (summary.n_imported, summary.problems) == (3, [])
    for video in XD:
        found = stored(tmp_path, "xd_violence", video)
        assert list(found.features.streams) == ["rgb", "flow"]
        assert found.features.streams["rgb"].shape == (4, 5, 1024)
        # 65 frames are the fewest that make 4 snippets and a flow for each of their frames.
        assert (found.features.n_frames, found.features.tail_policy) == (65, DROP_TAIL)
        assert found.provenance["streams"] == "rgb 1024-d, flow 1024-d"
        expected = values_of(5, 1024, seed=2)[:4].astype(np.float16)
        np.testing.assert_array_equal(found.features.streams["rgb"][:, 2], expected)


def test_flow_that_is_two_snippets_shorter_is_misshapen(tmp_path):
    for crop in range(5):
        save(tmp_path / "r" / "RGB" / f"{XD[0]}__{crop}.npy", values_of(5, 1024))
        save(tmp_path / "r" / "Flow" / f"{XD[0]}__{crop}.npy", values_of(3, 1024))
    summary = run(tmp_path, dataset("xd_violence", XD[:1]), tmp_path / "r", release="xdviodet")
    assert len(summary.problems) == 1
    assert "instead got 3 beside 5" in summary.problems[0]


def test_names_in_another_unicode_form_are_the_same_names(tmp_path):
    decomposed = unicodedata.normalize("NFD", XD[2])
    assert decomposed != XD[2]
    for crop in range(5):
        save(tmp_path / "r" / f"{decomposed}__{crop}.npy", values_of(2, 1024))
    summary = run(tmp_path, dataset("xd_violence", XD[2:]), tmp_path / "r", release="xdviodet")
    assert (summary.n_imported, summary.problems) == (1, [])


@pytest.mark.parametrize("version", ["5", "5 compressed", "7.3"])
def test_matlab_files_of_both_kinds_are_read(tmp_path, version):
    values = values_of(4, 6, seed=3)
    path = tmp_path / "mat" / "Abuse001_x264.mat"
    path.parent.mkdir()
    if version == "7.3":
        write_matlab_hdf5(path, values)
    else:
        scipy.io.savemat(path, {"feature": values}, do_compression=version != "5")
    videos = dataset("ucf_crime", UCF[:1])
    summary = run(tmp_path, videos, tmp_path / "mat", release="other", made_by="us, with TSN")
    assert summary.problems == []
    video = stored(tmp_path, "ucf_crime", UCF[0])
    np.testing.assert_array_equal(video.features.streams["rgb"][:, 0], values.astype(np.float16))
    assert video.provenance["made_by"] == "us, with TSN"


def test_a_numpy_file_that_announces_a_header_beyond_its_end_is_refused_unread(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x02\x00" + (2**31).to_bytes(4, "little") + b"{}")
    tracemalloc.start()
    with pytest.raises(
        ImportFeaturesError, match="header must fit the file of 14 bytes, not 2147483648"
    ):
        read_published(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_matlab_file_that_announces_more_than_it_can_hold_is_refused_unread(tmp_path):
    path = tmp_path / "mat" / f"{UCF[0]}.mat"
    path.parent.mkdir()
    scipy.io.savemat(path, {"feature": values_of(4, 6)}, do_compression=True)
    content = path.read_bytes()
    plain = bytearray(zlib.decompress(content[136:]))
    plain[32:36] = (2**28).to_bytes(4, "little")  # the first of the two dimensions
    deflated = zlib.compress(plain)
    path.write_bytes(content[:132] + len(deflated).to_bytes(4, "little") + deflated)
    save(path.with_name(f"{UCF[1]}.npy"), values_of(4, 6))
    videos = dataset("ucf_crime", UCF[:2])
    summary = run(tmp_path, videos, tmp_path / "mat", release="other", made_by="us")
    assert summary.n_imported == 1
    assert len(summary.problems) == 1
    assert f"{path}: cannot be read" in summary.problems[0]
    assert "(268435456, 6) has 96 bytes" in summary.problems[0]


def test_a_matlab_file_that_crashes_other_readers_is_refused(tmp_path):
    """The type of its values is none, which scipy looks up without a check."""
    path = tmp_path / "v.mat"
    scipy.io.savemat(path, {"f": values_of(4, 6)})
    content = bytearray(path.read_bytes())
    assert content[176] == 7
    content[176] = 177
    path.write_bytes(content)
    with pytest.raises(ImportFeaturesError, match="must be real numbers"):
        read_published(path)


def test_small_whole_numbers_that_matlab_stores_as_integers_are_read(tmp_path):
    path = tmp_path / "v.mat"
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    scipy.io.savemat(path, {"f": values, "name": "a text is passed over"})
    content = bytearray(path.read_bytes())
    assert content[144] == 9  # an array of class uint8 ...
    content[144] = 6  # ... and now of class double, whose values are stored as uint8
    path.write_bytes(content)
    found = read_published(path)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("name", ["a.npy", "5.mat", "compressed.mat", "7.3.mat", "a.txt"])
def test_a_damaged_file_gives_numbers_or_one_error_and_never_another(tmp_path, name):
    values = values_of(4, 6)
    path = tmp_path / name
    match name:
        case "a.npy":
            np.save(path, values)
        case "a.txt":
            np.savetxt(path, values)
        case "7.3.mat":
            write_matlab_hdf5(path, values)
        case _:
            scipy.io.savemat(path, {"feature": values}, do_compression=name != "5.mat")
    whole = path.read_bytes()
    np.testing.assert_allclose(read_published(path), values, rtol=1e-6)
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(150):
        damaged = bytearray(whole)
        for position in rng.integers(min(len(whole), 700), size=2):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_published(path)
        except ImportFeaturesError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert all(message.startswith(str(path)) and "\n" not in message for message in messages)


def test_text_segments_are_read_and_given_to_the_frames_that_they_cover(tmp_path):
    folder = tmp_path / "C3D"
    folder.mkdir()
    segments = np.repeat(np.arange(32, dtype=np.float32)[:, None], 4096, axis=1)
    for name in UCF[:2]:
        np.savetxt(folder / f"{name}_C.txt", segments, fmt="%.6f")
    videos = dataset("ucf_crime", UCF[:2], {UCF[0]: 320})
    summary = run(tmp_path, videos, folder, release="c3d")
    assert summary.problems == []
    known = stored(tmp_path, "ucf_crime", UCF[0]).features
    # 320 frames: a segment is 10 frames, and frame 16 i + 8 is the middle of snippet i.
    assert known.n_frames == 320
    assert known.streams["rgb"][:, 0, 0].tolist() == [(16 * i + 8) // 10 for i in range(20)]
    unknown = stored(tmp_path, "ucf_crime", UCF[1]).features
    assert unknown.streams["rgb"][:, 0, 0].tolist() == list(range(32))
    assert unknown.n_frames == 512


def test_segments_of_a_test_video_whose_length_nobody_knows_are_refused(tmp_path):
    folder = tmp_path / "C3D"
    folder.mkdir()
    np.savetxt(folder / f"{UCF[0]}_C.txt", np.ones((32, 4096)), fmt="%.6f")
    entry = VideoEntry(UCF[0], Path("a.mp4"), "test", 1)
    for frame_counts, n_problems in (({}, 1), ({UCF[0]: 320}, 0)):
        videos = Dataset("ucf_crime", (entry,), frame_counts=frame_counts)
        summary = run(tmp_path, videos, folder, release="c3d")
        assert len(summary.problems) == n_problems
        assert feature_path(tmp_path / "features/ucf_crime", UCF[0]).exists() == (n_problems == 0)
    assert summary.n_imported == 1


@pytest.mark.parametrize(
    ("n_snippets", "n_frames", "expected"),
    [
        (3, 33, 33),  # the last snippet was filled up
        (3, 48, 48),
        (2, 33, 32),  # the incomplete last snippet was dropped
        (2, 48, 32),  # and a whole one as well
        (3, 32, 48),  # a snippet more than the frames make
    ],
)
def test_a_known_number_of_frames_is_taken_where_the_snippets_cover_it(
    tmp_path, n_snippets, n_frames, expected
):
    save(tmp_path / "r" / f"{UCF[0]}_i3d.npy", values_of(n_snippets, 10, 2048))
    videos = dataset("ucf_crime", UCF[:1], {UCF[0]: n_frames})
    summary = run(tmp_path, videos, tmp_path / "r", release="rtfm")
    assert summary.problems == []
    features = stored(tmp_path, "ucf_crime", UCF[0]).features
    assert features.n_frames == expected
    assert ("the dataset's" in features.decoder) == (expected == n_frames)


def test_the_frames_of_all_test_videos_of_ucf_crime_make_the_published_lengths():
    """By the numbers of snippets that two releases have, of the true numbers of frames."""
    frame_counts = load_dataset("ucf_crime", allow_duplicates=True).frame_counts
    dropped, filled = 0, 0
    for video, n_frames in frame_counts.items():
        n_dropped = n_frames // 16 - (video in WITHOUT_LAST_SNIPPET)
        n_filled = -(-n_frames // 16)
        for n_snippets in (n_dropped, n_filled):
            check_length(Path(video), n_snippets, n_frames)
        dropped += covered_frames(n_dropped, n_frames, REPEAT_LAST_FRAME)[0]
        filled += covered_frames(n_filled, n_frames, REPEAT_LAST_FRAME)[0]
    assert (len(frame_counts), dropped, filled) == (290, 1_109_680, 1_111_808)


def test_our_ground_truth_has_the_frames_that_imported_features_leave_out(
    tmp_path,
):
    save(tmp_path / "r" / f"{UCF[0]}.npy", values_of(2, 10, 1024))
    videos = dataset("ucf_crime", UCF[:1], {UCF[0]: 45})
    run(tmp_path, videos, tmp_path / "r", release="other", made_by="us")
    features = stored(tmp_path, "ucf_crime", UCF[0]).features
    assert features.n_frames == 32
    lengths = {
        convention: convention_labels(videos, convention, videos.entries[0], features).size
        for convention in ("annotation", "deepmil", "rtfm")
    }
    assert lengths == {"annotation": 45, "deepmil": 32, "rtfm": 48}


def test_snippets_that_cannot_be_of_the_video_are_misshapen(tmp_path):
    """Ten videos of a published release are 1.2 times too long."""
    save(tmp_path / "r" / f"{UCF[0]}_i3d.npy", values_of(24, 10, 2048))
    videos = dataset("ucf_crime", UCF[:1], {UCF[0]: 320})
    summary = run(tmp_path, videos, tmp_path / "r", release="rtfm")
    assert len(summary.problems) == 1
    assert "has 24 snippets, but the video has 320 frames" in summary.problems[0]


def with_nan(path: Path) -> None:
    values = values_of(3, 10, 2048)
    values[1, 2, 3] = np.nan
    save(path, values)


def cut_short(path: Path) -> None:
    save(path, values_of(3, 10, 2048))
    path.write_bytes(path.read_bytes()[:-100])


def with_a_huge_header(path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999, 10, 2048), }"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "not finite": with_nan,
    "width": lambda path: save(path, values_of(3, 10, 1024)),
    "crops": lambda path: save(path, values_of(3, 5, 2048)),
    "axes": lambda path: save(path, values_of(3, 2, 10, 8)),
    "too large for float16": lambda path: save(path, np.float32(1e6) * values_of(3, 10, 2048)),
    "cut short": cut_short,
    "empty": lambda path: path.write_bytes(b""),
    "integers": lambda path: save(path, np.ones((3, 10, 2048), np.int64)),
    "huge header": with_a_huge_header,
}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "no file below .* has its features"),
        ("not finite", "1 of its values are not finite"),
        ("width", "10 crops and D = 2048, instead got 10 crops and D = 1024"),
        ("crops", "10 crops and D = 2048, instead got 5 crops"),
        ("axes", "must have 2 or 3 axes"),
        ("too large for float16", "must fit float16"),
        ("cut short", "its header announces 245760 bytes, instead got 245660"),
        ("empty", "cannot be read"),
        ("integers", "must be floating point"),
        ("huge header", "must have at most .* bytes"),
    ],
)
def test_a_bad_file_is_named_and_stops_no_other(tmp_path, kind, reason):
    folder = tmp_path / "rtfm"
    write_rtfm(folder, (UCF[0], UCF[2]))
    path = folder / f"{UCF[1]}_i3d.npy"
    DAMAGES[kind](path)
    summary = run(tmp_path, dataset("ucf_crime", UCF), folder, release="rtfm")
    assert summary.n_imported == 2
    assert len(summary.problems) == 1
    assert UCF[1] in summary.problems[0]
    assert re.search(reason, summary.problems[0])
    assert not feature_path(tmp_path / "features" / "ucf_crime", UCF[1]).exists()
    counts = "1 without a file, 0 failed" if kind == "missing" else "0 without a file, 1 failed"
    assert f"2 imported, 0 there already, {counts}" in summary.describe()
    # Once it is mended, the next import takes it and keeps the others.
    save(path, values_of(3, 10, 2048))
    again = run(tmp_path, dataset("ucf_crime", UCF), folder, release="rtfm")
    assert (again.n_imported, again.n_kept, again.problems) == (1, 2, [])


def test_no_pickle_is_loaded(tmp_path):
    witness = tmp_path / "executed"

    class Hostile:
        def __reduce__(self):
            return Path.touch, (witness,)

    folder = tmp_path / "rtfm"
    write_rtfm(folder, UCF[1:])
    np.save(folder / f"{UCF[0]}_i3d.npy", np.array([Hostile()], dtype=object), allow_pickle=True)
    summary = run(tmp_path, dataset("ucf_crime", UCF), folder, release="rtfm")
    (folder / f"{UCF[0]}_i3d.npy").write_bytes(pickle.dumps(Hostile()))
    again = run(tmp_path, dataset("ucf_crime", UCF), folder, release="rtfm")
    assert len(summary.problems) == len(again.problems) == 1
    assert not witness.exists()


def test_a_missing_crop_and_a_second_file_are_named(tmp_path):
    folder = tmp_path / "deepmil"
    for crop in range(10):
        save(folder / f"{UCF[0]}__{crop}.npy", values_of(2, 1024))
        save(folder / "copy" / f"{UCF[1]}__{crop}.npy", values_of(2, 1024))
        save(folder / f"{UCF[1]}__{crop}.npy", values_of(2, 1024))
        if crop != 3:
            save(folder / f"{UCF[2]}__{crop}.npy", values_of(2, 1024))
    summary = run(tmp_path, dataset("ucf_crime", UCF), folder, release="deepmil")
    assert summary.n_imported == 1
    first, second = sorted(summary.problems, key=lambda line: "second" in line)
    assert f"{UCF[2]}__9.npy: crop 3 of the video is missing" in first
    assert "is a second file beside" in second


def test_a_changed_file_is_imported_anew_and_an_unchanged_one_is_kept(tmp_path):
    folder = tmp_path / "rtfm"
    write_rtfm(folder)
    videos = dataset("ucf_crime", UCF)
    run(tmp_path, videos, folder, release="rtfm")
    changed = values_of(3, 10, 2048, seed=9)
    save(folder / "UCF_Train_ten_crop_i3d" / f"{UCF[0]}_i3d.npy", changed)
    summary = run(tmp_path, videos, folder, release="rtfm")
    assert (summary.n_imported, summary.n_kept) == (1, 2)
    found = stored(tmp_path, "ucf_crime", UCF[0]).features.streams["rgb"]
    np.testing.assert_array_equal(found, changed.astype(np.float16))


def test_features_of_two_releases_do_not_mix_in_one_folder(tmp_path):
    write_rtfm(tmp_path / "rtfm")
    videos = dataset("ucf_crime", UCF)
    run(tmp_path, videos, tmp_path / "rtfm", release="rtfm")
    with pytest.raises(
        FeatureFileError, match=r"was imported with different settings .*imported_from"
    ):
        run(tmp_path, videos, tmp_path / "rtfm", release="tevad")
    assert stored(tmp_path, "ucf_crime", UCF[0]).provenance[IMPORTED_FROM] == "rtfm"


def test_a_list_with_dead_absolute_paths_chooses_files_by_the_ends_of_its_paths(tmp_path):
    folder = tmp_path / "sh"
    for split, seed in (("SH_Train", 1), ("SH_Test", 2)):
        save(folder / split / "01_0014_i3d.npy", values_of(2, 10, 2048, seed=seed))
    save(folder / "SH_Train" / "01_001_i3d.npy", values_of(2, 10, 2048))
    lines = ["/home/yu/yu_ssd/SH_Test/01_0014_i3d.npy", "/home/yu/SH_Test/01_0063_i3d.npy"]
    listing = tmp_path / "shanghai-i3d-test.list"
    listing.write_text("\n".join(lines))
    videos = dataset("shanghaitech", ("01_0014", "01_001", "01_0063"))
    summary = run(tmp_path, videos, folder, release="rtfm", lists=[listing])
    assert summary.n_imported == 1
    assert summary.problems == [f"01_0063_i3d.npy: is in {listing} but not below {folder}"]
    found = stored(tmp_path, "shanghaitech", "01_0014").features.streams["rgb"]
    expected = values_of(2, 10, 2048, seed=2).astype(np.float16)
    np.testing.assert_array_equal(found, expected)


def test_a_list_of_a_windows_editor_is_read(tmp_path):
    write_rtfm(tmp_path / "rtfm", UCF[:2])
    files = sorted(path.name for path in (tmp_path / "rtfm").rglob("*.npy"))
    listing = tmp_path / "list.txt"
    listing.write_bytes("\r\n".join(["\ufeff" + files[0], files[1]]).encode())
    summary = run(
        tmp_path, dataset("ucf_crime", UCF), tmp_path / "rtfm", release="rtfm", lists=[listing]
    )
    assert (summary.n_imported, summary.problems) == (2, [])


def test_a_list_that_is_no_regular_file_is_not_read(tmp_path):
    write_rtfm(tmp_path / "rtfm", UCF[:2])
    for listing, what in (
        (Path("/dev/null"), "not a regular file"),
        (tmp_path / "rtfm", "a folder"),
    ):
        with pytest.raises(ImportFeaturesError, match=f"^{listing}: is {what}, expected a list"):
            run(
                tmp_path,
                dataset("ucf_crime", UCF),
                tmp_path / "rtfm",
                release="rtfm",
                lists=[listing],
            )


def test_what_is_no_file_is_not_opened(tmp_path):
    write_rtfm(tmp_path / "rtfm", UCF[:2])
    os.mkfifo(tmp_path / "rtfm" / f"{UCF[2]}_i3d.npy")
    summary = run(tmp_path, dataset("ucf_crime", UCF), tmp_path / "rtfm", release="rtfm")
    assert summary.n_imported == 2
    assert summary.problems == [f"{UCF[2]}: no file below {tmp_path / 'rtfm'} has its features"]


def test_files_of_no_video_are_counted(tmp_path):
    write_rtfm(tmp_path / "rtfm")
    extra = save(tmp_path / "rtfm" / "gt-ucf.npy", np.ones(5))
    summary = run(tmp_path, dataset("ucf_crime", UCF), tmp_path / "rtfm", release="rtfm")
    assert summary.extra == [extra]
    assert f"1 files are of no video, first {extra}" in summary.describe()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"release": "mine"}, "--release must be one of rtfm, .*, other, instead got 'mine'"),
        ({"release": "other"}, "--made-by must say who made"),
        ({"release": "rtfm", "made_by": "us"}, "--made-by must say who made"),
    ],
)
def test_a_release_that_nobody_knows_must_say_who_made_it(tmp_path, options, message):
    write_rtfm(tmp_path / "rtfm")
    with pytest.raises(ImportFeaturesError, match=message):
        run(tmp_path, dataset("ucf_crime", UCF), tmp_path / "rtfm", **options)


def test_a_folder_without_a_file_of_any_video_is_refused_in_one_line(tmp_path):
    save(tmp_path / "other" / "holiday.npy", values_of(2, 10, 2048))
    with pytest.raises(ImportFeaturesError, match="none of its 1 files"):
        run(tmp_path, dataset("ucf_crime", UCF), tmp_path / "other", release="rtfm")
    with pytest.raises(ImportFeaturesError, match="is not a folder"):
        run(tmp_path, dataset("ucf_crime", UCF), tmp_path / "absent", release="rtfm")


@pytest.mark.parametrize("name", RELEASES)
def test_every_release_says_who_made_it_and_where_it_is_described(name):
    release = RELEASES[name]
    assert "https://github.com/" in release.made_by
    assert release.family
    assert release.tail_policy


# By release: dataset, width of a stream, and lines as the release's own list has them (`list/` of
# tianyu0207/RTFM, coranholmes/TEVAD, Roc-Ng/DeepMIL, Roc-Ng/XDVioDet and yujiangpu20/PEL4VAD).
CRIME = "save/Crime/UCF_ten_crop_i3d_v1/UCF_Test_ten_crop_i3d"
TEN = range(10)
REAL_LISTS = {
    "tevad, UCF-Crime": (
        *("tevad", "ucf_crime", 2048, 10),
        [f"/home/acsguser/Codes/RTFM/{CRIME}/Abuse028_x264_i3d.npy"],
    ),
    "tevad, XD-Violence": (
        *("tevad", "xd_violence", 1024, 5),
        [
            "/home/acsguser/Codes/RTFM/save/Violence/Violence_five_crop_i3d_v1/"
            "Shoot.Em.Up.2007__#00-56-56_00-57-15_label_B2-0-0_i3d.npy"
        ],
    ),
    "tevad, ShanghaiTech": (
        *("tevad", "shanghaitech", 2048, 10),
        ["/home/acsguser/Codes/RTFM/save/Shanghai/SH_ten_crop_i3d_v1/01_0015_i3d.npy"],
    ),
    "deepmil": (
        *("deepmil", "ucf_crime", 1024, 10),
        [
            "D:/137/dataset/VAD/features/UCF_Crime/I3D/Test/RGB\\Testing_Normal_Videos_Anomaly\\"
            f"Normal_Videos_941_x264{f'__{crop}' if crop else ''}.npy"
            for crop in TEN
        ],
    ),
    "xdviodet": (
        *("xdviodet", "xd_violence", 1024, 5),
        [
            f"/media/peng/Samsung_T5/i3d-features/{stream}Test/v=vHnAmx0UYbM__#1_label_A__{crop}.npy"
            for crop in range(5)
            for stream in ("RGB", "Flow")
        ],
    ),
    "pel4vad": (
        *("pel4vad", "shanghaitech", 1024, 10),
        [f"test/01_0015_{crop}.npy" for crop in TEN],
    ),
}


@pytest.mark.parametrize("name", REAL_LISTS)
def test_the_files_that_a_release_itself_lists_are_found_in_the_order_of_their_crops(
    tmp_path, name
):
    release, dataset_name, dim, n_crops, lines = REAL_LISTS[name]
    folder, listing = tmp_path / "release", tmp_path / "test.list"
    listing.write_text("".join(f"{line}\n" for line in lines))
    official = load_dataset(dataset_name, tmp_path / "nowhere")
    # Of the listed videos, the lengths of these are known.
    known = {"tevad, UCF-Crime": "Abuse028_x264", "deepmil": "Normal_Videos_941_x264"}
    n_snippets = -(-official.frame_counts[known[name]] // 16) if name in known else 3
    for index, line in enumerate(lines):
        parts = line.replace("\\", "/").split("/")[-2:]
        all_crops = (n_crops,) if len(lines) == 1 else ()
        save(folder / "/".join(parts), values_of(n_snippets, *all_crops, dim, seed=index))

    summary = run(tmp_path, official, folder, release=release, lists=[listing])

    (path,) = [
        path
        for path in (tmp_path / "features" / dataset_name).glob("*.h5")
        if "index" not in path.name
    ]
    assert (summary.n_imported, summary.extra) == (1, [])
    streams = stored(tmp_path, dataset_name, path.stem).features.streams
    assert list(streams) == (["rgb", "flow"] if release == "xdviodet" else ["rgb"])
    assert streams["rgb"].shape == (n_snippets, n_crops, dim)
    if len(lines) > 1:
        step = len(streams)
        for crop in range(n_crops):
            expected = values_of(n_snippets, dim, seed=crop * step).astype(np.float16)
            np.testing.assert_array_equal(streams["rgb"][:, crop], expected)
