"""The iteration of TV-L1 on CUDA devices: several iterations in one launch of a Triton kernel.

What it costs. An inner iteration alone would read flow (2 numbers), dual (4) and data term (3) of
each pixel and write flow and dual: 60 bytes. A pair of 341x256 frames takes some 300 iterations,
counted in pixels of the finest level: 1.6 GB, or 2,000 pairs a second from the memory of an H100.
So a launch does several (`advance_kernel`), and the arithmetic, some 80 instructions for each pixel
and iteration, comes to weigh as much as the memory.

- A program is one warp. It walks down a strip of a pair of frames and holds, for each iteration of
  the launch, one row in registers. Neighbors along x are a shuffle away. Programs cannot wait for
  each other, so strips overlap, and what lies in an overlap is computed twice.
- No iteration waits for the host. A launch leaves the squared change of each of its iterations; the
  next one adds them up, each program alike, and so knows whether the pair goes on. If it should
  have ended within the launch before, that one is done again from its start, which is still there:
  flow and dual go from one buffer to another, each pair on its own.

What is done to a row is in `tvl1_rows.py`. Triton inlines all of these functions.
"""

# ruff: noqa: RUF005, D417
# mypy: disable-error-code="assignment,misc,no-redef"

import triton
import triton.language as tl

from extractors.flow.tvl1_rows import (
    ascend,
    descend,
    inverses,
    load_rows,
    masked,
    store_row,
    zero_rows,
)


@triton.jit
def _first_converged(
    sums, n_run, n_tiles, max_squared_change, STEPS: tl.constexpr, MAX_TILES: tl.constexpr
):
    """Which of the iterations of the launch before was the last one needed; STEPS for none."""
    tiles = tl.arange(0, MAX_TILES)
    first = STEPS
    for back in tl.static_range(STEPS):
        k = STEPS - 1 - back
        # float64: else the order of summation could decide at the threshold.
        values = tl.load(sums + k * n_tiles + tiles, tiles < n_tiles, 0.0).to(tl.float64)
        is_small = tl.sum(values) <= max_squared_change
        first = tl.where(is_small & (k < n_run), k, first)
    return first


@triton.jit
def _plan_launch(
    status, sums, pair, counts, max_squared_change, STEPS: tl.constexpr, MAX_TILES: tl.constexpr
):
    """What a pair does in this launch, from the status and the changes of the launch before.

    Args:
        status: Of the pair.
        sums: (P, STEPS, n_tiles) squared changes of the iterations of the launch before.
        pair: Its index.
        counts: Iterations of the launch before, 0 for none; of this launch; tiles of a pair.
        max_squared_change: A pair is done when its sum is no larger.
        STEPS: The most iterations of a launch.
        MAX_TILES: A power of two, at least the number of tiles.

    Returns:
        n_run: Iterations to be done; 0 for none.
        source: The status of the buffers that they start from.
        after: The status for the next launch.
    """
    n_before, n_now, n_tiles = counts
    n_run = 0
    source = status & 3
    after = status
    if status < 4:
        first = STEPS
        if n_before > 0:
            own = sums + pair * STEPS * n_tiles
            first = _first_converged(own, n_before, n_tiles, max_squared_change, STEPS, MAX_TILES)
        is_done = first < STEPS
        # Too many iterations were done: the right number of them, once more from where they began.
        is_again = is_done & (first < n_before - 1)
        n_run = tl.where(is_again, first + 1, tl.where(is_done, 0, n_now))
        has_moved = n_before > 0
        source = tl.where(has_moved & (is_again == 0), status ^ 3, status)
        after = tl.where(has_moved, status ^ 3, status) | tl.where(is_done, 4, 0)
    return n_run, source, after


