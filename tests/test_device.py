import pytest
import torch

from pipeline.config import ConfigError
from pipeline.device import choose_device


def test_auto_takes_what_is_there():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto").type == expected


def test_a_gpu_that_is_not_there_is_never_replaced():
    with pytest.raises(ConfigError, match="was asked for, but this machine has"):
        choose_device(f"cuda:{torch.cuda.device_count()}")


@pytest.mark.parametrize("name", ["gpu", "meta", ""])
def test_what_is_not_a_device_is_refused(name):
    with pytest.raises(ConfigError, match="device must be auto, cpu, cuda or cuda:N"):
        choose_device(name)
