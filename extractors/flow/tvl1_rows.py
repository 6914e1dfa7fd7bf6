"""The arithmetic of TV-L1's iteration on one row of pixels: Triton functions for `tvl1_advance.py`.

A row lies in the registers of a warp: each lane has some neighboring columns, a tuple of blocks of
LANES values. The tuples grow by addition, for Triton cannot append to them otherwise.
"""

# ruff: noqa: RUF005
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
    """A row of a tile of some planes, each a tuple of columns; 0 outside the image."""
    loaded = ()
    for index in tl.static_range(n_planes):
        columns = ()
        for j in tl.static_range(COLUMNS):
            value = tl.load(planes + index * plane + at + j, insides[j], 0.0)
            columns = columns + (value,)
        loaded = loaded + (columns,)
    return loaded


@triton.jit
def store_row(planes, plane, at, owned, rows, n_planes: tl.constexpr, COLUMNS: tl.constexpr):
    """Store a row of a tile of some planes where `owned` is True."""
    for index in tl.static_range(n_planes):
        for j in tl.static_range(COLUMNS):
            tl.store(planes + index * plane + at + j, rows[index][j], owned[j])


@triton.jit
def inverses(gradient, min_squared, COLUMNS: tl.constexpr):
    """-1 / |gradient|^2, or 0 where there is no gradient."""
    found = ()
    for j in tl.static_range(COLUMNS):
        squared = gradient[0][j] * gradient[0][j] + gradient[1][j] * gradient[1][j]
        has_gradient = squared > min_squared
        inverse = tl.where(has_gradient, -1.0 / tl.where(has_gradient, squared, 1.0), 0.0)
        found = found + (inverse,)
    return found


@triton.jit
def zero_rows(n: tl.constexpr, COLUMNS: tl.constexpr, LANES: tl.constexpr):
    """Rows of a tile with 0 everywhere."""
    rows = ()
    for _ in tl.static_range(n):
        columns = ()
        for _j in tl.static_range(COLUMNS):
            columns = columns + (tl.zeros([LANES], tl.float32),)
        rows = rows + (columns,)
    return rows


@triton.jit
def descend(
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
def ascend(flow, lower_flow, dual, next_lane, has_right, has_lower, steps, COLUMNS: tl.constexpr):
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
def masked(columns, is_used, COLUMNS: tl.constexpr):
    """The masks of the columns of a row; all False if the row is not used."""
    masks = ()
    for j in tl.static_range(COLUMNS):
        masks = masks + (columns[j] & is_used,)
    return masks


@triton.jit
def load_rows(flow, dual, data, plane, at, insides, COLUMNS: tl.constexpr):
    """One row of flow (2), dual (4) and data term (3)."""
    return (
        _load_row(flow, plane, 2, at, insides, COLUMNS)
        + _load_row(dual, plane, 4, at, insides, COLUMNS)
        + _load_row(data, plane, 3, at, insides, COLUMNS)
    )
