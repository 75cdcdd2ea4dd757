"""Stacks of images: ``(n, height, width)`` or ``(n, channels, height, width)``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.data.raw import Raw, is_listed

__all__ = ["read_images", "stack_images"]


def stack_images(X: Any) -> NDArray[Any] | None:
    """Stack a list or an object array of images of one size; ``None`` for anything else.

    Raises
    ------
    ValueError
        When the images have different sizes.
    """
    if not is_listed(X) or len(X) == 0 or not all(getattr(image, "ndim", 0) in (2, 3) for image in X):
        return None
    first = tuple(X[0].shape)
    for i, image in enumerate(X):
        if tuple(image.shape) != first:
            raise ValueError(
                f"expected images of one size; image 0 has shape {first}, image {i} has {tuple(image.shape)}. "
                "Crop or resize them to one size."
            )
    return np.stack([np.asarray(image) for image in X])


def read_images(values: NDArray[Any], container: str) -> Raw:
    """Bring a stack of images to ``(n, channels, height, width)``.

    Raises
    ------
    ValueError
        When the stack is not of a kind or looks channels-last.
    """
    if values.dtype.kind not in "buif":
        raise ValueError(f"expected images of numbers, got dtype {values.dtype}")
    if values.ndim == 3:
        return Raw(values[:, None], "image", container, drop_channel=True)
    if values.ndim != 4:
        raise ValueError(
            f"expected rows (n, features), grey images (n, height, width) or images (n, channels, height, width); "
            f"got an array of shape {values.shape}"
        )
    first, *_, last = values.shape[1:]
    if last in (1, 3, 4) and first not in (1, 3, 4) and last < min(values.shape[1:3]):
        raise ValueError(
            f"the images look channels-last {values.shape}; expected (n, channels, height, width): "
            "pass X.transpose(0, 3, 1, 2)"
        )
    return Raw(values, "image", container)
