"""Mixed tables: what each column of a frame is, cells as numbers, and numbers back as cells of the same type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray

from diabolo.checks import did_you_mean
from diabolo.data.cells import (
    DAY,
    PERCENT,
    Type,
    UnseenCategoryWarning,
    floats,
    is_gone,
    is_percentage,
    number_of,
    read_cells,
    seconds_of,
    write_cells,
)
from diabolo.records import Column

__all__ = ["KINDS", "Columns", "Type", "UnseenCategoryWarning"]

Array = NDArray[Any]
KINDS = ("number", "count", "boolean", "category", "ordinal", "date")
MOST = 100  # categories of a column that have a feature of their own; rarer ones share the last
DISTINCT = 20  # different texts that are categories, however few rows there are


class Columns:
    """What the columns of a mixed table are.

    A cell is held as a number: of a boolean 0 or 1, of a category or an ordinal the position of its label, of a date seconds
    since 1970 (of a duration seconds), and NaN where it is missing.

    Attributes
    ----------
    columns : tuple of Column
        Name, kind, range and labels of each.
    types : tuple of Type
        How each is written.
    """

    def __init__(self, columns: Sequence[Column], types: Sequence[Type]):
        self.columns, self.types = tuple(columns), tuple(types)
        self.names = tuple(c.name for c in self.columns)
        starts = np.cumsum([0, *(c.width for c in self.columns)])
        self.starts, self.width = starts[:-1], int(starts[-1])  # the first feature of each column; features of a row
        kinds = np.array([c.kind for c in self.columns])
        self.scaled = np.flatnonzero(np.isin(kinds, ["number", "date"]))  # columns that a scaling acts on
        self.owner = np.repeat(
            np.arange(len(self.columns)), [c.width for c in self.columns]
        )  # the column of each feature

    @classmethod
    def learn(cls, frame: Any, kinds: Mapping[str, str] | None = None) -> Columns:
        """Find out what the columns of a narwhals frame are; ``kinds`` says it of some by name.

        Raises
        ------
        ValueError
            When a column holds what no kind describes, or has no observed value; the message names each.
        """
        names = [str(c) for c in frame.columns]
        for name, kind in (kinds or {}).items():
            if name not in names:
                raise ValueError(f"columns names {name!r}, which X does not have.{did_you_mean(name, names)}")
            if kind not in KINDS:
                raise ValueError(
                    f"columns={{{name!r}: {kind!r}}}: expected one of {', '.join(KINDS)}.{did_you_mean(kind, KINDS)}"
                )
        columns, types, wrong, never = [], [], [], []
        for name, label in zip(names, frame.columns, strict=True):
            series = frame.get_column(label)
            found = _learn(name, series, (kinds or {}).get(name))
            if isinstance(found, str):
                wrong.append(found)
            elif found is None:
                never.append(name)
            else:
                columns.append(found)
                types.append(Type.of(series))
                if found.kind == "number" and series.dtype in (nw.String, nw.Object):
                    types[-1] = replace(types[-1], places=_places(series.to_list()))
                if found.kind == "boolean" and series.dtype == nw.Object and _truth(series.to_list()):
                    types[-1] = replace(types[-1], name="Boolean")
        if wrong:
            raise ValueError("; ".join(wrong[:8]) + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else ""))
        if never:
            listed = ", ".join(map(repr, never[:8]))
            raise ValueError(f"{len(never)} column(s) have no observed value: {listed}. Drop them before fit.")
        return cls(columns, types)

    def without(self, places: Sequence[int]) -> Columns:
        """Leave out columns by position."""
        kept = [j for j in range(len(self.columns)) if j not in places]
        return Columns([self.columns[j] for j in kept], [self.types[j] for j in kept])

    def read(self, frame: Any) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
        """Return the cells of a narwhals frame as numbers ``(n, n_columns)``; columns are found by name.

        Labels that were not there in fit are missing cells, and the second array says where they are, if there are any.

        Raises
        ------
        ValueError
            When a column is missing, unknown or of another kind than in fit.
        """
        found = {str(c): c for c in frame.columns}
        missing = [name for name in self.names if name not in found]
        extra = [name for name in found if name not in self.names]
        if missing or extra:
            said = [f"lacks {', '.join(map(repr, missing[:8]))}"] if missing else []
            said += [f"has {', '.join(map(repr, extra[:8]))}, not seen in fit"] if extra else []
            near = "".join(did_you_mean(name, extra) for name in missing[:1])
            raise ValueError(f"X {' and '.join(said)}.{near} Expected the columns of fit: {', '.join(self.names[:20])}")
        values = np.empty((len(frame), len(self.columns)))
        for j, column in enumerate(self.columns):
            values[:, j] = read_cells(column, frame.get_column(found[column.name]))
        unseen = np.isneginf(values)
        values[unseen] = np.nan
        return values, unseen if unseen.any() else None

    # between columns and features -------------------------------------------------------------------------------------------

    def expand(self, values: Array) -> Array:
        """Give each category a feature of its own: columns ``(n, n_columns)`` to features ``(n, width)``; NaN stays NaN."""
        out = np.zeros((len(values), self.width), dtype=values.dtype)
        for j, (column, start) in enumerate(zip(self.columns, self.starts, strict=True)):
            cells = values[:, j]
            if column.width == 1:
                out[:, start] = _feature(column, cells)
                continue
            gone = np.isnan(cells)
            rows = np.flatnonzero(~gone)
            out[rows, start + cells[rows].astype(np.intp)] = 1.0
            out[gone, start : start + column.width] = np.nan
        return out

    def collapse(self, features: Array) -> Array:
        """Return columns ``(n, n_columns)`` for features ``(n, width)``: of categories the most likely one."""
        out = np.empty((len(features), len(self.columns)), dtype=features.dtype)
        for j, (column, start) in enumerate(zip(self.columns, self.starts, strict=True)):
            block = features[:, start : start + column.width]
            out[:, j] = _cell(column, block[:, 0]) if column.width == 1 else block.argmax(axis=1)
        return out

    def bound(self, values: Array) -> Array:
        """Bring numbers, counts and dates ``(n, n_columns)`` into the range seen in fit."""
        free = [c.kind in ("number", "count", "date") for c in self.columns]
        low = np.where(free, [c.low for c in self.columns], -np.inf)
        high = np.where(free, [c.high for c in self.columns], np.inf)
        return np.clip(values, low, high)

    def by_column(self, elements: Array) -> Array:
        """Sum ``(n, width)`` over the features of each column."""
        return np.asarray(np.add.reduceat(elements, self.starts, axis=1))

    # back to a frame --------------------------------------------------------------------------------------------------------

    def series(self, j: int, values: Array, container: Any) -> Any:
        """Write numbers ``(n,)`` as a narwhals column of the type that column ``j`` had; NaN is a missing cell."""
        return write_cells(self.columns[j], self.types[j], values, container)

    def write(self, values: Array, container: Any, index: Any = None, labels: Any = None) -> Any:
        """Write rows ``(n, n_columns)`` as a frame of the caller's library."""
        written = [self.series(j, values[:, j], container) for j in range(len(self.columns))]
        native = nw.DataFrame.from_dict({s.name: s for s in written}).to_native()
        if container == "pandas":
            if index is not None:
                native.index = index
            if labels is not None and len(labels) == len(self.columns):
                native.columns = labels
        return native

    # files ------------------------------------------------------------------------------------------------------------------

    def to_json(self) -> list[dict[str, Any]]:
        """Return how columns are written, in plain JSON types; what they are is in the schema."""
        return [{**vars(t), "levels": list(t.levels)} for t in self.types]

    def whole_json(self) -> list[dict[str, Any]]:
        """Return what columns are and how they are written."""
        return [{"column": asdict(c), "type": t} for c, t in zip(self.columns, self.to_json(), strict=True)]

    @classmethod
    def from_whole_json(cls, data: Sequence[dict[str, Any]]) -> Columns:
        """Build what ``whole_json`` described."""
        columns = [Column(**{**d["column"], "categories": tuple(d["column"]["categories"])}) for d in data]
        return cls.from_json(columns, [d["type"] for d in data])

    @classmethod
    def from_json(cls, columns: Sequence[Column], types: Sequence[dict[str, Any]]) -> Columns:
        """Build what ``to_json`` and the columns of a schema describe."""
        return cls(columns, [Type(**{**t, "levels": tuple(t["levels"])}) for t in types])


