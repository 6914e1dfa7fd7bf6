"""Extraction on several GPUs of one machine: a process for each, all into one folder."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from extractors.build import ExtractorChoice
from extractors.errors import LookaroundError
from extractors.features import Extractor
from pipeline.datasets.catalog import VideoEntry
from pipeline.extraction.extract_entries import extract_entries
from pipeline.extraction.shards import Shard
from pipeline.extraction.summary import ExtractEvent


class DeviceProcessError(LookaroundError, OSError):
    """The process of one device ended before the videos did."""


def extract_on_devices(
    entries: Sequence[VideoEntry],
    folder: Path,
    choice: ExtractorChoice,
    devices: Sequence[torch.device],
    *,
    shard: Shard,
    retry_failed: bool,
) -> Iterator[ExtractEvent]:
    """Extract what is not there yet of some videos; each device begins with a part of the shard.

    Args:
        entries: The videos that are wanted.
        folder: The dataset's folder of features.
        choice: The extractor, which is built on each device.
        devices: One or more.
        shard: The part of the videos to begin with.
        retry_failed: Try videos again that failed in an earlier run.

    Yields:
        The events of all devices: one outcome of each video and device.

    Raises:
        DeviceProcessError: If a process dies; the others are then ended, too.
        FeatureFileError, WeightsError, ExtractorError: As with one device.
    """
    with ExitStack() as stack:
        running: dict[Connection, tuple[torch.device, BaseProcess]] = {}
        for device, part in zip(devices, shard.split(len(devices)), strict=True):
            extract = partial(
                extract_entries, entries, folder, shard=part, retry_failed=retry_failed
            )
            connection, process = _start(extract, choice, device)
            stack.callback(_end, connection, process)
            running[connection] = device, process
        while running:
            ready = wait(list(running))
            for connection in [one for one in running if one in ready]:
                message = _receive(connection, *running[connection])
                if message is None:
                    del running[connection]
                elif isinstance(message, Exception):
                    raise message
                else:
                    yield message


def _start(
    extract: Callable[[Extractor], Iterator[ExtractEvent]],
    choice: ExtractorChoice,
    device: torch.device,
) -> tuple[Connection, BaseProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_extract, args=(theirs, extract, choice, device))
    # Ctrl-C reaches the parent, which ends this process; a child inherits the mask.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    theirs.close()
    return ours, process


def _extract(
    connection: Connection,
    extract: Callable[[Extractor], Iterator[ExtractEvent]],
    choice: ExtractorChoice,
    device: torch.device,
) -> None:
    """Run in a device's process: send events, and at the end None or the error that stopped it."""
    try:
        for event in extract(choice.build(device)):
            connection.send(event)
    except ConnectionError:
        return  # the parent is gone
    except (OSError, ValueError) as error:
        connection.send(error)
    else:
        connection.send(None)


def _receive(
    connection: Connection, device: torch.device, process: BaseProcess
) -> ExtractEvent | Exception | None:
    try:
        message: ExtractEvent | Exception | None = connection.recv()
    except EOFError as error:
        process.join()
        raise DeviceProcessError(
            f"the process of {device} ended with exit code {process.exitcode} before its videos "
            "did; run the command again to go on"
        ) from error
    return message


def _end(connection: Connection, process: BaseProcess) -> None:
    process.terminate()
    process.join()
    connection.close()
