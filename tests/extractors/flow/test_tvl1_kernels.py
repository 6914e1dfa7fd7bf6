"""The kernels against `tvl1.py`: by Triton's interpreter on a CPU, compiled, and on a GPU."""

import os
import subprocess
import sys

import pytest
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from extractors.flow.tvl1 import TVL1Config, tvl1_flow
from extractors.flow.tvl1_cuda import BLOCK_X, BLOCK_Y, MEDIAN_BLOCK, N_WARPS, KernelSolver
from extractors.flow.tvl1_kernels import iterate_kernel, linearise_kernel, median_kernel

# The interpreter must be chosen before Triton's kernels are defined: in a process of its own.
COMPARISON = """
import sys, torch
from extractors.flow.tvl1 import TVL1Config, tvl1_flow
from extractors.flow.tvl1_cuda import KernelSolver

frames, settings = torch.load(sys.argv[1], weights_only=True)
config = TVL1Config(**settings)
solver = KernelSolver(config, pixels_per_solve=2 * frames[0].numel())
torch.save((solver.flow(frames), tvl1_flow(frames, config)), sys.argv[1])
"""


def make_frames(n_frames: int, height: int, width: int) -> Tensor:
    """A texture that stands still, then moves; (T, H, W) in 0..255."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    shifts = [0.0, 0.0, 1.5, 2.5, 1.0][:n_frames]
    waves = [
        torch.sin((x - s) / 3) + torch.sin((y + s) / 2 + 1) + torch.sin((x + y - s) / 5)
        for s in shifts
    ]
    return 127.5 + 40 * torch.stack(waves)


def interpreted(frames: Tensor, tmp_path, **settings: float) -> tuple[Tensor, Tensor]:
    """The flow by the interpreted kernels and by `tvl1.py`."""
    path = tmp_path / "frames.pt"
    torch.save((frames, settings), path)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", COMPARISON, path], env=environment, check=True)
    return torch.load(path, weights_only=True)


def test_the_interpreted_kernels_give_the_flow_of_the_reference(tmp_path) -> None:
    settings = {"n_scales": 1, "n_warps": 1, "n_inner_iterations": 2, "n_outer_iterations": 2}
    frames = make_frames(3, BLOCK_Y + 2, 24)  # two tiles; the first pair is done at once
    found, expected = interpreted(frames, tmp_path, **settings)
    assert expected[0].norm(dim=0).max() == 0
    assert expected[1].norm(dim=0).mean() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_the_interpreted_kernels_give_the_flow_of_the_whole_pyramid(tmp_path) -> None:
    settings = {"n_scales": 2, "n_warps": 2, "n_inner_iterations": 5, "n_outer_iterations": 2}
    found, expected = interpreted(make_frames(3, 21, BLOCK_X + 6), tmp_path, **settings)
    assert expected.norm(dim=1).mean() > 0.3
    assert (found - expected).norm(dim=1).max() < 0.01


SIGNATURES = {
    linearise_kernel: (
        "first second flow data",
        "H W",
        "",
        {"BLOCK_Y": BLOCK_Y, "BLOCK_X": BLOCK_X},
    ),
    iterate_kernel: (
        "flow flow_out dual dual_out data sums sums_out",
        "H W n_tiles",
        "max_squared_change theta max_length tau_over_theta min_squared",
        {"BLOCK_Y": BLOCK_Y, "BLOCK_X": BLOCK_X, "MAX_TILES": 256},
    ),
    median_kernel: (
        "flow flow_out sums",
        "H W n_tiles",
        "max_squared_change",
        {"BLOCK": MEDIAN_BLOCK, "MAX_TILES": 256},
    ),
}


@pytest.mark.parametrize("kernel", SIGNATURES, ids=lambda kernel: kernel.__name__)
def test_the_kernels_compile_for_an_h100_without_spilling(kernel) -> None:
    pointers, integers, floats, constants = SIGNATURES[kernel]
    signature = dict.fromkeys(pointers.split(), "*fp32")
    signature |= dict.fromkeys(integers.split(), "i32")
    signature |= dict.fromkeys(floats.split(), "fp32")
    signature |= dict.fromkeys(constants, "constexpr")
    places = {(list(signature).index(name),): value for name, value in constants.items()}
    compiled = triton.compile(
        ASTSource(kernel, signature, constexprs=places),
        target=GPUTarget("cuda", 90, 32),
        options={"enable_fp_fusion": True, "num_warps": N_WARPS},
    )
    assert compiled.asm["cubin"]
    assert "st.local" not in compiled.asm["ptx"]
    assert "ld.local" not in compiled.asm["ptx"]


def test_another_median_filter_is_refused() -> None:
    with pytest.raises(ValueError, match="median_len must be 1 or 5, instead got 3"):
        KernelSolver(TVL1Config(median_len=3))


@pytest.mark.gpu
@pytest.mark.parametrize(("height", "width"), [(72, 88), (256, 341), (15, 40)])
def test_the_kernels_give_the_flow_of_the_cpu(height: int, width: int) -> None:
    frames = make_frames(5, height, width)
    solver = KernelSolver(TVL1Config())
    for _ in range(2):  # the second time from the recorded graphs
        found = solver.flow(frames.cuda()).cpu()
        # A pair may need one iteration more or less where rounding decides: not above epsilon.
        assert (found - tvl1_flow(frames)).norm(dim=1).mean() < 0.01
