"""The kernels of the network's layers for CUDA, as they are compiled for an H100."""

import pytest
import torch
import triton
from torch import nn
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from extractors.networks.inception_cuda import (
    BIAS_BLOCK,
    BIAS_CHANNELS,
    BIAS_WARPS,
    CONCATENATION_BLOCK,
    CONCATENATION_CHANNELS,
    CONCATENATION_WARPS,
    POOL_BLOCK,
    POOL_CHANNELS,
    POOL_WARPS,
    ROW_PIXELS,
    STEM_PROGRAM,
    CudaStem,
)
from extractors.networks.inception_kernels import (
    bias_relu_kernel,
    concatenate_kernel,
    max_pool_kernel,
    stem_kernel,
)

POOLS = {
    "2a and 3a": ((1, 3, 3), (1, 2, 2)),
    "4a": ((3, 3, 3), (2, 2, 2)),
    "5a": ((2, 2, 2), (2, 2, 2)),
    "of a block": ((3, 3, 3), (1, 1, 1)),
}


def compile_for_h100(kernel, dtype: str, constants: dict[str, int], options: dict[str, int]):
    """A kernel as it is compiled for clips of 224x224."""
    pointers = ("x", "weight", "bias", "out", "first", "second", "third", "fourth")
    types = dict.fromkeys(pointers, f"*{dtype}")
    types |= dict.fromkeys(constants, "constexpr")
    names = kernel.arg_names
    strides = ("clip_stride", "frame_stride", "row_stride")
    multiples = (*pointers, *strides, "C", "C_1", "C_2", "C_3", "C_4")
    return triton.compile(
        ASTSource(
            kernel,
            {name: types.get(name, "i32") for name in names},
            constexprs={(names.index(name),): value for name, value in constants.items()},
            attrs={
                (names.index(name),): [["tt.divisibility", 16]]
                for name in multiples
                if name in names
            },
        ),
        target=GPUTarget("cuda", 90, 32),
        options=options,
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("in_channels", [2, 3])
def test_the_first_layer_compiles_for_an_h100_without_spilling_or_tf32(
    in_channels: int, dtype: torch.dtype
) -> None:
    block, n_warps, n_stages = STEM_PROGRAM[dtype]
    stem = CudaStem(nn.Conv3d(in_channels, 64, 7, stride=2))
    dims = {"T_OUT": 8, "H_OUT": 112, "W_OUT": 112, "KERNEL": 7, "WIDTH": 64, "BLOCK": block}
    row = {"PIXELS": ROW_PIXELS, "CHANNELS": stem.channels, "ROWS": stem.rows}
    compiled = compile_for_h100(
        stem_kernel,
        "bf16" if dtype == torch.bfloat16 else "fp32",
        dims | row,
        {"num_warps": n_warps, "num_stages": n_stages},
    )
    ptx = compiled.asm["ptx"]
    assert "st.local" not in ptx
    assert "tf32" not in ptx
    assert ("wgmma" in ptx) == (dtype == torch.bfloat16)


@pytest.mark.parametrize("pool", POOLS)
def test_the_pools_compile_for_an_h100_with_loads_of_16_bytes(pool: str) -> None:
    names = ("KERNEL_T", "KERNEL_H", "KERNEL_W", "STRIDE_T", "STRIDE_H", "STRIDE_W")
    kernel, stride = POOLS[pool]
    constants = dict(zip(names, (*kernel, *stride), strict=True))
    constants |= {"T_OUT": 8, "BLOCK": POOL_BLOCK, "CHANNELS": POOL_CHANNELS}
    compiled = compile_for_h100(max_pool_kernel, "bf16", constants, {"num_warps": POOL_WARPS})
    ptx = compiled.asm["ptx"]
    assert "st.local" not in ptx
    n_kept = kernel[0] - stride[0]
    n_loads = (n_kept + stride[0]) * kernel[1] * kernel[2]
    assert ptx.count("ld.global.v4.b32") == ptx.count("ld.global") == n_loads


@pytest.mark.parametrize(
    ("kernel", "constants", "n_warps"),
    [
        (
            concatenate_kernel,
            {"BLOCK": CONCATENATION_BLOCK, "CHANNELS": CONCATENATION_CHANNELS},
            CONCATENATION_WARPS,
        ),
        (bias_relu_kernel, {"BLOCK": BIAS_BLOCK, "CHANNELS": BIAS_CHANNELS}, BIAS_WARPS),
    ],
    ids=["concatenation", "bias and ReLU"],
)
def test_kernels_that_only_move_memory_compile_for_an_h100_with_stores_of_16_bytes(
    kernel, constants: dict[str, int], n_warps: int
) -> None:
    ptx = compile_for_h100(kernel, "bf16", constants, {"num_warps": n_warps}).asm["ptx"]
    assert ptx.count("st.global.v4.b32") == ptx.count("st.global") > 0
    assert "ld.global.v4.b32" in ptx
    assert "st.local" not in ptx
