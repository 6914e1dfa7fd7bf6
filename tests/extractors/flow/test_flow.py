"""What every optical flow method in the registry must do."""

import json
from collections.abc import Iterator

import cv2
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from extractors.flow import build_flow
from extractors.flow.dis import DISFlow

CPU = torch.device("cpu")
CLASSICAL = ("tvl1", "dis")  # those that need no weights
SHIFT_PX = (3, -2)  # to the right and up


@pytest.fixture
def restored_threads() -> Iterator[None]:
    n_torch, n_opencv = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(n_torch)
    cv2.setNumThreads(n_opencv)


def make_shifted_frames(n_frames: int, height: int = 64, width: int = 72) -> Tensor:
    """A smooth colored texture that moves by SHIFT_PX from frame to frame."""
    margin = 4 * n_frames
    dims = (height + 2 * margin, width + 2 * margin)
    noise = torch.rand(1, 3, *(n // 4 for n in dims), generator=torch.Generator().manual_seed(3))
    texture = functional.interpolate(noise, dims, mode="bicubic")[0].clamp(0, 1)
    texture = texture.mul(255).to(torch.uint8)
    corners = [(margin - SHIFT_PX[1] * i, margin - SHIFT_PX[0] * i) for i in range(n_frames)]
    return torch.stack([texture[:, y : y + height, x : x + width] for y, x in corners])


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_shift_is_found_in_pixels_to_the_right_and_down(name: str) -> None:
    flow = build_flow(name, CPU)(make_shifted_frames(3))
    assert flow.shape == (2, 2, 64, 72)
    assert flow.dtype == torch.float32
    inside = flow[:, :, 12:-12, 12:-12]
    expected = torch.tensor(SHIFT_PX, dtype=torch.float32)[:, None, None]
    assert (inside - expected).abs().mean() < 0.1


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_still_frame_has_no_flow(name: str) -> None:
    flow = build_flow(name, CPU)(make_shifted_frames(1).expand(3, -1, -1, -1))
    assert flow.abs().max() < 0.01


@pytest.mark.parametrize("name", CLASSICAL)
def test_the_flow_of_a_pair_depends_on_that_pair_alone(name: str) -> None:
    frames = make_shifted_frames(3, 48, 40)
    method = build_flow(name, CPU)
    together = method(frames)
    assert torch.allclose(method(frames[1:])[0], together[1], atol=1e-3)


@pytest.mark.parametrize("name", CLASSICAL)
def test_frames_of_another_kind_are_refused(name: str) -> None:
    method = build_flow(name, CPU)
    with pytest.raises(
        ValueError, match=r"frames must be \(\.\.\., T \+ 1, 3, H, W\) .* got \(1, 3, 8, 8"
    ):
        method(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"frames must be uint8, instead got torch.float32"):
        method(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("name", CLASSICAL)
def test_the_parameters_can_be_written_down(name: str) -> None:
    parameters = build_flow(name, CPU).describe()
    assert json.loads(json.dumps(parameters)) == parameters
    assert all(isinstance(value, (str, int, float, bool)) for value in parameters.values())


@pytest.mark.usefixtures("restored_threads")
def test_dis_is_the_same_for_any_number_of_threads() -> None:
    frames = torch.randint(
        0, 256, (6, 3, 100, 120), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    flows = []
    for n_threads in (1, 2, 5):
        torch.set_num_threads(n_threads)
        cv2.setNumThreads(n_threads)
        flows.append(DISFlow()(frames))
    assert torch.equal(flows[0], flows[1])
    assert torch.equal(flows[0], flows[2])


def test_dis_is_that_of_opencv() -> None:
    frames = make_shifted_frames(2)
    gray = [cv2.cvtColor(f.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY) for f in frames]
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    expected = torch.from_numpy(dis.calc(gray[0], gray[1], None)).permute(2, 0, 1)
    assert torch.equal(DISFlow()(frames)[0], expected)
