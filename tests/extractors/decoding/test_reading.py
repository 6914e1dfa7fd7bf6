"""What is read of a file, against a slow loop over its packets and against what was written."""

import math
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from numpy.typing import NDArray

from extractors.decoding.video import Video, VideoError

Image = NDArray[np.uint8]
WriteClip = Callable[..., Path]
ReadNumber = Callable[[Image], int]


def read_all(path: Path) -> tuple[Video, Image, list[float]]:
    video = Video(path)
    chunks = list(video.read(16))
    frames = np.concatenate([chunk.frames for chunk in chunks])
    return video, frames, np.concatenate([chunk.timestamps for chunk in chunks]).tolist()


def read_slowly(path: Path) -> tuple[list[Image], list[float]]:
    """Every frame and time that FFmpeg shows: one packet after the other, on past errors."""
    frames: list[Any] = []
    with av.open(str(path)) as container:
        (stream,) = container.streams.video
        stream.codec_context.thread_count = 1
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                packet = None
            try:
                if packet is None:
                    frames += stream.codec_context.decode(None)
                elif packet.size:
                    frames += stream.codec_context.decode(packet)
            except av.FFmpegError:
                pass
            if packet is None:
                break
        times = [float(frame.pts * stream.time_base) for frame in frames]
        return [frame.to_ndarray(format="rgb24") for frame in frames], times


