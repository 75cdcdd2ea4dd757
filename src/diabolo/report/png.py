"""Pictures: rows as images, values as colours, pixels as inline PNG files."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Painter", "encode_png", "heat", "png_uri", "viridis"]

LARGEST_SIDE = 48  # pixels; larger pictures are averaged down, which keeps the page small

# Nine anchors of the viridis colour map of Smith and van der Walt: even steps in lightness, legible to the colour-blind.
VIRIDIS = np.array(
    [
        (68, 1, 84),
        (71, 44, 122),
        (59, 81, 139),
        (44, 113, 142),
        (33, 144, 141),
        (39, 173, 129),
        (92, 200, 99),
        (170, 220, 50),
        (253, 231, 37),
    ],
    dtype=np.float64,
)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode grey ``(height, width)`` or RGB ``(height, width, 3)`` pixels as a PNG file."""
    height, width = pixels.shape[:2]
    colour_type = 0 if pixels.ndim == 2 else 2
    lines = np.ascontiguousarray(pixels, dtype=np.uint8).reshape(height, -1)
    filtered = np.hstack([np.zeros((height, 1), dtype=np.uint8), lines])  # each line starts with its filter: none

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    body = zlib.compress(filtered.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def png_uri(pixels: NDArray[np.uint8]) -> str:
    """Return pixels as the ``data:`` address of a PNG file."""
    return "data:image/png;base64," + base64.b64encode(encode_png(pixels)).decode("ascii")


def viridis(share: NDArray[Any]) -> NDArray[np.uint8]:
    """Map numbers in [0, 1] to colours ``(*shape, 3)``; what is not a number becomes grey."""
    position = np.clip(np.nan_to_num(share, nan=0.0), 0.0, 1.0) * (len(VIRIDIS) - 1)
    low = np.minimum(position.astype(np.int64), len(VIRIDIS) - 2)
    part = (position - low)[..., None]
    colours = VIRIDIS[low] * (1 - part) + VIRIDIS[low + 1] * part
    return np.asarray(np.where(np.isnan(share)[..., None], 128.0, np.rint(colours)), dtype=np.uint8)


def heat(values: NDArray[Any]) -> tuple[str, float]:
    """Paint a map ``(height, width)`` of numbers from 0 up; return its address and the value of the brightest colour."""
    values = _shrink(np.asarray(values, dtype=np.float64))
    finite = values[np.isfinite(values)]
    top = float(finite.max()) if len(finite) else 0.0
    share = np.clip(values, 0, None) / top if top > 0 else np.zeros_like(values)
    return png_uri(viridis(share)), max(top, 0.0)


class Painter:
    """Turns rows into pictures on one common grey scale.

    Parameters
    ----------
    shape : tuple of int
        ``(channels, height, width)`` of a row.
    values : ndarray
        Rows whose smallest value becomes black and whose largest becomes white.
    """

    def __init__(self, shape: tuple[int, ...], values: NDArray[Any]):
        self.shape = shape
        finite = values[np.isfinite(values)]
        self.low, self.high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)

    def paint(self, row: NDArray[Any]) -> str:
        """Return one row of ``channels * height * width`` numbers as a picture; a missing pixel is black."""
        return png_uri(_rounded(_shrink(self._picture(row))))

    def pixels(self, row: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the pixels of one row at full size, ``(height, width)`` or ``(height, width, 3)``."""
        return _rounded(self._picture(row))

    def _picture(self, row: NDArray[Any]) -> NDArray[Any]:
        image = np.nan_to_num(np.asarray(row, dtype=np.float64), nan=self.low).reshape(self.shape)
        width = self.high - self.low
        image = np.clip((image - self.low) / width, 0, 1) if width > 0 else np.full(self.shape, 0.5)
        channels = image.shape[0]
        return np.asarray(image[:3].transpose(1, 2, 0) if channels in (3, 4) else image.mean(axis=0))

    def flat(self, row: NDArray[Any]) -> NDArray[np.float64]:
        """Return the mean over channels ``(height, width)`` of one row, for a map."""
        image = np.asarray(row, dtype=np.float64).reshape(self.shape)
        return np.asarray(image.mean(axis=0))


def _rounded(picture: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(picture * 255), dtype=np.uint8)


def _shrink(picture: NDArray[Any]) -> NDArray[Any]:
    """Average blocks of pixels until the longer side fits."""
    block = math.ceil(max(picture.shape[:2]) / LARGEST_SIDE)
    if block == 1:
        return picture
    total, count = picture, np.ones(picture.shape[:2])
    for axis in (0, 1):
        starts = np.arange(0, picture.shape[axis], block)
        total, count = np.add.reduceat(total, starts, axis=axis), np.add.reduceat(count, starts, axis=axis)
    return np.asarray(total / (count if picture.ndim == 2 else count[..., None]))
