"""Images of any size and layout -> planes of numbers from 0 to 1, in patches and tiles, and back as they were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from diabolo.data.raw import is_listed
from diabolo.records import Batch

__all__ = ["Picture", "are_pictures", "cut_patches", "draw_places", "padded", "pixel_range", "read_pictures"]
__all__ += ["turned", "windows"]

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


def read_pictures(X: Any, first: int = 0, channels: int | None = None, *, holes: bool = False) -> list[Picture]:
    """Read a stack ``(n, height, width)``, ``(n, channels, height, width)`` or ``(n, height, width, channels)``, or a list.

    Parameters
    ----------
    X : list or stack of arrays or tensors
        The images.
    first : int
        The number of the first image in errors.
    channels : int, optional
        Tells which axis holds them.
    holes : bool
        Whether pixels may be NaN.

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
        if pixels.dtype.kind == "f" and (np.isinf(pixels).any() or not (holes or np.isfinite(pixels).all())):
            raise ValueError(f"image {i} has pixels that are missing or infinite; a Restorer fills those that are NaN")
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


def draw_places(planes: list[Array], n: int, side: int, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Draw ``n`` places for patches: an image, the larger ones more often, a row and a column."""
    sizes = np.array([p.shape[1] * p.shape[2] for p in planes], dtype=np.float64)
    which = rng.choice(len(planes), n, p=sizes / sizes.sum())
    return [
        (int(i), *(int(rng.integers(0, max(0, length - side) + 1)) for length in planes[i].shape[1:]))  # type: ignore[misc]
        for i in which
    ]


def cut_patches(planes: list[Array], places: list[tuple[int, int, int]], side: int) -> Array:
    """Return patches ``(n, channels, side, side)`` from places in images; what is too small is mirrored."""
    out = np.empty((len(places), len(planes[0]), side, side), dtype=np.float32)
    for k, (i, top, left) in enumerate(places):
        patch = planes[i][:, top : top + side, left : left + side]
        out[k] = padded(patch, [side - length for length in patch.shape[1:]], mode="symmetric")
    return out


def padded(planes: Array, by: list[int], mode: Literal["edge", "symmetric"] = "edge") -> Array:
    """Return planes ``(..., height, width)`` that are longer by so many rows and columns, at the end."""
    if not any(by):
        return planes
    return np.pad(planes, [(0, 0)] * (planes.ndim - 2) + [(0, more) for more in by], mode=mode)


def windows(
    height: int, width: int, side: int, reach: int
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Cut an image into tiles.

    Yields
    ------
    (slice, slice), (slice, slice)
        Rows and columns of a tile, at most ``side`` of each, and those of the same with ``reach`` more around it.
    """
    for top in range(0, height, side):
        for left in range(0, width, side):
            inner = slice(top, min(top + side, height)), slice(left, min(left + side, width))
            outer = tuple(
                slice(max(0, at.start - reach), min(at.stop + reach, length))
                for at, length in zip(inner, (height, width), strict=True)
            )
            yield inner, (outer[0], outer[1])


def pixel_range(pictures: list[Picture], known: list[Array] | None = None) -> tuple[float, float]:
    """Return the lowest value of pixels and their range: of whole numbers what their type holds, else what there is.

    ``known`` masks that go with ``(channels, height, width)`` say which pixels count.
    """
    held = type_range(pictures[0].pixels.dtype)
    if held is not None:
        return held
    there: list[Any] = [True] * len(pictures) if known is None else list(known)
    low = min(float(p.planes.min(where=k, initial=np.inf)) for p, k in zip(pictures, there, strict=True))
    high = max(float(p.planes.max(where=k, initial=-np.inf)) for p, k in zip(pictures, there, strict=True))
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, (high - low) or 1.0


def type_range(dtype: np.dtype[Any]) -> tuple[float, float] | None:
    """Return the value that is 0, and how far above it 1 lies, of a type of whole numbers; None of floating-point ones."""
    if dtype.kind == "b":
        return 0.0, 1.0
    return (0.0, float(np.iinfo(dtype).max)) if dtype.kind in "ui" else None


def in_unit(planes: Array, low: float, spread: float) -> Array:
    """Return pixels as float32 numbers from 0 to 1."""
    return ((planes.astype(np.float32) - np.float32(low)) / np.float32(spread)).astype(np.float32)


def as_pixels(values: Array, dtype: np.dtype[Any]) -> Array:
    """Return pixel values in a type of numbers, rounded and held in range for whole ones."""
    if dtype.kind in "bui":
        ends = np.iinfo(dtype) if dtype.kind in "ui" else None
        values = np.clip(np.rint(values), *((ends.min, ends.max) if ends is not None else (0, 1)))
    return np.asarray(values.astype(dtype))


def turned(batch: Batch) -> Batch:
    """Mirror and turn a batch of patches, and their masks, by a draw for all of them."""
    flip, turns = bool(torch.rand(()) < 0.5), int(torch.randint(4, ()))

    def turn(x: torch.Tensor) -> torch.Tensor:
        return torch.rot90(x.flip(3) if flip else x, turns, (2, 3))

    return batch._replace(x=turn(batch.x), mask=None if batch.mask is None else turn(batch.mask))
