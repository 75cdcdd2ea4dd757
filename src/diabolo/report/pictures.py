"""The page about images that were cleaned or restored: before, after, and what changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.report.build import render_page, write_page
from diabolo.report.draw import number, percent
from diabolo.report.png import png_uri

__all__ = ["write_picture_report"]

Array = NDArray[Any]
SIDE = 480  # pixels of the longer side of a picture as a whole
DETAIL = 160  # pixels of a side of the part that is shown larger


def write_picture_report(
    before: Sequence[Array],
    after: Sequence[Array],
    path: str | Path,
    *,
    masks: Sequence[Array] | None = None,
    names: Sequence[str] | None = None,
    title: str = "Before and after",
) -> Path:
    """Write a page that shows images before and after, as a whole and where most has changed.

    Parameters
    ----------
    before, after : sequence of ndarray
        Images ``(height, width)`` or ``(height, width, 3)`` of 8 or 16 bits, each of the size of its other.
    path : str or Path
        The HTML file; what is there is replaced once the new page is whole.
    masks : sequence of bool arrays of shape (height, width), optional
        What was filled; marked in the image before.
    names : sequence of str, optional
        What the images are called.
    title : str
        Heading of the page.

    Returns
    -------
    Path
        The file.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from diabolo.report import write_picture_report
    >>> noisy = np.random.default_rng(0).integers(0, 255, (40, 60), dtype=np.uint8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_picture_report([noisy], [noisy // 2 + 64], f"{folder}/page.html")
    ...     print(page.name, "Before" in page.read_text())
    page.html True
    """
    names = names if names is not None else [f"image {i}" for i in range(len(before))]
    shown = [
        _shown(name, first, second, None if masks is None else masks[i])
        for i, (name, first, second) in enumerate(zip(names, before, after, strict=True))
    ]
    return write_page(path, render_page("pictures.html", title=title, pictures=shown))


def _shown(name: str, before: Array, after: Array, mask: Array | None) -> dict[str, Any]:
    """Return what the page shows of one image."""
    if before.shape != after.shape:
        raise ValueError(f"{name} has shape {before.shape} before and {after.shape} after; expected one shape")
    first, second = _eight(before), _eight(after)
    change = np.abs(first.astype(np.int16) - second)
    change = change.max(axis=2) if change.ndim == 3 else change
    if mask is not None:
        first = np.repeat(first[..., None], 3, axis=2) if first.ndim == 2 else first.copy()
        first[mask] = (214, 64, 20)
    top, left = _busiest(change if mask is None else mask)
    part = slice(top, top + DETAIL), slice(left, left + DETAIL)
    height, width = before.shape[:2]
    return {
        "name": name,
        "size": f"{width} x {height}",
        "whole": [png_uri(_smaller(picture)) for picture in (first, second)],
        "detail": [png_uri(picture[part]) for picture in (first, second)],
        "change": number(float(np.sqrt(np.square(change.astype(np.float64)).mean()))),
        "filled": None if mask is None else percent(float(mask.mean())),
    }


def _eight(pixels: Array) -> NDArray[np.uint8]:
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def _smaller(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average blocks of pixels until the longer side fits."""
    block = math.ceil(max(pixels.shape[:2]) / SIDE)
    height, width = (max(1, length // block) for length in pixels.shape[:2])
    kept = pixels[: height * block, : width * block]
    if block == 1:
        return kept
    cells = kept.reshape(height, min(block, kept.shape[0]), width, min(block, kept.shape[1]), -1)
    mean: NDArray[np.uint8] = cells.mean(axis=(1, 3)).round().astype(np.uint8)
    return mean.reshape(height, width, *pixels.shape[2:])


def _busiest(amount: Array) -> tuple[int, int]:
    """Return the corner of the part where there is most."""
    step = DETAIL // 4
    rows = np.add.reduceat(amount.astype(np.float64), np.arange(0, amount.shape[0], step), axis=0)
    cells = np.add.reduceat(rows, np.arange(0, amount.shape[1], step), axis=1)
    tall, wide = (min(4, n) for n in cells.shape)
    sums = np.lib.stride_tricks.sliding_window_view(cells, (tall, wide)).sum(axis=(2, 3))
    row, column = np.unravel_index(int(sums.argmax()), sums.shape)
    top, left = (max(0, min(int(at) * step, n - DETAIL)) for at, n in zip((row, column), amount.shape[:2], strict=True))
    return top, left
