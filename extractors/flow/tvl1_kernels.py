"""TV-L1 optical flow in fused Triton kernels, for CUDA devices. The only file that imports Triton.

The method, its parameters and the order of its steps are those of `tvl1.py`, which is what CPUs
run and what these kernels are tested against: on a GPU, and on a CPU by Triton's interpreter.

What it costs. One inner iteration reads for each pixel the flow (2 numbers), the dual (4) and the
data term (3), and writes flow and dual: 15 numbers, 60 bytes. A pair of 341x256 frames takes 271
iterations in the median, counted in pixels of the finest level (23 real clips): 1.4 GB, or about
2,300 pairs a second from the 3.35 TB/s of an H100, and 3,000 from the 4.1 TB/s that an H200 copies
with; measured there: 1,530. The launches, one for each iteration of the slowest pair of a batch at
all levels, are recorded once for each size of frames in CUDA graphs, a round of inner iterations
each.

- An iteration is one kernel. The dual's ascent needs the new flow of the pixels to the right and
  below. Programs cannot wait for each other, so their tiles overlap by a row and a column, whose
  flow two programs compute alike; flow and dual go from one buffer to another.
- No iteration waits for the host. Each program leaves the sum of its squared changes; in the next
  iteration every program of the pair adds these up, in the same order, and so all of them know
  alike whether the pair goes on.
- The warp computes image, gradient and data term from the frame in one pass.
"""

import triton
import triton.language as tl

from extractors.flow.median import median_network

MEDIAN_LEN = 5
_NETWORK = tuple((low, high) for low, high, _, _ in median_network(MEDIAN_LEN**2))
EXCHANGES = tl.constexpr(_NETWORK)
N_EXCHANGES = tl.constexpr(len(_NETWORK))


@triton.jit
def _divergence(dual, at, own_x, own_y, has_left, has_upper, plane, W):
    """Backward differences of the dual (x, y) of one component of the flow."""
    left = tl.load(dual + at - 1, has_left, 0.0)
    upper = tl.load(dual + plane + at - W, has_upper, 0.0)
    return (own_x - left) + own_y - upper


@triton.jit
def _ascend(dual_out, at, owned, plane, own_x, own_y, dx, dy, step):
    """Move two planes of the dual along the gradient (dx, dy) of one component of the flow."""
    norm = 1.0 + step * tl.sqrt(dx * dx + dy * dy)
    tl.store(dual_out + at, (own_x + step * dx) / norm, owned)
    tl.store(dual_out + plane + at, (own_y + step * dy) / norm, owned)


