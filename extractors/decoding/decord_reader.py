"""Reading video with decord, for the files whose frames it returns as PyAV does.

The only module that imports decord. decord 0.6.0 is unmaintained. Its defects and how they are
handled:
    - It counts frames that are not shown (edit lists), and returns its last frame again for those
      that it could not decode. One such substitution is an error here (`fault_tol`).
    - Where frames are missing it seeks back and guesses, sometimes for ever (dmlc/decord issue
      373). Its seeks are switched off (`DECORD_REWIND_RETRY_MAX`).
    - `DECORD_EOF_RETRY_MAX` limits how often it polls a busy decoder before it substitutes; with a
      low value intact files fail at random. It is set out of reach.
    - It decodes ahead without bound when its reader is slow (dmlc/decord issue 157), so a video
      that would not fit into MAX_DECORD_BYTES goes to PyAV.
    - It returns damaged HEVC and VP9 frames where PyAV reports an error, and conceals damage in
      VP8 and MPEG-4 differently. It reads H.264 only, where both do the same.
    - It ignores mirroring, and converts 10 bit and odd sizes differently. PyAV reads those.
    - It garbles narrow frames, whose padding it mistakes for channels (at 48 and at 8 pixels).
      Its first frame is compared with PyAV's.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extractors.decoding.pyav_file import VideoError
from extractors.decoding.pyav_reader import StreamIndex

# decord reads both when it is imported.
os.environ["DECORD_REWIND_RETRY_MAX"] = "-1"
os.environ["DECORD_EOF_RETRY_MAX"] = "2000000000"

try:
    import decord
except (ImportError, OSError):  # there is no wheel for aarch64
    decord = None
else:
    decord.logging.set_level(decord.logging.QUIET)

# decord opens a file with its own FFmpeg of 2018. These containers begin with bytes that it does
# not mistake for a playlist, so it opens no other file.
DECORD_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv"}

# decord fails or succeeds on damaged files as PyAV does, and has the same colors.
DECORD_CODECS = {"h264"}
DECORD_PIXEL_FORMATS = {"yuv420p", "yuvj420p"}

# decord may hold the whole decoded video in memory. Measured: 1.3 GB for 1,394 frames of 768x432.
MAX_DECORD_BYTES = 1 << 29

# For decord an integer of 0 means "never fail", a real number a fraction of the frames.
NO_SUBSTITUTION = "0.000000001"

# Largest difference of the decoders' first frames, in levels of 255. 0 was measured.
MAX_LEVEL_DIFFERENCE = 2

VERSION = "decord is not installed" if decord is None else f"decord {decord.__version__}"


class DecoderFailure(VideoError):
    """decord failed, so what it returned is void; read the file again with decoder="pyav"."""


def is_truthful(path: Path, index: StreamIndex) -> bool:
    """Whether decord returns exactly the frames of this file that PyAV does.

    The index is checked first; then decord's own timestamps and its first frame are compared.
    """
    if decord is None or not _is_for_decord(index):
        return False
    try:
        reader = _open_decord(path)
        if len(reader) != index.n_frames:
            return False
        timestamps = reader.get_frame_timestamp(np.arange(index.n_frames))[:, 0].astype(float)
        first_frame = reader.next().asnumpy()
    except _decord_errors():
        return False
    if first_frame.shape != index.first_frame.shape:
        return False
    # decord counts from the first frame, in float32.
    tolerance = 1e-3 + 3e-7 * np.abs(index.timestamps).max()
    expected = index.timestamps - index.timestamps[0]
    difference = first_frame.astype(np.int16) - index.first_frame
    return bool(
        np.allclose(timestamps - timestamps[0], expected, rtol=0, atol=tolerance)
        and np.abs(difference).max() <= MAX_LEVEL_DIFFERENCE
    )


def read_frames(path: Path, index: StreamIndex) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """Yield every frame with its time, or raise an error.

    Yields:
        (H, W, 3) uint8 RGB, rotated as shown, and seconds, each later than the one before.

    Raises:
        DecoderFailure: If decord cannot decode every announced frame.
    """
    reader: Any = None
    for seconds in index.timestamps.tolist():
        try:
            reader = _open_decord(path) if reader is None else reader
            image = reader.next().asnumpy()
        except _decord_errors() as error:
            problem = "was not decoded to its end by decord; read it with decoder='pyav'"
            raise DecoderFailure.about(path, problem) from error
        yield image, seconds


def _is_for_decord(index: StreamIndex) -> bool:
    height, width, _ = index.first_frame.shape
    a, b, c, d = index.turn
    is_mirrored = a * d - b * c < 0
    return (
        index.is_plain
        and index.container in DECORD_CONTAINERS
        and index.codec in DECORD_CODECS
        and index.pixel_format in DECORD_PIXEL_FORMATS
        and height % 2 == width % 2 == 0
        and not is_mirrored
        and index.n_frames * index.first_frame.nbytes <= MAX_DECORD_BYTES
    )


def _open_decord(path: Path) -> Any:
    return decord.VideoReader(str(path.absolute()), num_threads=1, fault_tol=NO_SUBSTITUTION)


def _decord_errors() -> tuple[type[Exception], ...]:
    return (
        decord.DECORDError,
        decord.DECORDLimitReachedError,
        AssertionError,
        RuntimeError,
        StopIteration,
        UnicodeError,
    )
