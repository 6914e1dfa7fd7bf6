"""Stage 1: compute the features of a dataset's videos. The function behind `pipeline extract`."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from extractors.build import ExtractorChoice, ExtractorError
from extractors.networks.precision import check_precision
from pipeline.datasets import load_dataset
from pipeline.datasets.catalog import Dataset
from pipeline.device import choose_devices, describe_device
from pipeline.extraction.choices import resolve_choices
from pipeline.extraction.errors import ExtractionError
from pipeline.extraction.extract_entries import extract_entries
from pipeline.extraction.feature_folder import (
    ExtractSome,
    check_is_folder,
    extract_into_folder,
    precision_of_folder,
)
from pipeline.extraction.many_devices import extract_on_devices
from pipeline.extraction.profiles import describe_profile
from pipeline.extraction.shards import WHOLE, Shard, begin_with
from pipeline.extraction.summary import ExtractionSummary, Tally
from pipeline.notes import RANDOM_WEIGHTS_NOTE
from pipeline.progress import ReportProgress, no_report

AUTO = "auto"


def extract(
    dataset: str | Path | Dataset,
    *,
    videos: str | Path | None = None,
    allow_outside: bool = False,
    fps: float | None = None,
    features: str | Path = "features",
    profile: str | None = None,
    extractor: str | None = None,
    flow: str | None = None,
    crops: int | None = None,
    weights: str | Path | None = None,
    flow_weights: str | Path | None = None,
    precision: str = AUTO,
    device: str = AUTO,
    retry_failed: bool = False,
    shard: str | None = None,
    engine: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    report: ReportProgress = no_report,
) -> ExtractionSummary:
    """Compute the features of every video of a dataset, one HDF5 file per video.

    Features that are there already, extracted with the same settings, are kept. A video that fails
    does not stop the others. Any number of processes may extract into one folder: each video is
    locked by the process that extracts it. `<features>/<dataset>/status.csv` lists all videos.

    Args:
        dataset: A name, the path of a manifest CSV, or a loaded dataset.
        videos: Folder of the videos; by default `data/<dataset>`, or the manifest's folder. Has no
            effect on a loaded dataset, nor have the next two.
        allow_outside: Accept a manifest's links that lead out of this folder.
        fps: Frames per second of videos that are folders of frames; by default as published.
        features: Folder that takes `<dataset>/<video_id>.h5`.
        profile: A key of `PROFILES`: how published features were made. Options that contradict it
            are refused, except for weights.
        extractor: A name of a network; by default "i3d".
        flow: A name of a flow method, or "none" for RGB only; by default "tvl1".
        crops: Crops of each frame: 1, 5 or 10; by default 5.
        weights: A name of published weights, "random:SEED", or a file or folder; by default the
            extractor's published weights.
        flow_weights: The same for a flow method that is a network.
        precision: Of the networks: "float32", "bfloat16", or "auto": that of the features in the
            folder, else the best for the device.
        device: "auto", "cpu", "cuda" or "cuda:N"; or several GPUs of this machine with commas
            between: a process for each.
        retry_failed: Try videos again that failed in earlier runs.
        shard: "i/N": begin with the i-th of N parts, then go on with what other processes have
            left. By default as Slurm's array or RANK and WORLD_SIZE say, else the whole.
        engine: "ray" runs a task for each video on a Ray cluster.
        ray_address: Address of the Ray cluster; None starts one on this machine.
        report: Gets the progress in videos; its messages say which device, precision and shard are
            used, and which videos fail.

    Returns:
        How each video ended. Failures of single videos are there, and raise nothing.

    Raises:
        DatasetError: If there is no such dataset, its manifest is wrong, or none of its videos is
            there.
        ExtractionError, ExtractorError, ConfigError: If an option does not exist, contradicts
            another, or is not available on the device.
        WeightsError: If the weights cannot be loaded.
        FeatureFileError: If the folder holds features that were extracted with different settings,
            a file has its name, or the disk is full.
        DeviceProcessError: If the process of one of several devices dies.
        RayError: If the Ray cluster cannot be reached.
        OSError: If the folder cannot be written.
    """
    if not isinstance(dataset, Dataset):
        dataset = load_dataset(dataset, videos, allow_outside=allow_outside, fps=fps)
    dataset.check_any_video_is_there()
    choice = resolve_choices(
        profile,
        extractor=extractor,
        flow=flow,
        crops=crops,
        weights=None if weights is None else str(weights),
        flow_weights=None if flow_weights is None else str(flow_weights),
        precision=None if precision == AUTO else precision,
    )
    if engine not in ("local", "ray"):
        raise ExtractionError(f"engine must be local or ray, instead got {engine}")
    if ray_address is not None and engine != "ray":
        raise ExtractionError(f"ray_address needs engine ray, instead got engine {engine}")
    devices = choose_devices(device)
    folder = Path(features) / dataset.name
    check_is_folder(folder)
    tally = Tally(dataset.entries, report)
    for line in [] if profile is None else describe_profile(profile).splitlines():
        tally.note(line)
    tally.note(f"device: {', '.join(map(describe_device, devices))}")
    choice = _with_precision_of_folder(choice, folder, devices, tally)
    part = _choose_shard(shard, dataset, tally)
    if choice.has_random_weights:
        tally.note(RANDOM_WEIGHTS_NOTE)
    if engine == "ray":
        extract_some = _on_ray(folder, choice, devices, ray_address, retry_failed)
    else:
        extract_some = _on_devices(folder, choice, devices, part, retry_failed)
    for event in extract_into_folder(dataset, folder, extract_some):
        tally.add(event)
    return tally.summary(folder)


def _with_precision_of_folder(
    choice: ExtractorChoice, folder: Path, devices: Sequence[torch.device], tally: Tally
) -> ExtractorChoice:
    """Take the precision of the features that are there, unless one was asked for.

    Raises:
        ExtractorError: If a device cannot compute in it.
    """
    precision = precision_of_folder(folder) if choice.precision is None else None
    if precision is None:
        return choice
    tally.note(f"precision: {precision}, as of the features in {folder}")
    for device in devices:
        try:
            check_precision(precision, device)
        except ValueError as error:
            raise ExtractorError(
                f"{folder}: holds features in {precision}, which {device} cannot compute fast "
                f"({error}); give another folder with --features"
            ) from error
    return replace(choice, precision=precision)


def _choose_shard(text: str | None, dataset: Dataset, tally: Tally) -> Shard:
    """The part to begin with: the one that was asked for, else the cluster's, else the whole."""
    shard = Shard.of_environment() if text is None else Shard.parse(text)
    if shard is None:
        return WHOLE
    _, n_first = begin_with(dataset.entries, shard)
    tally.note(f"shard {shard}: begins with {n_first} of {len(dataset.entries)} videos")
    return shard


