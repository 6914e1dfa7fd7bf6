"""Reading of video files: frames, times, rotation, damage, and errors in one line."""

import os
import subprocess
import sys
import wave
from collections.abc import Callable
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pytest
from av.stream import Disposition
from numpy.typing import NDArray

from extractors.decoding import decord_reader
from extractors.decoding.video import DecoderFailure, FrameChunk, Video, VideoError

Decoder = Literal["decord", "pyav"]
Image = NDArray[np.uint8]
ReadNumber = Callable[[Image], int]
WriteClip = Callable[..., Path]

needs_decord = pytest.mark.skipif(find_spec("decord") is None, reason="decord is not installed")
KEYFRAMES_ONLY_P = {"g": "12", "sc_threshold": "0", "bf": "0"}

DECODERS = ["pyav", pytest.param("decord", marks=needs_decord)]


def read_all(video: Video, chunk_len: int = 16) -> tuple[Image, NDArray[np.float64]]:
    chunks = list(video.read(chunk_len))
    assert [len(chunk.frames) for chunk in chunks[:-1]] == [chunk_len] * (len(chunks) - 1)
    frames = np.concatenate([chunk.frames for chunk in chunks])
    assert frames.shape[1:] == (video.height, video.width, 3)
    return frames, np.concatenate([chunk.timestamps for chunk in chunks])


def read_tolerantly(path: Path) -> tuple[Video, Image, NDArray[np.float64]]:
    video = Video(path)
    try:
        return video, *read_all(video)
    except DecoderFailure:
        video = Video(path, "pyav")
        return video, *read_all(video)


def packet_spans(path: Path) -> list[tuple[int, int]]:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    return [(packet.pos or 0, packet.size) for packet in packets]


def break_packets(source: Path, target: Path, numbers: list[int]) -> Path:
    content = bytearray(source.read_bytes())
    for number in numbers:
        start, n_bytes = packet_spans(source)[number]
        content[start : start + n_bytes] = b"\xff" * n_bytes
    target.write_bytes(content)
    return target


