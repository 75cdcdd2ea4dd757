"""Table files -> blocks of rows with the types that they have, and back as they were."""

from __future__ import annotations

import csv
import importlib.util
import io
import itertools
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

from diabolo.cli.catalog import UsageError
from diabolo.cli.data import ARROW_ADVICE, say
from diabolo.cli.pictures import SUFFIXES as PICTURES
from diabolo.cli.tables import cells_of
from diabolo.data.cells import Type, restored
from diabolo.data.spelling import MISSING
from diabolo.files import replacing

__all__ = ["SUFFIXES", "blocks_of", "check_rows_output", "list_tables", "sample_of", "text_of", "write_rows_of"]

SUFFIXES = (".csv", ".tsv", ".parquet", ".pq", ".npy")
PARQUET = (".parquet", ".pq")
BLOCK = 100_000  # rows at a time
WHOLE = re.compile(r"0|-?[1-9]\d{0,17}")
REAL = re.compile(r"-?(0|[1-9]\d*)?(\.\d*)?([eE][-+]?\d+)?")
DAY = re.compile(r"\d{4}-\d\d-\d\d")
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def list_tables(path: Path) -> list[Path]:
    """Return a table file, or those of a folder without images, by name; nothing where there are none."""
    if path.is_dir():
        files = sorted(path.iterdir())
        pictures = any(p.suffix.lower() in PICTURES for p in files)
        return [] if pictures else [p for p in files if p.suffix.lower() in SUFFIXES]
    return [path] if path.suffix.lower() in SUFFIXES else []


def blocks_of(files: list[Path]) -> Iterator[Any]:
    """Read tables: frames or arrays of at most ``BLOCK`` rows of Parquet files, one of any other file."""
    for path in files:
        suffix = path.suffix.lower()
        if suffix in PARQUET:
            yield from _parquet_blocks(path)
        elif suffix == ".npy":
            try:
                yield np.load(path, allow_pickle=False)
            except (ValueError, EOFError) as error:
                raise ValueError(f"{path} cannot be read as numbers: {error}") from None
        else:
            yield _frame(path)


def sample_of(files: list[Path], most: int) -> Any:
    """Return rows of tables to learn from: all, or of Parquet files about ``most``, from all their parts alike."""
    total = sum(_arrow().ParquetFile(path).metadata.num_rows for path in files if path.suffix.lower() in PARQUET)
    parts = [block[: math.ceil(len(block) * min(1.0, most / max(total, 1)))] for block in blocks_of(files)]
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return nw.concat([nw.from_native(part, eager_only=True) for part in parts]).to_native()


def _arrow() -> Any:
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError(ARROW_ADVICE)
    import pyarrow.parquet as pq

    return pq


def _parquet_blocks(path: Path) -> Iterator[Any]:
    module = _arrow()
    import pyarrow as pa

    try:
        with module.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BLOCK):
                yield pa.Table.from_batches([batch])
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from None


# text ---------------------------------------------------------------------------------------------------------------------------


def _frame(path: Path) -> Any:
    """Read CSV; a cell is a number or a date only where that is written as it was."""
    library = next((n for n in ("polars", "pyarrow", "pandas") if importlib.util.find_spec(n) is not None), None)
    if library is None:
        raise UsageError("tables of text need a frame library: pip install polars")
    columns = cells_of(path)
    changed = []
    series = []
    for name, cells in columns.items():
        one, same = _series(name, cells, library)
        series.append(one)
        changed += [] if same else [name]
    if changed:
        say(f"note: {', '.join(changed[:8])}: kept as numbers, so that 1.50 comes back as 1.5, and NA as an empty cell")
    return nw.DataFrame.from_dict({s.name: s for s in series}).to_native()


