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
from extractors.flow.tvl1_advance import advance_kernel
from extractors.flow.tvl1_cuda import (
    DATA_BLOCK,
    DEFAULT_TILING,
    MEDIAN_BLOCK,
    MIN_MAX_TILES,
    N_WARPS,
    KernelSolver,
)
from extractors.flow.tvl1_kernels import linearize_kernel, median_kernel
from extractors.flow.tvl1_state import LANES

# The interpreter must be chosen before Triton's kernels are defined: in a process of its own.
COMPARISON = """
import sys, torch
from extractors.flow.tvl1 import TVL1Config, tvl1_flow
from extractors.flow.tvl1_cuda import KernelSolver
from extractors.flow.tvl1_state import State, Tiling

frames, tiling, settings, limits = torch.load(sys.argv[1], weights_only=True)
config = TVL1Config(**settings)
n_pixels = frames.shape[-2] * frames.shape[-1]
allocate, max_floats = torch.empty, State.n_floats((limits["n_pairs_with_room"], 1, n_pixels))

def allocate_little(length, **options):
    if length > max_floats:
        raise torch.OutOfMemoryError("no room")
    return allocate(length, **options)

solver = KernelSolver(config, limits["n_pairs"] * n_pixels, Tiling(*tiling))
torch.empty = allocate_little
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


def interpreted(
    frames: Tensor,
    tiling: tuple[int, int, int],
    tmp_path,
    *,
    n_pairs: int = 2,
    n_pairs_with_room: int = 1000,
    **settings: float,
) -> tuple[Tensor, Tensor]:
    """The flow by the interpreted kernels, of at most n_pairs at once, and by `tvl1.py`."""
    path = tmp_path / "frames.pt"
    limits = {"n_pairs": n_pairs, "n_pairs_with_room": n_pairs_with_room}
    torch.save((frames, tiling, settings, limits), path)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", COMPARISON, path], env=environment, check=True)
    return torch.load(path, weights_only=True)


def test_the_interpreted_kernels_give_the_flow_of_the_reference(tmp_path) -> None:
    settings = {"n_scales": 1, "n_warps": 1, "n_inner_iterations": 2, "n_outer_iterations": 1}
    # Two strips and three segments; the first pair is done at once. The last of an odd number of
    # rows is alone in the median filter.
    found, expected = interpreted(make_frames(3, 7, 33), (2, 1, 3), tmp_path, **settings)
    assert expected[0].norm(dim=0).max() == 0
    assert expected[1].norm(dim=0).mean() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_iterations_beyond_convergence_are_taken_back(tmp_path) -> None:
    settings = {"n_scales": 1, "n_warps": 1, "n_inner_iterations": 4, "n_outer_iterations": 1}
    frames = make_frames(3, 6, 20)[1:]
    # The third iteration is the last one needed; a launch does two.
    found, expected = interpreted(frames, (2, 1, 8), tmp_path, **settings, epsilon=0.45)
    three = TVL1Config(**{**settings, "n_inner_iterations": 3}, epsilon=0.0)
    torch.testing.assert_close(expected, tvl1_flow(frames, three), rtol=0, atol=0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_interpreted_kernels_give_the_flow_of_the_whole_pyramid(tmp_path) -> None:
    settings = {"n_scales": 2, "n_warps": 2, "n_inner_iterations": 5, "n_outer_iterations": 2}
    tiling = (DEFAULT_TILING.n_steps, DEFAULT_TILING.n_columns, DEFAULT_TILING.segment_len)
    found, expected = interpreted(make_frames(3, 21, 38), tiling, tmp_path, **settings)
    assert expected.norm(dim=1).mean() > 0.3
    assert (found - expected).norm(dim=1).max() < 0.01


ONE_ITERATION = {
    "n_scales": 2,
    "n_warps": 1,
    "n_inner_iterations": 1,
    "n_outer_iterations": 1,
}


@pytest.mark.parametrize("n_pairs", [2, 7])  # a part of a clip, two clips
def test_the_flow_is_the_same_however_many_pairs_fit(n_pairs: int, tmp_path) -> None:
    frames = make_frames(4, 16, 21)
    clips = torch.stack([frames, frames.flip(0)])  # 3 pairs in each
    found, expected = interpreted(clips, (1, 1, 8), tmp_path, n_pairs=n_pairs, **ONE_ITERATION)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_where_memory_is_short_fewer_pairs_are_solved_at_once(tmp_path, capfd) -> None:
    frames = make_frames(4, 16, 21)
    limits = {"n_pairs": 12, "n_pairs_with_room": 1}
    found, expected = interpreted(frames, (1, 1, 8), tmp_path, **limits, **ONE_ITERATION)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    lines = [f"out of memory: going on with the flow of {n} pairs" for n in (2, 1)]
    assert capfd.readouterr().err.splitlines() == lines


FLOATS = "max_squared_change max_length tau tau_over_theta min_squared"
STATUS = "status status_out"
# Pointers to floats, to integers, integers, floats, constants, warps.
SIGNATURES = {
    linearize_kernel: (
        "first second flows data",
        f"{STATUS} unused",
        "P H W",
        "",
        {"BLOCK": DATA_BLOCK},
        N_WARPS,
    ),
    advance_kernel: (
        "flows duals data sums sums_out",
        STATUS,
        "P H W n_tiles n_before n_now",
        FLOATS,
        {
            "STEPS": DEFAULT_TILING.n_steps,
            "COLUMNS": DEFAULT_TILING.n_columns,
            "SEGMENT": DEFAULT_TILING.segment_len,
            "MAX_TILES": MIN_MAX_TILES,
            "LANES": LANES,
        },
        1,
    ),
    median_kernel: ("flows", STATUS, "P H W", "", {"BLOCK": MEDIAN_BLOCK}, N_WARPS),
}


@pytest.mark.parametrize("kernel", SIGNATURES, ids=lambda kernel: kernel.__name__)
def test_the_kernels_compile_for_an_h100_without_spilling(kernel) -> None:
    pointers, statuses, integers, floats, constants, n_warps = SIGNATURES[kernel]
    types = dict.fromkeys(pointers.split(), "*fp32") | dict.fromkeys(statuses.split(), "*i32")
    types |= dict.fromkeys(integers.split(), "i32") | dict.fromkeys(floats.split(), "fp32")
    types |= dict.fromkeys(constants, "constexpr")
    signature = {name: types[name] for name in kernel.arg_names}
    places = {(list(signature).index(name),): value for name, value in constants.items()}
    compiled = triton.compile(
        ASTSource(kernel, signature, constexprs=places),
        target=GPUTarget("cuda", 90, 32),
        options={"enable_fp_fusion": True, "num_warps": n_warps},
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
