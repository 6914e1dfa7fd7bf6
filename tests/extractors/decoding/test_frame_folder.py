"""Folders of frames are read as the lossless videos of them are."""

import os
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from extractors.decoding.decode_pool import DecodePool, SnippetDecoded, VideoEnded, VideoLost
from extractors.decoding.frame_folder import FrameFolder, list_frames
from extractors.decoding.video import Video, VideoError


def read_all(source):
    """The frames and times of a video."""
    chunks = list(Video(source).read(16))
    return (
        np.concatenate([chunk.frames for chunk in chunks]),
        np.concatenate([chunk.timestamps for chunk in chunks]),
    )


def mux_images(folder: Path, path: Path, fps: int) -> Path:
    """A video whose packets are the images as they are: nothing is encoded again."""
    images = sorted(folder.iterdir())
    codec = {".jpg": "mjpeg", ".png": "png"}[images[0].suffix]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24"}[codec]
        for index, image in enumerate(images):
            packet = av.Packet(image.read_bytes())
            packet.stream, packet.pts, packet.dts = stream, index, index
            packet.time_base, packet.is_keyframe = Fraction(1, fps), True
            container.mux(packet)
    return path


def encode_without_loss(folder: Path, path: Path, fps: int) -> Path:
    """An FFV1 video of the pixels."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for index, image in enumerate(sorted(folder.iterdir())):
            with av.open(str(image)) as source:
                frame = next(source.decode(video=0)).reformat(format="bgr0")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("to_video", [mux_images, encode_without_loss])
@pytest.mark.parametrize(("suffix", "fps", "first"), [(".jpg", 24, 0), (".png", 25, 1)])
def test_frames_and_times_equal_those_of_a_lossless_video_to_the_bit(
    tmp_path, write_frames, suffix, fps, first, to_video
):
    folder = write_frames(tmp_path / "01_0014", 20, suffix, first)
    expected, expected_times = read_all(to_video(folder, tmp_path / "lossless.avi", fps))

    frames, times = read_all(FrameFolder(folder, fps))

    assert frames.shape == (20, 48, 64, 3)
    assert np.array_equal(frames, expected)
    assert np.array_equal(times, expected_times)
    video = Video(FrameFolder(folder, fps))
    assert (video.path, video.fps, video.n_frames_expected) == (folder, fps, 20)
    assert (video.height, video.width, video.decoder) == (48, 64, "pyav")


def test_a_worker_process_decodes_a_folder_into_the_snippets_of_the_video(tmp_path, write_frames):
    folder = write_frames(tmp_path / "01_0014", 20)
    video = mux_images(folder, tmp_path / "lossless.avi", 24)
    snippets = {folder: [], video: []}
    ended = []
    with DecodePool(1, 16) as pool:
        for event in pool.decode([FrameFolder(folder, 24), video]):
            if isinstance(event, SnippetDecoded):
                snippets[event.path].append(event.frames.copy())
            if isinstance(event, VideoEnded):
                ended.append((event.path, event.n_missing))
    assert ended == [(folder, 0), (video, 0)]
    assert len(snippets[folder]) == 2
    assert np.array_equal(snippets[folder], snippets[video])


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    for number in (9, 10, 11):
        (tmp_path / f"frame-{number}.jpg").touch()
    (tmp_path / "Thumbs.db").touch()
    assert [path.stem for path in list_frames(tmp_path)] == ["frame-9", "frame-10", "frame-11"]


def test_a_gap_of_a_half_extracted_archive_is_refused(tmp_path, write_frames):
    folder = write_frames(tmp_path / "01_0014")
    (folder / "002.jpg").unlink()
    os.mkfifo(folder / "002.jpg")  # nor is anything waited for
    with pytest.raises(VideoError) as caught:
        Video(FrameFolder(folder, 24))
    assert str(caught.value) == (
        f"{folder / '003.jpg'} follows frame 1, expected frame 2; extract the archive of the "
        "frames again"
    )


def test_a_number_that_occurs_twice_is_refused(tmp_path, write_frames):
    folder = write_frames(tmp_path / "01_0014")
    (folder / "3.jpg").write_bytes((folder / "003.jpg").read_bytes())
    with pytest.raises(VideoError, match=r"follows frame 3, expected frame 4"):
        Video(FrameFolder(folder, 24))


def cut_off(path):
    """What a full disk leaves of an image: its end is missing."""
    os.truncate(path, path.stat().st_size - 20)


def claim_huge_dims(path):
    """Change the header of a JPEG image: 65,000 x 65,000 pixels."""
    content = bytearray(path.read_bytes())
    start = content.index(b"\xff\xc0") + 5
    content[start : start + 4] = (65_000).to_bytes(2, "big") * 2
    path.write_bytes(content)


SPOILED = {
    "empty": (lambda path: path.write_bytes(b""), "is empty (0 bytes); copy it again"),
    "no image": (lambda path: path.write_bytes(b"no image"), "cannot be decoded as an image"),
    "cut off": (cut_off, "cannot be decoded as an image (mjpeg) of at most 42000000 pixels"),
    "huge": (claim_huge_dims, "cannot be decoded as an image (mjpeg) of at most 42000000 pixels"),
    "large file": (lambda path: os.truncate(path, 100_000_000), "has 100000000 bytes, expected"),
}


@pytest.mark.parametrize("kind", SPOILED)
@pytest.mark.parametrize("number", [0, 3])
def test_a_frame_that_cannot_be_decoded_is_an_error_that_names_it(
    tmp_path, write_frames, kind, number
):
    folder = write_frames(tmp_path / "01_0014")
    spoil, message = SPOILED[kind]
    spoil(folder / f"{number:03d}.jpg")
    with pytest.raises(VideoError, match=re.escape(f"{folder / f'{number:03d}.jpg'} {message}")):
        read_all(FrameFolder(folder, 24))


def test_a_frame_of_another_format_is_an_error_that_names_it(tmp_path, write_frames, write_image):
    folder = write_frames(tmp_path / "01_0014")
    write_image(folder / "005.png")
    with pytest.raises(VideoError, match=r"005.png is not of the format of the folder's first"):
        read_all(FrameFolder(folder, 24))


def test_a_frame_of_another_size_is_an_error_that_names_it(tmp_path, write_frames, write_image):
    folder = write_frames(tmp_path / "01_0014")
    write_image(folder / "003.jpg", width=32)
    with pytest.raises(VideoError) as caught:
        read_all(FrameFolder(folder, 24))
    assert str(caught.value) == (
        f"{folder / '003.jpg'} has 32x48 pixels, expected 64x48 as the first frame of its folder"
    )


def test_a_damaged_frame_loses_its_video_and_no_other(tmp_path, write_frames):
    damaged, whole = write_frames(tmp_path / "a", 20), write_frames(tmp_path / "b", 20)
    cut_off(damaged / "018.jpg")
    with DecodePool(1, 16) as pool:
        events = list(pool.decode([FrameFolder(damaged, 24), FrameFolder(whole, 24)]))
    (lost,) = [event for event in events if isinstance(event, VideoLost)]
    assert lost.reason.startswith(f"{damaged / '018.jpg'} cannot be decoded as an image")
    assert (lost.path, lost.is_machine_error, lost.is_quarantined) == (damaged, False, False)
    assert [event.path for event in events if isinstance(event, VideoEnded)] == [whole]


def test_a_folder_without_frames_is_refused(tmp_path):
    with pytest.raises(VideoError, match="holds 0 frames; expected 1 to 1000000 images"):
        list_frames(tmp_path)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_a_rate_that_cannot_be_is_refused(tmp_path, fps):
    with pytest.raises(ValueError, match="fps must be finite and above 0"):
        FrameFolder(tmp_path, fps)


def test_a_thumbnail_before_the_image_does_not_hide_that_the_image_is_cut_off(
    tmp_path, write_frames
):
    folder = write_frames(tmp_path / "01_0014", 1)
    image = (folder / "000.jpg").read_bytes()
    thumbnail = b"\xff\xe1" + (len(image) + 2).to_bytes(2, "big") + image  # in an APP1 segment
    (folder / "000.jpg").write_bytes(image[:2] + thumbnail + image[2:])
    frames, _ = read_all(FrameFolder(folder, 24))
    assert frames.shape == (1, 48, 64, 3)
    cut_off(folder / "000.jpg")
    with pytest.raises(VideoError, match="cannot be decoded"):
        read_all(FrameFolder(folder, 24))
