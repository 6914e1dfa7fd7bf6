"""Extraction on a Ray cluster: a task for each video. The only module that imports Ray.

All nodes see the videos and the features folder under the same paths. A task that loses its node is
given to another node; a video's features do not depend on where they are computed.
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
from pipeline.datasets.catalog import VideoEntry
from pipeline.extraction.extract_entries import extract_entries
from pipeline.extraction.status import Failure
from pipeline.extraction.summary import VideoOutcome

MAX_RETRIES = 3


class RayError(LookaroundError, OSError):
    """The Ray cluster cannot be reached."""


def extract_on_ray(
    entries: Sequence[VideoEntry],
    folder: Path,
    choice: ExtractorChoice,
    *,
    address: str | None,
    device: str,
    retry_failed: bool,
) -> Iterator[VideoOutcome]:
    """Extract what is not there yet of some videos, a video per task.

    Args:
        entries: The videos that are wanted.
        folder: The dataset's folder of features.
        choice: The extractor, which is built once in each of Ray's processes.
        address: Of the cluster; None starts one on this machine.
        device: "cuda" asks Ray for a GPU per task, "cpu" for a core.
        retry_failed: Try videos again that failed in an earlier run.

    Yields:
        One outcome of each video.

    Raises:
        RayError: If the cluster cannot be reached.
        FeatureFileError, WeightsError, ExtractorError: As without Ray.
    """
    try:
        context = ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RayError(f"no Ray cluster at {address or 'this machine'} ({error})") from error
    task = ray.remote(_extract_one).options(
        num_gpus=1 if device == "cuda" else 0,
        num_cpus=1,
        max_retries=MAX_RETRIES,
    )
    with context:
        # Ray's processes have working folders of their own.
        there = folder.absolute()
        choice_there = replace(
            choice,
            weights=_absolute_path(choice.weights),
            flow_weights=_absolute_path(choice.flow_weights),
        )
        waiting = {
            task.remote(_absolute(entry), there, choice_there, device, retry_failed): entry
            for entry in entries
        }
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            entry = waiting.pop(done)
            try:
                yield ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayError as error:
                yield VideoOutcome(entry.video_id, "failed", failure=_lost(entry, error))


def _extract_one(
    entry: VideoEntry, folder: Path, choice: ExtractorChoice, device: str, retry_failed: bool
) -> VideoOutcome:
    """Run in one of Ray's processes."""
    events = extract_entries([entry], folder, _extractor(choice, device), retry_failed=retry_failed)
    (outcome,) = [event for event in events if isinstance(event, VideoOutcome)]
    return outcome


@functools.lru_cache(maxsize=1)
def _extractor(choice: ExtractorChoice, device: str) -> Extractor:
    """The extractor of this process, built for its first task."""
    return choice.build(torch.device(device))


def _absolute(entry: VideoEntry) -> VideoEntry:
    return replace(entry, path=entry.path.absolute())


def _absolute_path(weights: str | None) -> str | None:
    """Weights by name stay as they are."""
    return str(Path(weights).absolute()) if weights and Path(weights).exists() else weights


def _lost(entry: VideoEntry, error: Exception) -> Failure:
    """A video whose tasks all lost their process or node; a later run tries it again."""
    reason = f"{entry.path}: lost with its node, {MAX_RETRIES + 1} times ({type(error).__name__})"
    return Failure(entry.video_id, type(error).__name__, reason, is_quarantined=False)
