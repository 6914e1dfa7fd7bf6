"""Reading the frames of a video in presentation order, each with its own timestamp.

decord reads the files whose frames it returns as PyAV does (`decord_reader.py`), PyAV all others. A
frame that cannot be decoded is skipped and counted, and never replaced by another one. A folder of
frames is read as a video, too (`frame_folder.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from extractors.decoding import decord_reader, frame_folder, pyav_reader
from extractors.decoding.decord_reader import DecoderFailure
from extractors.decoding.frame_folder import FrameFolder, VideoSource, path_of
from extractors.decoding.pyav_file import VideoError

__all__ = ["DecoderFailure", "FrameChunk", "FrameFolder", "Video", "VideoError"]


@dataclass(frozen=True, slots=True, eq=False)
class FrameChunk:
    """Consecutive frames of a video.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB in [0, 255], rotated as they are shown.
        timestamps: (T,) float64 seconds, strictly increasing. The first frame of a video may be
            before or after 0.

    Raises:
        ValueError: If the arrays are not of these shapes and types.
    """

    frames: NDArray[np.uint8]
    timestamps: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape, dtype = self.frames.shape, self.frames.dtype
        if len(shape) != 4 or shape[3] != 3 or dtype != np.uint8:
            raise ValueError(f"frames must be (T, H, W, 3) uint8, instead got {shape} {dtype}")
        times_shape, times_dtype = self.timestamps.shape, self.timestamps.dtype
        if times_shape != shape[:1] or times_dtype != np.float64:
            raise ValueError(
                f"timestamps must be {shape[:1]} float64, instead got {times_shape} {times_dtype}"
            )


class Video:
    """The frames of one video file or folder of frames, decoded on request.

    Opening reads the file's packets once and decodes its first frame.

    Attributes:
        path: The file or the folder.
        fps: Average frames per second.
        height: Pixels, after rotation.
        width: Pixels, after rotation.
        n_frames_expected: Frames that the file's packets can show, and those that it lists beyond
            its end. They are estimated from the duration of a truncated Matroska file, and unknown
            for a truncated MPEG-TS file.
        n_missing: Frames of these that could not be decoded, or are listed beyond the end of the
            file; known at the end of `read`, 0 before. Also 0 if no packet was broken and the file
            is complete: frames that are announced and never shown are not missing.
        decoder: "decord" or "pyav".
        decoder_version: Its name and version.

    Raises:
        VideoError: If the file cannot be read or has no video that can be decoded.
        DecoderFailure: If decord was asked for and does not return the frames that PyAV does.
        ValueError: If the decoder is neither "decord" nor "pyav".
    """

    def __init__(
        self, source: VideoSource, decoder: Literal["decord", "pyav"] | None = None
    ) -> None:
        if decoder not in ("decord", "pyav", None):
            raise ValueError(f"decoder must be 'decord', 'pyav' or None, instead got {decoder!r}")
        self._source = source
        self.path: Path = path_of(source)
        if isinstance(source, FrameFolder):
            self._index = frame_folder.read_index(source)
        else:
            self._index = pyav_reader.read_index(source)
        self.fps = self._index.fps
        self.height, self.width = self._index.first_frame.shape[:2]
        self.n_frames_expected = self._index.n_frames
        self.n_missing = 0
        self.decoder, self.decoder_version = "pyav", pyav_reader.VERSION
        if decoder != "pyav" and decord_reader.is_truthful(self.path, self._index):
            self.decoder, self.decoder_version = "decord", decord_reader.VERSION
        elif decoder == "decord":
            raise DecoderFailure.about(
                self.path, "is not decoded exactly by decord; read it with decoder='pyav'"
            )

    def read(self, chunk_len: int) -> Iterator[FrameChunk]:
        """Decode all frames from the first to the last, in bounded memory.

        Args:
            chunk_len: Frames in every chunk but the last, which may have fewer.

        Returns:
            An iterator over chunks, after which `n_missing` is known.

        Raises:
            ValueError: If chunk_len is not positive.
            DecoderFailure: From the iterator, if decord fails; the chunks before are void, too.
            VideoError: From the iterator, if the file no longer exists, or a frame of a folder
                cannot be decoded or differs from the others in size.
        """
        if chunk_len < 1:
            raise ValueError(f"chunk_len must be at least 1, instead got {chunk_len}")
        return self._read(chunk_len)

    def _read(self, chunk_len: int) -> Iterator[FrameChunk]:
        self.n_missing = 0
        n_frames = 0
        is_damaged = self._index.n_cut_off > 0
        images: list[NDArray[np.uint8]] = []
        timestamps: list[float] = []
        for frame in self._read_frames():
            if frame is None:
                is_damaged = True
                continue
            n_frames += 1
            images.append(frame[0])
            timestamps.append(frame[1])
            if len(images) == chunk_len:
                yield FrameChunk(_stack(images), np.array(timestamps))
                timestamps = []
        if images:
            yield FrameChunk(_stack(images), np.array(timestamps))
        if is_damaged:
            self.n_missing = max(0, self.n_frames_expected - n_frames)

    def _read_frames(self) -> Iterator[tuple[NDArray[np.uint8], float] | None]:
        if isinstance(self._source, FrameFolder):
            return frame_folder.read_frames(self._source, self._index)
        if self.decoder == "decord":
            return decord_reader.read_frames(self._source, self._index)
        return pyav_reader.read_frames(self._source, self._index)


def _stack(images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Move the list's frames into one array, without holding every frame twice."""
    frames = np.empty((len(images), *images[0].shape), np.uint8)
    for i in reversed(range(len(images))):
        frames[i] = images.pop()
    return frames