def _on_devices(
    folder: Path,
    choice: ExtractorChoice,
    devices: Sequence[torch.device],
    shard: Shard,
    retry_failed: bool,
) -> ExtractSome:
    """Extraction in this process, or in one for each of several devices."""
    if len(devices) > 1:
        return partial(
            extract_on_devices,
            folder=folder,
            choice=choice,
            devices=devices,
            shard=shard,
            retry_failed=retry_failed,
        )
    extractor = choice.build(devices[0])
    return partial(
        extract_entries,
        folder=folder,
        extractor=extractor,
        shard=shard,
        retry_failed=retry_failed,
    )


def _on_ray(
    folder: Path,
    choice: ExtractorChoice,
    devices: Sequence[torch.device],
    address: str | None,
    retry_failed: bool,
) -> ExtractSome:
    """Extraction on a Ray cluster. Ray is an extra: who has not got it is told how to get it."""
    if len(devices) > 1:
        raise ExtractionError("engine ray takes one device, cpu or cuda, instead got several")
    try:
        from pipeline.extraction.ray_extract import extract_on_ray  # noqa: PLC0415
    except ImportError as error:
        raise ExtractionError(
            "engine ray needs Ray, which is not installed: pip install ray"
        ) from error
    return partial(
        extract_on_ray,
        folder=folder,
        choice=choice,
        address=address,
        device=devices[0].type,
        retry_failed=retry_failed,
    )
