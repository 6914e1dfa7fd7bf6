"""TensorFlow's SAME padding of convolutions and pools, as the released I3D weights need it."""

from torch import Tensor


def same_padding(n: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the length of TensorFlow's SAME padding before and after one axis.

    Args:
        n: Length of the axis.
        kernel: Length of the kernel.
        stride: Stride along the axis.

    Returns:
        (before, after): there are ceil(n / stride) outputs, and an odd element goes to the end.

    >>> same_padding(224, kernel=7, stride=2)
    (2, 3)
    """
    n_out = -(-n // stride)
    total = max((n_out - 1) * stride + kernel - n, 0)
    return total // 2, total - total // 2


def same_paddings(
    x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]
) -> tuple[list[int], list[int]]:
    """Return, for T, H and W, the padding before, and by how much the padding after exceeds it."""
    paddings = [same_padding(*axis) for axis in zip(x.shape[2:], kernel, stride, strict=True)]
    return [before for before, _ in paddings], [after - before for before, after in paddings]
