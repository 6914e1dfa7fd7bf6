"""Triton kernels of the Inception-I3D on CUDA devices: first layer, bias, max pools, concatenation.

All work on channels-last memory, (N, T, H, W, C). They are tested against torch: on a GPU, and on
a CPU by Triton's interpreter. `inception_cuda.py` launches them. None uses atomics or chooses its
blocks by timing: an output has the same bits whichever other clips are in the batch.
"""

# mypy: disable-error-code="misc"

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["n_outputs"])
def stem_kernel(
    x,
    weight,
    bias,
    out,
    n_outputs,
    clip_stride,
    frame_stride,
    row_stride,
    T_OUT: tl.constexpr,
    H_OUT: tl.constexpr,
    W_OUT: tl.constexpr,
    KERNEL: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Convolution of stride 2 with bias and ReLU, as a matrix product, of BLOCK output positions.

    A step multiplies ROWS rows of PIXELS pixels of the clip, which are contiguous in memory, by
    their weights. Sums are float32.

    Args:
        x: (N, T', H', W', CHANNELS), zero-padded: every window lies inside.
        weight: (KERNEL * steps of a frame, ROWS * PIXELS * CHANNELS, WIDTH), zeros beyond the cube.
        bias: (WIDTH,)
        out: (N, T_OUT, H_OUT, W_OUT, WIDTH)
        n_outputs: N * T_OUT * H_OUT * W_OUT.
        clip_stride: Elements from one clip of x to the next; so for frames and rows.
        frame_stride: See `clip_stride`.
        row_stride: See `clip_stride`.
        T_OUT: Frames of the output.
        H_OUT: Rows of the output.
        W_OUT: Columns of the output.
        KERNEL: Length of the cube.
        PIXELS: KERNEL or more, so that a row is a power of two.
        CHANNELS: A power of two.
        ROWS: Rows of a step.
        WIDTH: Output channels.
        BLOCK: Output positions of a program.
    """
    position = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = position < n_outputs
    w = position % W_OUT
    h = (position // W_OUT) % H_OUT
    t = (position // (W_OUT * H_OUT)) % T_OUT
    n = (position // (W_OUT * H_OUT * T_OUT)).to(tl.int64)
    start = n * clip_stride + 2 * t * frame_stride + 2 * h * row_stride + w * (2 * CHANNELS)
    ROW: tl.constexpr = PIXELS * CHANNELS
    STEPS: tl.constexpr = (KERNEL + ROWS - 1) // ROWS  # of a frame
    element = tl.arange(0, ROWS * ROW)
    channel = tl.arange(0, WIDTH)
    of_element = (element // ROW) * row_stride + element % ROW
    x_at = x + start[:, None] + of_element[None, :]
    weight_at = weight + element[:, None] * WIDTH + channel[None, :]
    sums = tl.zeros((BLOCK, WIDTH), tl.float32)
    for step in range(KERNEL * STEPS):
        offset = (step // STEPS) * frame_stride + (step % STEPS) * ROWS * row_stride
        values = tl.load(x_at + offset, inside[:, None], 0.0)
        weights = tl.load(weight_at + step * (ROWS * ROW * WIDTH))
        # Without "ieee" float32 would be rounded to the 10 bits of TF32.
        sums = tl.dot(values, weights, sums, input_precision="ieee")
    sums += tl.load(bias + channel).to(tl.float32)[None, :]
    sums = tl.maximum(sums, 0.0, propagate_nan=tl.PropagateNan.ALL)
    out_at = out + position.to(tl.int64)[:, None] * WIDTH + channel[None, :]
    tl.store(out_at, sums.to(out.dtype.element_ty), inside[:, None])


@triton.jit
def _plane_maximum(
    frame_at, h, w, H, W, C, is_valid, KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr
):
    """The maximum over a window of one frame, whose first row and column are h and w; float32."""
    best = tl.zeros(frame_at.shape, tl.float32)
    for i in tl.static_range(KERNEL_H):
        has_row = (h + i >= 0) & (h + i < H)
        for j in tl.static_range(KERNEL_W):
            is_inside = has_row & (w + j >= 0) & (w + j < W)
            at = frame_at + (i * W + j) * C
            value = tl.load(at, is_valid & is_inside[:, None], 0.0)
            best = tl.maximum(best, value.to(tl.float32), propagate_nan=tl.PropagateNan.ALL)
    return best


@triton.jit(
    do_not_specialize=[
        *("T", "H", "W", "H_out", "W_out", "n_windows"),
        *("before_t", "before_h", "before_w"),
    ]
)
def max_pool_kernel(
    x,
    out,
    T,
    H,
    W,
    C,
    H_out,
    W_out,
    n_windows,
    before_t,
    before_h,
    before_w,
    T_OUT: tl.constexpr,
    KERNEL_T: tl.constexpr,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    STRIDE_T: tl.constexpr,
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    BLOCK: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """3D max pool of values of 0 or more, of BLOCK windows over the plane and all steps of time.

    The maximum over the plane is computed once for each frame: the frames that the next output
    also covers, at most two, are kept.

    Args:
        x: (N, T, H, W, C)
        out: (N, T_OUT, H_out, W_out, C)
        T: Frames of x.
        H: Rows of x.
        W: Columns of x.
        C: Specialized on being a multiple of 16, for loads of 16 bytes.
        H_out: Rows of the output.
        W_out: Columns of the output.
        n_windows: N * H_out * W_out.
        before_t: Length of the padding before the first frame.
        before_h: Length of the padding before the first row.
        before_w: Length of the padding before the first column.
        T_OUT: Frames of the output.
        KERNEL_T: Length of the window along T, at most STRIDE_T + 2.
        KERNEL_H: Along H.
        KERNEL_W: Along W.
        STRIDE_T: Stride along T, at most KERNEL_T.
        STRIDE_H: Along H.
        STRIDE_W: Along W.
        BLOCK: Windows of a program.
        CHANNELS: Channels of a program.
    """
    window = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_valid = (window < n_windows)[:, None] & (channel < C)[None, :]
    h = (window // W_out) % H_out
    w = window % W_out
    n = (window // (W_out * H_out)).to(tl.int64)
    row, column = h * STRIDE_H - before_h, w * STRIDE_W - before_w
    x_at = x + ((n * T * H + row) * W + column)[:, None] * C + channel[None, :]
    out_at = out + ((n * T_OUT * H_out + h) * W_out + w)[:, None] * C + channel[None, :]
    KEPT: tl.constexpr = KERNEL_T - STRIDE_T
    older = tl.zeros((BLOCK, CHANNELS), tl.float32)
    newer = tl.zeros((BLOCK, CHANNELS), tl.float32)
    for k in tl.static_range(KEPT):
        frame = k - before_t
        in_time = is_valid & (frame >= 0) & (frame < T)
        older = newer
        newer = _plane_maximum(
            x_at + frame * H * W * C, row, column, H, W, C, in_time, KERNEL_H, KERNEL_W
        )
    for t in range(T_OUT):
        best = tl.maximum(older, newer, propagate_nan=tl.PropagateNan.ALL)
        for k in tl.static_range(STRIDE_T):
            frame = t * STRIDE_T + KEPT + k - before_t
            in_time = is_valid & (frame >= 0) & (frame < T)
            if KEPT == 2:
                older = newer
            newer = _plane_maximum(
                x_at + frame * H * W * C, row, column, H, W, C, in_time, KERNEL_H, KERNEL_W
            )
            best = tl.maximum(best, newer, propagate_nan=tl.PropagateNan.ALL)
        if KEPT == 0:
            newer = tl.zeros((BLOCK, CHANNELS), tl.float32)
        tl.store(out_at + t * H_out * W_out * C, best.to(out.dtype.element_ty), is_valid)


@triton.jit(do_not_specialize=["n_rows"])
def bias_relu_kernel(x, bias, n_rows, C, BLOCK: tl.constexpr, CHANNELS: tl.constexpr):
    """Add the bias to BLOCK positions, and set what is negative to 0; in place. NaN stays.

    Args:
        x: (n_rows, C)
        bias: (C,)
        n_rows: N * T * H * W.
        C: Specialized on being a multiple of 16, for loads of 16 bytes.
        BLOCK: Positions of a program.
        CHANNELS: Channels of a program.
    """
    row = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    x_at = x + row[:, None] * C + channel[None, :]
    is_valid = (row < n_rows)[:, None] & (channel < C)[None, :]
    sums = tl.load(x_at, is_valid, 0.0).to(tl.float32)
    sums += tl.load(bias + channel, channel < C, 0.0).to(tl.float32)[None, :]
    sums = tl.maximum(sums, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(x_at, sums.to(x.dtype.element_ty), is_valid)


@triton.jit(do_not_specialize=["n_rows"])
def concatenate_kernel(
    first,
    second,
    third,
    fourth,
    out,
    n_rows,
    C_1,
    C_2,
    C_3,
    C_4,
    BLOCK: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Concatenate the channels of four branches, of BLOCK positions.

    Args:
        first: (n_rows, C_1)
        second: (n_rows, C_2)
        third: (n_rows, C_3)
        fourth: (n_rows, C_4)
        out: (n_rows, C_1 + C_2 + C_3 + C_4)
        n_rows: N * T * H * W.
        C_1: Specialized on being a multiple of 16, for loads of 16 bytes; so are the others.
        C_2: See `C_1`.
        C_3: See `C_1`.
        C_4: See `C_1`.
        BLOCK: Positions of a program.
        CHANNELS: Channels of a program.
    """
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channel = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    is_valid = (row < n_rows)[:, None]
    row = row.to(tl.int64)[:, None]
    end_1, end_2, end_3 = C_1, C_1 + C_2, C_1 + C_2 + C_3
    C = end_3 + C_4
    in_1, in_2, in_3 = channel < end_1, channel < end_2, channel < end_3
    value_1 = tl.load(first + row * C_1 + channel, is_valid & in_1, 0.0)
    value_2 = tl.load(
        second + row * C_2 + (channel - end_1), is_valid & in_2 & (channel >= end_1), 0.0
    )
    value_3 = tl.load(
        third + row * C_3 + (channel - end_2), is_valid & in_3 & (channel >= end_2), 0.0
    )
    in_4 = (channel >= end_3) & (channel < C)
    value_4 = tl.load(fourth + row * C_4 + (channel - end_3), is_valid & in_4, 0.0)
    value = tl.where(in_1, value_1, tl.where(in_2, value_2, tl.where(in_3, value_3, value_4)))
    tl.store(out + row * C + channel, value, is_valid & (channel < C))
