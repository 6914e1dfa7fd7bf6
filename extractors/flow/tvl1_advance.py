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

Tuples are of the columns that a thread has, or of rows; Triton cannot append to them otherwise.
"""

# ruff: noqa: RUF005, C901, D417
# mypy: disable-error-code="assignment,misc,no-redef"

import triton
import triton.language as tl


@triton.jit
def _from_right(columns, next_lane):
    """What the pixels to the right hold; of the last column of a tile, anything."""
    return columns[1:] + (tl.gather(columns[0], next_lane, 0),)


@triton.jit
def _from_left(columns, previous_lane, has_left, COLUMNS: tl.constexpr):
    """What the pixels to the left hold; 0 in the first column of a tile."""
    moved = tl.gather(columns[COLUMNS - 1], previous_lane, 0) * has_left
    return (moved,) + columns[: COLUMNS - 1]


@triton.jit
def _load_row(planes, plane, n_planes: tl.constexpr, at, insides, COLUMNS: tl.constexpr):
    """A row of a tile of some planes, each a tuple of columns; 0 outside the picture."""
    loaded = ()
    for index in tl.static_range(n_planes):
        columns = ()
        for j in tl.static_range(COLUMNS):
            value = tl.load(planes + index * plane + at + j, insides[j], 0.0)
            columns = columns + (value,)
        loaded = loaded + (columns,)
    return loaded


@triton.jit
def _store_row(planes, plane, at, owned, rows, n_planes: tl.constexpr, COLUMNS: tl.constexpr):
    for index in tl.static_range(n_planes):
        for j in tl.static_range(COLUMNS):
            tl.store(planes + index * plane + at + j, rows[index][j], owned[j])


@triton.jit
def _inverses(gradient, min_squared, COLUMNS: tl.constexpr):
    """-1 / |gradient|^2, or 0 where there is no gradient."""
    found = ()
    for j in tl.static_range(COLUMNS):
        squared = gradient[0][j] * gradient[0][j] + gradient[1][j] * gradient[1][j]
        has_gradient = squared > min_squared
        inverse = tl.where(has_gradient, -1.0 / tl.where(has_gradient, squared, 1.0), 0.0)
        found = found + (inverse,)
    return found


@triton.jit
def _zero_rows(n: tl.constexpr, COLUMNS: tl.constexpr, LANES: tl.constexpr):
    rows = ()
    for _ in tl.static_range(n):
        columns = ()
        for _j in tl.static_range(COLUMNS):
            columns = columns + (tl.zeros([LANES], tl.float32),)
        rows = rows + (columns,)
    return rows


@triton.jit
def _descend(
    flow, dual, upper_dual, data, lanes, max_length, is_active, owned, COLUMNS: tl.constexpr
):
    """The step of the flow of one row: the new flow (2 rows), what it changes of what is owned."""
    left1 = _from_left(dual[0], lanes[1], lanes[2], COLUMNS)
    left2 = _from_left(dual[2], lanes[1], lanes[2], COLUMNS)
    flow1 = ()
    flow2 = ()
    change = owned[0] * 0.0
    for j in tl.static_range(COLUMNS):
        divergence1 = (dual[0][j] - left1[j]) + dual[1][j] - upper_dual[1][j]
        divergence2 = (dual[2][j] - left2[j]) + dual[3][j] - upper_dual[3][j]
        gx = data[0][j]
        gy = data[1][j]
        rho = data[2][j] + gx * flow[0][j] + gy * flow[1][j]
        length = tl.minimum(tl.maximum(rho * data[3][j], -max_length), max_length)
        c1 = gx * length + divergence1
        c2 = gy * length + divergence2
        flow1 = flow1 + (flow[0][j] + is_active * c1,)
        flow2 = flow2 + (flow[1][j] + is_active * c2,)
        change += owned[j] * (c1 * c1 + c2 * c2)
    return (flow1, flow2), change


@triton.jit
def _ascend(flow, lower_flow, dual, next_lane, has_right, has_lower, steps, COLUMNS: tl.constexpr):
    """The dual of one component of the flow (2 rows), moved along its gradient.

    `steps` are of the norm and of the dual, which is held as theta times the dual.
    """
    right = _from_right(flow, next_lane)
    dual_x = ()
    dual_y = ()
    for j in tl.static_range(COLUMNS):
        dx = tl.where(has_right[j], right[j] - flow[j], 0.0)
        dy = tl.where(has_lower, lower_flow[j] - flow[j], 0.0)
        norm = 1.0 + steps[0] * tl.sqrt(dx * dx + dy * dy)
        inverse = tl.rsqrt(norm * norm)  # 2 instructions where a division takes 8
        dual_x = dual_x + ((dual[0][j] + steps[1] * dx) * inverse,)
        dual_y = dual_y + ((dual[1][j] + steps[1] * dy) * inverse,)
    return (dual_x, dual_y)


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
    n_run = 0
    source = before & 3
    after = before
    if before < 4:
        first = STEPS
        if n_before > 0:
            own = sums + pair * STEPS * n_tiles
            first = _first_converged(own, n_before, n_tiles, max_squared_change, STEPS, MAX_TILES)
        is_done = first < STEPS
        # Too many iterations were done: the right number of them, once more from where they began.
        is_again = is_done & (first < n_before - 1)
        n_run = tl.where(is_again, first + 1, tl.where(is_done, 0, n_now))
        has_moved = n_before > 0
        source = tl.where(has_moved & (is_again == 0), before ^ 3, before)
        after = tl.where(has_moved, before ^ 3, before) | tl.where(is_done, 4, 0)
    if tile == 0:
        tl.store(status_out + pair, after)
    if n_run > 0:
        here = source.to(tl.int64)
        flow_in = flows + ((here & 1) * P + pair) * 2 * plane
        flow_out = flows + ((1 - (here & 1)) * P + pair) * 2 * plane
        dual_in = duals + ((here >> 1) * P + pair) * 4 * plane
        dual_out = duals + ((1 - (here >> 1)) * P + pair) * 4 * plane
        data += pair * 3 * plane

        n_strips = (W - 2 * STEPS + COLUMNS * LANES - 2 * STEPS - 1) // (
            COLUMNS * LANES - 2 * STEPS
        )
        n_strips = tl.maximum(n_strips, 1)
        strip = tile % n_strips
        y0 = (tile // n_strips) * SEGMENT
        y1 = tl.minimum(y0 + SEGMENT, H)
        lane = tl.arange(0, LANES)
        lanes = ((lane + 1) % LANES, (lane + LANES - 1) % LANES, (lane > 0).to(tl.float32))
        x = strip * (COLUMNS * LANES - 2 * STEPS) + lane * COLUMNS
        insides = ()
        owned = ()
        weights = ()
        has_right = ()
        for j in tl.static_range(COLUMNS):
            place = lane * COLUMNS + j
            inside = x + j < W
            is_own = inside & ((place >= STEPS) | (strip == 0))
            is_own = is_own & ((place < COLUMNS * LANES - STEPS) | (strip == n_strips - 1))
            insides = insides + (inside,)
            owned = owned + (is_own,)
            weights = weights + (is_own.to(tl.float32),)
            has_right = has_right + (x + j < W - 1,)

        squares = _zero_rows(1, STEPS, LANES)[0]
        # Of each iteration the row that it did last: flow after it, dual before it, data.
        held = ()
        for _ in tl.static_range(STEPS):
            held = held + (_zero_rows(10, COLUMNS, LANES),)
        start = tl.maximum(y0 - STEPS, 0)
        at = start * W + x
        coming = (
            _load_row(flow_in, plane, 2, at, insides, COLUMNS)
            + _load_row(dual_in, plane, 4, at, insides, COLUMNS)
            + _load_row(data, plane, 3, at, insides, COLUMNS)
        )
        for t in range(start, y1 + STEPS):
            flow = coming[0:2]
            dual = coming[2:6]
            terms = coming[6:9] + (_inverses(coming[6:8], min_squared, COLUMNS),)
            # The next row is on its way while this one is worked on.
            seen = ()
            for j in tl.static_range(COLUMNS):
                seen = seen + (insides[j] & (t + 1 < H),)
            at = (t + 1) * W + x
            coming = (
                _load_row(flow_in, plane, 2, at, seen, COLUMNS)
                + _load_row(dual_in, plane, 4, at, seen, COLUMNS)
                + _load_row(data, plane, 3, at, seen, COLUMNS)
            )
            now_held = ()
            now_squares = ()
            for k in tl.static_range(STEPS):
                row = t - k
                last = held[k]  # type: ignore[var-annotated]
                is_active = (k < n_run).to(tl.float32)
                weight = ((row >= y0) & (row < y1)).to(tl.float32)
                new_flow, change = _descend(
                    flow, dual, last[2:6], terms, lanes, max_length, is_active, weights, COLUMNS
                )
                has_lower = (row >= 1) & (row < H)
                steps = (is_active * tau_over_theta, is_active * tau)
                dual1 = _ascend(
                    last[0], new_flow[0], last[2:4], lanes[0], has_right, has_lower, steps, COLUMNS
                )
                dual2 = _ascend(
                    last[1], new_flow[1], last[4:6], lanes[0], has_right, has_lower, steps, COLUMNS
                )
                now_held = now_held + (new_flow + dual + terms,)
                now_squares = now_squares + (squares[k] + weight * change,)
                flow = last[0:2]
                dual = dual1 + dual2
                terms = last[6:10]
            held = now_held
            squares = now_squares
            row = t - STEPS
            stored = ()
            for j in tl.static_range(COLUMNS):
                stored = stored + (owned[j] & (row >= y0),)
            at = row * W + x
            _store_row(flow_out, plane, at, stored, flow, 2, COLUMNS)
            _store_row(dual_out, plane, at, stored, dual, 4, COLUMNS)
        for k in tl.static_range(STEPS):
            tl.store(sums_out + (pair * STEPS + k) * n_tiles + tile, tl.sum(squares[k]))
