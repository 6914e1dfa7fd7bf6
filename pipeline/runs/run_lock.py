"""Which process trains a run: a lock on a file in the run's folder."""

import fcntl
import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from pipeline.atomic import remove_abandoned
from pipeline.runs.checkpoints import CheckpointError
from pipeline.runs.run_folder import Run

LOCK_NAME = ".lock"

logger = logging.getLogger(__name__)


@contextmanager
def owned(runs: Iterable[Run]) -> Iterator[None]:
    """Hold runs for this process, and remove what a process that was killed left half-written.

    A lock ends with its process, however that ends. On a file system without locks a run counts as
    owned, with a warning in the log.

    Args:
        runs: All that this process is going to train.

    Raises:
        CheckpointError: If another process trains one of them.
    """
    with ExitStack() as locks:
        for run in runs:
            lock = locks.enter_context((run.folder / LOCK_NAME).open("ab"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CheckpointError(
                    f"{run.folder}: is being trained by another process; wait for its end"
                ) from error
            except OSError as error:
                logger.warning("%s: cannot be locked (%s)", run.folder, error.strerror)
            if not run.is_finished:  # of a finished one, evaluations may be written just now
                remove_abandoned(run.folder)
        yield
