"""Images -> bytes and back, by a fitted transform whose numbers are the same on every machine."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from diabolo.parts.entropy import SCALES, normal_tables
from diabolo.parts.exact import exactly, on_grid
from diabolo.records import Batch, Loss
from diabolo.tasks.container import Varints, varint
from diabolo.tasks.image_transform import ANCHORS, CELL, PATCH, REACH, ImageCodec, Teller, first_half, weight
from diabolo.tasks.pictures import Picture, as_pixels, in_unit, type_range
from diabolo.tasks.symbols import MalformedError, SymbolReader, SymbolWriter, cost

__all__ = ["QUALITIES", "ImageCoder", "rate_distortion"]

Array = NDArray[Any]
QUALITIES = 101  # from 0 to 100
TILE = 1024  # pixels of a side, a multiple of PATCH
FINE = 2.0**-20  # inverse gains are multiples of this
TYPES = ("uint8", "uint16", "bool", "float32", "float64", "int8", "int16", "uint32", "int32", "float16")
MOST_PIXELS = 2**31


def rate_distortion(module: nn.Module, batch: Batch, progress: float) -> Loss:
    r"""Return bits per pixel, and the weighted squared error in units of a 255th, at levels of quality that cover the range.

    .. math:: L = R + \\lambda \\cdot 255^2 \\cdot \\mathrm{MSE}
    """
    x = batch.x
    if module.training:
        level = torch.rand(len(x), device=x.device) * (ANCHORS - 1)
    else:
        level = torch.linspace(0, ANCHORS - 1, len(x), device=x.device)
    out, bits = module(x, level)
    rate = bits / x[0, 0].numel()
    off = 255.0**2 * (out - x).square().flatten(1).mean(dim=1)
    total = (rate + weight(level) * off).mean()
    return Loss(total, {"bits per pixel": rate.mean().detach(), "squared error": off.mean().detach()})


@dataclass(frozen=True)
class Heading:
    """What the bytes of an image begin with."""

    height: int
    width: int
    quality: int
    dtype: str
    layout: int  # 0: no axis of channels; 1: it is first; 2: last

    def pack(self) -> bytes:
        """Return it as bytes."""
        return varint(self.height, self.width) + bytes([self.quality, TYPES.index(self.dtype) * 3 + self.layout])

    @classmethod
    def read(cls, numbers: Varints) -> Heading:
        """Read it from the head of bytes; an impossible one is an error."""
        height, width, quality, kind = (numbers.next() for _ in range(4))
        if not height or not width or quality >= QUALITIES or kind >= 3 * len(TYPES):
            raise MalformedError("its heading is impossible")
        return cls(height, width, quality, TYPES[kind // 3], kind % 3)

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles along height and width."""
        return -(-self.height // TILE), -(-self.width // TILE)


class ImageCoder:
    """Codes images with a fitted :class:`ImageCodec`.

    Parameters
    ----------
    module : ImageCodec
        Fitted, on the CPU.
    tables : dict of str to Tensor
        What :meth:`learn_tables` returned.
    low, spread : float
        The value of floating-point pixels that is 0, and how far above it 1 lies.
    """

    def __init__(self, module: ImageCodec, tables: dict[str, Tensor], low: float, spread: float):
        self.module, self.tables, self.low, self.spread = module.eval(), tables, low, spread
        self.teller, self.synthesis = cast("Teller", exactly(module.teller)), exactly(module.synthesis)
        self.normal = _split(tables["normal"])
        self.density = [(int(row[0]), row[1:]) for row in _split(tables["density"])]

    @staticmethod
    @torch.no_grad()
    def learn_tables(module: ImageCodec) -> dict[str, Tensor]:
        """Return, as whole numbers, the tables of counts and the gains at each quality."""
        level = torch.linspace(0, ANCHORS - 1, QUALITIES)
        gain, inverse = module.gains(level)
        density = [np.concatenate([[first], counts]) for first, counts in module.density.tables()]
        return {
            "normal": _joined(normal_tables()),
            "density": _joined(density),
            "gain": torch.round(gain[:, :, 0, 0].double() / FINE).long(),
            "inverse": torch.round(inverse[:, :, 0, 0].double() / FINE).long(),
        }

    @functools.cached_property
    def fingerprint(self) -> bytes:
        """Return what tells this coder from any other that decodes differently."""
        found = hashlib.sha256(repr((self.low, self.spread)).encode())
        for state in (self.tables, self.teller.state_dict(), self.synthesis.state_dict()):
            for name, value in sorted(state.items()):
                found.update(name.encode() + np.ascontiguousarray(value.numpy()).tobytes())
        return found.digest()[:8]

    # images -> bytes ----------------------------------------------------------------------------------------------------------

    def pieces(
        self, picture: Picture, choose: Callable[[Callable[[int], float]], int], device: torch.device
    ) -> Iterator[bytes]:
        """Code an image, a piece for each tile.

        Parameters
        ----------
        picture : Picture
            The image.
        choose : callable
            Is told how many bits per pixel a quality costs, as a function, and returns the quality.
        device : torch.device
            Where the analysis runs.
        """
        height, width = picture.planes.shape[1:]
        module = self.module.to(device)
        places = _places(height, width)
        try:
            codes = [self._analysed(picture, place, module, device) for place in places[:MEASURED]]

            def rate(quality: int) -> float:
                area: int = sum(y.shape[1] * y.shape[2] for y in codes) * CELL**2
                return float(sum(self._coded(y, quality).bits for y in codes) / min(area, height * width))

            quality = choose(rate)
            heading = Heading(height, width, quality, str(picture.pixels.dtype), _layout(picture)).pack()
            for i, place in enumerate(places):
                y = codes[i] if i < len(codes) else self._analysed(picture, place, module, device)
                yield (heading if i == 0 else b"") + self._coded(y, quality).bytes()
        finally:
            module.cpu()

    def _analysed(
        self, picture: Picture, place: tuple[slice, slice], module: ImageCodec, device: torch.device
    ) -> Tensor:
        """Return the numbers of a tile before gain and rounding ``(codes, h, w)``."""
        rows, columns = place
        planes = picture.planes
        top, left = max(0, rows.start - REACH), max(0, columns.start - REACH)
        part = planes[:, top : rows.stop + REACH, left : columns.stop + REACH]
        x = torch.from_numpy(self._unit(part)).expand(module.channels, -1, -1)[None].to(device)
        x = F.pad(x, (0, -x.shape[3] % PATCH, 0, -x.shape[2] % PATCH), mode="replicate")
        with torch.inference_mode():
            y: Tensor = module.analysis(x)[0].float().cpu()
        a, b = (rows.start - top) // CELL, (columns.start - left) // CELL
        h, w = (-(-(s.stop - s.start) // PATCH) * PATCH // CELL for s in place)
        return y[:, a : a + h, b : b + w].clone()

    def _coded(self, y: Tensor, quality: int) -> Coded:
        gain = self.tables["gain"][quality].double() * FINE
        with torch.inference_mode():
            scaled = y * gain.float()[:, None, None]
            z = torch.round(self.module.summary(scaled[None] / 8)[0]).double()
        parts: list[tuple[Tensor, Tensor]] = []

        def take(places: Tensor, mean: Tensor, index: Tensor) -> Tensor:
            parts.append((torch.round(scaled.double()[:, places] - mean), index))
            return parts[-1][0]

        self._by_halves(z, take)
        return Coded(self, z, parts)

    def _by_halves(self, z: Tensor, take: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """Go through the places of a tile, the first half before the second, and return the codes ``(codes, h, w)``.

        Parameters
        ----------
        z : Tensor
            The summary of the tile.
        take : callable
            Is told which places come, the means and the numbers of the scales of their codes ``(codes, n)``, and returns the
            whole numbers that the codes are off.
        """
        with torch.inference_mode():
            about, told = self.teller.from_summary(z[None])
            code = torch.zeros_like(told[0].chunk(2)[0])
            half = first_half(*code.shape[1:])
            for places in (half, ~half):
                mean, scale = (part[:, places] for part in told[0].chunk(2))
                index = torch.round(scale.clamp(0, SCALES - 1)).long()
                code[:, places] = take(places, mean, index) + mean
                if places is half:
                    told = self.teller.from_half(about, told, code[None])
        return code

    # bytes -> images ----------------------------------------------------------------------------------------------------------

    def heading(self, data: bytes) -> tuple[Heading, bytes]:
        """Read the heading of the first piece of an image; return it and the rest."""
        numbers = Varints(data)
        try:
            found = Heading.read(numbers)
        except ValueError as error:
            raise MalformedError(str(error)) from None
        if found.height * found.width > MOST_PIXELS:
            raise MalformedError(f"it declares {found.height} x {found.width} pixels")
        return found, numbers.rest

    def picture(
        self, heading: Heading, read: Callable[[int], bytes], region: tuple[slice, slice] | None = None
    ) -> Array:
        """Decode an image, in memory for it and three rows of tiles, or a part of it from the tiles around that.

        Parameters
        ----------
        heading : Heading
            What :meth:`heading` read.
        read : callable
            Returns the bytes of a tile, numbered row by row, without the heading.
        region : (slice, slice), optional
            Rows and columns of the part, from a first to a last.
        """
        rows, columns = region or (slice(0, heading.height), slice(0, heading.width))
        tall, wide = heading.tiles
        down, across = (range(s.start // TILE, -(-s.stop // TILE)) for s in (rows, columns))
        seen = range(max(0, across.start - 1), min(wide, across.stop + 1))
        shape = (min(heading.height, down.stop * TILE), min(heading.width, across.stop * TILE))
        top, left = down.start * TILE, across.start * TILE
        planes = self.module.channels if heading.layout else 1
        out = np.empty((planes, shape[0] - top, shape[1] - left), dtype=heading.dtype)
        inverse = self.tables["inverse"][heading.quality].double() * FINE
        bands: dict[int, Tensor] = {}
        for r in down:
            near = range(max(0, r - 1), min(tall, r + 2))
            for i in near:
                if i not in bands:
                    tiles = [self._read(read(i * wide + c), heading, i, c) for c in seen]
                    bands[i] = torch.cat(tiles, dim=2) * inverse[:, None, None]
            bands.pop(r - 2, None)
            band = torch.cat([bands[i] for i in near], dim=1)
            above = bands[r - 1].shape[1] if r else 0
            for c in across:
                y, x = r * TILE - top, c * TILE - left
                self._synthesised(band, above, c - seen.start, out[:, y : y + TILE, x : x + TILE])
        out = out[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        if heading.layout == 0:
            return np.array(out[0])
        return np.ascontiguousarray(out.transpose(1, 2, 0) if heading.layout == 2 else out)

    def _read(self, data: bytes, heading: Heading, r: int, c: int) -> Tensor:
        """Return the numbers of a tile, decoded ``(codes, h, w)``."""
        sides = min(TILE, heading.height - r * TILE), min(TILE, heading.width - c * TILE)
        h, w = (-(-side // PATCH) for side in sides)
        reader = SymbolReader(data)
        z = np.stack([reader.get(h * w, first, counts) for first, counts in self.density]).reshape(-1, h, w)

        def take(places: Tensor, mean: Tensor, index: Tensor) -> Tensor:
            which = index.numpy().ravel()
            order, starts = _grouped(which)
            numbers = np.empty(len(which), dtype=np.int64)
            for counts, (start, stop) in zip(self.normal, itertools.pairwise(starts), strict=True):
                numbers[order[start:stop]] = reader.get(stop - start, _first(counts), counts)
            return torch.from_numpy(numbers).view(index.shape).double()

        return self._by_halves(torch.from_numpy(z).double(), take)

    def _synthesised(self, band: Tensor, top: int, c: int, out: Array) -> None:
        """Decode a tile of a band of codes into ``out``; codes around it count, so that no seam is seen."""
        margin, side = REACH // CELL, TILE // CELL
        rows, columns = (-(-length // CELL) for length in out.shape[1:])
        y, x = max(0, top - margin), max(0, c * side - margin)
        part = band[:, y : top + rows + margin, x : c * side + columns + margin]
        with torch.inference_mode():
            planes = self.synthesis(on_grid(part)[None])[0]
        a, b = (top - y) * CELL, (c * side - x) * CELL
        found = planes[:, a : a + out.shape[1], b : b + out.shape[2]].numpy()
        out[:] = self._pixels(found if len(out) == len(found) else found.mean(axis=0, keepdims=True), out.dtype)

    def _unit(self, planes: Array) -> Array:
        """Return pixels from -0.5 to 0.5."""
        low, spread = type_range(planes.dtype) or (self.low, self.spread)
        return in_unit(planes, low, spread) - np.float32(0.5)

    def _pixels(self, planes: Array, dtype: Any) -> Array:
        low, spread = type_range(dtype) or (self.low, self.spread)
        return as_pixels((planes + 0.5) * spread + low, dtype)


MEASURED = 4  # tiles of an image by which its quality is chosen


@dataclass
class Coded:
    """A tile as numbers, and the distributions under which they are written."""

    coder: ImageCoder
    z: Tensor  # (summary, h / 4, w / 4)
    halves: list[tuple[Tensor, Tensor]]  # numbers, and those of their scales (codes, n)

    def parts(self) -> Iterator[tuple[Array, int, NDArray[np.int64]]]:
        """Return numbers, and the table that they are written under, one table after the other."""
        for channel, (first, counts) in zip(self.z.flatten(1).numpy(), self.coder.density, strict=True):
            yield channel, first, counts
        for numbers, index in self.halves:
            flat = numbers.flatten().numpy()
            order, starts = _grouped(index.numpy().ravel())
            for counts, (start, stop) in zip(self.coder.normal, itertools.pairwise(starts), strict=True):
                yield flat[order[start:stop]], _first(counts), counts

    @property
    def bits(self) -> float:
        """What it costs."""
        return sum(cost(*part) for part in self.parts())

    def bytes(self) -> bytes:
        """Return it as bytes."""
        writer = SymbolWriter()
        for part in self.parts():
            writer.put(*part)
        return writer.bytes()


def _first(counts: NDArray[np.int64]) -> int:
    """Return the number that the first count of a table of a normal distribution stands for."""
    return 1 - len(counts) // 2


def _places(height: int, width: int) -> list[tuple[slice, slice]]:
    """Return rows and columns of each tile."""
    return [
        (slice(top, min(top + TILE, height)), slice(left, min(left + TILE, width)))
        for top in range(0, height, TILE)
        for left in range(0, width, TILE)
    ]


def _layout(picture: Picture) -> int:
    return 0 if picture.pixels.ndim == 2 else 2 if picture.last else 1


def _grouped(which: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return an order in which equal scales stand together, and where each begins and the last ends."""
    return np.argsort(which, kind="stable"), np.searchsorted(np.sort(which), np.arange(SCALES + 1))


def _joined(rows: list[NDArray[np.int64]]) -> Tensor:
    """Return rows of unequal length as one tensor: each length, then each row."""
    return torch.from_numpy(np.concatenate([[len(rows)], [len(row) for row in rows], *rows]).astype(np.int64))


def _split(joined: Tensor) -> list[NDArray[np.int64]]:
    array = joined.numpy()
    n = int(array[0])
    return np.split(array[1 + n :], np.cumsum(array[1 : n + 1])[:-1])
