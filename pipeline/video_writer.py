"""Write video files as H.264: frames at a fixed rate, or at their own times with sound copied."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from extractors.decoding.frame_folder import FrameFolder, VideoSource
from extractors.decoding.pyav_file import open_video
from extractors.errors import LookaroundError
from pipeline.atomic import replacing

Frame = NDArray[np.uint8]
TimedPacket = tuple[float, "Packet[AudioStream]"]

CONTAINERS = {".mp4": "mp4", ".mkv": "matroska"}
# Sound that mp4 holds and that players find in it.
MP4_SOUND = frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp2", "mp3", "mp3float", "opus"})
# A multiple of most frame rates, and what MPEG counts in.
TIME_BASE = Fraction(1, 90_000)
BT709 = 1


class VideoWriterError(LookaroundError, OSError):
    """A video cannot be written as asked for."""


def write_video(path: Path, frames: Iterable[Frame], *, fps: int) -> None:
    """Encode frames as H.264 in mp4, the same bytes on any number of cores.

    Args:
        path: Where to.
        frames: At least one, each (H, W, 3) uint8 RGB with even sides.
        fps: Frames per second.
    """
    with av.open(path, "w", format="mp4") as container:
        # Frames in the order of presentation, as cameras write them.
        stream = container.add_stream(
            "libx264", rate=fps, options={"crf": "20", "preset": "veryfast", "bf": "0"}
        )
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for index, frame in enumerate(frames):
            if index == 0:
                stream.height, stream.width = frame.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_with_sound(
    path: Path, frames: Iterable[tuple[Frame, float]], source: VideoSource, *, stop_seconds: float
) -> None:
    """Encode frames at their times as H.264, with the sound of another file copied beside them.

    Args:
        path: The file, `.mp4` or `.mkv`; it appears whole or not at all.
        frames: At least one: (H, W, 3) uint8 RGB of one size, and seconds, ascending. The written
            video begins at 0 with the first one; an odd side grows by a pixel.
        source: The file whose best sound stream is copied, from the first frame's time on. A file
            without sound gives none, nor does a folder of frames.
        stop_seconds: When the sound ends, on the clock of the frames.

    Raises:
        VideoWriterError: If the container is not one of these or cannot hold the sound, or the
            file cannot be written.
        VideoError: If the source cannot be opened.
        ValueError: If there is no frame.
    """
    container_name = container_for(path, source)
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise ValueError("a video needs at least one frame, instead got none")
    span = (first[1], stop_seconds)
    opened: AbstractContextManager[InputContainer | None]
    opened = nullcontext() if isinstance(source, FrameFolder) else open_video(source)
    with replacing(path) as temporary, opened as source_file:
        try:
            with av.open(temporary, "w", format=container_name) as container:
                stream = _add_video(container, first[0])
                sound = _copy_sound(container, source_file, span)
                _write(container, stream, chain([first], remaining), span, sound)
        except FFmpegError as error:
            raise VideoWriterError(f"{path}: cannot be written ({error.strerror})") from error


def container_for(path: Path, source: VideoSource) -> str:
    """FFmpeg's name of the container that a file name stands for.

    Args:
        path: The file to write.
        source: The video whose sound it is to hold.

    Raises:
        VideoWriterError: If the container is not one of `CONTAINERS` or cannot hold the sound.
        VideoError: If the source cannot be opened.
    """
    container = CONTAINERS.get(path.suffix.lower())
    if container is None:
        expected = " or ".join(CONTAINERS)
        raise VideoWriterError(f"{path}: expected a name that ends in {expected}")
    if container == "mp4" and suffix_for_sound(source) != ".mp4":
        codec = sound_codec(source)
        raise VideoWriterError(f"{path}: mp4 cannot hold {codec} sound; name a .mkv file")
    return container


def suffix_for_sound(source: VideoSource) -> str:
    """The suffix of a file that holds a video's sound: ".mp4" where that can, else ".mkv".

    Raises:
        VideoError: If the source cannot be opened.
    """
    codec = sound_codec(source)
    return ".mp4" if codec is None or codec in MP4_SOUND else ".mkv"


def sound_codec(source: VideoSource) -> str | None:
    """FFmpeg's name of the codec of a video's best sound stream; None where it has no sound.

    Raises:
        VideoError: If the file cannot be opened.
    """
    if isinstance(source, FrameFolder):
        return None
    with open_video(source) as container:
        sound = container.streams.best("audio")
        return None if sound is None else str(sound.codec_context.name)


def _add_video(container: OutputContainer, frame: Frame) -> VideoStream:
    options = {"crf": "20", "preset": "veryfast", "bf": "0"}
    stream = container.add_stream("libx264", options=options)
    stream.height, stream.width = (side + side % 2 for side in frame.shape[:2])
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = TIME_BASE
    stream.codec_context.colorspace = BT709
    stream.codec_context.color_primaries = BT709
    stream.codec_context.color_trc = BT709
    return stream


def _write(
    container: OutputContainer,
    stream: VideoStream,
    frames: Iterable[tuple[Frame, float]],
    span: tuple[float, float],
    sound: Iterator[TimedPacket],
) -> None:
    """Encode the frames, and write each packet of sound beside the frame that is shown then."""
    origin, stop = span
    packet = next(sound, None)
    last, duration = origin, 0.0
    for image, seconds in frames:
        frame = av.VideoFrame.from_ndarray(_even(image), format="rgb24").reformat(
            format="yuv420p", dst_colorspace=BT709
        )
        frame.pts = round((seconds - origin) / TIME_BASE)
        frame.time_base = TIME_BASE
        container.mux(stream.encode(frame))
        last, duration = seconds, seconds - last
        while packet is not None and packet[0] <= seconds:
            container.mux(packet[1])
            packet = next(sound, None)
    encoded = stream.encode()
    if encoded:  # the last frame is shown as long as the one before it
        encoded[-1].duration = round(max(min(duration, stop - last), 0) / TIME_BASE)
    container.mux(encoded)
    while packet is not None:
        container.mux(packet[1])
        packet = next(sound, None)


def _even(image: Frame) -> Frame:
    """Repeat the last row or column of an image with an odd side, which 4:2:0 cannot have."""
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(image)


def _copy_sound(
    container: OutputContainer, source: InputContainer | None, span: tuple[float, float]
) -> Iterator[TimedPacket]:
    """Add a sound stream like the source's best one, and give its packets within a span."""
    sound = None if source is None else source.streams.best("audio")
    if source is None or not isinstance(sound, AudioStream):
        return iter(())
    return _packets(source, sound, container.add_stream_from_template(sound), span)


def _packets(
    source: InputContainer, sound: AudioStream, copied: AudioStream, span: tuple[float, float]
) -> Iterator[TimedPacket]:
    base = sound.time_base
    assert base is not None  # a stream that is read has one
    start, stop = span
    offset = round(start / base)
    source.seek(max(offset, sound.start_time or 0), stream=sound)
    for packet in source.demux(sound):
        if packet.pts is None or packet.dts is None or packet.pts < offset:
            continue
        seconds = float(packet.pts * base)
        if seconds >= stop:
            return
        packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
        packet.stream = copied
        yield seconds, packet