@triton.jit
def iterate_kernel(
    flow,
    flow_out,
    dual,
    dual_out,
    data,
    sums,
    sums_out,
    H,
    W,
    n_tiles,
    max_squared_change,
    theta,
    max_length,
    tau_over_theta,
    min_squared,
    BLOCK_Y: tl.constexpr,
    BLOCK_X: tl.constexpr,
    MAX_TILES: tl.constexpr,
):
    """One inner iteration of one tile of one pair.

    A tile's last row and column belong to its neighbors: only their flow is computed here, and it
    is stored by two programs with the same value.

    Sums of squared changes are infinite before the first iteration, and -1 in all tiles of a pair
    that was done in the iteration before: both buffers then hold its flow and its dual.
    """
    tile, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    plane = H * W
    flow += 2 * pair * plane
    flow_out += 2 * pair * plane
    dual += 4 * pair * plane
    dual_out += 4 * pair * plane
    data += 3 * pair * plane
    tiles = tl.arange(0, MAX_TILES)
    # float64: else the order of summation could decide at the threshold.
    total = tl.sum(tl.load(sums + pair * n_tiles + tiles, tiles < n_tiles, 0.0).to(tl.float64))
    left = -1.0
    if total >= 0:
        n_columns = (W + BLOCK_X - 2) // (BLOCK_X - 1)
        row, column = tl.arange(0, BLOCK_Y)[:, None], tl.arange(0, BLOCK_X)[None, :]
        y = (tile // n_columns) * (BLOCK_Y - 1) + row
        x = (tile % n_columns) * (BLOCK_X - 1) + column
        at = y * W + x
        inside = (y < H) & (x < W)
        owned = inside & (row < BLOCK_Y - 1) & (column < BLOCK_X - 1)
        is_active = (total > max_squared_change).to(tl.float32)

        u1 = tl.load(flow + at, inside, 0.0)
        u2 = tl.load(flow + plane + at, inside, 0.0)
        gx = tl.load(data + at, inside, 0.0)
        gy = tl.load(data + plane + at, inside, 0.0)
        constant = tl.load(data + 2 * plane + at, inside, 0.0)
        dual1x = tl.load(dual + at, inside, 0.0)
        dual1y = tl.load(dual + plane + at, inside, 0.0)
        dual2x = tl.load(dual + 2 * plane + at, inside, 0.0)
        dual2y = tl.load(dual + 3 * plane + at, inside, 0.0)
        has_left, has_upper = inside & (x > 0), inside & (y > 0)
        second = dual + 2 * plane
        divergence1 = _divergence(dual, at, dual1x, dual1y, has_left, has_upper, plane, W)
        divergence2 = _divergence(second, at, dual2x, dual2y, has_left, has_upper, plane, W)

        squared = gx * gx + gy * gy
        has_gradient = squared > min_squared
        rho = constant + gx * u1 + gy * u2
        length = tl.where(has_gradient, -rho / tl.where(has_gradient, squared, 1.0), 0.0)
        length = tl.minimum(tl.maximum(length, -max_length), max_length)
        c1 = gx * length + theta * divergence1
        c2 = gy * length + theta * divergence2
        if is_active > 0:
            left = tl.sum(tl.where(owned, c1 * c1 + c2 * c2, 0.0))
        u1 += is_active * c1
        u2 += is_active * c2
        tl.store(flow_out + at, u1, inside)
        tl.store(flow_out + plane + at, u2, inside)
        tl.debug_barrier()  # what follows reads what other threads of this program have stored

        has_right, has_lower = owned & (x < W - 1), owned & (y < H - 1)
        dx1 = tl.where(has_right, tl.load(flow_out + at + 1, has_right, 0.0) - u1, 0.0)
        dx2 = tl.where(has_right, tl.load(flow_out + plane + at + 1, has_right, 0.0) - u2, 0.0)
        dy1 = tl.where(has_lower, tl.load(flow_out + at + W, has_lower, 0.0) - u1, 0.0)
        dy2 = tl.where(has_lower, tl.load(flow_out + plane + at + W, has_lower, 0.0) - u2, 0.0)
        step = is_active * tau_over_theta
        _ascend(dual_out, at, owned, plane, dual1x, dual1y, dx1, dy1, step)
        _ascend(dual_out + 2 * plane, at, owned, plane, dual2x, dual2y, dx2, dy2, step)
    tl.store(sums_out + pair * n_tiles + tile, left)


@triton.jit
def _cubic_weight(distance):
    """Keys' cubic with a = -0.75, as OpenCV and torch have it."""
    d = tl.abs(distance)
    near = (1.25 * d - 2.25) * d * d + 1.0
    far = ((-0.75 * d + 3.75) * d - 6.0) * d + 3.0
    return tl.where(d <= 1.0, near, tl.where(d < 2.0, far, 0.0))


@triton.jit
def linearise_kernel(first, second, flow, data, H, W, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr):
    """The data term of one tile of one pair about its flow: gradient x, y, and rho at flow 0.

    The second frame and its central differences are sampled at p + flow(p), bicubic, 0 outside.
    """
    tile, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    plane = H * W
    first += pair * plane
    second += pair * plane
    flow += 2 * pair * plane
    data += 3 * pair * plane
    n_columns = (W + BLOCK_X - 1) // BLOCK_X
    y = (tile // n_columns) * BLOCK_Y + tl.arange(0, BLOCK_Y)[:, None]
    x = (tile % n_columns) * BLOCK_X + tl.arange(0, BLOCK_X)[None, :]
    at = y * W + x
    inside = (y < H) & (x < W)
    u1 = tl.load(flow + at, inside, 0.0)
    u2 = tl.load(flow + plane + at, inside, 0.0)
    to_x, to_y = x + u1, y + u2
    x0, y0 = tl.floor(to_x), tl.floor(to_y)
    warped = tl.zeros([BLOCK_Y, BLOCK_X], tl.float32)
    gx = tl.zeros([BLOCK_Y, BLOCK_X], tl.float32)
    gy = tl.zeros([BLOCK_Y, BLOCK_X], tl.float32)
    for tap in tl.static_range(16):
        column, row = x0 + (tap % 4 - 1), y0 + (tap // 4 - 1)
        weight = _cubic_weight(to_x - column) * _cubic_weight(to_y - row)
        seen = inside & (column >= 0) & (column < W) & (row >= 0) & (row < H)
        # A flow that leads far out would not fit into an integer.
        i = tl.where(seen, column, 0.0).to(tl.int32)
        j = tl.where(seen, row, 0.0).to(tl.int32)
        warped += weight * tl.load(second + j * W + i, seen, 0.0)
        right = tl.load(second + j * W + tl.minimum(i + 1, W - 1), seen, 0.0)
        left = tl.load(second + j * W + tl.maximum(i - 1, 0), seen, 0.0)
        gx += weight * ((right - left) / 2)
        lower = tl.load(second + tl.minimum(j + 1, H - 1) * W + i, seen, 0.0)
        upper = tl.load(second + tl.maximum(j - 1, 0) * W + i, seen, 0.0)
        gy += weight * ((lower - upper) / 2)
    constant = warped - tl.load(first + at, inside, 0.0) - (gx * u1 + gy * u2)
    tl.store(data + at, gx, inside)
    tl.store(data + plane + at, gy, inside)
    tl.store(data + 2 * plane + at, constant, inside)


@triton.jit
def _in_order(wires, low: tl.constexpr, high: tl.constexpr):
    """Put the values of two wires in order; low < high."""
    smaller = tl.minimum(wires[low], wires[high])
    larger = tl.maximum(wires[low], wires[high])
    # Triton's tuples cannot be unpacked.
    return wires[:low] + (smaller,) + wires[low + 1 : high] + (larger,) + wires[high + 1 :]  # noqa: RUF005


@triton.jit
def median_kernel(
    flow,
    flow_out,
    sums,
    H,
    W,
    n_tiles,
    max_squared_change,
    BLOCK: tl.constexpr,
    MAX_TILES: tl.constexpr,
):
    """The median of each square of 5x5 pixels, borders repeated; a pair that is done is copied."""
    plane_index = tl.program_id(1).to(tl.int64)  # two planes for each pair
    flow += plane_index * H * W
    flow_out += plane_index * H * W
    tiles = tl.arange(0, MAX_TILES)
    sums += (plane_index // 2) * n_tiles
    total = tl.sum(tl.load(sums + tiles, tiles < n_tiles, 0.0).to(tl.float64))
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < H * W
    if total > max_squared_change:
        wires = ()
        for place in tl.static_range(25):
            j = tl.minimum(tl.maximum(at // W + (place // 5 - 2), 0), H - 1)
            i = tl.minimum(tl.maximum(at % W + (place % 5 - 2), 0), W - 1)
            value = tl.load(flow + j * W + i, inside, 0.0)
            wires = wires + (value,)  # type: ignore[assignment]  # noqa: RUF005
        for k in tl.static_range(N_EXCHANGES):
            wires = _in_order(wires, EXCHANGES[k][0], EXCHANGES[k][1])
        tl.store(flow_out + at, wires[12], inside)  # type: ignore[misc]
    else:
        tl.store(flow_out + at, tl.load(flow + at, inside), inside)
