"""Locks on videos: any number of processes extract into one folder, and each video once.

Each video's lock is a lock on one byte of a file, which the operating system releases when the
process ends, however it ends: nothing is left to clean up after a kill.
"""

import fcntl
import hashlib
import logging
from pathlib import Path
from typing import Self

from pipeline.extraction.feature_paths import LOCKS_NAME

logger = logging.getLogger(__name__)

INDEX_BYTE = 2**56  # beyond those of the videos


class VideoLocks:
    """The locks of this process on the videos of one folder, held until it is closed.

    Args:
        folder: The dataset's folder of features; it is made if it is missing.

    Raises:
        OSError: If the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / LOCKS_NAME).open("ab")
        self._can_lock = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def lock(self, video_id: str) -> bool:
        """Lock a video; False if another process has locked it.

        On a file system without locks this is always True, with a warning in the log: two processes
        may then extract the same video, but every file is still written whole.
        """
        digest = hashlib.blake2b(video_id.encode(), digest_size=7).digest()
        return self._lock(int.from_bytes(digest), fcntl.LOCK_NB)

    def lock_index(self) -> None:
        """Wait until no other process is listing the folder and writing its index.

        Without the wait, the index of a process that listed the folder early could replace that of
        a process which listed it later.
        """
        self._lock(INDEX_BYTE, 0)

    def _lock(self, byte: int, how: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | how, 1, byte)
        except (BlockingIOError, PermissionError):  # the two ways to say that another has it
            return False
        except OSError as error:
            if self._can_lock:
                logger.warning("%s: cannot be locked (%s)", self._file.name, error.strerror)
            self._can_lock = False
        return True