def _series(name: str, cells: tuple[str, ...], library: str) -> tuple[Any, bool]:
    """Return a column, and whether its cells are written as they were."""
    gone = np.array([not cell for cell in cells])
    there = [cell for cell in cells if cell]
    if there and all(WHOLE.fullmatch(cell) for cell in there):
        values = np.array([int(cell or 0) for cell in cells], dtype=np.int64)
        return restored(name, values, Type("Int64", native="Int64"), library, gone), True
    numbers = [cell for cell in there if cell.lower() not in MISSING]
    if numbers and all(_is_real(cell) for cell in numbers):
        gone = np.array([cell.lower() in MISSING for cell in cells])
        reals = np.array([0.0 if g else float(cell) for cell, g in zip(cells, gone, strict=True)])
        if library == "pandas":
            reals[gone], none = np.nan, np.zeros(len(cells), dtype=bool)
            column = restored(name, reals, Type("Float64", native="float64"), library, none)
        else:
            column = restored(name, reals, Type("Float64"), library, gone)
        return column, len(numbers) == len(there) and all(repr(float(cell)) == cell for cell in numbers)
    for form, kind in ((DAY, "D"), (TIME, "s")):
        if there and library != "pandas" and all(form.fullmatch(cell) for cell in there):
            try:
                times = (
                    np.array([cell or "1970-01-01" for cell in cells], dtype=f"M8[{kind}]")
                    .astype("M8[us]")
                    .astype(np.int64)
                )
            except ValueError:  # the 31st of February
                break
            found = Type("Date") if kind == "D" else Type("Datetime", "us")
            return restored(name, times, found, library, gone), True
    return restored(name, [cell or None for cell in cells], Type("String"), library), True


def _is_real(cell: str) -> bool:
    digits = re.sub(r"[eE].*|\D", "", cell).lstrip("0")
    return len(cell.strip("-.")) > 0 and REAL.fullmatch(cell) is not None and len(digits) <= 17 and cell[:1] not in "eE"


def text_of(blocks: Iterable[Any]) -> Iterator[str]:
    """Return blocks of rows as pieces of CSV."""
    for i, block in enumerate(blocks):
        out = io.StringIO(newline="")
        writer = csv.writer(out, lineterminator="\n")
        if isinstance(block, np.ndarray):
            names, columns = [f"x{j}" for j in range(block.shape[1])], [c.tolist() for c in block.T]
        else:
            frame = nw.from_native(block, eager_only=True)
            names = list(frame.columns)
            columns = [_cells(frame.get_column(name)) for name in names]
        if i == 0:
            writer.writerow(names)
        writer.writerows(zip(*columns, strict=True))
        yield out.getvalue()


def _cells(series: Any) -> list[Any]:
    gone = series.is_null().to_list()
    values = series.to_list()
    if series.dtype == nw.Datetime:
        values = ["" if g else v.isoformat(sep=" ") for v, g in zip(values, gone, strict=True)]
    return ["" if g else v for v, g in zip(values, gone, strict=True)]


# files --------------------------------------------------------------------------------------------------------------------------


def check_rows_output(path: Path) -> None:
    """Refuse a name that says no format."""
    if path.suffix.lower() not in (".csv", *PARQUET, ".npy"):
        raise UsageError(f"--output {path}: expected a name that ends in .csv, .parquet or .npy")
    if path.suffix.lower() in PARQUET:
        _arrow()


def write_rows_of(path: Path, blocks: Iterator[Any]) -> int:
    """Write blocks of rows to a CSV or Parquet file, or all of an array to NPY; return how many rows."""
    suffix, n = path.suffix.lower(), 0

    def counted() -> Iterator[Any]:
        nonlocal n
        for block in blocks:
            n += len(block)
            yield block

    first = next(blocks)
    blocks = itertools.chain([first], blocks)
    array = isinstance(first, np.ndarray)
    if array != (suffix == ".npy") and not (array and first.ndim == 2):
        raise UsageError(f"--output {path}: " + ("arrays go into .npy" if array else "tables go into .csv or .parquet"))
    with replacing(path) as file:
        if suffix == ".npy":
            np.save(file, np.concatenate(list(counted())), allow_pickle=False)
        elif suffix == ".csv":
            for piece in text_of(counted()):
                file.write(piece.encode())
        else:
            module, writer = _arrow(), None
            for block in counted():
                table = _arrow_table(block)
                writer = writer or module.ParquetWriter(file, table.schema)
                writer.write_table(table.cast(writer.schema))
            if writer is not None:
                writer.close()
    return n


def _arrow_table(block: Any) -> Any:
    import pyarrow as pa

    if isinstance(block, np.ndarray):
        return pa.table({f"x{j}": np.ascontiguousarray(column) for j, column in enumerate(block.T)})
    return nw.from_native(block, eager_only=True).to_arrow()
