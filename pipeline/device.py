"""The device (CPU or GPU) that the networks run on: choosing and describing it."""

import torch

from pipeline.config import ConfigError


def choose_device(name: str | torch.device) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:1` into a device that is there; a GPU has its index.

    `auto` takes the first GPU, else the CPU, and `cuda` the first GPU. A device that was named is
    never replaced by another.

    Raises:
        ConfigError: If the name is not a device or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(str(name))
    except RuntimeError:
        raise ConfigError(
            f"device must be auto, cpu, cuda or cuda:N, instead got {name!r}"
        ) from None
    n_gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= n_gpus:
        raise ConfigError(
            f"device {name!r} was asked for, but this machine has {n_gpus} GPUs; "
            "name another with --device, or auto"
        )
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, instead got {name!r}")
    # Much of torch wants a GPU's index, and a device without one is not equal to one with it.
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def choose_devices(names: str | torch.device) -> list[torch.device]:
    """Turn one name, or several with commas between, into devices that are there.

    Raises:
        ConfigError: As `choose_device`, and if a device is named twice.
    """
    devices = [choose_device(name.strip()) for name in str(names).split(",")]
    if len(set(devices)) < len(devices):
        raise ConfigError(f"devices must be different ones, instead got {names!r}")
    return devices


def describe_device(device: torch.device) -> str:
    """The device in words that belong beside a timing.

    >>> describe_device(torch.device("cpu")).startswith("cpu (")
    True
    """
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"
