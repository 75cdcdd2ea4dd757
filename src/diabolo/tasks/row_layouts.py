"""How rows of frames, of arrays and of stacks of images become symbols, and rows again."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diabolo.checks import ParameterError
from diabolo.data.cells import Type
from diabolo.data.tables import is_frame
from diabolo.tasks.row_columns import ColumnCode, array_keys, family_of, keys_of, reals, series_of
from diabolo.tasks.symbols import MalformedError, SymbolReader, SymbolWriter

__all__ = ["Layout", "PixelLayout", "TableLayout", "layout_from", "learn_layout"]

Array = NDArray[Any]
MOST_VALUES = 1024  # of a pixel
CHANNELS = (2, 3, 4)  # of colour images
FULL = 128  # of as many values of 8 bits, all may be there
BELOW = 1 - 2.0**-16  # of a step, so that rounding stays within the largest error


@dataclass
class Rows:
    """Rows as symbols, and what else they hold."""

    symbols: NDArray[np.int64]  # (n, width)
    more: list[Any]


@dataclass
class Found:
    """Rows that were read, column by column."""

    parts: list[Any]

    def __getitem__(self, index: Array) -> Found:
        return Found([part[index] for part in self.parts])


class Layout(ABC):
    """What the rows are that a model was fitted on."""

    width: int
    sizes: list[int]

    @abstractmethod
    def heading(self, block: Any, before: int) -> dict[str, Any]:
        """Return what a file must tell beside its rows, in plain JSON types; rows of another layout are an error.

        ``before`` rows were written before.
        """

    @abstractmethod
    def known_heading(self, head: Any) -> dict[str, Any]:
        """Return a heading that was read, if rows can be made of it."""

    @abstractmethod
    def cut(self, block: Any, start: int, stop: int) -> Any:
        """Return some rows of a block."""

    @abstractmethod
    def symbols(self, block: Any) -> Rows:
        """Return rows as symbols."""

    @abstractmethod
    def put(self, writer: SymbolWriter, rows: Rows) -> Any:
        """Write what symbols do not tell; return what has no table."""

    @abstractmethod
    def get(self, reader: SymbolReader, symbols: NDArray[np.int64], rest: Any) -> Found:
        """Read what :meth:`put` wrote."""

    @abstractmethod
    def joined(self, found: list[Found], head: dict[str, Any]) -> Any:
        """Return rows as the user gave them."""

    @abstractmethod
    def single(self, rows: Any) -> Any:
        """Return the one row of rows."""

    @abstractmethod
    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return plain JSON types and tensors."""


