"""Extraction on a Ray cluster: a task for each video. The only door to Ray.

All nodes see the videos and the features folder under the same paths. A task that loses its node is
given to another; what a video's features are does not depend on where they were computed.
"""

import functools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import ray
import torch

from extractors.build import ExtractorChoice
from extractors.errors import LookaroundError
from extractors.features import Extractor
from pipeline.datasets.catalog import Dataset, VideoEntry
from pipeline.extraction.extract import extract_entries, in_order
from pipeline.extraction.extract_records import ExtractRecord, FramesDone, VideoFailed
from pipeline.extraction.status import Failure

MAX_RETRIES = 3


class RayError(LookaroundError, OSError):
    """The Ray cluster cannot be reached."""


def extract_on_ray(
    dataset: Dataset,
    features_folder: Path,
    choice: ExtractorChoice,
    *,
    entries: Sequence[VideoEntry],
    address: str | None,
    device: str,
    retry_failed: bool,
) -> Iterator[ExtractRecord]:
    """Extract what is not there yet of a dataset, a video per task.

    Args:
        dataset: All videos, for the table of them.
        features_folder: Takes `<dataset>/<video_id>.h5`.
        choice: The extractor, which is built once in each of Ray's processes.
        entries: Those of its videos that are wanted.
        address: Of the cluster; None starts one on this machine.
        device: "cuda" asks Ray for a GPU per task, "cpu" for a core.
        retry_failed: Try videos again that failed in an earlier run.

    Yields:
        What `extract_dataset` yields, but for `FramesDone`.

    Raises:
        RayError: If the cluster cannot be reached.
        FeatureFileError, WeightsError, ExtractorError: As without Ray.
    """
    folder = (features_folder / dataset.name).absolute()
    return in_order(
        dataset,
        folder,
        entries,
        lambda some: _extract_on_cluster(some, folder, choice, address, device, retry_failed),
    )


def _extract_on_cluster(
    entries: Sequence[VideoEntry],
    folder: Path,
    choice: ExtractorChoice,
    address: str | None,
    device: str,
    retry_failed: bool,
) -> Iterator[ExtractRecord]:
    try:
        context = ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RayError(f"no Ray cluster at {address or 'this machine'} ({error})") from error
    absolute_choice = replace(
        choice,
        weights=_absolute_path(choice.weights),
        flow_weights=_absolute_path(choice.flow_weights),
    )
    task = ray.remote(_extract_one).options(
        num_gpus=1 if device == "cuda" else 0,
        num_cpus=1,
        max_retries=MAX_RETRIES,
    )
    with context:
        waiting = {
            task.remote(_absolute(entry), folder, absolute_choice, device, retry_failed): entry
            for entry in entries
        }
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            entry = waiting.pop(done)
            try:
                yield from ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayError as error:
                yield VideoFailed(_lost(entry, error))


def _extract_one(
    entry: VideoEntry, folder: Path, choice: ExtractorChoice, device: str, retry_failed: bool
) -> list[ExtractRecord]:
    """Run in one of Ray's processes."""
    records = extract_entries(
        [entry], folder, _extractor(choice, device), retry_failed=retry_failed
    )
    return [record for record in records if not isinstance(record, FramesDone)]


@functools.lru_cache(maxsize=1)
def _extractor(choice: ExtractorChoice, device: str) -> Extractor:
    """The extractor of this process, built for its first task."""
    return choice.build(torch.device(device))


def _absolute(entry: VideoEntry) -> VideoEntry:
    """Ray's processes have working folders of their own."""
    return replace(entry, path=entry.path.absolute())


def _absolute_path(weights: str | None) -> str | None:
    """Weights by name stay as they are."""
    return str(Path(weights).absolute()) if weights and Path(weights).exists() else weights


def _lost(entry: VideoEntry, error: Exception) -> Failure:
    """A video whose tasks all lost their process or node; a later run tries it again."""
    reason = f"{entry.path}: lost with its node, {MAX_RETRIES + 1} times ({type(error).__name__})"
    return Failure(entry.video_id, type(error).__name__, reason, is_quarantined=False)
