"""Resize images, write them as JPEG. The only module that imports Pillow."""

from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def resize_to_width(image: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Scale an image (H, W, 3) uint8 RGB to a width in pixels; a narrower one is left as it is."""
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    if image.shape[1] <= width:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def save_jpeg(image: NDArray[np.uint8], file: BinaryIO, *, quality: int) -> None:
    """Write an image (H, W, 3) uint8 RGB as JPEG; quality is in [1, 95]."""
    Image.fromarray(np.ascontiguousarray(image)).save(file, "JPEG", quality=quality, optimize=True)
