"""Reading video with decord, where it can be trusted.

decord 0.6.0 is unmaintained. What it does wrong, and what is done about it:
    - It counts frames that are not shown (edit lists), and hands out its last frame again for
      those that it could not decode. One such substitution is an error here (`fault_tol`).
    - Where frames are missing it seeks back and starts to guess, in places without an end
      (dmlc/decord issue 373). Its seeks are switched off (`DECORD_REWIND_RETRY_MAX`).
    - `DECORD_EOF_RETRY_MAX` counts how often it asked a busy decoder in vain. Reached, it
      substitutes; a low value makes sound files fail by chance. It is set out of reach.
    - It decodes ahead without bound when its reader is slow (dmlc/decord issue 157), so a video
      that would not fit into MAX_DECORD_BYTES goes to PyAV.
    - It returns damaged HEVC and VP9 frames where PyAV reports an error, and conceals damage in
      VP8 and MPEG-4 in its own way. It is trusted with H.264, where both do the same.
    - It ignores mirroring, and converts 10 bit and odd sizes in its own way. PyAV reads those.
    - It garbles frames so narrow that their padding is taken for channels (48 pixels and 8 are).
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

# decord reads both when it is loaded.
os.environ["DECORD_REWIND_RETRY_MAX"] = "-1"
os.environ["DECORD_EOF_RETRY_MAX"] = "2000000000"

try:
    import decord
except (ImportError, OSError):  # there is no wheel for aarch64
    decord = None
else:
    decord.logging.set_level(decord.logging.QUIET)

# decord opens a file by itself, with an FFmpeg of 2018. These begin with bytes that it takes for no
# playlist, so it opens no other file.
DECORD_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv"}

# Where decord fails or succeeds on damaged files as PyAV does, and has the same colours.
DECORD_CODECS = {"h264"}
DECORD_PIXEL_FORMATS = {"yuv420p", "yuvj420p"}

# decord may hold the whole decoded video. Measured: 1.3 GB for 1,394 frames of 768x432.
MAX_DECORD_BYTES = 1 << 29

# decord takes an integer of 0 for "never fail", and a fraction for a share of the frames.
NO_SUBSTITUTION = "0.000000001"

# Levels of 255 by which the decoders' first frames may differ. 0 is what was measured.
MAX_LEVEL_DIFFERENCE = 2

VERSION = "decord is not installed" if decord is None else f"decord {decord.__version__}"


class DecoderFailure(VideoError):
    """decord failed, so nothing that it returned counts; read again with decoder="pyav"."""


def is_truthful(path: Path, index: StreamIndex) -> bool:
    """Whether decord shows the frames of this file, and all of them, as PyAV does.

    What the index tells is asked first; then decord's own list and its first frame are compared.
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
    """Yield every frame with its time, all of them or an error.

    Yields:
        (H, W, 3) uint8 RGB, turned as shown, and seconds, each later than the one before.

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
