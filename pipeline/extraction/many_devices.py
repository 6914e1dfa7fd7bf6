"""Extraction on several GPUs of one machine: a process for each, with a share of the videos."""

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from extractors.build import ExtractorChoice
from extractors.errors import LookaroundError
from pipeline.datasets.catalog import Dataset, VideoEntry
from pipeline.extraction.extract import extract_entries, in_order
from pipeline.extraction.extract_records import ExtractRecord
from pipeline.extraction.shards import Shard, entries_of_shard


class DeviceProcessError(LookaroundError, OSError):
    """The process of one device ended before its share of the videos did."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """A process is through; `error` is what stopped it before its end, if anything did."""

    error: OSError | ValueError | None


def extract_on_devices(
    dataset: Dataset,
    features_folder: Path,
    choice: ExtractorChoice,
    devices: Sequence[torch.device],
    *,
    entries: Sequence[VideoEntry],
    retry_failed: bool,
) -> Iterator[ExtractRecord]:
    """Extract what is not there yet of a dataset, its videos shared out by their ids.

    Args:
        dataset: All videos, for the table of them.
        features_folder: Takes `<dataset>/<video_id>.h5`.
        choice: The extractor, which is built on each device.
        devices: One or more.
        entries: Those of the videos that are wanted.
        retry_failed: Try videos again that failed in an earlier run.

    Yields:
        What `extract_dataset` yields, of all devices mixed.

    Raises:
        DeviceProcessError: If a process dies; the others are then ended, too.
        FeatureFileError, WeightsError, ExtractorError: As with one device.
    """
    folder = features_folder / dataset.name
    return in_order(
        dataset,
        folder,
        entries,
        lambda some: _extract_shares(some, folder, choice, devices, retry_failed),
    )


def _extract_shares(
    entries: Sequence[VideoEntry],
    folder: Path,
    choice: ExtractorChoice,
    devices: Sequence[torch.device],
    retry_failed: bool,
) -> Iterator[ExtractRecord]:
    with ExitStack() as stack:
        processes: list[tuple[Connection, torch.device, BaseProcess]] = []
        for index, device in enumerate(devices):
            share = entries_of_shard(entries, Shard(index, len(devices)))
            connection, process = _start(share, folder, choice, device, retry_failed)
            stack.callback(_end, connection, process)
            processes.append((connection, device, process))
        while processes:
            heard = wait([connection for connection, _, _ in processes])
            for speaker in [one for one in processes if one[0] in heard]:
                record = _receive(*speaker)
                if not isinstance(record, _Ended):
                    yield record
                elif record.error is not None:
                    raise record.error
                else:
                    processes.remove(speaker)


def _start(
    entries: Sequence[VideoEntry],
    folder: Path,
    choice: ExtractorChoice,
    device: torch.device,
    retry_failed: bool,
) -> tuple[Connection, BaseProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_extract, args=(theirs, entries, folder, choice, device, retry_failed)
    )
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
    entries: Sequence[VideoEntry],
    folder: Path,
    choice: ExtractorChoice,
    device: torch.device,
    retry_failed: bool,
) -> None:
    """Run in a device's process."""
    try:
        extractor = choice.build(device)
        for record in extract_entries(entries, folder, extractor, retry_failed=retry_failed):
            connection.send(record)
    except ConnectionError:
        return  # the parent is gone
    except (OSError, ValueError) as error:
        connection.send(_Ended(error))
    else:
        connection.send(_Ended(None))


def _receive(
    connection: Connection, device: torch.device, process: BaseProcess
) -> ExtractRecord | _Ended:
    try:
        record: ExtractRecord | _Ended = connection.recv()
    except EOFError as error:
        process.join()
        raise DeviceProcessError(
            f"the process of {device} ended with exit code {process.exitcode} before its videos "
            "did; run the command again to go on"
        ) from error
    return record


def _end(connection: Connection, process: BaseProcess) -> None:
    process.terminate()
    process.join()
    connection.close()
