"""Limits on the size of video frames, and their size after resizing. Pure arithmetic, no torch."""

SHORT_SIDE = 256
MAX_ASPECT = 8  # a longer frame would be huge once its short side is resized
# Above 8K (7680x4320). The only limit on pixels: buffers are allocated for the size that a file
# announces, and a damaged or hostile file can announce any size.
MAX_PIXELS = 40_000_000


def resized_dims(height: int, width: int, short_side: int = SHORT_SIDE) -> tuple[int, int]:
    """Return the (height, width) in pixels at which the short side is `short_side`.

    Raises:
        ValueError: If the long side is more than 8 times the short one, or there are more than
            40 million pixels.

    >>> resized_dims(480, 640)
    (256, 341)
    """
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(
            f"frames must have a long side of at most {MAX_ASPECT} times the short side, "
            f"instead got {width}x{height}"
        )
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"frames must have at most {MAX_PIXELS} pixels, instead got {width}x{height}; "
            "scale the video down"
        )
    if height <= width:
        return short_side, round(short_side * width / height)
    return round(short_side * height / width), short_side
