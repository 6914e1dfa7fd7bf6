"""Writing video: frames at their own times, sound copied packet by packet, sizes that are odd."""

from fractions import Fraction

import av
import numpy as np
import pytest

from extractors.decoding.video import Video, VideoError
from pipeline.video_writer import VideoWriterError, sound_codec, write_with_sound

TIMES = [0.0, 0.04, 0.3, 0.35, 1.0, 1.04, 2.5]


def write_sound(path, codec, seconds=3.0, first_seconds=0.0):
    """A file with a short video and a tone."""
    rate = 16000 if codec != "libopus" else 48000
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream(codec, rate=rate, layout="mono")
        for i in range(int(seconds * 10)):
            frame = av.VideoFrame.from_ndarray(
                np.full((48, 64, 3), i * 8, np.uint8), format="rgb24"
            )
            frame.pts, frame.time_base = i + round(first_seconds * 10), Fraction(1, 10)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        tone = np.sin(np.arange(int(seconds * rate)) / 20) * 8000
        for start in range(0, len(tone), 960):
            samples = tone[None, start : start + 960].astype(np.int16)
            heard = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            heard.pts, heard.sample_rate = start + round(first_seconds * rate), rate
            heard.time_base = Fraction(1, rate)
            container.mux(sound.encode(heard))
        container.mux(sound.encode())
    return path


def sound_packets(path):
    """(seconds, bytes) of every packet of sound."""
    with av.open(str(path)) as container:
        sound = container.streams.audio[0]
        packets = [packet for packet in container.demux(sound) if packet.size]
        return [(float(packet.pts * packet.time_base), bytes(packet)) for packet in packets]


def gray_frames(times, height=48, width=64):
    levels = np.linspace(0, 250, len(times)).astype(np.uint8)
    return [
        (np.full((height, width, 3), g, np.uint8), t) for g, t in zip(levels, times, strict=True)
    ]


def read(path):
    chunks = list(Video(path, decoder="pyav").read(100))
    return (
        np.concatenate([chunk.frames for chunk in chunks]),
        np.concatenate([chunk.timestamps for chunk in chunks]),
    )


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_keep_their_times(tmp_path, counting_clip, suffix):
    path = tmp_path / f"out{suffix}"
    write_with_sound(path, gray_frames(TIMES), counting_clip, stop_seconds=3)
    images, times = read(path)
    np.testing.assert_allclose(times, TIMES, atol=0.001)
    np.testing.assert_allclose(
        images.mean((1, 2, 3)), [image.mean() for image, _ in gray_frames(TIMES)], atol=3
    )


def test_the_file_begins_at_0_with_the_first_frame(tmp_path, counting_clip):
    later = [time + 36_000 for time in TIMES]
    write_with_sound(tmp_path / "out.mp4", gray_frames(later), counting_clip, stop_seconds=40_000)
    np.testing.assert_allclose(read(tmp_path / "out.mp4")[1], TIMES, atol=0.001)


def test_the_last_frame_is_shown_as_long_as_the_one_before(tmp_path, counting_clip):
    path = tmp_path / "out.mp4"
    write_with_sound(path, gray_frames([0.0, 0.5, 1.0]), counting_clip, stop_seconds=9)
    with av.open(str(path)) as container:
        assert container.duration / av.time_base == pytest.approx(1.5, abs=0.01)


def test_colors_survive(tmp_path, counting_clip):
    colors = np.array([[200, 30, 40], [20, 180, 60], [40, 60, 220]], np.uint8)
    image = np.repeat(np.repeat(colors[None], 48, 0), 32, 1)
    write_with_sound(tmp_path / "out.mp4", [(image, 0.0)], counting_clip, stop_seconds=1)
    images, _ = read(tmp_path / "out.mp4")
    np.testing.assert_allclose(images[0][24, [16, 48, 80]], colors, atol=12)


