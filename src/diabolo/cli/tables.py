"""Reading CSV: one small reader over the standard library, so that no frame library is needed."""

from __future__ import annotations

import csv
import io
import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.cli.models import STDIN
from diabolo.data.spelling import MISSING

__all__ = ["cells_of", "read_csv"]

DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?")
DELIMITERS = "\t;|,"  # a comma last: it also occurs inside numbers and text


def read_csv(path: Path) -> tuple[dict[str, NDArray[Any]], bool]:
    """Read a table of numbers and text, from standard input where ``path`` is ``STDIN``.

    The delimiter is one of comma, semicolon, tab and bar. The first row is a header when it is not made of numbers, or when
    it counts 0, 1, 2, ... as frame libraries write a table without names. Empty cells, NA, NaN, null, none and ? are missing.

    Returns
    -------
    columns : dict of str to ndarray
        int64, float64 (NaN where a cell is missing) or bool (masked where one is) for numbers; datetime64 for dates such as
        2024-02-29 12:30; object arrays of str for text, empty where a cell is missing.
    named : bool
        Whether the file has a header; without one the columns are ``x0``, ``x1``, ...

    Raises
    ------
    ValueError
        When the text is no table.
    """
    columns, named = _cells(path)
    return {name: _convert(cells) for name, cells in columns.items()}, named


def cells_of(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a table as :func:`read_csv` does, every cell as it is written."""
    return _cells(path)[0]


def _cells(path: Path) -> tuple[dict[str, tuple[str, ...]], bool]:
    where = str(path)
    try:
        text = sys.stdin.read().removeprefix("\ufeff") if path == STDIN else path.read_text(encoding="utf-8-sig")
        lines = _split(text, where)
    except UnicodeDecodeError:
        raise ValueError(f"{where} is not a CSV file in UTF-8; expected CSV, Parquet, NPY or NPZ") from None
    except csv.Error as error:
        raise ValueError(f"{where} cannot be read as CSV: {error}") from None
    if not lines:
        raise ValueError(f"{where} is empty; expected rows of numbers")
    named = _has_header(lines)
    body = lines[1:] if named else lines
    if not body:
        raise ValueError(f"{where} has a header and no rows")
    names = _header(lines[0], where) if named else [f"x{j}" for j in range(len(lines[0]))]
    return dict(zip(names, zip(*body, strict=True), strict=True)), named


def _split(text: str, where: str) -> list[list[str]]:
    sample = [line for line in itertools.islice(io.StringIO(text), 20) if line.strip()]
    delimiter = ","
    for candidate in DELIMITERS:
        widths = {len(row) for row in csv.reader(sample, delimiter=candidate)}
        if len(widths) == 1 and widths != {1}:
            delimiter = candidate
            break
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    lines: list[list[str]] = []
    for row in reader:
        if not row:
            continue
        if lines and len(row) != len(lines[0]):
            raise ValueError(
                f"{where}, line {reader.line_num}: {len(row)} cells, but the first line has {len(lines[0])}"
            )
        lines.append(row)
    return lines


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _has_header(lines: list[list[str]]) -> bool:
    first = [cell.strip() for cell in lines[0]]
    if len(first) > 1 and first == [str(j) for j in range(len(first))]:
        return True
    if not any(_is_number(cell) for cell in first):
        return any(cell.lower() not in MISSING for cell in first)
    second = lines[1] if len(lines) > 1 else []
    pairs = zip(first, second, strict=False)
    return any(_is_number(b) and not _is_number(a) and a.lower() not in MISSING for a, b in pairs)


def _header(cells: Sequence[str], where: str) -> list[str]:
    names = [cell.strip() or f"column_{j + 1}" for j, cell in enumerate(cells)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{where}: more than one column is named {', '.join(map(repr, twice[:8]))}; rename them")
    return names


def _convert(cells: tuple[str, ...]) -> NDArray[Any]:
    """Turn the cells of a column into the narrowest of int, float, bool and text that holds them all."""
    if not any("_" in cell for cell in cells):  # Python reads 1_000 as a number, a table means a label
        for kind, dtype in ((int, np.int64), (float, np.float64)):
            try:
                return np.array([kind(cell) for cell in cells], dtype=dtype)
            except (ValueError, OverflowError):
                continue
    plain = [cell.strip() for cell in cells]
    present = [cell.lower() not in MISSING for cell in plain]
    truth = {"true": 1.0, "false": 0.0}
    if any(present) and all(cell.lower() in truth for cell, there in zip(plain, present, strict=True) if there):
        told = np.array([truth.get(cell.lower(), 0.0) for cell in plain]).astype(bool)
        return told if all(present) else np.ma.MaskedArray(told, mask=~np.array(present))
    if all(_is_number(cell) for cell, there in zip(plain, present, strict=True) if there):
        return np.array([float(cell) if there else np.nan for cell, there in zip(plain, present, strict=True)])
    if all(DATE.fullmatch(cell) for cell, there in zip(plain, present, strict=True) if there) and any(present):
        try:
            cells_or_gone = [cell if there else "NaT" for cell, there in zip(plain, present, strict=True)]
            return np.array(cells_or_gone, dtype="datetime64[us]")
        except ValueError:  # the 31st of February
            pass
    return np.array([cell if there else "" for cell, there in zip(plain, present, strict=True)], dtype=object)
