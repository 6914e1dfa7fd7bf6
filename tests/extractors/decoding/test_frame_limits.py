"""The limit on the pixels of a frame: one number, for a file's header and for its frames."""

from pathlib import Path

import av
import pytest

from extractors.decoding.video import Video, VideoError
from extractors.frame_dims import resized_dims

AT_LIMIT = (5000, 8000)  # 40 million pixels; JPEG and H.264 pad 5000 to 5008
ABOVE_LIMIT = (5002, 8000)


def write_black_frame(path: Path, height: int, width: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        frame = av.VideoFrame(width, height, "yuvj420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_resizing_accepts_the_limit_and_nothing_above_it() -> None:
    assert resized_dims(*AT_LIMIT) == (256, 410)
    with pytest.raises(ValueError, match="at most 40000000 pixels, instead got 8000x5002; scale"):
        resized_dims(*ABOVE_LIMIT)


def test_a_video_at_the_limit_is_read(tmp_path: Path) -> None:
    video = Video(write_black_frame(tmp_path / "large.mkv", *AT_LIMIT))
    assert (video.height, video.width) == AT_LIMIT
    (chunk,) = video.read(16)
    assert chunk.frames.shape == (1, *AT_LIMIT, 3)


def test_a_video_above_the_limit_is_refused_in_one_line(tmp_path: Path) -> None:
    path = write_black_frame(tmp_path / "larger.mkv", *ABOVE_LIMIT)
    with pytest.raises(VideoError) as caught:
        Video(path)
    assert str(caught.value) == (
        f"{path} has frames of 8000x5002, expected at most 40000000 pixels; scale the video down"
    )
