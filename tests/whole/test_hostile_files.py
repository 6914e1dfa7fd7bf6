"""Files that lead to other files, and what is no file at all, are refused in one line."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import pytest

from extractors.decoding import decord_reader
from extractors.decoding.containers import DEMUXERS
from extractors.decoding.video import Video, VideoError

WriteClip = Callable[..., Path]

PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"
DASH = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-main:2011"
 type="static" mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="video/mp4">
<Representation id="1" bandwidth="1000"><BaseURL>secret.mp4</BaseURL></Representation>
</AdaptationSet></Period></MPD>"""
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 32\n"


@contextmanager
def at_once() -> Iterator[None]:
    """Fail after five seconds: what opens a pipe that nobody writes to waits for ever."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(5)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refusal(path: Path) -> str:
    with at_once(), pytest.raises(VideoError) as caught:
        Video(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@pytest.fixture
def folder(tmp_path: Path, write_clip: WriteClip) -> Path:
    """A folder with a video that nothing else in it may show."""
    write_clip(tmp_path / "secret.mp4", n_frames=4)
    write_clip(tmp_path / "secret.ts", n_frames=4)
    return tmp_path


@pytest.mark.parametrize("place", ["secret.ts", "file://{}/secret.ts", "{}/secret.ts"])
@pytest.mark.parametrize("name", ["list.m3u8", "list.ts", "list.mp4"])
def test_a_playlist_is_refused(folder: Path, name: str, place: str) -> None:
    path = folder / name
    path.write_text(PLAYLIST.format(place.format(folder)))
    refusal(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.mp4", "ffconcat version 1.0\nfile secret.mp4\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile 'secret.mp4'\n"),
        ("session.sdp", SDP),
        ("manifest.mpd", DASH),
        ("manifest.mp4", DASH),
        ("list.txt", "secret.mp4\n" * 20),
        ("asx.asx", '<asx version="3.0"><entry><ref href="secret.mp4"/></entry></asx>'),
        ("ref.asf", "[Reference]\nRef1=http://127.0.0.1:9/secret.mp4\n"),
    ],
)
def test_a_text_that_names_other_files_is_refused(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(text)
    refusal(path)


def test_the_files_of_this_test_would_be_read_otherwise(folder: Path) -> None:
    path = folder / "list.m3u8"
    path.write_text(PLAYLIST.format("secret.ts"))
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 4
    assert "playlists" in refusal(path)


def test_a_pattern_of_images_is_refused(tmp_path: Path, write_clip: WriteClip) -> None:
    clip = write_clip(tmp_path / "a.mkv", codec="mjpeg", pix_fmt="yuvj420p", n_frames=1)
    with av.open(str(clip)) as container:
        image = bytes(next(container.demux(video=0)))
    for name in ("a1.jpg", "a2.jpg", "a%d.jpg", "one.jpg"):
        (tmp_path / name).write_bytes(image)
    refusal(tmp_path / "a%d.jpg")
    assert Video(tmp_path / "one.jpg").n_frames_expected == 1


def test_decord_is_given_only_containers_that_begin_with_their_own_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    def record(path: Path) -> Any:
        opened.append(path)
        raise RuntimeError

    if decord_reader.decord is None:
        pytest.skip("decord is not installed")
    monkeypatch.setattr(decord_reader, "_open_decord", record)
    playlist = PLAYLIST.format(f"file://{folder}/secret.ts").encode()
    both = folder / "both.ts"
    both.write_bytes(playlist.ljust(188, b"\n") + (folder / "secret.ts").read_bytes())
    for path in (both, folder / "secret.ts"):
        assert Video(path).decoder == "pyav"
    assert opened == []
    Video(folder / "secret.mp4")
    assert opened == [folder / "secret.mp4"]


def test_no_demuxer_that_opens_other_files_is_on_the_list() -> None:
    allowed = set(DEMUXERS.split(","))
    others = {"concat", "dash", "hls", "image2", "imf", "lavfi", "mlv", "rtsp", "sdp", "tty"}
    assert not allowed & (others | {"rtp", "sap", "vobsub", "webm_dash_manifest", "avisynth"})
    assert allowed <= av.formats_available


# --- what is no regular file


def test_a_named_pipe_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "is a named pipe; a regular file is expected" in refusal(tmp_path / "pipe.mp4")


def test_a_link_to_a_named_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "video.mp4").symlink_to("pipe")
    assert "is a named pipe" in refusal(tmp_path / "video.mp4")


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # an address has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("video.mp4")
        assert "is a socket; a regular file is expected" in refusal(tmp_path / "video.mp4")


def test_a_device_is_refused() -> None:
    assert "is a device; a regular file is expected" in refusal(Path("/dev/zero"))


def test_a_link_to_a_video_is_read(folder: Path) -> None:
    (folder / "link.mp4").symlink_to("secret.mp4")
    assert Video(folder / "link.mp4").n_frames_expected == 4


def test_a_link_that_leads_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    assert "cannot be read" in refusal(tmp_path / "loop.mp4")