def _feature(column: Column, cells: Array) -> Array:
    """Return the feature of a column that has one: labels in order, and counts by their logarithm, from 0 to 1."""
    if column.kind == "ordinal":
        return np.asarray(cells / max(1, len(column.categories) - 1))
    return np.asarray(np.log1p(cells) / column.log_range) if column.kind == "count" else cells


def _cell(column: Column, feature: Array) -> Array:
    """Undo :func:`_feature`."""
    if column.kind == "ordinal":
        return np.asarray(np.rint(feature * (len(column.categories) - 1)))
    return np.asarray(np.expm1(feature * column.log_range)) if column.kind == "count" else feature


# learning -----------------------------------------------------------------------------------------------------------------------


def _is_text(dtype: Any) -> bool:
    return bool(dtype in (nw.String, nw.Object, nw.Categorical, nw.Enum))


def _learn(name: str, series: Any, kind: str | None) -> Column | str | None:
    """Describe a column; a text says what is wrong with it, and ``None`` that it has no observed value."""
    dtype = series.dtype
    if series.is_null().all():
        return None
    if dtype in (nw.Datetime, nw.Date, nw.Duration):
        if kind not in (None, "date"):
            return f"column {name!r} holds dates, which cannot be of kind {kind!r}"
        seconds = seconds_of(series)
        return _numeric(name, "date", seconds, whole=bool((seconds[~np.isnan(seconds)] % DAY == 0).all()))
    if dtype.is_numeric() or dtype == nw.Boolean:
        if kind in ("category", "ordinal"):
            return _labelled(name, _count(series.to_list()), kind, None)
        if kind == "date" or (kind == "count" and dtype == nw.Boolean):
            return f"column {name!r} holds {dtype}, which cannot be of kind {kind!r}"
        return _number(name, series, kind)
    if not _is_text(dtype):
        native = series.to_native()
        held = getattr(native, "dtype", getattr(native, "type", dtype))
        return f"column {name!r} holds {held}; expected numbers, booleans, categories or dates. Leave it out"
    cells = series.to_list()
    try:
        known = _count(cells)
    except TypeError:
        return (
            f"column {name!r} holds lists or other cells that are no labels; expected numbers, booleans, text or dates"
        )
    if not known:
        return None
    if dtype == nw.Object and kind in (None, "number", "boolean") and all(isinstance(v, int | float) for v in known):
        numbers = np.array([np.nan if is_gone(v) else float(v) for v in cells])
        whole = all(isinstance(v, int) for v in known)
        truth = all(isinstance(v, bool) for v in known) or kind == "boolean"
        return _numeric(name, "boolean" if truth else "number", numbers, whole=whole)
    if kind in (None, "number") and all(map(is_percentage, known)):
        numbers = np.array([np.nan if is_gone(v) else number_of(v) for v in cells])
        return _numeric(name, "number", numbers, whole=bool((numbers[~np.isnan(numbers)] % 1 == 0).all()))
    if kind in ("number", "count", "date", "boolean"):
        example = str(next(iter(known)))[:40]
        return f"column {name!r} holds text such as {example!r}, which cannot be of kind {kind!r}. Convert it first"
    kinds = {type(v) for v in known}
    if len(kinds) > 1 or not kinds <= {str, int, float, bool}:
        found = " and ".join(sorted(t.__name__ for t in kinds))
        return (
            f"column {name!r} mixes cells of the types {found}; make them all of one"
            if len(kinds) > 1
            else (f"column {name!r} holds cells of the type {found}; expected numbers, booleans, text or dates")
        )
    ordered = dtype == nw.Enum or (series.implementation.is_pyarrow() and "ordered=1" in str(series.to_native().type))
    levels = list(series.cat.get_categories().to_list()) if dtype in (nw.Categorical, nw.Enum) else None
    return _labelled(
        name, known, kind or ("ordinal" if ordered else "category"), levels, free=kind is None and levels is None
    )