def test_an_odd_side_grows_by_a_pixel(tmp_path, counting_clip):
    frames = gray_frames([0.0, 0.1], height=47, width=65)
    write_with_sound(tmp_path / "out.mp4", frames, counting_clip, stop_seconds=1)
    assert read(tmp_path / "out.mp4")[0].shape == (2, 48, 66, 3)


@pytest.mark.parametrize(
    ("codec", "source", "written"),
    [
        ("aac", "a.mp4", "out.mp4"),
        ("libmp3lame", "a.mkv", "out.mp4"),
        ("libopus", "a.mkv", "out.mkv"),
        ("pcm_s16le", "a.mkv", "out.mkv"),
    ],
)
def test_the_sound_is_copied_byte_for_byte(tmp_path, codec, source, written):
    given = write_sound(tmp_path / source, codec)
    times = [i / 10 for i in range(30)]
    write_with_sound(tmp_path / written, gray_frames(times), given, stop_seconds=100)
    expected, found = sound_packets(given), sound_packets(tmp_path / written)
    expected = [packet for packet in expected if packet[0] >= 0]
    assert [content for _, content in found] == [content for _, content in expected]
    np.testing.assert_allclose([t for t, _ in found], [t for t, _ in expected], atol=0.002)


def test_the_sound_of_a_part_lies_beside_its_frames(tmp_path):
    given = write_sound(tmp_path / "a.mp4", "aac")
    times = [1.0 + i / 10 for i in range(10)]
    write_with_sound(tmp_path / "out.mp4", gray_frames(times), given, stop_seconds=2.0)
    inside = [(t, content) for t, content in sound_packets(given) if 1.0 <= t < 2.0]
    found = sound_packets(tmp_path / "out.mp4")
    assert [content for _, content in found] == [content for _, content in inside]
    np.testing.assert_allclose([t for t, _ in found], [t - 1.0 for t, _ in inside], atol=0.001)


def test_sound_and_frames_stay_together_where_a_file_does_not_begin_at_0(tmp_path):
    given = write_sound(tmp_path / "a.ts", "aac", first_seconds=100.0)
    times = [100.5 + i / 10 for i in range(10)]
    write_with_sound(tmp_path / "out.mp4", gray_frames(times), given, stop_seconds=101.5)
    start = sound_packets(tmp_path / "out.mp4")[0][0]
    assert 0 <= start < 0.1


def test_a_source_without_sound_gives_none(tmp_path, counting_clip):
    write_with_sound(tmp_path / "out.mp4", gray_frames([0.0, 0.1]), counting_clip, stop_seconds=1)
    assert sound_codec(counting_clip) is None
    assert sound_codec(tmp_path / "out.mp4") is None


def test_sound_that_mp4_cannot_hold_is_refused_with_the_remedy(tmp_path):
    given = write_sound(tmp_path / "a.mkv", "pcm_s16le")
    message = r"out\.mp4: mp4 cannot hold pcm_s16le sound; name a \.mkv file"
    with pytest.raises(VideoWriterError, match=message):
        write_with_sound(tmp_path / "out.mp4", gray_frames([0.0]), given, stop_seconds=1)
    assert not (tmp_path / "out.mp4").exists()


def test_another_container_is_refused(tmp_path, counting_clip):
    with pytest.raises(VideoWriterError, match=r"out\.avi: expected a name that ends in \.mp4 or"):
        write_with_sound(tmp_path / "out.avi", gray_frames([0.0]), counting_clip, stop_seconds=1)


def test_no_frame_is_refused(tmp_path, counting_clip):
    with pytest.raises(ValueError, match="at least one frame"):
        write_with_sound(tmp_path / "out.mp4", [], counting_clip, stop_seconds=1)


def test_a_writing_that_fails_leaves_nothing(tmp_path, counting_clip):
    def failing():
        yield from gray_frames([0.0, 0.1])
        raise VideoError("gone")

    with pytest.raises(VideoError, match="gone"):
        write_with_sound(tmp_path / "out.mp4", failing(), counting_clip, stop_seconds=1)
    assert list(tmp_path.iterdir()) == []
