"""The choice of a device by name."""

import pytest
import torch

from pipeline.config import ConfigError
from pipeline.device import choose_device, choose_devices


@pytest.fixture
def gpus(monkeypatch):
    """A function that makes the machine appear to have so many GPUs."""

    def pretend(n: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n)

    return pretend


@pytest.mark.parametrize(("n_gpus", "expected"), [(0, "cpu"), (1, "cuda:0"), (2, "cuda:0")])
def test_auto_takes_the_first_gpu_or_the_cpu(gpus, n_gpus, expected):
    gpus(n_gpus)
    assert str(choose_device("auto")) == expected


def test_a_gpu_that_is_there_is_taken_by_its_number(gpus):
    gpus(2)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert [str(device) for device in choose_devices("cuda:1, cuda:0")] == ["cuda:1", "cuda:0"]


@pytest.mark.parametrize(("n_gpus", "name"), [(0, "cuda"), (0, "cuda:0"), (1, "cuda:1")])
def test_a_gpu_that_is_not_there_is_never_replaced(gpus, n_gpus, name):
    gpus(n_gpus)
    with pytest.raises(ConfigError) as caught:
        choose_device(name)
    assert str(caught.value) == (
        f"device '{name}' was asked for, but this machine has {n_gpus} GPUs; "
        "name another with --device, or auto"
    )


def test_a_device_of_torch_stands_for_its_name(gpus):
    gpus(2)
    assert choose_device(torch.device("cpu")) == torch.device("cpu")
    assert choose_devices(torch.device("cuda", 1)) == [torch.device("cuda", 1)]


@pytest.mark.parametrize("name", ["gpu", "meta", "", None, 0])
def test_what_is_not_a_device_is_refused(name):
    with pytest.raises(ConfigError, match="device must be auto, cpu, cuda or cuda:N"):
        choose_device(name)
    with pytest.raises(ConfigError, match="device must be auto, cpu, cuda or cuda:N"):
        choose_devices(name)