class TableLayout(Layout):
    """Rows of a frame, or of an array of two axes.

    Parameters
    ----------
    columns : list of ColumnCode
        One for each column.
    """

    def __init__(self, columns: list[ColumnCode]):
        self.columns, self.width = columns, len(columns)
        self.sizes = [c.size for c in columns]

    @classmethod
    def learn(cls, X: Any, max_error: float | Mapping[str, float] | None) -> TableLayout:
        """Learn the values of the columns of ``X``."""
        names, kinds = _described(X)
        if not len(X):
            raise ValueError("expected rows, got none")
        inexact = [name for name, kind in zip(names, kinds, strict=True) if family_of(kind) == "real"]
        errors = max_error if isinstance(max_error, Mapping) else dict.fromkeys(inexact, max_error or 0.0)
        wrong = [name for name in errors if name not in inexact]
        if wrong or (max_error is not None and not inexact):
            raise ParameterError(
                f"max_error is for columns of floating-point numbers, which are {inexact}"
                + (f"; got {wrong}" if wrong else "")
            )
        columns = []
        for name, kind, (keys, gone) in zip(names, kinds, _keys(X, names, kinds, [0.0] * len(names)), strict=True):
            step = 2 * BELOW * errors.get(name, 0.0)
            if step:
                ((keys, gone),) = _keys(_column(X, name), [name], [kind], [step])
            columns.append(ColumnCode.learn(name, kind, step, keys, gone))
        return cls(columns)

    def heading(self, block: Any, before: int) -> dict[str, Any]:
        """Return library and types."""
        names, kinds = _described(block, before)
        mine = [c.name for c in self.columns]
        if names != mine:
            raise ValueError(f"expected the columns {mine} as seen in fit, in that order; got {names}")
        for column, kind in zip(self.columns, kinds, strict=True):
            if family_of(kind) != family_of(column.kind):
                raise ValueError(
                    f"column {column.name!r} is of type {kind.name}; it was {column.kind.name} in fit: convert it first"
                )
        if is_frame(block):
            return {
                "container": str(nw.from_native(block, eager_only=True).implementation.value),
                "types": [asdict(replace(k, levels=list(k.levels))) for k in kinds],  # type: ignore[arg-type]
            }
        return {"container": "numpy", "dtype": np.asarray(block).dtype.name}

    def known_heading(self, head: Any) -> dict[str, Any]:
        """Check the types."""
        try:
            if head["container"] == "numpy":
                return {"container": "numpy", "dtype": np.dtype(head["dtype"])}
            kinds = [Type(**{**t, "levels": tuple(t["levels"])}) for t in head["types"]]
            same = [family_of(k) == family_of(c.kind) for k, c in zip(kinds, self.columns, strict=True)]
        except (KeyError, TypeError, ValueError) as error:
            raise MalformedError(f"its heading is impossible ({error})") from None
        if head["container"] not in ("pandas", "polars", "pyarrow") or not all(same):
            raise MalformedError("its heading is impossible")
        return {"container": head["container"], "types": kinds}

    def cut(self, block: Any, start: int, stop: int) -> Any:
        """Return some rows."""
        if is_frame(block):
            return nw.from_native(block, eager_only=True)[start:stop].to_native()
        return np.asarray(block)[start:stop]

    def symbols(self, block: Any) -> Rows:
        """Return the bins of values."""
        names, kinds = _described(block, None)
        more = []
        for column, (keys, gone) in zip(
            self.columns, _keys(block, names, kinds, [c.step for c in self.columns]), strict=True
        ):
            bins, inside = column.symbols(keys, gone)
            more.append((keys, bins, inside))
        return Rows(np.stack([bins for _, bins, _ in more], axis=1), more)

    def put(self, writer: SymbolWriter, rows: Rows) -> Any:
        """Write places in bins."""
        told = [c.put(writer, *more) for c, more in zip(self.columns, rows.more, strict=True)]
        rest = [[rest, news] if news else rest for rest, news in told]
        return rest if any(rest) else 0

    def get(self, reader: SymbolReader, symbols: NDArray[np.int64], rest: Any) -> Found:
        """Read places in bins."""
        given = [[] for _ in self.columns] if rest == 0 else rest
        if not isinstance(given, list) or len(given) != self.width or not all(isinstance(g, list) for g in given):
            raise MalformedError("values of columns are not there")
        parts: list[Any] = []
        for j, (column, values) in enumerate(zip(self.columns, given, strict=True)):
            news = {}
            if len(values) == 2 and all(isinstance(v, list) for v in values):
                try:
                    values, news = values[0], {int(number): more for number, *more in values[1]}
                except (TypeError, ValueError):
                    raise MalformedError("new values of columns are no list") from None
            parts.append(column.get(reader, symbols[:, j], iter(values), news))
        return Found([*parts, symbols == 0])

    def joined(self, found: list[Found], head: dict[str, Any]) -> Any:
        """Return a frame of the library that was given, or an array."""
        empty = [np.zeros(0, dtype=object if c.text else np.int64) for c in self.columns]
        found = found or [Found([*empty, np.zeros((0, self.width), dtype=bool)])]
        parts = [np.concatenate(p) for p in zip(*(f.parts for f in found), strict=True)]
        gone = parts.pop()
        if head["container"] == "numpy":
            out = np.empty((len(gone), self.width), dtype=head["dtype"])
            for j, (column, keys) in enumerate(zip(self.columns, parts, strict=True)):
                out[:, j] = reals(keys, column.step) if family_of(column.kind) == "real" else keys
            return out
        series = [
            series_of(c.name, keys, gone[:, j], kind, head["container"], c.step)
            for j, (c, keys, kind) in enumerate(zip(self.columns, parts, head["types"], strict=True))
        ]
        if head["container"] == "pandas":
            import pandas as pd

            return pd.concat([s.to_native() for s in series], axis=1)
        return nw.concat([s.to_frame() for s in series], how="horizontal").to_native()

    def single(self, rows: Any) -> Any:
        """Return a frame of one row, or an array of one axis."""
        return rows if is_frame(rows) else rows[0]

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the values of columns."""
        meta, tensors = [], {}
        for j, c in enumerate(self.columns):
            kind = asdict(replace(c.kind, levels=list(c.kind.levels)))  # type: ignore[arg-type]
            meta.append({"name": c.name, "kind": kind, "step": c.step, "text": list(c.keys) if c.text else []})
            if not c.text:
                tensors[f"keys:{j}"] = torch.from_numpy(np.asarray(c.keys))
            tensors[f"counts:{j}"] = torch.from_numpy(_small(c.counts))
            tensors[f"bounds:{j}"] = torch.from_numpy(_small(c.bounds))
        return {"columns": meta}, tensors

    @classmethod
    def from_state(cls, meta: dict[str, Any], tensors: dict[str, Tensor]) -> TableLayout:
        """Build a layout from what :meth:`state` returned."""
        columns = []
        for j, c in enumerate(meta["columns"]):
            kind = Type(**{**c["kind"], "levels": tuple(c["kind"]["levels"])})
            keys = tensors[f"keys:{j}"].numpy() if f"keys:{j}" in tensors else c["text"]
            counts, bounds = (tensors[f"{name}:{j}"].numpy().astype(np.int64) for name in ("counts", "bounds"))
            columns.append(ColumnCode(c["name"], kind, c["step"], keys, counts, bounds))
        return cls(columns)


class PixelLayout(Layout):
    """Images of one size, of whole numbers.

    Parameters
    ----------
    shape : tuple of int
        Height and width, and channels of colour.
    values : ndarray of int64
        That pixels had in fit.
    """

    def __init__(self, shape: tuple[int, ...], values: NDArray[np.int64]):
        self.shape, self.values, self.width = shape, values, math.prod(shape)
        self.sizes = [len(values)]

    @classmethod
    def learn(cls, X: Any) -> PixelLayout:
        """Learn which values pixels have."""
        images = np.asarray(X)
        if not images.size or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in CHANNELS):
            raise ValueError(
                f"expected a stack of images (n, height, width), or (n, height, width, channels) with {CHANNELS} channels; got "
                f"the shape {images.shape}"
            )
        if images.dtype.kind not in "bui" or images.dtype.itemsize > 4:
            raise ValueError(f"expected images of whole numbers of at most 32 bits without loss; got {images.dtype}")
        values = np.unique(images).astype(np.int64)
        if len(values) > MOST_VALUES:
            raise ValueError(f"pixels have {len(values)} different values; expected at most {MOST_VALUES} without loss")
        if images.dtype == np.uint8 and len(values) > FULL:
            values = np.arange(256)  # what is rare may be there next time
        return cls(images.shape[1:], values if len(values) > 1 else np.append(values, values + 1))

    def heading(self, block: Any, before: int) -> dict[str, Any]:
        """Return the type."""
        images = np.asarray(block)
        if images.shape[1:] != self.shape or images.dtype.kind not in "bui" or images.dtype.itemsize > 4:
            shape = ", ".join(str(length) for length in self.shape)
            raise ValueError(
                f"expected whole numbers of the shape (n, {shape}) as seen in fit; got {images.dtype} {images.shape}"
            )
        return {"container": "images", "dtype": images.dtype.name}

    def known_heading(self, head: Any) -> dict[str, Any]:
        """Check the type."""
        try:
            dtype = np.dtype(head["dtype"])
        except (KeyError, TypeError) as error:
            raise MalformedError(f"its heading is impossible ({error})") from None
        return {"dtype": dtype}

    def cut(self, block: Any, start: int, stop: int) -> Any:
        """Return some images."""
        return np.asarray(block)[start:stop]

    def symbols(self, block: Any) -> Rows:
        """Return the places of values among those known; of others the nearest below."""
        flat = block.reshape(len(block), -1).astype(np.int64)
        places = np.maximum(0, np.searchsorted(self.values, flat, side="right") - 1)
        odd = np.argwhere(self.values[places] != flat)
        return Rows(places, [[int(i), int(j), int(flat[i, j])] for i, j in odd])

    def put(self, writer: SymbolWriter, rows: Rows) -> Any:
        """Return the pixels of unknown values."""
        return rows.more

    def get(self, reader: SymbolReader, symbols: NDArray[np.int64], rest: Any) -> Found:
        """Return values."""
        pixels = self.values[symbols]
        try:
            for i, j, value in rest:
                pixels[i, j] = value
        except (TypeError, ValueError, IndexError, OverflowError):
            raise MalformedError("its list of odd pixels is impossible") from None
        return Found([pixels])

    def joined(self, found: list[Found], head: dict[str, Any]) -> Any:
        """Return a stack."""
        pixels = [np.zeros((0, self.width)), *(f.parts[0] for f in found)]
        return np.concatenate(pixels).astype(head["dtype"]).reshape(-1, *self.shape)

    def single(self, rows: Any) -> Any:
        """Return an image."""
        return rows[0]

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return shape and values."""
        return {"shape": list(self.shape)}, {"values": torch.from_numpy(self.values)}