def set_display_matrix(source: Path, target: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write (a, b, c, d) into the track header of an mp4, which has it before width and height."""
    content = bytearray(source.read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    start = content.index(b"tkhd") + 4 + 40
    values = [a, b, 0, c, d, 0, 0, 0, 1 << 30]
    content[start : start + 36] = b"".join(
        value.to_bytes(4, "big", signed=True) for value in values
    )
    target.write_bytes(content)
    return target


# --- frames and times of sound files


@pytest.mark.parametrize("decoder", DECODERS)
def test_frames_come_in_order_and_each_has_its_time(
    counting_clip: Path, read_number: ReadNumber, decoder: Decoder
) -> None:
    video = Video(counting_clip, decoder)
    frames, timestamps = read_all(video)
    assert (video.width, video.height, video.fps) == (64, 48, 25.0)
    assert video.decoder == decoder
    assert video.decoder_version.startswith(f"{decoder} ")
    assert [read_number(frame) for frame in frames] == list(range(40))
    np.testing.assert_allclose(timestamps, np.arange(40) / 25, rtol=0, atol=1e-9)
    assert (video.n_frames_expected, video.n_missing) == (40, 0)


@needs_decord
def test_decord_is_first(counting_clip: Path) -> None:
    assert Video(counting_clip).decoder == "decord"


def test_without_decord_pyav_reads(counting_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decord_reader, "decord", None)
    assert Video(counting_clip).decoder == "pyav"
    with pytest.raises(DecoderFailure, match="decoder='pyav'"):
        Video(counting_clip, "decord")


@needs_decord
def test_both_decoders_give_the_same_pixels(counting_clip: Path) -> None:
    frames, timestamps = read_all(Video(counting_clip, "decord"))
    others, other_timestamps = read_all(Video(counting_clip, "pyav"))
    np.testing.assert_array_equal(frames, others)
    np.testing.assert_array_equal(timestamps, other_timestamps)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("chunk_len", [1, 7, 16, 39, 40, 41, 10_000_000])
def test_every_chunk_len_gives_the_same_frames(
    counting_clip: Path, decoder: Decoder, chunk_len: int
) -> None:
    frames, timestamps = read_all(Video(counting_clip, decoder), chunk_len)
    others, other_timestamps = read_all(Video(counting_clip, decoder), 16)
    np.testing.assert_array_equal(frames, others)
    np.testing.assert_array_equal(timestamps, other_timestamps)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_video_can_be_read_again_after_a_half_read(counting_clip: Path, decoder: Decoder) -> None:
    video = Video(counting_clip, decoder)
    first = next(video.read(5))
    frames, _ = read_all(video)
    np.testing.assert_array_equal(frames[:5], first.frames)
    assert len(frames) == 40


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_variable_frame_rate_keeps_every_frames_own_time(
    tmp_path: Path, write_clip: WriteClip, read_number: ReadNumber, decoder: Decoder
) -> None:
    pts = np.cumsum([0, *[1, 2, 7, 1, 30, 3] * 5])
    path = write_clip(tmp_path / "vfr.mp4", n_frames=len(pts), pts=pts.tolist(), fps=100)
    frames, timestamps = read_all(Video(path, decoder))
    assert [read_number(frame) for frame in frames] == list(range(len(pts)))
    np.testing.assert_allclose(timestamps, pts / 100, rtol=0, atol=5e-4)


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_first_time_may_be_other_than_zero(
    tmp_path: Path, write_clip: WriteClip, decoder: Decoder
) -> None:
    path = write_clip(tmp_path / "late.mp4", pts=range(50, 90))
    _, timestamps = read_all(Video(path, decoder))
    np.testing.assert_allclose(timestamps, np.arange(50, 90) / 25, rtol=0, atol=5e-4)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ten_bit.mp4", {"pix_fmt": "yuv420p10le"}),
        ("odd.mp4", {"pix_fmt": "yuv444p", "width": 65, "height": 49}),
        ("odd.webm", {"codec": "libvpx-vp9", "width": 65, "height": 49}),
        ("narrow.mp4", {"width": 8, "height": 8}),
        ("clip.mkv", {}),
        ("clip.ts", {}),
        ("clip.avi", {"codec": "mpeg4"}),
        ("b_frames.avi", {}),
        ("raw.h264", {}),
    ],
)
def test_any_format_shows_its_frames_in_order(
    tmp_path: Path,
    write_clip: WriteClip,
    read_number: ReadNumber,
    name: str,
    settings: dict[str, Any],
) -> None:
    video = Video(write_clip(tmp_path / name, **settings))
    frames, timestamps = read_all(video)
    assert [read_number(frame) for frame in frames] == list(range(40))
    assert (video.width, video.height) == (settings.get("width", 64), settings.get("height", 48))
    np.testing.assert_allclose(np.diff(timestamps), 1 / 25, rtol=0, atol=5e-4)
    assert video.n_missing == 0


def test_a_stream_that_changes_its_size_keeps_the_first(
    tmp_path: Path, write_clip: WriteClip, read_number: ReadNumber
) -> None:
    small = write_clip(tmp_path / "small.h264", n_frames=12)
    large = write_clip(tmp_path / "large.h264", n_frames=12, width=128, height=96)
    path = tmp_path / "both.h264"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    frames, _ = read_all(Video(path))
    assert frames.shape[1:3] == (48, 64)
    assert [read_number(frame) for frame in frames] == [*range(12), *range(12)]


@pytest.fixture(scope="module")
def wide_clip(tmp_path_factory: pytest.TempPathFactory, write_clip: WriteClip) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "wide.mp4", width=128, height=96)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("matrix", "n_quarter_turns"),
    [((0, 1, -1, 0), 3), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)],
)
def test_frames_are_rotated_as_the_file_asks(
    tmp_path: Path,
    wide_clip: Path,
    matrix: tuple[int, int, int, int],
    n_quarter_turns: int,
    decoder: Decoder,
) -> None:
    path = set_display_matrix(wide_clip, tmp_path / "turned.mp4", matrix)
    frames, _ = read_all(Video(path, decoder))
    upright, _ = read_all(Video(wide_clip, decoder))
    np.testing.assert_array_equal(frames, np.rot90(upright, n_quarter_turns, axes=(1, 2)))


@pytest.mark.parametrize(("matrix", "axis"), [((-1, 0, 0, 1), 2), ((1, 0, 0, -1), 1)])
def test_frames_are_mirrored_as_the_file_asks(
    tmp_path: Path, wide_clip: Path, matrix: tuple[int, int, int, int], axis: int
) -> None:
    path = set_display_matrix(wide_clip, tmp_path / "mirrored.mp4", matrix)
    frames, _ = read_all(Video(path))
    upright, _ = read_all(Video(wide_clip))
    np.testing.assert_array_equal(frames, np.flip(upright, axis))


def test_a_frame_rotated_by_another_angle_stays_upright(tmp_path: Path, wide_clip: Path) -> None:
    path = set_display_matrix(wide_clip, tmp_path / "slanted.mp4", (1, 1, -1, 1))
    frames, _ = read_all(Video(path))
    np.testing.assert_array_equal(frames, read_all(Video(wide_clip))[0])


@needs_decord
def test_a_video_too_large_for_decord_to_read_ahead_goes_to_pyav(
    counting_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decord_reader, "MAX_DECORD_BYTES", 40 * 48 * 64 * 3 - 1)
    assert Video(counting_clip).decoder == "pyav"


def test_of_two_streams_the_one_that_players_take_is_read_with_pyav(tmp_path: Path) -> None:
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as container:
        streams: list[Any] = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for stream, width in zip(streams, (64, 128), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
            stream.bit_rate = width * 1000
        random = np.random.default_rng(0)
        for i in range(10):
            for stream in streams:
                image = random.integers(0, 256, (48, stream.width, 3), np.uint8)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        best: Any = container.streams.best("video")
        expected_width = best.width
    video = Video(path)
    assert (video.width, video.decoder) == (expected_width, "pyav")


# --- damaged files


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi"])
@pytest.mark.parametrize("n_frames_left", [11, 40, 65])
def test_a_file_cut_off_gives_the_frames_up_to_there_and_counts_the_rest(
    tmp_path: Path, write_clip: WriteClip, read_number: ReadNumber, name: str, n_frames_left: int
) -> None:
    sound = write_clip(tmp_path / name, n_frames=80, options=KEYFRAMES_ONLY_P)
    path = tmp_path / f"cut_{name}"
    start, n_bytes = packet_spans(sound)[n_frames_left]
    path.write_bytes(sound.read_bytes()[: start + n_bytes // 2])
    video, frames, timestamps = read_tolerantly(path)
    n_frames = len(frames)
    # Some decoders show the part of the last frame that the file contains.
    assert n_frames in (n_frames_left, n_frames_left + 1)
    assert [read_number(frame) for frame in frames[:n_frames_left]] == list(range(n_frames_left))
    np.testing.assert_allclose(np.diff(timestamps), 1 / 25, rtol=0, atol=5e-4)
    assert (video.n_frames_expected, video.n_missing) == (80, 80 - n_frames)


def test_a_packet_that_breaks_costs_the_frames_up_to_the_next_keyframe(
    tmp_path: Path, write_clip: WriteClip, read_number: ReadNumber
) -> None:
    sound = write_clip(tmp_path / "sound.mp4", options=KEYFRAMES_ONLY_P)
    path = break_packets(sound, tmp_path / "broken.mp4", [15])
    video = Video(path, "pyav")
    assert video.n_missing == 0
    frames, timestamps = read_all(video)
    shown = [*range(15), *range(24, 40)]
    assert [read_number(frame) for frame in frames] == shown
    np.testing.assert_allclose(timestamps, np.array(shown) / 25, rtol=0, atol=5e-4)
    assert (video.n_frames_expected, video.n_missing) == (40, 9)


@needs_decord
@pytest.mark.parametrize("number", [1, 20, 39])
def test_decord_says_that_it_failed_and_never_fills_the_gap(
    tmp_path: Path, counting_clip: Path, number: int
) -> None:
    path = break_packets(counting_clip, tmp_path / "broken.mp4", [number])
    # It decodes ahead, so it fails when it is opened or later.
    with pytest.raises(DecoderFailure, match=r"^[^\n]*broken\.mp4[^\n]*decoder='pyav'$"):
        list(Video(path, "decord").read(16))


def test_a_file_that_begins_with_a_broken_keyframe_gives_the_rest(
    tmp_path: Path, counting_clip: Path, read_number: ReadNumber
) -> None:
    path = break_packets(counting_clip, tmp_path / "broken.mp4", [0])
    video, frames, timestamps = read_tolerantly(path)
    assert [read_number(frame) for frame in frames] == list(range(12, 40))
    assert timestamps[0] == pytest.approx(12 / 25)
    assert video.n_missing == 12


def test_a_recording_that_starts_between_keyframes_gives_the_rest(
    tmp_path: Path, write_clip: WriteClip, read_number: ReadNumber
) -> None:
    sound = write_clip(tmp_path / "sound.ts", n_frames=80).read_bytes()
    path = tmp_path / "late.ts"
    path.write_bytes(sound[len(sound) // 2 // 188 * 188 :])
    _, frames, _ = read_tolerantly(path)
    numbers = [read_number(frame) for frame in frames]
    assert numbers == list(range(numbers[0], 80))
    assert numbers[0] % 12 == 0


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bits_give_the_same_frames_with_both_decoders_and_every_time(
    tmp_path: Path, counting_clip: Path, seed: int
) -> None:
    random = np.random.default_rng(seed)
    content = bytearray(counting_clip.read_bytes())
    start = content.index(b"mdat") + 4
    for position in random.integers(start, len(content), 1 + seed):
        content[position] ^= 1 << int(random.integers(8))
    path = tmp_path / "flipped.mp4"
    path.write_bytes(content)
    video, frames, timestamps = read_tolerantly(path)
    again, frames_again, _ = read_tolerantly(path)
    np.testing.assert_array_equal(frames, frames_again)
    assert video.decoder == again.decoder
    assert (np.diff(timestamps) > 0).all()
    # A flip may leave a packet that shows no frame: it is not expected, and nothing is missing.
    # Which bits are hit depends on the encoder, which does not write the same bits every time.
    if video.n_missing:
        assert len(frames) + video.n_missing == video.n_frames_expected
    assert 38 <= len(frames) + video.n_missing <= 40
    others, _ = read_all(Video(path, "pyav"))
    assert len(others) == len(frames)
    assert np.abs(frames.astype(int) - others).mean((1, 2, 3)).max() < 1


# --- what is no video


@pytest.fixture
def audio_file(tmp_path: Path) -> Path:
    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16000))
    return path


@pytest.fixture
def song_with_cover(tmp_path: Path) -> Path:
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        song: Any = container.add_stream("aac", rate=44100)
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        image = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 99, np.uint8), format="rgb24")
        image.pts = 0
        container.mux([*cover.encode(image), *cover.encode(None)])
        for i in range(20):
            sound = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
            sound.rate, sound.pts = 44100, i * 1024
            container.mux(song.encode(sound))
        container.mux(song.encode(None))
    return path


def expect_one_line(path: Path, words: str) -> None:
    with pytest.raises(VideoError) as caught:
        Video(path)
    message = str(caught.value)
    assert path.name in message
    assert words in message
    assert "\n" not in message
    assert len(message) < len(str(path)) + 100


def test_a_missing_file_is_a_video_error(tmp_path: Path) -> None:
    expect_one_line(tmp_path / "none.mp4", "No such file")


def test_a_folder_is_a_video_error(tmp_path: Path) -> None:
    expect_one_line(tmp_path, "directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_a_video_error(tmp_path: Path) -> None:
    path = tmp_path / "secret.mp4"
    path.touch(mode=0)
    expect_one_line(path, "Permission denied")


def test_zero_bytes_are_a_video_error(tmp_path: Path) -> None:
    path = tmp_path / "zero.mp4"
    path.touch()
    expect_one_line(path, "0 bytes")


def test_nonsense_is_a_video_error(tmp_path: Path) -> None:
    path = tmp_path / "nonsense.mp4"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    expect_one_line(path, "cannot be opened")


def test_text_is_a_video_error(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("a line\n" * 100)
    expect_one_line(path, "no video stream")


def test_sound_alone_is_a_video_error(audio_file: Path) -> None:
    expect_one_line(audio_file, "no video stream")


def test_the_cover_of_a_song_is_a_video_error(song_with_cover: Path) -> None:
    expect_one_line(song_with_cover, "no video stream")


def test_an_unknown_codec_is_a_video_error(tmp_path: Path, counting_clip: Path) -> None:
    path = tmp_path / "unknown.mp4"
    path.write_bytes(counting_clip.read_bytes().replace(b"avc1", b"zzzz"))
    expect_one_line(path, "unknown codec")


def test_no_decodable_frame_is_a_video_error(tmp_path: Path, write_clip: WriteClip) -> None:
    sound = write_clip(tmp_path / "sound.mp4", n_frames=5)
    path = break_packets(sound, tmp_path / "broken.mp4", list(range(5)))
    expect_one_line(path, "no frame that can be decoded")


def test_an_absurd_size_is_a_video_error(tmp_path: Path, write_clip: WriteClip) -> None:
    path = write_clip(tmp_path / "huge.avi", codec="rawvideo", pix_fmt="bgr24", n_frames=2)
    content = bytearray(path.read_bytes())
    start = content.index(b"strf") + 12  # width and height of the BITMAPINFOHEADER
    content[start : start + 8] = (12000).to_bytes(4, "little") * 2
    path.write_bytes(content)
    expect_one_line(path, "12000x12000")


def test_a_name_with_a_line_break_still_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"^[^\n]*two\?lines\.mp4 cannot be read[^\n]*$"):
        Video(tmp_path / "two\nlines.mp4")


@pytest.mark.parametrize("name", [b"\xff\xe9.mp4", b"-dash.mp4", b"pipe:1.mp4", b"a b%03d#?.mp4"])
def test_any_name_is_read(
    tmp_path: Path, counting_clip: Path, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(os.fsdecode(name))
    path.write_bytes(counting_clip.read_bytes())
    assert len(read_all(Video(path))[0]) == 40


def test_tags_in_another_encoding_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "tags.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLE"
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"T\xe9TLE"))
    assert len(read_all(Video(path))[0]) == 1


def test_a_callers_mistakes_are_value_errors(counting_clip: Path) -> None:
    with pytest.raises(ValueError, match="chunk_len must be at least 1, instead got 0"):
        Video(counting_clip).read(0)
    decoder: Any = "opencv"
    with pytest.raises(ValueError, match=r"decoder must be .* instead got 'opencv'"):
        Video(counting_clip, decoder)
    with pytest.raises(ValueError, match=r"timestamps must be \(2,\) float64, instead got \(3,\)"):
        FrameChunk(np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3))
    with pytest.raises(ValueError, match=r"frames must be \(T, H, W, 3\) uint8, instead got"):
        FrameChunk(np.zeros((2, 3, 4, 4), np.uint8), np.zeros(2))


# --- real files

ODD_FILES = {
    # name: (frames, width, height, frames missing, first time)
    "-video-with-dash-.mp4": (5, 1, 1, 0, 0.0),
    "one_pixel.mp4": (5, 1, 1, 0, 0.0),
    "animated.gif": (4, 64, 48, 0, 0.0),
    "av1_video.mkv": (125, 640, 360, 0, 0.0),
    "corrupted.mp4": (30, 1280, 720, 20, 0.0),
    "discard_first_keyframe.mp4": (25, 64, 64, 0, 0.0),
    "nasa_13013_rotated.mp4": (17, 270, 480, 0, 0.0),
    "sample_edit_list_no_sync_frame_before_edit.mp4": (68, 1080, 1920, 0, -1 / 3),
    "sample_with_invalid_nalu.mp4": (28, 1080, 720, 2, 0.0),
    "testsrc2_odd_height_and_width_vp9.mp4": (25, 321, 241, 0, 0.0),
    "video_90.mov": (3, 320, 568, 0, 0.0),
}
# Which frames of the damaged files are shown: frames after a gap were decoded before the damage.
SHOWN = {"corrupted.mp4": [*range(29), 32], "sample_with_invalid_nalu.mp4": [*range(26), 27, 29]}


@pytest.mark.real
@pytest.mark.parametrize("name", ODD_FILES)
def test_an_odd_file_shows_what_a_viewer_sees(shared_folder: Path, name: str) -> None:
    path = shared_folder / "data" / "odd" / name
    video, frames, timestamps = read_tolerantly(path)
    found = len(frames), video.width, video.height, video.n_missing, timestamps[0]
    assert found == pytest.approx(ODD_FILES[name], abs=1e-3)
    assert video.n_frames_expected == found[0] + found[3]
    with av.open(str(path)) as container:
        seconds = [float(packet.pts * packet.time_base) for packet in shown_packets(container)]
    expected = np.sort(seconds)[SHOWN.get(name, range(len(frames)))]
    np.testing.assert_allclose(timestamps, expected, rtol=0, atol=1e-3)


def shown_packets(container: Any) -> list[Any]:
    packets = container.demux(container.streams.best("video"))
    return [packet for packet in packets if packet.size and not packet.is_discard]


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "words"),
    [("sample_audio_only.mp4", "no video stream"), ("zero_bytes.webm", "0 bytes")],
)
def test_an_odd_file_without_video_is_a_video_error(
    shared_folder: Path, name: str, words: str
) -> None:
    expect_one_line(shared_folder / "data" / "odd" / name, words)


@pytest.mark.real
@needs_decord
@pytest.mark.parametrize("name", ["nasa_13013_rotated.mp4", "video_90.mov"])
def test_decord_turns_a_real_file_as_pyav_does(shared_folder: Path, name: str) -> None:
    path = shared_folder / "data" / "odd" / name
    frames, _ = read_all(Video(path, "decord"))
    others, _ = read_all(Video(path, "pyav"))
    np.testing.assert_array_equal(frames, others)


GMDCSA24 = [
    *("subject1/ADL/10", "subject1/ADL/16", "subject1/Fall/13", "subject1/Fall/14"),
    *("subject1/Fall/15", "subject2/ADL/23", "subject2/Fall/12", "subject2/Fall/13"),
    *("subject2/Fall/14", "subject3/ADL/07", "subject3/ADL/15", "subject3/ADL/18"),
    *("subject3/ADL/19", "subject3/ADL/20", "subject3/Fall/01", "subject3/Fall/15"),
    *("subject3/Fall/16", "subject3/Fall/19", "subject3/Fall/20", "subject4/ADL/19"),
    *("subject4/Fall/01", "subject4/Fall/02", "subject4/Fall/03"),
]
IN_EVERY_RUN = {"subject1/Fall/13", "subject2/ADL/23", "subject3/Fall/15"}


@pytest.mark.real
@needs_decord
@pytest.mark.parametrize(
    "name",
    [
        name if name in IN_EVERY_RUN else pytest.param(name, marks=pytest.mark.slow)
        for name in GMDCSA24
    ],
)
def test_a_real_video_of_variable_frame_rate_has_pyavs_frames_and_times(
    shared_folder: Path, name: str
) -> None:
    path = shared_folder / "data" / "gmdcsa24" / f"{name}.mp4"
    video = Video(path)
    assert video.decoder == "decord"
    timestamps: list[float] = []
    images: dict[int, Image] = {}
    for chunk in video.read(16):
        images[len(timestamps)] = chunk.frames[0]
        timestamps.extend(chunk.timestamps.tolist())
    expected = []
    with av.open(str(path)) as container:
        for i, frame in enumerate(container.decode(video=0)):
            expected.append(frame.time)
            if i % 48 == 0:
                image = frame.to_ndarray(format="rgb24").astype(int)
                assert np.abs(images[i] - image).max() <= 1
    np.testing.assert_allclose(timestamps, expected, rtol=0, atol=1e-3)
    assert len(set(np.diff(timestamps).round(4))) > 1
    assert (video.n_frames_expected, video.n_missing) == (len(expected), 0)


MEASURE = """
import resource, sys
from pathlib import Path
from extractors.decoding.video import Video
video = Video(Path(sys.argv[1]), sys.argv[2])
print(sum(len(chunk.frames) for chunk in video.read(64)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("decoder", DECODERS)
def test_memory_does_not_grow_with_the_length_of_a_video(
    shared_folder: Path, counting_clip: Path, decoder: Decoder
) -> None:
    def measure(path: Path) -> tuple[int, int]:
        command = [sys.executable, "-c", MEASURE, str(path), decoder]
        n_frames, megabytes = subprocess.check_output(command, text=True).split()
        return int(n_frames), int(megabytes)

    n_frames, megabytes = measure(shared_folder / "data" / "upcam" / "test" / "00.mp4")
    _, short_megabytes = measure(counting_clip)
    assert n_frames == 18066
    most = decord_reader.MAX_DECORD_BYTES >> 20 if decoder == "decord" else 40
    assert megabytes - short_megabytes < most
