"""Results -> CSV, Parquet, NPY or NPZ, or CSV on standard output."""

from __future__ import annotations

import csv
import importlib.util
import io
import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from diabolo.cli.catalog import UsageError
from diabolo.cli.data import ARROW_ADVICE, to_array, to_columns
from diabolo.files import replacing, write_atomic

__all__ = ["check_output", "check_place", "write_blocks", "write_columns", "write_matrix", "write_rows"]

SUFFIXES = (".csv", ".parquet", ".npy", ".npz")


def check_place(path: Path) -> None:
    """Refuse, before any long work, a path that cannot be written."""
    nearest = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return
    except OSError as error:
        message = f"cannot write here ({error.strerror}); choose another place for --output"
        raise OSError(error.errno, message, str(path)) from error


def check_output(path: Path | None, *, npy: bool = True) -> None:
    """Refuse, before any long work, an output of unknown format or in a folder that is not there."""
    if path is None:
        return
    suffix = path.suffix.lower()
    known = [s for s in SUFFIXES if npy or s != ".npy"]
    if suffix not in known:
        raise UsageError(f"--output {path}: expected a name that ends in {', '.join(known)}")
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ValueError(ARROW_ADVICE)
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(2, "there is no such folder", str(path.absolute().parent))
    check_place(path)


def write_matrix(path: Path | None, values: NDArray[Any], names: Sequence[str]) -> None:
    """Write rows ``(n, *shape)``; as a table they are flattened under ``names``, the first of them where series are short."""
    if path is not None and path.suffix.lower() in (".npy", ".npz"):
        buffer = io.BytesIO()
        if path.suffix.lower() == ".npy":
            np.save(buffer, values, allow_pickle=False)
        else:
            np.savez(buffer, rows=values)
        write_atomic(path, buffer.getvalue())
        return
    flat = values.reshape(len(values), -1)
    write_columns(path, dict(zip(names[: flat.shape[1]], flat.T, strict=True)))


def write_rows(path: Path | None, rows: Any, names: Sequence[str]) -> None:
    """Write rows that a model handed back: numbers as a matrix, a mixed table by its columns."""
    if isinstance(rows, np.ndarray):
        write_matrix(path, rows, names)
        return
    columns = to_columns(rows)
    if all(values.dtype.kind in "buif" for values in columns.values()):
        write_matrix(path, to_array(rows), names)
        return
    if path is not None and path.suffix.lower() in (".npy", ".npz"):
        raise UsageError(f"--output {path}: rows with text or dates go into .csv or .parquet")
    write_columns(path, columns)


def write_blocks(path: Path | None, blocks: Iterator[Any], names: Sequence[str]) -> None:
    """Write blocks of rows that a model hands out; a CSV or Parquet file takes any number of them, one at a time."""
    suffix = ".csv" if path is None else path.suffix.lower()
    first = next(blocks)
    if suffix in (".npy", ".npz"):
        rest = list(blocks)
        write_rows(path, np.concatenate([to_array(b) for b in (first, *rest)]) if rest else first, names)
        return
    every = (_table(block, names) for block in itertools.chain((first,), blocks))
    if path is None:
        _write_csv_blocks(sys.stdout, every)
        return
    with replacing(path) as file:
        if suffix == ".csv":
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            _write_csv_blocks(text, every)
            text.detach()  # flushes, and leaves the file open
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        writer = None
        for columns in every:
            table = pa.table({name: np.ascontiguousarray(values) for name, values in columns.items()})
            writer = pq.ParquetWriter(file, table.schema) if writer is None else writer
            writer.write_table(table.cast(writer.schema))
        if writer is not None:
            writer.close()


def _table(rows: Any, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return rows that a model handed out as named columns."""
    if isinstance(rows, np.ndarray):
        flat = rows.reshape(len(rows), -1)
        return dict(zip(names[: flat.shape[1]], flat.T, strict=True))
    return to_columns(rows)


def _write_csv_blocks(file: TextIO, blocks: Iterator[dict[str, NDArray[Any]]]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    for i, columns in enumerate(blocks):
        if i == 0:
            writer.writerow(columns)
        writer.writerows(zip(*(_cells(values) for values in columns.values()), strict=True))


def write_columns(path: Path | None, columns: dict[str, NDArray[Any]]) -> None:
    """Write columns of numbers and text as CSV, Parquet or NPZ."""
    if path is None:
        _write_csv_blocks(sys.stdout, iter([columns]))
        return
    if path.suffix.lower() == ".csv":
        text = io.StringIO(newline="")
        _write_csv_blocks(text, iter([columns]))
        write_atomic(path, text.getvalue().encode())
        return
    buffer = io.BytesIO()
    if path.suffix.lower() == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({name: np.ascontiguousarray(values) for name, values in columns.items()}), buffer)
    else:
        arrays: dict[str, Any] = dict(columns)
        np.savez(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def _cells(values: NDArray[Any]) -> list[Any]:
    """Write each number in the fewest digits that give it back in its own precision, and NaN as an empty cell."""
    if values.dtype.kind == "M":
        return ["" if text == "NaT" else text for text in _times(values)]
    if values.dtype.kind != "f":
        return ["" if cell is None else cell for cell in values.tolist()]
    cells = values.tolist() if values.dtype == np.float64 else [str(v) for v in values]
    return ["" if missing else cell for cell, missing in zip(cells, np.isnan(values), strict=True)]


def _times(values: NDArray[Any]) -> list[str]:
    """Write dates, and times only where there are any."""
    days = values.astype("datetime64[D]")
    there = ~np.isnat(values)
    if (days[there] == values[there]).all():
        return [str(day) for day in days]
    return [str(second).replace("T", " ") for second in values.astype("datetime64[s]")]
