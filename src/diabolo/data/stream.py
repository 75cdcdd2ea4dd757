"""Rows that stay on the disk: arrays, Parquet files, and anything that can be read again block by block."""

from __future__ import annotations

import glob
import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diabolo.data.arrays import read
from diabolo.data.raw import Raw, refuse_infinity

__all__ = ["ARROW_ADVICE", "ParquetSource", "Stream", "parquet_files", "parse_bytes"]

ARROW_ADVICE = "Parquet files need pyarrow: pip install 'diabolo[arrow]'"
UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "b": 1}
SHARE = 32  # of the memory that one block of rows may take, as it is read


def parse_bytes(memory: int | str) -> int:
    """Turn ``500_000_000`` or ``"500MB"`` into a number of bytes."""
    if isinstance(memory, int) and not isinstance(memory, bool):
        size = float(memory)
    else:
        text = str(memory).strip().lower().replace(" ", "")
        unit = next((u for u in UNITS if text.endswith(u)), "")
        try:
            size = float(text.removesuffix(unit)) * UNITS.get(unit, 1)
        except ValueError:
            size = -1.0
    if size < 2**20:
        raise ValueError(f"memory={memory!r}: expected at least a mebibyte, in bytes or like '500MB' or '2GB'")
    return int(size)


class Source(ABC):
    """Blocks of rows that can be read in any order, or in one."""

    name: str  # of the whole, for messages
    ordered: bool = False  # whether blocks can only be read in their own order
    sizes: list[int]  # rows of each block; empty where that is not known before they are read

    @abstractmethod
    def blocks(self, order: Sequence[int] | None = None) -> Iterator[Any]:
        """Read blocks, all of them or by number."""


