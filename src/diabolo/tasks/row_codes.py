"""Rows of tables, and small images, -> bytes and back without loss, by a network that tells each symbol from those before it."""

from __future__ import annotations

import functools
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diabolo.parts.exact import STEP, exactly
from diabolo.tasks.autoregressive import ColourNetwork, ColumnNetwork, PixelNetwork
from diabolo.tasks.container import CompressedFileError, ContainerReader, ContainerWriter, Varints, varint
from diabolo.tasks.row_layouts import Layout, PixelLayout, layout_from
from diabolo.tasks.row_state import coarsened, packed, unpacked
from diabolo.tasks.symbols import MalformedError, SymbolReader, SymbolWriter
from diabolo.training.progress import Progress

__all__ = ["KINDS", "ROWS", "RowCoder"]

Array = NDArray[Any]
ROWS, KINDS = 5, (3, 5)  # the kind of file that is written, and those that are read: older ones list no new values
CHUNK = 10_000  # rows that are coded together
WIDTHS = (128, 24)  # of the networks, at most and at least
OLDER_WIDTH = 128  # of networks whose folder does not say
SHARE, BITS = 0.15, 6.0  # of what the symbols cost by themselves the weights may cost so much, at so many bits each
LENGTH = 10  # bytes that say how many rows a piece has, at most
FINE = 2.0**-8  # logits are rounded to it
ONE = 2**20  # the count of the likeliest symbol
LONGEST = 2**28  # bytes of what networks do not tell, unpacked


