"""Images of any size and layout -> planes of numbers from 0 to 1, in patches and tiles, and back as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diabolo.data.raw import is_listed
from diabolo.records import Batch

__all__ = ["Picture", "are_pictures", "cut_patches", "in_tiles", "pixel_range", "read_pictures", "turned"]

Array = NDArray[Any]
COLOURS = (1, 3, 4)  # channels that a last axis may be


@dataclass(frozen=True)
class Picture:
    """One image as it was given.

    Attributes
    ----------
    pixels : ndarray
        ``(height, width)``, ``(channels, height, width)`` or ``(height, width, channels)``.
    last : bool
        Whether channels are the last axis.
    """

    pixels: Array
    last: bool

    @property
    def planes(self) -> Array:
        """The image as ``(channels, height, width)``, a view."""
        if self.pixels.ndim == 2:
            return self.pixels[None]
        return np.moveaxis(self.pixels, 2, 0) if self.last else self.pixels

    def like(self, planes: Array) -> Array:
        """Return planes ``(channels, height, width)`` in the layout of this image."""
        if self.pixels.ndim == 2:
            return np.asarray(planes[0])
        return np.ascontiguousarray(planes.transpose(1, 2, 0)) if self.last else planes


def are_pictures(X: Any) -> bool:
    """Tell whether ``X`` is a stack, or a list, of images: arrays of two axes, or of three."""
    if is_listed(X):
        return len(X) > 0 and all(getattr(item, "ndim", 0) in (2, 3) for item in X)
    return getattr(X, "ndim", 0) in (3, 4) and not hasattr(X, "columns")


def read_pictures(X: Any, first: int = 0, channels: int | None = None) -> list[Picture]:
    """Read a stack ``(n, height, width)``, ``(n, channels, height, width)`` or ``(n, height, width, channels)``, or a list.

    ``first`` is the number of the first image in errors; ``channels``, where they are known, tell which axis holds them.

    Raises
    ------
    ValueError
        For images that are empty, hold no numbers, or differ in their channels or in the type of their numbers.
    """
    found = []
    for i, item in enumerate(X, first):
        pixels = np.asarray(item.detach().cpu() if isinstance(item, torch.Tensor) else item)
        if pixels.dtype.kind not in "buif" or pixels.ndim not in (2, 3) or 0 in pixels.shape:
            raise ValueError(
                f"expected images of numbers, (height, width) or three axes with the channels first or last; image {i} has "
                f"shape {pixels.shape} and type {pixels.dtype}"
            )
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise ValueError(
                f"image {i} has pixels that are missing or infinite; fill holes first, for example by an Imputer"
            )
        colours = COLOURS if channels is None else (channels,)
        last = pixels.ndim == 3 and pixels.shape[2] in colours and pixels.shape[0] not in colours
        found.append(Picture(pixels, last))
    if not found:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required: there is no image")
    for i, picture in enumerate(found, first):
        for name, own, expected in (
            ("channels", len(picture.planes), len(found[0].planes)),
            ("numbers of type", picture.pixels.dtype, found[0].pixels.dtype),
        ):
            if own != expected:
                raise ValueError(
                    f"expected images of one kind; image {first} has {expected} {name}, image {i} has {own}"
                )
    return found


def cut_patches(planes: list[Array], n: int, side: int, rng: np.random.Generator) -> Array:
    """Return ``n`` patches ``(n, channels, side, side)`` from random places of images, the larger ones more often."""
    sizes = np.array([p.shape[1] * p.shape[2] for p in planes], dtype=np.float64)
    which = rng.choice(len(planes), n, p=sizes / sizes.sum())
    out = np.empty((n, len(planes[0]), side, side), dtype=np.float32)
    for k, i in enumerate(which):
        image = planes[i]
        short = [(0, max(0, side - length)) for length in image.shape[1:]]
        if any(pad for _, pad in short):
            image = np.pad(image, ((0, 0), *short), mode="symmetric")
        top, left = (int(rng.integers(0, length - side + 1)) for length in image.shape[1:])
        out[k] = image[:, top : top + side, left : left + side]
    return out


def in_tiles(
    planes: Array, restore: Callable[[Array], Array], *, side: int, reach: int, multiple: int
) -> Iterator[tuple[slice, slice, Array]]:
    """Restore an image tile by tile, in memory for one of them, without seams.

    Parameters
    ----------
    planes : ndarray of shape (channels, height, width)
        The image.
    restore : callable
        Maps ``(channels, H, W)`` to the same shape, where sides are multiples of ``multiple``, and no pixel depends on others
        that are more than ``reach`` away.
    side : int
        Of a tile, without the pixels around it that it depends on.

    Yields
    ------
    slice, slice, ndarray
        Rows and columns of a tile, and what it becomes ``(channels, rows, columns)``.
    """
    height, width = planes.shape[1:]
    for top in range(0, height, side):
        for left in range(0, width, side):
            rows, columns = slice(top, min(top + side, height)), slice(left, min(left + side, width))
            y, x = max(0, top - reach), max(0, left - reach)
            part = planes[:, y : min(rows.stop + reach, height), x : min(columns.stop + reach, width)]
            pads = ((0, 0), *((0, -length % multiple) for length in part.shape[1:]))
            done = restore(np.pad(part, pads, mode="edge"))
            yield rows, columns, done[:, top - y : rows.stop - y, left - x : columns.stop - x]


def pixel_range(pictures: list[Picture]) -> tuple[float, float]:
    """Return the lowest value of pixels and their range: of whole numbers what their type holds, else what there is."""
    dtype = pictures[0].pixels.dtype
    if dtype.kind == "b":
        return 0.0, 1.0
    if dtype.kind in "ui":
        return 0.0, float(np.iinfo(dtype).max)
    low = min(float(p.pixels.min()) for p in pictures)
    high = max(float(p.pixels.max()) for p in pictures)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, (high - low) or 1.0


def turned(batch: Batch) -> Batch:
    """Mirror and turn a batch of patches by a draw for all of them."""
    flip, turns = bool(torch.rand(()) < 0.5), int(torch.randint(4, ()))
    x = batch.x.flip(3) if flip else batch.x
    return batch._replace(x=torch.rot90(x, turns, (2, 3)))