class Stream:
    """Rows that are read block by block, each time they are needed: for data larger than memory.

    It takes the place of ``X`` in ``fit``, ``transform``, ``score_samples`` and ``score``. ``fit`` reads everything once to learn
    ranges and scales, once to set rows aside for validation, and once for each epoch. In an epoch blocks come in random order,
    and the rows of several of them are mixed: a batch holds rows from all over the data, though not from all of it.

    Parameters
    ----------
    source : path, list of paths, array or iterable
        A ``.npy`` file; a Parquet file, a folder of them, a pattern such as ``"data/*.parquet"`` or a list of files (extra
        ``arrow``); an array that reads its rows when it is sliced, such as ``np.memmap``, Zarr or HDF5; blocks (arrays or frames)
        by number: a list, or an object with ``__len__`` and ``__getitem__``; or an iterable of blocks that starts anew each time
        it is iterated over, not a generator. The blocks of an iterable come in its own order, all others in random order.
    columns : list of str, optional
        Columns of Parquet files to read; all by default.
    memory : int or str
        About how much memory the rows may take while a model is trained, in bytes or like ``"500MB"``. Networks, optimiser and
        Python itself are not part of it.

    Raises
    ------
    ValueError, TypeError
        When there is nothing to read, or it cannot be read again.

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo import Autoencoder, Stream
    >>> blocks = [np.random.default_rng(i).normal(size=(100, 4)) for i in range(5)]
    >>> stream = Stream(blocks, memory="10MB")
    >>> model = Autoencoder(2, max_epochs=2, random_state=0).fit(stream)
    >>> model.transform(stream).shape
    (500, 2)
    """

    def __init__(self, source: Any, *, columns: Sequence[str] | None = None, memory: int | str = "1GB"):
        self.memory = parse_bytes(memory)
        self._source = _open(source, None if columns is None else list(columns), self.memory // SHARE)

    def __repr__(self) -> str:
        return f"Stream({self._source.name})"

    def __iter__(self) -> Iterator[Any]:
        """Read the blocks as they are stored."""
        return self._source.blocks()

    @property
    def ordered(self) -> bool:
        """Whether blocks come in one order only."""
        return self._source.ordered

    def blocks(self, order: Sequence[int] | None = None, kind: str = "auto") -> Iterator[Raw]:
        """Read the rows of all blocks, or of those in ``order``, as they are handed over by every reader.

        Raises
        ------
        ValueError
            When a block holds something else than numbers, or differs from the first in its columns.
        """
        first: Raw | None = None
        done = 0
        for block in self._source.blocks(order):
            raw = read(block, kind)
            if raw is None:
                raw = Raw(np.asarray(block), "vector", "numpy")
            if raw.values.dtype.kind not in "fiub" or raw.values.ndim < 2:
                found = f"{raw.values.dtype} of shape {raw.values.shape}"
                raise ValueError(f"{self._source.name}: expected blocks of numbers (n, ...), got {found}")
            if first is not None and (raw.columns != first.columns or raw.values.shape[1:] != first.values.shape[1:]):
                raise ValueError(
                    f"{self._source.name}: the rows from {done} on have {_what(raw)}, those before {_what(first)}; "
                    "all blocks must have the same columns in the same order"
                )
            if len(raw.values):
                refuse_infinity(raw, done)
                first = first or raw
                done += len(raw.values)
                yield raw
        if first is None and order is None:
            raise ValueError(f"{self._source.name} has no rows")


def _what(raw: Raw) -> str:
    return f"the columns {', '.join(raw.columns[:8])}" if raw.columns else f"the shape {raw.values.shape[1:]}"


class ArraySource(Source):
    """An array that reads its rows when it is sliced."""

    def __init__(self, array: Any, name: str, budget: int):
        if len(array.shape) < 2:
            raise ValueError(f"{name}: expected rows (n, ...), got an array of shape {tuple(array.shape)}")
        self.array, self.name = array, name
        row = max(1, int(np.prod(array.shape[1:])) * np.dtype(array.dtype).itemsize)
        self.rows = max(1, budget // row)
        chunk = getattr(array, "chunks", None)
        if chunk and self.rows > chunk[0] > 0:
            self.rows -= self.rows % chunk[0]  # whole chunks, none of which is unpacked twice
        n = array.shape[0]
        self.sizes = [min(self.rows, n - start) for start in range(0, n, self.rows)]

    def blocks(self, order: Sequence[int] | None = None) -> Iterator[Any]:
        for i in range(len(self.sizes)) if order is None else order:
            yield self._read(i * self.rows, self.sizes[i])

    def _read(self, start: int, n: int) -> Any:
        array, base = self.array, getattr(self.array, "base", None)
        # a whole map is read, not mapped: its pages would stay in memory for as long as there is room
        if not (isinstance(array, np.memmap) and array.flags.c_contiguous and isinstance(base, mmap.mmap)):
            return np.array(array[start : start + n])
        row = int(np.prod(array.shape[1:]))
        offset = array.offset + start * row * array.dtype.itemsize
        return np.fromfile(str(array.filename), array.dtype, n * row, offset=offset).reshape(n, *array.shape[1:])


class ParquetSource(Source):
    """Row groups of Parquet files, several at a time where they are small."""

    def __init__(self, files: list[Path], columns: list[str] | None, budget: int):
        try:
            from pyarrow import parquet
        except ImportError:
            raise ImportError(ARROW_ADVICE) from None
        self.files, self.columns = files, columns
        self.name = f"{files[0]}" if len(files) == 1 else f"{files[0]} and {len(files) - 1} more files"
        self.groups: list[tuple[Path, list[int]]] = []
        self.sizes = []
        for path in files:
            meta = parquet.read_metadata(path)
            names = [meta.schema.column(j).name for j in range(meta.num_columns)]
            absent = [c for c in columns or () if c not in names]
            if absent:
                raise ValueError(f"{path} has no column {absent[0]!r}; it has {', '.join(names[:8])}")
            held, rows, size = list[int](), 0, 0
            for g in range(meta.num_row_groups):
                group = meta.row_group(g)
                n, share = group.num_rows, len(columns or names) / len(names)
                takes = max(int(group.total_byte_size * share), 4 * n * len(columns or names))
                if takes > 4 * budget:
                    raise ValueError(
                        f"{path}: row group {g} has {n} rows, about {takes / 1e6:.1f} MB, and a block of rows may take "
                        f"{4 * budget / 1e6:.1f} MB here. Give more memory, or write the file with smaller row groups "
                        "(pyarrow.parquet.write_table(..., row_group_size=...))."
                    )
                if held and size + takes > budget:
                    self.groups.append((path, held))
                    self.sizes.append(rows)
                    held, rows, size = [], 0, 0
                held.append(g)
                rows, size = rows + n, size + takes
            if rows:
                self.groups.append((path, held))
                self.sizes.append(rows)

    def blocks(self, order: Sequence[int] | None = None) -> Iterator[Any]:
        """Read blocks as Arrow tables."""
        from pyarrow import parquet

        for i in range(len(self.groups)) if order is None else order:
            path, groups = self.groups[i]
            with parquet.ParquetFile(path) as file:
                yield file.read_row_groups(groups, columns=self.columns, use_threads=False)


class SequenceSource(Source):
    """Blocks that are reached by number: a list, or an object with ``__len__`` and ``__getitem__``."""

    def __init__(self, blocks: Sequence[Any]):
        self.held, self.name, self.sizes = blocks, f"the {type(blocks).__name__} of {len(blocks)} blocks", []

    def blocks(self, order: Sequence[int] | None = None) -> Iterator[Any]:
        for i in range(len(self.held)) if order is None else order:
            yield self.held[i]


class IterableSource(Source):
    """Blocks that come in their own order, every time anew."""

    ordered = True

    def __init__(self, blocks: Iterable[Any]):
        self.iterable, self.name, self.sizes = blocks, f"the iterable {type(blocks).__name__}", []

    def blocks(self, order: Sequence[int] | None = None) -> Iterator[Any]:
        yield from self.iterable


def parquet_files(source: Any) -> list[Path]:
    """Return the files of a folder, a pattern, a list or a path."""
    if isinstance(source, list | tuple):
        return [Path(s) for s in source]
    text = os.fspath(source)
    folder = Path(text)
    files = sorted(folder.rglob("*.parquet")) if folder.is_dir() else [Path(f) for f in sorted(glob.glob(text))]
    if not files:
        raise ValueError(f"{text}: no such file, or no Parquet files in it")
    return files


def _open(source: Any, columns: list[str] | None, budget: int) -> Source:
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        if Path(text).suffix == ".npy":
            if columns is not None:
                raise ValueError(f"columns={columns}: {text} has no column names")
            return ArraySource(np.load(text, mmap_mode="r", allow_pickle=False), text, budget)
        return ParquetSource(parquet_files(text), columns, budget)
    if isinstance(source, list | tuple) and source and all(isinstance(s, str | os.PathLike) for s in source):
        return ParquetSource(parquet_files(source), columns, budget)
    if columns is not None:
        raise ValueError("columns= is for Parquet files; choose columns where the blocks are made")
    if hasattr(source, "shape") and hasattr(source, "dtype") and hasattr(source, "__getitem__"):
        return ArraySource(source, f"the array {type(source).__name__} of shape {tuple(source.shape)}", budget)
    if isinstance(source, Iterator):
        raise TypeError(
            f"a {type(source).__name__} can be read only once, and training reads rows again and again; give a list of blocks, "
            "or an object whose __iter__ starts anew each time"
        )
    if hasattr(source, "__len__") and hasattr(source, "__getitem__") and not isinstance(source, Mapping):
        return SequenceSource(source)
    if isinstance(source, Iterable):
        return IterableSource(source)
    raise TypeError(f"expected a path, an array or an iterable of blocks, got {type(source).__name__}")
