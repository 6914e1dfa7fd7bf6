"""Reading a folder of numbered images as a video, at a given number of frames per second.

ShanghaiTech's test set is published so, and copies of Avenue. The images pass through one decoder
and one conversion to RGB, as the frames of a lossless video of them would: the result is the same
to the bit.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extractors.decoding.pyav_file import (
    MAX_PADDED_PIXELS,
    ImageDecoder,
    VideoError,
    VideoFrame,
    VideoReformatter,
    check_is_file,
    display_turn,
    to_rgb,
    turned,
)
from extractors.decoding.pyav_reader import StreamIndex

# By the suffix of an image: FFmpeg's name of its codec.
IMAGE_CODECS = {".jpg": "mjpeg", ".jpeg": "mjpeg", ".png": "png"}
MAX_FRAMES = 1_000_000
MAX_IMAGE_BYTES = 1 << 26  # an uncompressed frame of 8192 x 2730 pixels

JPEG_START_OF_SCAN, JPEG_END = b"\xff\xda", b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class FrameFolder:
    """A folder of frames that is read as one video.

    Attributes:
        path: Holds images whose names end in their number, such as `000.jpg`.
        fps: Frames per second, which no image says.

    Raises:
        ValueError: If fps is not finite and above 0.
    """

    path: Path
    fps: float

    def __post_init__(self) -> None:
        if not (isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps must be finite and above 0, instead got {self.fps}")


# A video file, or a folder of frames.
VideoSource = Path | FrameFolder


def video_source(path: Path, fps: float | None) -> VideoSource:
    """A folder as a video of its frames where their rate is known; any other path as it is."""
    return path if fps is None or not path.is_dir() else FrameFolder(path, fps)


def path_of(source: VideoSource) -> Path:
    """The path of a video file or of a folder of frames; it identifies the video."""
    return source.path if isinstance(source, FrameFolder) else source


def frame_number(path: Path) -> int | None:
    """The number at the end of an image's name; None for a path that is not one of a frame.

    >>> [frame_number(Path(name)) for name in ("gate/0012.jpg", "a12.PNG", "12.txt", "a.png")]
    [12, 12, None, None]
    """
    match = re.search(r"([0-9]{1,9})$", path.stem)
    return int(match[1]) if match and path.suffix.lower() in IMAGE_CODECS else None


def list_frames(folder: Path) -> list[Path]:
    """List the images of a folder in the order of the numbers at the end of their names.

    Raises:
        VideoError: If the folder cannot be read or has no images or too many, or a number is
            missing or occurs twice.
    """
    numbered: list[tuple[int, Path]] = []
    try:
        for path in folder.iterdir():
            number = frame_number(path)
            if number is not None and path.is_file():
                numbered.append((number, path))
    except OSError as error:
        raise VideoError.about(folder, f"cannot be read: {error.strerror}") from error
    if not 0 < len(numbered) <= MAX_FRAMES:
        raise VideoError.about(
            folder,
            f"holds {len(numbered)} frames; expected 1 to {MAX_FRAMES} images (jpg or png) whose "
            "names end in their number",
        )
    numbered.sort()
    for (before, _), (number, path) in pairwise(numbered):
        if number != before + 1:
            raise VideoError.about(
                path,
                f"follows frame {before}, expected frame {before + 1}; extract the archive of the "
                "frames again",
            )
    return [path for _, path in numbered]


def check_not_a_folder(path: Path) -> None:
    """Refuse a folder whose frames per second are not known.

    Raises:
        VideoError: If the path is a folder.
    """
    if path.is_dir():
        raise VideoError.about(
            path,
            "is a folder; to read its frames as a video, give their rate with --fps",
        )


def read_index(folder: FrameFolder) -> StreamIndex:
    """Index a folder's frames; only the first one is decoded.

    Raises:
        VideoError: If frames are missing, or the first one cannot be decoded.
    """
    frames = list_frames(folder.path)
    codec = IMAGE_CODECS[frames[0].suffix.lower()]
    first = _decode(frames[0], codec, ImageDecoder(codec))
    turn = display_turn(first)
    return StreamIndex(
        timestamps=np.arange(len(frames)) / folder.fps,
        n_frames=len(frames),
        n_cut_off=0,
        fps=folder.fps,
        first_frame=turned(to_rgb(first, first.width, first.height), turn),
        turn=turn,
        container="folder of frames",
        codec=codec,
        pixel_format=first.format.name,
        is_plain=False,
    )


def read_frames(
    folder: FrameFolder, index: StreamIndex, numbers: Sequence[int] | None = None
) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """Yield frames with their times.

    Args:
        folder: The folder.
        index: As from `read_index`.
        numbers: Which frames, counted from 0; None for all.

    Yields:
        (H, W, 3) uint8 RGB and seconds.

    Raises:
        VideoError: If an image cannot be decoded, or differs from the first one in size or format.
            A frame that is skipped would shift the frames after it against the annotation.
    """
    decoder, reformatter = ImageDecoder(index.codec), VideoReformatter()
    frames = list(zip(list_frames(folder.path), index.timestamps.tolist(), strict=True))
    for path, seconds in frames if numbers is None else [frames[number] for number in numbers]:
        frame = _decode(path, index.codec, decoder)
        image = turned(to_rgb(frame, frame.width, frame.height, reformatter), index.turn)
        if image.shape != index.first_frame.shape:
            found, expected = (f"{w}x{h}" for h, w, _ in (image.shape, index.first_frame.shape))
            raise VideoError.about(
                path, f"has {found} pixels, expected {expected} as the first frame of its folder"
            )
        yield image, seconds


def _decode(path: Path, codec: str, decoder: ImageDecoder) -> VideoFrame:
    """Decode one image, whose size is checked before memory is allocated."""
    check_is_file(path)
    if IMAGE_CODECS[path.suffix.lower()] != codec:
        raise VideoError.about(path, f"is not of the format of the folder's first frame ({codec})")
    try:
        n_bytes = path.stat().st_size
        content = path.read_bytes() if n_bytes <= MAX_IMAGE_BYTES else b""
    except OSError as error:
        raise VideoError.about(path, f"cannot be read: {error.strerror}") from error
    if not content:
        raise VideoError.about(path, f"has {n_bytes} bytes, expected at most {MAX_IMAGE_BYTES}")
    frame = None if _is_cut_off(content, codec) else decoder.decode(content)
    if frame is None:
        raise VideoError.about(
            path,
            f"cannot be decoded as an image ({codec}) of at most {MAX_PADDED_PIXELS} pixels; copy "
            "or extract it again",
        )
    return frame


def _is_cut_off(content: bytes, codec: str) -> bool:
    """Whether a JPEG image ends before its end marker; its decoder would conceal what is missing.

    A thumbnail in its header has an end marker, too, but before the image's scan.
    """
    return codec == "mjpeg" and content.rfind(JPEG_END) < content.rfind(JPEG_START_OF_SCAN)
