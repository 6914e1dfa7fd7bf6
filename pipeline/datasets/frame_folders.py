"""Packing folders of frames into video files: ShanghaiTech's test set is published as frames.

The compressed images become the packets of a Motion-JPEG (or PNG) video in AVI: nothing is encoded
again, so the video shows the same pixels as the images, at a given number of frames per second.
"""

import re
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from pipeline.atomic import replacing
from pipeline.datasets.catalog import Dataset, DatasetError
from pipeline.datasets.listed_videos import best_matches, walk_folders
from pipeline.progress import Progress, ReportProgress, no_report

# By the suffix of an image: FFmpeg's name of its format.
IMAGE_FORMATS = {".jpg": "jpeg_pipe", ".jpeg": "jpeg_pipe", ".png": "png_pipe"}
MAX_FRAMES = 1_000_000
MAX_IMAGE_BYTES = 1 << 26  # an uncompressed frame of 8192 x 2730 pixels


def find_frame_folders(dataset: Dataset) -> dict[Path, Path]:
    """Find the folders of frames that stand for missing videos: listed video -> folder.

    A folder belongs to a video if it has the video's name and holds images; as for video files,
    that which shares most parent folders with the listed path is taken.

    Raises:
        DatasetError: If two folders fit one video equally well.
    """
    missing = dataset.missing_videos()
    if dataset.folder is None or not missing:
        return {}
    names = {path.stem for path in missing}
    found: dict[str, list[Path]] = {}
    for folder, files in walk_folders(dataset.folder):
        has_images = any(Path(file).suffix.lower() in IMAGE_FORMATS for file in files)
        if folder.name in names and has_images:
            found.setdefault(folder.name, []).append(folder)
    n_of_name = Counter(entry.path.stem for entry in dataset.entries)
    folders = {}
    for path in missing:
        n_shared_min = 1 if n_of_name[path.stem] > 1 else 0
        best = best_matches(path, found.get(path.stem, []), n_shared_min)
        if len(best) > 1:
            raise DatasetError(
                f"{dataset.folder}: holds two folders of frames of one name, {best[0]} and "
                f"{best[1]}; remove one"
            )
        if best:
            folders[path] = best[0]
    return folders


def pack_dataset(dataset: Dataset, *, fps: int, report: ReportProgress = no_report) -> list[Path]:
    """Pack every folder of frames that stands for a missing video, each into a file beside it.

    Args:
        dataset: Its folder is searched.
        fps: Frames per second.
        report: Called after each video.

    Returns:
        The files that were written, `<folder of frames>.avi`.

    Raises:
        DatasetError: If a folder has no frames, has gaps, or holds frames of several sizes.
        OSError: If a file cannot be written.
    """
    folders = list(find_frame_folders(dataset).values())
    paths = []
    for folder in folders:
        path = folder.with_name(f"{folder.name}.avi")
        pack_frames(folder, path, fps=fps)
        paths.append(path)
        report(Progress(f"pack {dataset.name}", len(paths), len(folders), "videos"))
    return paths


def pack_frames(folder: Path, path: Path, *, fps: int) -> None:
    """Write the images of a folder, in the order of their numbers, as the frames of a video.

    Args:
        folder: Holds images whose names end in their number, such as `000.jpg`.
        path: The AVI file to write; it appears whole or not at all.
        fps: Frames per second.

    Raises:
        DatasetError: If there are no images, a number is missing or occurs twice, an image cannot
            be read, or the images differ in size or format.
        OSError: If the file cannot be written.
    """
    images = list_frames(folder)
    expected = _read_kind(images[0])
    with replacing(path) as temporary, av.open(str(temporary), "w", format="avi") as container:
        with _open_image(images[0]) as first:
            stream = container.add_stream_from_template(first.streams.video[0])
        stream.time_base = 1 / Fraction(fps)
        for index, image in enumerate(images):
            kind = _read_kind(image)
            if kind != expected:
                raise DatasetError(
                    f"{image}: is {_describe(kind)}, expected {_describe(expected)} as the first "
                    "frame of its folder"
                )
            packet = _read_packet(image)
            packet.stream, packet.pts, packet.dts = stream, index, index
            packet.time_base = 1 / Fraction(fps)
            container.mux(packet)


def list_frames(folder: Path) -> list[Path]:
    """List the images of a folder in the order of the numbers at the end of their names.

    Raises:
        DatasetError: If there are none, or too many, or a number is missing or occurs twice.
        OSError: If the folder cannot be read.
    """
    numbered: list[tuple[int, Path]] = []
    for path in folder.iterdir():
        match = re.search(r"([0-9]{1,9})$", path.stem)
        if match is not None and path.suffix.lower() in IMAGE_FORMATS and path.is_file():
            numbered.append((int(match[1]), path))
    if not 0 < len(numbered) <= MAX_FRAMES:
        raise DatasetError(
            f"{folder}: holds {len(numbered)} frames, expected 1 to {MAX_FRAMES} numbered images"
        )
    numbered.sort()
    for (before, _), (number, path) in pairwise(numbered):
        if number != before + 1:
            raise DatasetError(
                f"{path}: follows frame {before}, expected frame {before + 1}; extract the archive "
                "of the frames again"
            )
    return [path for _, path in numbered]


def _open_image(path: Path) -> InputContainer:
    if path.stat().st_size > MAX_IMAGE_BYTES:
        raise DatasetError(f"{path}: is larger than {MAX_IMAGE_BYTES} bytes, expected one image")
    try:
        return av.open(
            str(path.absolute()),
            format=IMAGE_FORMATS[path.suffix.lower()],
            options={"protocol_whitelist": "file"},
        )
    except FFmpegError as error:
        raise DatasetError(f"{path}: cannot be read as an image ({error.strerror})") from error


def _read_kind(path: Path) -> tuple[str, int, int]:
    """The format, width and height of an image."""
    with _open_image(path) as source:
        context = source.streams.video[0].codec_context
        if context.width == 0:
            raise DatasetError(f"{path}: cannot be read as an image; copy or extract it again")
        return context.name, context.width, context.height


def _read_packet(path: Path) -> "Packet[VideoStream]":
    with _open_image(path) as source:
        try:
            return next(packet for packet in source.demux(video=0) if packet.size)
        except (FFmpegError, StopIteration) as error:
            raise DatasetError(f"{path}: cannot be read as an image") from error


def _describe(kind: tuple[str, int, int]) -> str:
    """A format and size for a message.

    >>> _describe(("mjpeg", 856, 480))
    'mjpeg 856x480'
    """
    return f"{kind[0]} {kind[1]}x{kind[2]}"
