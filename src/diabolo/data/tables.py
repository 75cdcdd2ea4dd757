"""Numeric frames of pandas, polars and pyarrow, through one dataframe-neutral layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray

from diabolo.data.columns import Columns
from diabolo.data.raw import Raw

__all__ = ["fill_frame", "is_frame", "read_frame", "write_frame"]


def is_frame(X: Any) -> bool:
    """Tell whether ``X`` is a frame in memory, of a known library; a lazy one is an error."""
    frame = nw.from_native(X, pass_through=True)
    if isinstance(frame, nw.LazyFrame):
        raise TypeError("expected rows in memory, got a lazy frame: call .collect() first")
    return isinstance(frame, nw.DataFrame)


def read_frame(
    X: Any, table: Columns | None = None, kinds: Mapping[str, str] | None = None, *, learn: bool = False
) -> Raw:
    """Read a frame.

    Parameters
    ----------
    X : frame
        Of pandas, polars or pyarrow.
    table : Columns or None
        What the columns are, where a model knows a mixed table.
    kinds : mapping or None
        Kinds of columns by name, where the user says so.
    learn : bool
        Whether columns of other kinds than numbers may be found; otherwise, without ``table``, they are refused.

    Raises
    ------
    ValueError
        When a column holds what cannot be read; the message names each such column and its kind.
    """
    frame = nw.from_native(X, eager_only=True)
    native = frame.to_native()
    index, labels = (native.index, native.columns) if frame.implementation.is_pandas() else (None, None)
    container = str(frame.implementation.value)
    if table is None and learn and (kinds or not all(_plain(frame.get_column(name)) for name in frame.columns)):
        table = Columns.learn(frame, kinds)
    if table is not None:
        values, unseen = table.read(frame)
        return Raw(values, "vector", container, table.names, index, labels, table=table, unseen=unseen)
    wrong = []
    arrays = []
    for name in frame.columns:
        column = frame.get_column(name)
        if not (column.dtype.is_numeric() or column.dtype == nw.Boolean):
            if column.is_null().all():  # such a column has no type of its own
                arrays.append(np.full(len(frame), np.nan))
            else:
                wrong.append(f"{name!r} ({column.dtype})")
            continue
        unknown_to_numpy = column.dtype in (nw.Decimal, nw.Int128, nw.UInt128)
        if unknown_to_numpy or (not column.dtype.is_float() and column.is_null().any()):
            column = column.cast(nw.Float64)
        arrays.append(np.asarray(column.to_numpy()))
    if wrong:
        raise ValueError(
            f"expected columns of numbers, but {len(wrong)} of {len(frame.columns)} are not: {', '.join(wrong[:8])}. "
            "Drop them or encode them as numbers first, for example with sklearn.preprocessing.OneHotEncoder."
        )
    if any(a.dtype.kind == "c" for a in arrays):
        raise ValueError("Complex data not supported")
    dtype = np.result_type(*arrays) if arrays else np.dtype(float)
    values = np.empty((len(frame), len(arrays)), dtype=dtype)
    for j, array in enumerate(arrays):
        values[:, j] = array
    names = tuple(str(c) for c in frame.columns)
    return Raw(values, "vector", container, names, index, labels)


def _plain(series: Any) -> bool:
    """Tell whether a column is of numbers, or has no observed value and so no type of its own."""
    return bool(series.dtype.is_numeric() or series.is_null().all())


def write_frame(
    values: NDArray[Any], columns: tuple[str, ...], container: Any, index: Any = None, labels: Any = None
) -> Any:
    """Build a frame of the caller's library, with the row and column labels of a pandas frame where they are given."""
    native = nw.from_numpy(np.ascontiguousarray(values), schema=list(columns), backend=container).to_native()
    if index is not None:
        native.index = index
    if labels is not None:
        native.columns = labels
    return native


def fill_frame(X: Any, known: Columns, cells: NDArray[Any], gone: NDArray[np.bool_]) -> Any:
    """Fill the missing cells of a frame; a column without any stays the very column that it was."""
    frame = nw.from_native(X, eager_only=True)
    places = {str(c): c for c in frame.columns}
    filled = []
    for j, column in enumerate(known.columns):
        if not gone[:, j].any():
            continue
        series = frame.get_column(places[column.name])
        values = known.series(j, cells[:, j], str(frame.implementation.value))
        mask = nw.new_series("mask", ~gone[:, j], nw.Boolean, backend=frame.implementation)
        if frame.implementation.is_pandas():  # rows are matched by their labels there
            labels = series.to_native().index
            values = nw.from_native(values.to_native().set_axis(labels), series_only=True)
            mask = nw.from_native(mask.to_native().set_axis(labels), series_only=True)
        filled.append(series.zip_with(mask, values).alias(places[column.name]))
    return frame.with_columns(*filled).to_native() if filled else frame.clone().to_native()