def remux(source: Path, target: Path, edit: Callable[[int, bytes], bytes], **options: str) -> Path:
    """Copy a clip with the bytes of its packets changed."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size]
        for i, packet in enumerate(packets):
            copy: Any = av.Packet(edit(i, bytes(packet)))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.duration, copy.is_keyframe, copy.stream = (
                packet.duration,
                packet.is_keyframe,
                stream,
            )
            new.mux(copy)
    return target


# --- the frames of many formats, whole and cut off

FORMATS = [
    ("libx264", "clip.mp4"),
    ("libx264", "fragments.mp4"),
    ("libx264", "clip.mov"),
    ("libx264", "clip.mkv"),
    ("libx264", "clip.avi"),
    ("libx264", "clip.ts"),
    ("libx264", "clip.flv"),
    ("libx265", "clip.mp4"),
    ("libx265", "clip.mkv"),
    ("libx265", "clip.ts"),
    ("libvpx", "clip.webm"),
    ("libvpx", "clip.ivf"),
    ("libvpx-vp9", "clip.webm"),
    ("libvpx-vp9", "clip.mp4"),
    ("libsvtav1", "clip.mp4"),
    ("libsvtav1", "clip.mkv"),
    ("mpeg4", "clip.avi"),
    ("mpeg4", "clip.mov"),
    ("mpeg2video", "clip.mpg"),
    ("mjpeg", "clip.avi"),
    ("mjpeg", "clip.mkv"),
    ("ffv1", "clip.mkv"),
    ("ffv1", "clip.nut"),
]

ENCODING = {
    "libx264": {"g": "12", "bf": "3", "sc_threshold": "0"},
    "libx265": {"x265-params": "keyint=12:bframes=3:log-level=none"},
    "libvpx-vp9": {"g": "12", "lag-in-frames": "16", "auto-alt-ref": "1"},
    "libsvtav1": {"g": "12", "preset": "12"},
    "mpeg4": {"g": "12", "bf": "0", "q": "3"},
}


@pytest.fixture(scope="module")
def write_format(
    tmp_path_factory: pytest.TempPathFactory, write_clip: WriteClip
) -> Callable[[str, str], Path]:
    folder = tmp_path_factory.mktemp("formats")

    def write(codec: str, name: str) -> Path:
        path = folder / f"{codec}_{name}"
        if not path.exists():
            pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            options = ENCODING.get(codec, {"g": "12"})
            write_clip(path, codec=codec, pix_fmt=pix_fmt, options=options)
            if name == "fragments.mp4":
                whole = path.rename(folder / "whole.mp4")
                fragments = {"movflags": "frag_keyframe+empty_moov"}
                remux(whole, path, lambda _, packet: packet, **fragments)
        return path

    return write


def expect_same(path: Path) -> Video:
    expected_frames, expected_times = read_slowly(path)
    video, frames, times = read_all(path)
    assert len(frames) == len(expected_frames)
    difference = np.abs(frames.astype(int) - np.stack(expected_frames))
    assert difference.max() <= 2  # what decord may differ by
    assert (np.diff(times) > 0).all()
    # AVI has the times of the order of decoding.
    if path.suffix != ".avi":
        np.testing.assert_allclose(times, expected_times, rtol=0, atol=1e-3)
    return video


@pytest.mark.parametrize(("codec", "name"), FORMATS)
def test_every_format_shows_what_a_slow_loop_shows_and_nothing_is_missing(
    write_format: Callable[[str, str], Path], read_number: ReadNumber, codec: str, name: str
) -> None:
    path = write_format(codec, name)
    video = expect_same(path)
    assert (video.n_frames_expected, video.n_missing) == (40, 0)
    assert [read_number(frame) for frame in read_all(path)[1]] == list(range(40))


@pytest.mark.parametrize("percent", [35, 62, 90])
@pytest.mark.parametrize(("codec", "name"), FORMATS)
def test_a_cut_file_shows_what_a_slow_loop_shows(
    tmp_path: Path,
    write_format: Callable[[str, str], Path],
    codec: str,
    name: str,
    percent: int,
) -> None:
    whole = write_format(codec, name).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: len(whole) * percent // 100])
    try:
        n_frames = len(read_slowly(path)[0])
    except (av.FFmpegError, ValueError):
        n_frames = 0
    if n_frames == 0:
        with pytest.raises(VideoError):
            Video(path)
        return
    video = expect_same(path)
    # These have an index, a count or a duration of all frames before them.
    if name in ("clip.mp4", "clip.avi", "clip.mkv", "clip.webm"):
        assert video.n_missing == 40 - n_frames
    else:
        assert video.n_missing <= 1  # the packet that is cut


# --- announced and never shown


def test_hidden_vp8_frames_are_not_missing(tmp_path: Path, write_clip: WriteClip) -> None:
    def hide(i: int, packet: bytes) -> bytes:
        return bytes([packet[0] & ~0x10]) + packet[1:] if i % 12 == 7 else packet

    sound = write_clip(tmp_path / "sound.webm", codec="libvpx")
    path = remux(sound, tmp_path / "hidden.webm", hide)
    video = expect_same(path)
    assert (video.n_frames_expected, video.n_missing) == (37, 0)


def test_hidden_vp9_frames_are_not_missing(tmp_path: Path, write_clip: WriteClip) -> None:
    def hide(i: int, packet: bytes) -> bytes:
        return bytes([packet[0] & ~0x02]) + packet[1:] if i % 12 == 7 else packet

    # The header of a keyframe is as long whether it is shown or not.
    sound = write_clip(tmp_path / "sound.webm", codec="libvpx-vp9", options={"g": "1"})
    # Muxers of other containers join a hidden frame and the one after it.
    path = remux(sound, tmp_path / "hidden.nut", hide)
    with av.open(str(path)) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == 40
    video = expect_same(path)
    assert (video.n_frames_expected, video.n_missing) == (37, 0)


def test_an_avi_header_that_counts_repeated_frames_makes_none_missing(
    tmp_path: Path, write_clip: WriteClip
) -> None:
    pts = [0, 1, 2, 3, 10, 11, 12, *range(20, 53)]
    path = write_clip(tmp_path / "gaps.avi", codec="mpeg4", pts=pts, options={"bf": "0"})
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 53
    video = expect_same(path)
    assert (video.n_frames_expected, video.n_missing) == (40, 0)
    np.testing.assert_allclose(read_all(path)[2], np.array(pts) / 25, rtol=0, atol=1e-6)


def test_a_matroska_header_that_announces_more_time_makes_no_frame_missing(
    tmp_path: Path, counting_clip: Path
) -> None:
    path = remux(counting_clip, tmp_path / "long.mkv", lambda _, packet: packet)
    content = path.read_bytes()
    duration = struct.pack(">Hbd", 0x4489, -0x78, 1600.0)
    assert content.count(duration) == 1
    path.write_bytes(content.replace(duration, struct.pack(">Hbd", 0x4489, -0x78, 9e3)))
    with av.open(str(path)) as container:
        assert container.duration == 9_000_000
    video = expect_same(path)
    assert (video.n_frames_expected, video.n_missing) == (40, 0)


@pytest.mark.parametrize(
    "unit",
    [b"\x09\xf0", b"\x06\x05\x01\x00\x80", b"\x0c\xff\x80", b"\x0a"],
    ids=["delimiter", "message", "filler", "end of sequence"],
)
def test_no_frame_is_lost_by_a_packet_without_frame_data(
    tmp_path: Path, counting_clip: Path, read_number: ReadNumber, unit: bytes
) -> None:
    path = tmp_path / "extra.mp4"
    with av.open(str(counting_clip)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets: list[Any] = [packet for packet in old.demux(video=0) if packet.size]
        step = packets[0].duration
        for i, packet in enumerate(packets):
            if i == 17:
                extra: Any = av.Packet(len(unit).to_bytes(4, "big") + unit)
                extra.pts, extra.dts, extra.time_base = packet.pts, packet.dts, packet.time_base
                extra.stream = stream
                new.mux(extra)
            if i >= 17:
                packet.pts, packet.dts = packet.pts + step, packet.dts + step
            packet.stream = stream
            new.mux(packet)
    video, frames, _ = read_all(path)
    assert [read_number(frame) for frame in frames] == list(range(40))
    assert video.n_missing == 0


def test_frames_that_wait_for_their_turn_before_a_broken_packet_are_shown(
    tmp_path: Path, counting_clip: Path, read_number: ReadNumber
) -> None:
    with av.open(str(counting_clip)) as container:
        packets: list[Any] = [packet for packet in container.demux(video=0) if packet.size]
    order = [round(packet.pts * packet.time_base * 25) for packet in packets]

    def damage(i: int, packet: bytes) -> bytes:
        return b"\xff" * len(packet) if i == 17 else packet

    path = remux(counting_clip, tmp_path / "broken.mp4", damage)
    video, frames, times = read_all_with_pyav(path)
    shown = sorted(order[:17]) + list(range(24, 40))
    assert [read_number(frame) for frame in frames] == shown
    np.testing.assert_allclose(times, np.array(shown) / 25, rtol=0, atol=1e-3)
    assert video.n_missing == 40 - len(shown)


def read_all_with_pyav(path: Path) -> tuple[Video, Image, list[float]]:
    video = Video(path, "pyav")
    chunks = list(video.read(16))
    frames = np.concatenate([chunk.frames for chunk in chunks])
    return video, frames, np.concatenate([chunk.timestamps for chunk in chunks]).tolist()


# --- side data that PyAV does not know

# What EXIF's orientations ask for, by the standard.
ORIENTATIONS: dict[int, Callable[[Image], Image]] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
}


def exif(orientation: int) -> bytes:
    """A JPEG segment that says how the frame is to be rotated."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    body = b"Exif\0\0" + b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize("suffix", ["avi", "mov", "mkv"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_jpeg_frames_with_exif_are_turned_as_it_says(
    tmp_path: Path, write_clip: WriteClip, suffix: str, orientation: int
) -> None:
    plain = write_clip(tmp_path / f"plain.{suffix}", codec="mjpeg", pix_fmt="yuvj420p", n_frames=3)
    path = remux(
        plain,
        tmp_path / f"exif.{suffix}",
        lambda _, packet: packet[:2] + exif(orientation) + packet[2:],
    )
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        with pytest.raises(ValueError, match="not a valid Type"):  # what PyAV 18 says of it
            assert frame.side_data
    expected = [ORIENTATIONS[orientation](image) for image in read_slowly(plain)[0]]
    video, frames, _ = read_all(path)
    np.testing.assert_array_equal(frames, expected)
    assert (video.height, video.width) == expected[0].shape[:2]


