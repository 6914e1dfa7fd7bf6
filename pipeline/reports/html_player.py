"""How a report plays its video: inside the page, linked, as a preview of frames, or not at all."""

import base64
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from extractors.decoding.frame_folder import FrameFolder, VideoSource, read_index
from extractors.decoding.seeking import Image, StreamKind, frames_between, stream_kind
from pipeline.images import resize_to_width
from pipeline.printable import printable
from pipeline.reports.html_page import relative_href
from pipeline.video_writer import write_with_sound

MAX_EMBEDDED_BYTES = 8 * 1024 * 1024

# Containers and codecs that at least one common browser plays, with the type to declare. What a
# browser cannot play after all is replaced by thumbnails when it says so.
PLAYABLE_CODECS = {
    "mov": frozenset({"h264", "hevc", "vp9", "av1", "libdav1d"}),
    "matroska": frozenset({"h264", "vp8", "vp9", "av1", "libdav1d"}),
}
MIME_TYPES = {"mov": "video/mp4", "matroska": "video/webm"}
# Of H.264 browsers decode 8-bit 4:2:0 alone.
H264_PIXEL_FORMATS = ("yuv420p", "yuvj420p", "")

# Of a folder of frames. More frames would hardly fit into `MAX_EMBEDDED_BYTES`.
PREVIEW_WIDTH_PX = 480
MAX_PREVIEW_FRAMES = 6000


@dataclass(frozen=True, slots=True)
class Player:
    """What a page shows as its video.

    Attributes:
        is_playable: Whether common browsers play it; else thumbnails stand in for it.
        substitute: What is said beside a thumbnail that stands in for it.
        href: The address of the file as seen from the page; "" where there is none to link.
        content: The file itself in base64, if it is inside the page; else "".
        mime_type: Of the content.
        hint: What a viewer should know of it; "" for nothing.
    """

    is_playable: bool
    substitute: str
    href: str = ""
    content: str = ""
    mime_type: str = ""
    hint: str = ""


def make_player(video: VideoSource, page: Path) -> Player:
    """Choose how a page plays a video.

    A file of up to `MAX_EMBEDDED_BYTES` is inside the page, a larger one is linked. Of a folder of
    frames a small video is made, which is inside the page or left out.

    Args:
        video: The file or folder of frames.
        page: The HTML file.

    Raises:
        VideoError: If the video cannot be read.
        VideoWriterError: If no video can be made of the frames.
    """
    if isinstance(video, FrameFolder):
        return _player_of_frames(video)
    kind = stream_kind(video)
    stored = f"{kind.codec} in {kind.container.split(',')[0]}"
    if not is_playable(kind):
        return Player(
            is_playable=False,
            substitute=f"Browsers cannot play {stored}, so thumbnails stand in for the video. "
            "Convert it to H.264 in mp4 to play it here.",
        )
    is_small = video.stat().st_size <= MAX_EMBEDDED_BYTES
    return Player(
        is_playable=True,
        substitute=f"The browser cannot play {printable(video.name)} ({stored}).",
        href="" if is_small else relative_href(video, page),
        content=_base64(video.read_bytes()) if is_small else "",
        mime_type=MIME_TYPES[_family(kind) or ""],
    )


def is_playable(kind: StreamKind) -> bool:
    """Whether common browsers play a video that is stored in this way."""
    family = _family(kind)
    if family is None or kind.codec not in PLAYABLE_CODECS[family]:
        return False
    return kind.codec != "h264" or kind.pixel_format in H264_PIXEL_FORMATS


def _family(kind: StreamKind) -> str | None:
    return next((name for name in PLAYABLE_CODECS if name in kind.container.split(",")), None)


def _player_of_frames(folder: FrameFolder) -> Player:
    preview = _preview(folder)
    if not preview:
        return Player(
            is_playable=False,
            substitute="The folder has too many frames for a video in this page, so thumbnails "
            "stand in for it. `pipeline score --overlay` writes one.",
        )
    return Player(
        is_playable=True,
        substitute="The browser cannot play the preview of the frames (h264 in mp4).",
        content=_base64(preview),
        mime_type=MIME_TYPES["mov"],
        hint=f"A preview made of the frames of the folder, at {folder.fps:g} frames per second and "
        f"at most {PREVIEW_WIDTH_PX} pixels wide.",
    )


def _preview(folder: FrameFolder) -> bytes:
    """The frames as a small mp4; empty where there are too many."""
    n_frames = read_index(folder).n_frames
    if n_frames > MAX_PREVIEW_FRAMES:
        return b""
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / "preview.mp4"
        write_with_sound(path, _small_frames(folder), folder, stop_seconds=n_frames / folder.fps)
        return path.read_bytes() if path.stat().st_size <= MAX_EMBEDDED_BYTES else b""


def _small_frames(folder: FrameFolder) -> Iterator[tuple[Image, float]]:
    for image, seconds in frames_between(folder, 0, math.inf):
        yield resize_to_width(image, PREVIEW_WIDTH_PX), seconds


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