def _numeric(name: str, kind: str, numbers: Array, *, whole: bool = False) -> Column | None:
    seen = numbers[~np.isnan(numbers)]
    return Column(name, float(seen.min()), float(seen.max()), kind, whole=whole) if len(seen) else None


def _number(name: str, series: Any, kind: str | None) -> Column | str | None:
    numbers = floats(series)
    seen = numbers[~np.isnan(numbers)]
    if not len(seen):
        return None
    if np.isinf(seen).any():
        row = int(np.flatnonzero(np.isinf(numbers))[0])
        raise ValueError(
            f"Input X contains infinity or a value too large: row {row}, column {name}. Write NaN for a missing cell, or clip "
            "the value."
        )
    binary = bool(((seen == 0) | (seen == 1)).all())
    if kind == "boolean" and not binary:
        return f"column {name!r} has values other than 0 and 1, which cannot be of kind 'boolean'"
    whole = bool((seen == np.rint(seen)).all())
    if kind == "count" and not (whole and seen.min() >= 0):
        return f"column {name!r} has other values than whole numbers of at least 0, which cannot be of kind 'count'"
    both = bool(seen.min() < seen.max())
    chosen = kind or ("boolean" if binary and (both or series.dtype == nw.Boolean) else "number")
    return _numeric(name, chosen, numbers, whole=whole)