# --- files with several streams


def write_streams(path: Path, sizes: list[tuple[int, int]], n_frames: list[int]) -> Path:
    """A file of several enabled streams: the first is dark, the others are noise."""
    with av.open(str(path), "w") as container:
        streams: list[Any] = [container.add_stream("libx264", rate=25) for _ in sizes]
        for stream, (width, height) in zip(streams, sizes, strict=True):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.disposition = Disposition.default
        random = np.random.default_rng(0)
        for i in range(max(n_frames)):
            for stream, n in zip(streams, n_frames, strict=True):
                shape = (stream.height, stream.width, 3)
                image = random.integers(0, 256, shape, np.uint8)
                if stream is streams[0]:
                    image = np.full(shape, 20, np.uint8)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 25)
                if i < n:
                    container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("sizes", "n_frames"),
    [
        ([(64, 48), (32, 24)], [10, 10]),
        ([(64, 48), (64, 48)], [10, 10]),
        ([(64, 48), (128, 96)], [10, 1]),
    ],
    ids=["a depth map", "transparency", "a photograph"],
)
def test_the_main_stream_is_read_and_no_auxiliary_one(
    tmp_path: Path, sizes: list[tuple[int, int]], n_frames: list[int]
) -> None:
    path = write_streams(tmp_path / "two.mp4", sizes, n_frames)
    video, frames, _ = read_all(path)
    assert (len(frames), video.width, video.height) == (10, 64, 48)
    assert frames.max() < 40
    assert math.isclose(video.fps, 25)
