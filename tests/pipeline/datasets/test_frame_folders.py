"""Folders of frames become video files with the same pixels."""

import os
import re
import shutil
from fractions import Fraction

import av
import numpy as np
import pytest

from extractors.decoding.video import Video
from pipeline.datasets import load_dataset
from pipeline.datasets.catalog import DatasetError
from pipeline.datasets.check import check_dataset
from pipeline.datasets.frame_folders import list_frames, pack_dataset, pack_frames
from pipeline.progress import Progress


def write_image(path, seed=0, *, width=64, height=48):
    """Write one image of random blocks, in the format that its suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec, pix_fmt = ("png", "rgb24") if path.suffix == ".png" else ("mjpeg", "yuvj420p")
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    image = np.kron(blocks, np.ones((8, 8, 1), np.uint8))
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = width, height, pix_fmt
    context.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pix_fmt)
    packets = [*context.encode(frame), *context.encode(None)]
    path.write_bytes(b"".join(map(bytes, packets)))


def write_folder(folder, n_frames=5, suffix=".jpg", first=0):
    for number in range(first, first + n_frames):
        write_image(folder / f"{number:03d}{suffix}", number)
    return folder


def decode_image(path):
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


@pytest.mark.parametrize(("suffix", "fps", "first"), [(".jpg", 24, 0), (".png", 25, 1)])
def test_a_packed_folder_shows_the_same_pixels_at_the_given_rate(tmp_path, suffix, fps, first):
    folder = write_folder(tmp_path / "01_0014", 5, suffix, first)

    pack_frames(folder, tmp_path / "01_0014.avi", fps=fps)

    video = Video(tmp_path / "01_0014.avi")
    (chunk,) = video.read(100)
    assert video.fps == fps
    assert chunk.timestamps == pytest.approx(np.arange(5) / fps)
    for frame, path in zip(chunk.frames, sorted(folder.iterdir()), strict=True):
        assert np.array_equal(frame, decode_image(path))


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    for number in (9, 10, 11):
        (tmp_path / f"frame-{number}.jpg").touch()
    (tmp_path / "Thumbs.db").touch()
    assert [path.stem for path in list_frames(tmp_path)] == ["frame-9", "frame-10", "frame-11"]


def test_a_gap_of_a_half_extracted_archive_is_refused(tmp_path):
    folder = write_folder(tmp_path / "01_0014")
    (folder / "002.jpg").unlink()
    os.mkfifo(folder / "002.jpg")  # nor is anything waited for
    with pytest.raises(DatasetError) as caught:
        pack_frames(folder, tmp_path / "out.avi", fps=24)
    assert str(caught.value) == (
        f"{folder / '003.jpg'}: follows frame 1, expected frame 2; extract the archive of the "
        "frames again"
    )
    assert not (tmp_path / "out.avi").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: write_image(path, width=32), "is mjpeg 32x48, expected mjpeg 64x48"),
        (lambda path: path.write_bytes(b""), "cannot be read as an image"),
        (lambda path: path.write_bytes(b"no image"), "cannot be read as an image"),
        (lambda path: os.truncate(path, 100_000_000), "is larger than 67108864 bytes"),
    ],
)
def test_a_frame_that_does_not_fit_is_named_and_nothing_is_left(tmp_path, spoil, message):
    folder = write_folder(tmp_path / "01_0014")
    spoil(folder / "003.jpg")
    with pytest.raises(DatasetError, match=re.escape(f"{folder / '003.jpg'}: {message}")):
        pack_frames(folder, tmp_path / "out.avi", fps=24)
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_without_frames_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="holds 0 frames, expected 1 to 1000000"):
        list_frames(tmp_path)


def test_the_official_layout_of_shanghaitech_is_packed_and_then_complete(tmp_path):
    official = tmp_path / "shanghaitech/testing/frames"
    for name in ("01_0014", "01_0015"):
        write_folder(official / name)
    write_folder(tmp_path / "shanghaitech/testing/other/01_9999")
    dataset = load_dataset("shanghaitech", tmp_path)
    (line,) = [line for line in check_dataset(dataset).describe() if "01_0014" in line]
    assert line.endswith(f", but its frames are in {official / '01_0014'}: pipeline datasets pack")
    reports: list[Progress] = []

    written = pack_dataset(dataset, fps=24, report=reports.append)

    assert set(written) == {official / "01_0014.avi", official / "01_0015.avi"}
    assert [(report.done, report.total) for report in reports] == [(1, 2), (2, 2)]
    packed = load_dataset("shanghaitech", tmp_path)
    assert {entry.path for entry in packed.entries if entry.path.exists()} == set(written)
    assert check_dataset(packed).unreadable == ()
    assert pack_dataset(packed, fps=24) == []


def test_two_folders_of_frames_for_one_video_are_refused(tmp_path):
    folder = write_folder(tmp_path / "a/01_0014", 1)
    shutil.copytree(folder, tmp_path / "b/01_0014")
    with pytest.raises(DatasetError, match="holds two folders of frames of one name"):
        pack_dataset(load_dataset("shanghaitech", tmp_path), fps=24)


def test_avenue_frames_are_told_apart_by_their_folder(tmp_path):
    write_folder(tmp_path / "testing_videos/02")
    write_folder(tmp_path / "elsewhere/03")
    written = pack_dataset(load_dataset("avenue", tmp_path), fps=25)
    assert written == [tmp_path / "testing_videos/02.avi"]