class RowCoder:
    """Codes rows with a fitted network.

    Parameters
    ----------
    module : ColumnNetwork, PixelNetwork or ColourNetwork
        Fitted, on the CPU.
    layout : Layout
        How rows become symbols.
    step : float
        What weights are multiples of.
    """

    def __init__(self, module: Any, layout: Layout, step: float):
        self.module, self.layout, self.step = module.eval(), layout, step
        self.twin: Any = exactly(module)
        self._counts = _exponential()

    @staticmethod
    def network(layout: Layout, width: int) -> ColumnNetwork | PixelNetwork | ColourNetwork:
        """Return a network for rows of a layout."""
        if isinstance(layout, PixelLayout):
            kind: Any = PixelNetwork if len(layout.shape) == 2 else ColourNetwork
            found: PixelNetwork | ColourNetwork = kind(layout.shape, len(layout.values), width)
            return found
        return ColumnNetwork(layout.sizes, width)

    @classmethod
    def width_for(cls, layout: Layout, symbols: NDArray[np.int64]) -> int:
        """Return the width of a network whose weights cost a small share of what rows of fit cost."""
        alone = 0.0
        for column in symbols.T:
            counts = np.bincount(column)
            alone += float((counts * np.log2(len(column) / np.maximum(counts, 1))).sum())
        most, least = WIDTHS
        sizes = range(most, least, -8)
        weights = {w: sum(p.numel() for p in cls.network(layout, w).parameters()) for w in sizes}
        return next((w for w in sizes if weights[w] * BITS < SHARE * alone), least)

    @classmethod
    def of(cls, module: Any, layout: Layout, bits: Callable[[Any], float]) -> Self:
        """Make a coder of a network that was fitted just now; ``bits`` are what rows of fit cost with one like it."""
        module, step = coarsened(module, bits)
        return cls(module, layout, step)

    @functools.cached_property
    def fingerprint(self) -> bytes:
        """Return what tells this coder from any other that decodes differently."""
        meta, tensors = self.layout.state()
        found = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
        for state in (tensors, {"exponential": torch.from_numpy(self._counts)}, self.twin.state_dict()):
            for name, value in sorted(state.items()):
                found.update(name.encode() + np.ascontiguousarray(value.numpy()).tobytes())
        return found.digest()[:8]

    # rows -> bytes ------------------------------------------------------------------------------------------------------------

    def write(self, X: Any, path: Path, verbose: int) -> int:
        """Write rows, or an iterator of blocks of them, to a file; return its bytes."""
        head: dict[str, Any] | None = None
        before = 0
        with ContainerWriter(path, ROWS, self.fingerprint) as file:
            for block in X if isinstance(X, Iterator) else [X]:
                found, n = self.layout.heading(block, before), len(block)
                before += n
                if head is None:
                    head = found
                    file.write(zlib.compress(json.dumps(head).encode(), 9))
                elif found != head:
                    raise ValueError("a block of rows is of other types or another library than the first block")
                with Progress(-(-n // CHUNK), verbose) as progress:
                    for number, start in enumerate(range(0, n, CHUNK)):
                        file.write(self._packed(self.layout.cut(block, start, min(start + CHUNK, n))))
                        progress.update(number + 1, {})
            if head is None:
                raise ValueError("expected rows; the iterator has no block of them")
        return file.size

    def _packed(self, block: Any) -> bytes:
        rows = self.layout.symbols(block)
        writer = SymbolWriter()
        with torch.inference_mode():
            known = self.twin.begin(len(rows.symbols))
            for j, column in enumerate(rows.symbols.T):
                writer.put_each(column, self._told(known, j))
                self.twin.see(known, j, torch.from_numpy(np.ascontiguousarray(column)))
        rest = zlib.compress(json.dumps(self.layout.put(writer, rows)).encode(), 9)
        return varint(len(rows.symbols), len(rest)) + rest + writer.bytes()

    def _told(self, known: Tensor, j: int) -> NDArray[np.int64]:
        """Return the counts of the symbols of column ``j``, ``(n, symbols)``: the same on every machine."""
        logits = self.twin.told(known, j)
        steps = torch.round((logits.amax(dim=1, keepdim=True) - logits) / FINE).clamp(max=len(self._counts) - 1)
        return np.asarray(self._counts[steps.long().numpy()])

    # bytes -> rows ------------------------------------------------------------------------------------------------------------

    def read(self, file: ContainerReader, items: int | slice | None) -> Any:
        """Read rows from a file; chunks without any of ``items`` are not decoded."""
        if file.kind not in KINDS:
            raise file.damaged("it holds no rows")
        try:
            return self._read(file, items)
        except CompressedFileError:
            raise
        except (MalformedError, OverflowError, UnicodeDecodeError, json.JSONDecodeError, zlib.error) as error:
            raise file.damaged(str(error)) from None

    def _read(self, file: ContainerReader, items: int | slice | None) -> Any:
        if not file.pieces:
            raise file.damaged("its heading is missing")
        head = self.layout.known_heading(json.loads(_unpacked(file.read(0))))
        lengths = [self._length(file.head(i, LENGTH)) for i in range(1, len(file.pieces))]
        ends = np.cumsum([0, *lengths])
        total = int(ends[-1])
        if isinstance(items, int):
            if not -total <= items < total:
                raise IndexError(f"{file.path} holds {total} row(s); there is no row {items}")
            wanted = np.array([items % total])
        else:
            wanted = np.arange(total)[slice(None) if items is None else items]
        which = np.searchsorted(ends, wanted, side="right") - 1
        found = [
            self._decoded(file.read(number + 1))[wanted[which == number] - ends[number]]
            for number in dict.fromkeys(which.tolist())
        ]
        rows = self.layout.joined(found, head)
        return self.layout.single(rows) if isinstance(items, int) else rows

    def _length(self, data: bytes) -> int:
        try:
            n = Varints(data[:LENGTH]).next()
        except ValueError as error:
            raise MalformedError(str(error)) from None
        if not 0 < n <= CHUNK:
            raise MalformedError(f"a piece declares {n} rows")
        return n

    def _decoded(self, data: bytes) -> Any:
        n = self._length(data)
        try:
            numbers = Varints(data)
            numbers.next()
            length = numbers.next()
        except ValueError as error:
            raise MalformedError(str(error)) from None
        rest = json.loads(_unpacked(numbers.rest[:length]))
        reader = SymbolReader(numbers.rest[length:])
        symbols = np.empty((n, self.layout.width), dtype=np.int64)
        with torch.inference_mode():
            known = self.twin.begin(n)
            for j in range(self.layout.width):
                symbols[:, j] = reader.get_each(self._told(known, j))
                self.twin.see(known, j, torch.from_numpy(np.ascontiguousarray(symbols[:, j])))
        return self.layout.get(reader, symbols, rest)

    # state --------------------------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return plain JSON types and tensors."""
        meta, tensors = self.layout.state()
        weights = {f"module:{k}": torch.round(v / self.step).long() for k, v in self.module.state_dict().items()}
        heads, data = packed(weights | {f"layout:{k}": v for k, v in tensors.items()})
        return meta | {"packed": heads, "step": self.step, "width": self.module.width}, {"rows": data}

    @classmethod
    def from_state(cls, meta: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Build a coder from what :meth:`state` returned."""
        step = meta.get("step")  # older models hold weights as they are
        if "packed" in meta:
            tensors = unpacked(meta["packed"], tensors["rows"])
        layout = layout_from(
            meta, {k.removeprefix("layout:"): v for k, v in tensors.items() if k.startswith("layout:")}
        )
        module = cls.network(layout, meta.get("width", OLDER_WIDTH))
        weights = {
            k.removeprefix("module:"): v.float() * (step or 1.0) for k, v in tensors.items() if k.startswith("module:")
        }
        module.load_state_dict(weights)
        return cls(module, layout, step or STEP)


@functools.cache
def _exponential() -> NDArray[np.int64]:
    """Return the count of a symbol whose logit is so many steps of 1/256 below the largest, the same on every machine."""
    with localcontext() as digits:
        digits.prec = 40
        counts = [round(ONE * (-Decimal(k) / round(1 / FINE)).exp()) for k in range(round(np.log(ONE) / FINE) + 1)]
    return np.maximum(1, np.array(counts, dtype=np.int64))


def _unpacked(data: bytes) -> bytes:
    """Unpack at most ``LONGEST`` bytes."""
    unpacker = zlib.decompressobj()
    found = unpacker.decompress(data, LONGEST)
    if not unpacker.eof:
        raise MalformedError("what is packed in it is cut short, or too long")
    return found
