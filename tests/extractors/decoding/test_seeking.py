"""Random access: the frame that is shown at a time, whatever the container and the frame rate."""

import numpy as np
import pytest

from extractors.decoding.frame_folder import FrameFolder
from extractors.decoding.seeking import StreamKind, frames_at, frames_between, stream_kind
from extractors.decoding.video import Video, VideoError

UNEVEN = [0, 1, 2, 9, 10, 11, 30, 31, 32, 33, 60, 61, 62, 63, 64, 90, 91, 92, 93, 94]
CLIPS = {
    "keyframes every 12": ("a.mp4", {}),
    "one keyframe": ("a.mp4", {"options": {"g": "250"}}),
    "B-frames": ("a.mp4", {"options": {"g": "12", "bf": "3"}}),
    "matroska": ("a.mkv", {}),
    "MPEG-TS": ("a.ts", {}),
    "AVI": ("a.avi", {"codec": "mpeg4", "options": {}}),
}


@pytest.fixture(params=CLIPS, ids=str)
def clip(request, tmp_path, write_clip):
    name, options = CLIPS[request.param]
    return write_clip(tmp_path / name, n_frames=60, **options)


def timestamps(path):
    return np.concatenate([chunk.timestamps for chunk in Video(path, decoder="pyav").read(16)])


def test_the_frame_at_a_time_is_the_one_that_is_shown_then(clip, read_number):
    times = timestamps(clip)
    wanted = [0, 1, 11, 12, 13, 30, 58, 59]
    images = list(frames_at(clip, times[wanted].tolist()))
    assert [read_number(image) for image in images] == wanted
    between = (times[wanted] + 0.02).tolist()  # half a frame later
    assert [read_number(image) for image in frames_at(clip, between)] == wanted


def test_times_outside_of_the_video_stand_for_its_ends(clip, read_number):
    times = timestamps(clip)
    images = frames_at(clip, [times[0] - 5, times[-1] + 100])
    assert [read_number(image) for image in images] == [0, 59]


def test_the_frames_of_a_span_are_those_that_are_shown_in_it(clip, read_number):
    times = timestamps(clip)
    found = list(frames_between(clip, times[20] + 0.02, times[33]))
    assert [read_number(image) for image, _ in found] == list(range(20, 33))
    np.testing.assert_allclose([time for _, time in found], times[20:33], atol=1e-6)


def test_a_span_may_begin_before_the_video_and_end_after_it(clip, read_number):
    found = list(frames_between(clip, -10, 1e6))
    assert [read_number(image) for image, _ in found] == list(range(60))


def test_a_variable_frame_rate_is_followed(tmp_path, write_clip, read_number):
    clip = write_clip(tmp_path / "vfr.mp4", n_frames=20, pts=UNEVEN)
    wanted = [0.2, 0.38, 1.0, 2.0, 3.7]  # at 25 fps: pts 5, 9.5, 25, 50, 92.5
    expected = [2, 3, 5, 9, 17]
    assert [read_number(image) for image in frames_at(clip, wanted)] == expected


def test_a_frame_is_rgb_of_the_size_of_the_video(tmp_path, write_clip):
    clip = write_clip(tmp_path / "a.mp4", width=96, height=48)
    (image,) = frames_at(clip, [0.5])
    assert image.shape == (48, 96, 3)
    assert image.dtype == np.uint8


def test_how_a_video_is_stored_is_read_from_its_headers(tmp_path, write_clip):
    clip = write_clip(tmp_path / "a.mkv", codec="mpeg4", options={})
    assert stream_kind(clip) == StreamKind("matroska,webm", "mpeg4", "yuv420p")


def test_a_file_that_is_no_video_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(VideoError, match=r"a\.mp4"):
        list(frames_at(tmp_path / "a.mp4", [0.0]))


@pytest.fixture
def folder(tmp_path, write_frames):
    """Eight images, numbered from 3, as a video of 4 frames per second; and all of its frames."""
    source = FrameFolder(write_frames(tmp_path / "frames", 8, first=3), 4)
    return source, np.concatenate([chunk.frames for chunk in Video(source).read(8)])


def test_a_folder_of_frames_shows_the_frame_of_each_time(folder):
    source, frames = folder
    images = list(frames_at(source, [-1.0, 0.0, 0.24, 0.25, 1.0, 1.3, 1.3, 99.0]))
    assert [(image == frames).all((1, 2, 3)).argmax() for image in images] == [
        *(0, 0, 0, 1, 4, 5, 5, 7)
    ]
    assert (images[4] == frames[4]).all()


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [(0.3, 1.0, [1, 2, 3]), (-5, 99, range(8)), (1.75, 1.76, [7]), (0, 0, [])],
)
def test_a_folder_of_frames_shows_the_frames_between_two_times(folder, start, stop, expected):
    source, frames = folder
    found = list(frames_between(source, start, stop))
    assert [time for _, time in found] == [number / 4 for number in expected]
    for (image, _), number in zip(found, expected, strict=True):
        assert (image == frames[number]).all()