@triton.jit
def _place_tile(
    tile,
    H,
    W,
    STEPS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SEGMENT: tl.constexpr,
    LANES: tl.constexpr,
):
    """Where a tile lies, and what its columns are.

    Returns:
        rows: Its first row, and the one after its last.
        x: The first column of each lane.
        lanes: The next and the previous lane, and 1.0 where there is a previous one, else 0.0.
        masks: For each column of a lane: whether it is inside the image, whether the tile owns
            it, whether it has a neighbor to the right.
    """
    n_strips = (W - 2 * STEPS + COLUMNS * LANES - 2 * STEPS - 1) // (COLUMNS * LANES - 2 * STEPS)
    n_strips = tl.maximum(n_strips, 1)
    strip = tile % n_strips
    y0 = (tile // n_strips) * SEGMENT
    y1 = tl.minimum(y0 + SEGMENT, H)
    lane = tl.arange(0, LANES)
    lanes = ((lane + 1) % LANES, (lane + LANES - 1) % LANES, (lane > 0).to(tl.float32))
    x = strip * (COLUMNS * LANES - 2 * STEPS) + lane * COLUMNS
    insides = ()
    owned = ()
    has_right = ()
    for j in tl.static_range(COLUMNS):
        place = lane * COLUMNS + j
        inside = x + j < W
        is_own = inside & ((place >= STEPS) | (strip == 0))
        is_own = is_own & ((place < COLUMNS * LANES - STEPS) | (strip == n_strips - 1))
        insides = insides + (inside,)
        owned = owned + (is_own,)
        has_right = has_right + (x + j < W - 1,)
    return (y0, y1), x, lanes, (insides, owned, has_right)


@triton.jit
def _iterate_rows(
    row,
    held,
    squares,
    y,
    bounds,
    lanes,
    weights,
    has_right,
    n_run,
    limits,
    STEPS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """All iterations that can be done once row y is there: iteration k of row y - k.

    Args:
        row: Flow (2), dual (4), data term and the inverse of its squared gradient (4).
        held: Of each iteration the row that it did last: the flow after it, the rest before it.
        squares: Of each iteration the squared change so far, by lane.
        y: Of the row.
        bounds: The first row of the tile, the one after its last, the one after the image's last.
        lanes: See `_place_tile`, as for `has_right`.
        weights: 1.0 for the columns that the tile owns, else 0.0.
        has_right: Whether a column has a neighbor to the right.
        n_run: Iterations of this launch; those from there on change nothing.
        limits: See `advance_kernel`: max_length, tau, tau_over_theta, min_squared.
        STEPS: The most iterations of a launch.
        COLUMNS: Of a lane.

    Returns:
        `held` and `squares` with these rows, and row y - STEPS after the last iteration.
    """
    y0, y1, H = bounds
    now_held = ()
    now_squares = ()
    for k in tl.static_range(STEPS):
        own_y = y - k
        last = held[k]
        is_active = (k < n_run).to(tl.float32)
        weight = ((own_y >= y0) & (own_y < y1)).to(tl.float32)
        flow, change = descend(
            row[0:2], row[2:6], last[2:6], row[6:10], lanes, limits[0], is_active, weights, COLUMNS
        )
        has_lower = (own_y >= 1) & (own_y < H)
        steps = (is_active * limits[2], is_active * limits[1])
        dual1 = ascend(last[0], flow[0], last[2:4], lanes[0], has_right, has_lower, steps, COLUMNS)
        dual2 = ascend(last[1], flow[1], last[4:6], lanes[0], has_right, has_lower, steps, COLUMNS)
        now_held = now_held + (flow + row[2:10],)
        now_squares = now_squares + (squares[k] + weight * change,)
        row = last[0:2] + dual1 + dual2 + last[6:10]
    return now_held, now_squares, row


@triton.jit
def _walk_down(
    planes_in,
    planes_out,
    tile,
    dims,
    n_run,
    limits,
    STEPS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SEGMENT: tl.constexpr,
    LANES: tl.constexpr,
):
    """Do the iterations of the rows of a tile, from the first to the last.

    Args:
        planes_in: Flow, dual and data term of the pair.
        planes_out: Where its new flow and dual go.
        tile: Index of the tile.
        dims: H, W and H * W.
        n_run: Iterations of this launch.
        limits: As in `_iterate_rows`.
        STEPS: The most iterations of a launch.
        COLUMNS: Of a lane.
        SEGMENT: Rows of a tile.
        LANES: Of a warp.

    Returns:
        (STEPS,) the squared change of each iteration, by lane.
    """
    flow_in, dual_in, data = planes_in
    H, W, plane = dims
    rows, x, lanes, masks = _place_tile(tile, H, W, STEPS, COLUMNS, SEGMENT, LANES)
    y0, y1 = rows
    insides, owned, has_right = masks
    weights = ()
    for j in tl.static_range(COLUMNS):
        weights = weights + (owned[j].to(tl.float32),)
    squares = zero_rows(1, STEPS, LANES)[0]
    held = ()
    for _ in tl.static_range(STEPS):
        held = held + (zero_rows(10, COLUMNS, LANES),)
    start = tl.maximum(y0 - STEPS, 0)
    coming = load_rows(flow_in, dual_in, data, plane, start * W + x, insides, COLUMNS)
    for y in range(start, y1 + STEPS):
        row = coming + (inverses(coming[6:8], limits[3], COLUMNS),)
        # The next row is on its way while this one is worked on.
        seen = masked(insides, y + 1 < H, COLUMNS)
        coming = load_rows(flow_in, dual_in, data, plane, (y + 1) * W + x, seen, COLUMNS)
        held, squares, done = _iterate_rows(
            row,
            held,
            squares,
            y,
            (y0, y1, H),
            lanes,
            weights,
            has_right,
            n_run,
            limits,
            STEPS,
            COLUMNS,
        )
        at = (y - STEPS) * W + x
        stored = masked(owned, y - STEPS >= y0, COLUMNS)
        store_row(planes_out[0], plane, at, stored, done[0:2], 2, COLUMNS)
        store_row(planes_out[1], plane, at, stored, done[2:6], 4, COLUMNS)
    return squares


@triton.jit(do_not_specialize=["P", "H", "W", "n_tiles", "n_before", "n_now"])
def advance_kernel(
    flows,
    duals,
    data,
    status,
    status_out,
    sums,
    sums_out,
    P,
    H,
    W,
    n_tiles,
    n_before,
    n_now,
    max_squared_change,
    max_length,
    tau,
    tau_over_theta,
    min_squared,
    STEPS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SEGMENT: tl.constexpr,
    MAX_TILES: tl.constexpr,
    LANES: tl.constexpr,
):
    """Up to STEPS inner iterations of one tile of one pair, by a single warp.

    A tile is COLUMNS * LANES pixels wide and walks down SEGMENT rows that it owns. Iteration k + 1
    of a row is done when iteration k of the row below it is: so each row is read and written once.
    Each iteration spoils one more pixel on either side of a tile: those belong to its neighbors.

    Args:
        flows: (2, P, 2, H, W), of which `status` says for each pair which is read.
        duals: (2, P, 4, H, W), likewise, held as theta times the dual.
        data: (P, 3, H, W).
        status: (P,) int32, see `DONE`.
        status_out: (P,) for the next launch.
        sums: (P, STEPS, n_tiles) squared changes of the iterations of the launch before.
        sums_out: The same of this one.
        P: Pairs in all.
        H: Rows.
        W: Columns.
        n_tiles: Tiles of a pair.
        n_before: Iterations of the launch before in this round; 0 for none.
        n_now: Iterations of this launch; 0 settles only what the launch before has left open.
        max_squared_change: A pair is done when its sum is no larger.
    """
    tile, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    plane = H * W
    before = tl.load(status + pair)
    counts = (n_before, n_now, n_tiles)
    n_run, source, after = _plan_launch(
        before, sums, pair, counts, max_squared_change, STEPS, MAX_TILES
    )
    if tile == 0:
        tl.store(status_out + pair, after)
    if n_run > 0:
        here = source.to(tl.int64)
        flow_in = flows + ((here & 1) * P + pair) * 2 * plane
        flow_out = flows + ((1 - (here & 1)) * P + pair) * 2 * plane
        dual_in = duals + ((here >> 1) * P + pair) * 4 * plane
        dual_out = duals + ((1 - (here >> 1)) * P + pair) * 4 * plane
        planes_in = (flow_in, dual_in, data + pair * 3 * plane)
        planes_out = (flow_out, dual_out)
        dims = (H, W, plane)
        limits = (max_length, tau, tau_over_theta, min_squared)
        squares = _walk_down(
            planes_in, planes_out, tile, dims, n_run, limits, STEPS, COLUMNS, SEGMENT, LANES
        )
        for k in tl.static_range(STEPS):
            tl.store(sums_out + (pair * STEPS + k) * n_tiles + tile, tl.sum(squares[k]))