def learn_layout(X: Any, max_error: float | Mapping[str, float] | None) -> Layout:
    """Return how the rows of ``X`` become symbols: a frame, an array of two axes, or a stack of images."""
    if is_frame(X) or getattr(X, "ndim", 0) == 2:
        return TableLayout.learn(X, max_error)
    if max_error is not None:
        raise ParameterError("max_error is for tables; images of whole numbers come back as they were")
    return PixelLayout.learn(X)


def layout_from(meta: dict[str, Any], tensors: dict[str, Tensor]) -> Layout:
    """Build a layout from the state of one."""
    if "shape" in meta:
        return PixelLayout(tuple(meta["shape"]), tensors["values"].numpy())
    return TableLayout.from_state(meta, tensors)


def _small(values: NDArray[np.int64]) -> Array:
    """Return whole numbers in as few bytes as hold them."""
    return values.astype(np.int16 if len(values) == 0 or values.max() < 2**15 else np.int64)


def _described(X: Any, before: int | None = 0) -> tuple[list[str], list[Type]]:
    """Return names and types of columns; labels of rows other than their numbers, after ``before`` more rows, are an error."""
    if not is_frame(X):
        array = np.asarray(X)
        if array.ndim != 2 or array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
            raise ValueError(f"expected a frame, or an array of numbers of two axes; got {array.dtype} {array.shape}")
        name = {"b": "Boolean", "u": "UInt64", "i": "Int64", "f": "Float64"}[array.dtype.kind]
        return [str(j) for j in range(array.shape[1])], [Type(name)] * array.shape[1]
    frame = nw.from_native(X, eager_only=True)
    names = list(frame.columns)
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError(f"expected columns with different names that are text; got {names[:8]}")
    if before is not None and frame.implementation.is_pandas():
        index = frame.to_native().index
        numbers = np.arange(len(index))
        if index.nlevels > 1 or not (np.array_equal(index, numbers) or np.array_equal(index, numbers + before)):
            raise ValueError(
                "the frame has row labels other than 0, 1, 2 ..., which a file does not hold: reset_index() makes them a "
                "column, reset_index(drop=True) drops them"
            )
    kinds = [Type.of(frame.get_column(name)) for name in names]
    wrong = [f"{name!r} ({kind.name})" for name, kind in zip(names, kinds, strict=True) if not family_of(kind)]
    if wrong:
        raise ValueError(f"expected columns of numbers, booleans, text or dates; got {', '.join(wrong[:8])}")
    return names, kinds


def _column(X: Any, name: str) -> Any:
    if is_frame(X):
        return nw.from_native(X, eager_only=True).select(name).to_native()
    return np.asarray(X)[:, [int(name)]]


def _keys(X: Any, names: list[str], kinds: list[Type], steps: list[float]) -> Iterator[tuple[Any, NDArray[np.bool_]]]:
    """Return for each column its values as whole numbers or text, and which are missing."""
    if is_frame(X):
        frame = nw.from_native(X, eager_only=True)
        for name, step in zip(names, steps, strict=True):
            yield keys_of(name, frame.get_column(name), step)
    else:
        for name, kind, values, step in zip(names, kinds, np.asarray(X).T, steps, strict=True):
            yield array_keys(name, values, family_of(kind), step), np.zeros(len(values), dtype=bool)