def _truth(cells: list[Any]) -> bool:
    """Tell whether all cells that are not missing are true or false, and no numbers."""
    return all(isinstance(v, bool) or is_gone(v) for v in cells)


def _places(cells: list[Any]) -> int:
    """Return the most digits after the point of percentages that are text, -1 where cells are none."""
    found = [PERCENT.fullmatch(v.strip()) for v in cells if isinstance(v, str) and not is_gone(v)]
    return max((len(m.group(1) or "") for m in found if m is not None), default=-1)


def _count(cells: list[Any]) -> Counter[Any]:
    """Count each label; missing cells are none."""
    counts = Counter(cells)
    for label in [v for v in counts if is_gone(v)]:
        del counts[label]
    return counts


def _labelled(
    name: str, counts: Counter[Any], kind: str, levels: list[Any] | None, *, free: bool = False
) -> Column | str:
    """Describe a column of labels; ``free`` says that it is text of which nobody said that it holds categories."""
    n = sum(counts.values())
    if free and len(counts) > DISTINCT and len(counts) > n / 2:
        example = str(next(iter(counts)))[:40]
        return (
            f"column {name!r} looks like free text or an identifier: {len(counts)} different values in {n} rows, such as "
            f"{example!r}. Leave it out, or say columns={{{name!r}: 'category'}}"
        )
    order = sorted(counts, key=lambda v: (str(type(v)), v))
    if kind == "ordinal":
        order = order if levels is None else levels
        return Column(name, 0.0, float(len(order) - 1), kind, tuple(order))
    rest = len(order) > MOST
    if rest:
        frequent = {v for v, _ in counts.most_common(MOST)}
        last = counts.most_common(MOST)[-1][0]  # stands for itself and all that are rarer
        order = [*(v for v in order if v in frequent and v != last), last]
    return Column(name, 0.0, float(len(order) - 1), "category", tuple(order), rest=rest)
