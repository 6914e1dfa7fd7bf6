"""The source of live video that a user names: a camera, an RTSP or HTTP address, a growing file."""

import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from extractors.errors import LookaroundError

SCHEMES = ("rtsp", "rtsps", "http", "https")
EXPECTED = (
    "expected a camera such as /dev/video0, an address that begins with "
    f"{', '.join(f'{scheme}://' for scheme in SCHEMES)}, or a file"
)


class LiveSourceError(LookaroundError, OSError):
    """A source of live video cannot be read."""


@dataclass(frozen=True, slots=True)
class LiveSource:
    """A source of live video.

    Attributes:
        kind: "camera" is a V4L2 device.
        address: What FFmpeg opens: a path, or an address that may hold a password.
        name: For messages and results: the address without user name, password and query.
    """

    kind: Literal["camera", "rtsp", "http", "file"]
    address: str = field(repr=False)
    name: str

    @classmethod
    def parse(cls, text: str) -> "LiveSource":
        """Read what a user typed.

        Raises:
            LiveSourceError: If it is neither a camera, nor an RTSP or HTTP address, nor a file.

        >>> LiveSource.parse("rtsp://admin:secret@camera:554/live?token=1").name
        'rtsp://camera:554/live'
        """
        scheme, separator, rest = text.partition("://")
        if separator and re.fullmatch(r"[a-zA-Z][a-zA-Z0-9+.-]*", scheme):
            scheme = scheme.lower()
            # All before the last @ is left out: an unescaped password may contain any character.
            host_and_path = re.split(r"[?#]", rest.rpartition("@")[2])[0]
            if scheme not in SCHEMES or not host_and_path.strip("/"):
                raise LiveSourceError(f"{scheme}://...: {EXPECTED}")
            kind: Literal["rtsp", "http"] = "rtsp" if scheme.startswith("rtsp") else "http"
            return cls(kind, f"{scheme}://{rest}", f"{scheme}://{host_and_path}")
        return cls._of_path(Path(text))

    @classmethod
    def _of_path(cls, path: Path) -> "LiveSource":
        try:
            mode = path.stat().st_mode
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise LiveSourceError(f"{path}: cannot be read ({reason}); {EXPECTED}") from error
        if stat.S_ISCHR(mode):
            return cls("camera", str(path), str(path))
        if stat.S_ISREG(mode):
            return cls("file", str(path.absolute()), str(path))
        raise LiveSourceError(f"{path}: is neither a camera nor a file; {EXPECTED}")
