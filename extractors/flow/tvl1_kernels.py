"""Triton kernels of TV-L1 optical flow for CUDA devices: its data term and its median filter.

The method, its parameters and the order of its steps are those of `tvl1.py`, which is what CPUs
run and what these kernels are tested against: on a GPU, and on a CPU by Triton's interpreter.

The warp computes image, gradient and data term from the frame in one pass. What iterates is in
`tvl1_advance.py`. Integers are not specialized: else each size of frames would compile the kernels
again.

Tuples are of the columns that a thread has, or of rows; Triton cannot append to them otherwise.
"""

# ruff: noqa: RUF005, SIM300
# mypy: disable-error-code="assignment,misc,no-redef"

import triton
import triton.language as tl

from extractors.flow.median import selection_network

MEDIAN_LEN = 5


def _exchanges(n_wires: int, ranks: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple((low, high) for low, high, _, _ in selection_network(n_wires, ranks))


# Of the 20 pixels that two squares share, only those of ranks 7 to 12 can be the median of 25: at
# most 5 more are below it.
_SHARED = _exchanges(20, tuple(range(7, 13)))
_ROW = _exchanges(5, tuple(range(5)))
SHARED_EXCHANGES = tl.constexpr(_SHARED)
N_SHARED_EXCHANGES = tl.constexpr(len(_SHARED))
ROW_EXCHANGES = tl.constexpr(_ROW)
N_ROW_EXCHANGES = tl.constexpr(len(_ROW))
# The status of a pair: bit 0 says which of its two flows is the one that counts, bit 1 which dual.
DONE = 4  # added when the pair has converged, or is none


@triton.jit
def _cubic_weight(distance):
    """Keys' cubic with a = -0.75, as OpenCV and torch have it."""
    d = tl.abs(distance)
    near = (1.25 * d - 2.25) * d * d + 1.0
    far = ((-0.75 * d + 3.75) * d - 6.0) * d + 3.0
    return tl.where(d <= 1.0, near, tl.where(d < 2.0, far, 0.0))


@triton.jit
def _cubic_weights(position, floor, first, limit):
    """The weights of the four pixels about a position; 0 for those outside the image."""
    weights = ()
    for tap in tl.static_range(4):
        place = first + (tap - 1)
        weight = _cubic_weight(position - (floor + (tap - 1)))
        weight = tl.where((place >= 0) & (place < limit), weight, 0.0)
        weights = weights + (weight,)
    return weights


@triton.jit
def _sampled_row(second, j, x0, weights, seen_row, W, IS_INNER: tl.constexpr):
    """A row of the second frame about x0: its sample, and that of its differences along x."""
    columns = ()
    for tap in tl.static_range(6 if IS_INNER else 4):
        i = x0 + (tap - (2 if IS_INNER else 1))
        i = tl.minimum(tl.maximum(i, 0), W - 1)
        columns = columns + (tl.load(second + j * W + i, seen_row, 0.0),)
    if IS_INNER:
        sample = weights[0] * columns[1]
        slope = weights[0] * (columns[2] - columns[0])
        for tap in tl.static_range(1, 4):
            sample += weights[tap] * columns[tap + 1]
            slope += weights[tap] * (columns[tap + 2] - columns[tap])
    else:
        sample = weights[0] * columns[0]
        for tap in tl.static_range(1, 4):
            sample += weights[tap] * columns[tap]
        slope = sample
    return sample, slope / 2


@triton.jit
def _sample(second, to_x, to_y, inside, H, W):
    """The second frame and its central differences at some positions, bicubic, 0 outside.

    Returns:
        The sample, and those of the differences along x and along y.
    """
    # A flow that leads far out would not fit into an integer.
    near_x = tl.minimum(tl.maximum(to_x, -4.0), W + 4.0)
    near_y = tl.minimum(tl.maximum(to_y, -4.0), H + 4.0)
    floor_x, floor_y = tl.floor(near_x), tl.floor(near_y)
    x0, y0 = floor_x.to(tl.int32), floor_y.to(tl.int32)
    weights = _cubic_weights(near_x, floor_x, x0, W)
    samples = ()
    slopes = ()
    for tap in tl.static_range(6):
        j = tl.minimum(tl.maximum(y0 + (tap - 2), 0), H - 1)
        sample, slope = _sampled_row(second, j, x0, weights, inside, W, 1 <= tap and tap < 5)
        samples = samples + (sample,)
        slopes = slopes + (slope,)
    warped = tl.zeros_like(to_x)
    gx = tl.zeros_like(to_x)
    gy = tl.zeros_like(to_x)
    weights = _cubic_weights(near_y, floor_y, y0, H)
    for tap in tl.static_range(4):
        warped += weights[tap] * samples[tap + 1]
        gx += weights[tap] * slopes[tap + 1]
        gy += weights[tap] * ((samples[tap + 2] - samples[tap]) / 2)
    return warped, gx, gy


@triton.jit(do_not_specialize=["P", "H", "W"])
def linearize_kernel(
    first,
    second,
    flows,
    data,
    status,
    status_out,
    unused,
    P,
    H,
    W,
    BLOCK: tl.constexpr,
):
    """The data term of some pixels of one pair about its flow: gradient x, y, and rho at flow 0.

    The second frame and its central differences are sampled at p + flow(p), bicubic, 0 outside.
    Both are separable: 32 pixels about a place are read, and weighted along x, then along y.
    A pair that was done goes on from here, except those that `unused` has as DONE.
    """
    tile, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    plane = H * W
    end = tl.load(unused + pair)
    here = tl.load(status + pair) & 3
    if tile == 0:
        tl.store(status_out + pair, here | end)
    if end == 0:
        first += pair * plane
        second += pair * plane
        flow = flows + ((here & 1).to(tl.int64) * P + pair) * 2 * plane
        data += 3 * pair * plane
        # A pixel for each thread: of two, Triton 3.6 moves each value through shared memory.
        at = tile * BLOCK + tl.arange(0, BLOCK)
        y = at // W
        x = at % W
        inside = at < plane
        u1 = tl.load(flow + at, inside, 0.0)
        u2 = tl.load(flow + plane + at, inside, 0.0)
        to_x, to_y = x + u1, y + u2
        warped, gx, gy = _sample(second, to_x, to_y, inside, H, W)
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
    return wires[:low] + (smaller,) + wires[low + 1 : high] + (larger,) + wires[high + 1 :]


@triton.jit
def _load_row(plane, x, j, inside, H, W):
    """The five pixels about column x of row j; borders repeated."""
    row = plane + tl.minimum(tl.maximum(j, 0), H - 1) * W
    values = ()
    for place in tl.static_range(5):
        i = tl.minimum(tl.maximum(x + (place - 2), 0), W - 1)
        value = tl.load(row + i, inside, 0.0)
        values = values + (value,)
    return values


@triton.jit
def _median_with_row(middle, row):
    """The median of 25 values: of 20 the six of ranks 7 to 12, in order, and five others."""
    for k in tl.static_range(N_ROW_EXCHANGES):
        row = _in_order(row, ROW_EXCHANGES[k][0], ROW_EXCHANGES[k][1])
    # The sixth of these eleven: i of the one sort and 6 - i of the other are no larger.
    median = middle[5]
    for i in tl.static_range(5):
        median = tl.minimum(median, tl.maximum(middle[i], row[4 - i]))
    return median


@triton.jit(do_not_specialize=["P", "H", "W"])
def median_kernel(flows, status, status_out, P, H, W, BLOCK: tl.constexpr):
    """The median of each square of 5x5 pixels, borders repeated, of the pairs that are not done.

    A thread has two pixels, one above the other, whose squares share four rows.
    """
    plane_index = tl.program_id(1)  # two planes for each pair
    pair = (plane_index // 2).to(tl.int64)
    before = tl.load(status + pair)
    if (tl.program_id(0) == 0) & (plane_index % 2 == 0):
        tl.store(status_out + pair, tl.where(before < 4, before ^ 1, before))
    if before < 4:
        here = (before & 1).to(tl.int64)
        plane = flows + ((here * P + pair) * 2 + plane_index % 2) * H * W
        plane_out = flows + (((1 - here) * P + pair) * 2 + plane_index % 2) * H * W
        at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        x = at % W
        y = (at // W) * 2
        inside = y < H
        shared = ()
        for k in tl.static_range(4):
            shared = shared + _load_row(plane, x, y + (k - 1), inside, H, W)
        for k in tl.static_range(N_SHARED_EXCHANGES):
            shared = _in_order(shared, SHARED_EXCHANGES[k][0], SHARED_EXCHANGES[k][1])
        middle = shared[7:13]
        upper = _median_with_row(middle, _load_row(plane, x, y - 2, inside, H, W))
        lower = _median_with_row(middle, _load_row(plane, x, y + 3, inside, H, W))
        tl.store(plane_out + y * W + x, upper, inside)
        tl.store(plane_out + (y + 1) * W + x, lower, y + 1 < H)
