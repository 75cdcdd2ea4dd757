"""Numeric frames of pandas, polars and pyarrow, through one dataframe-neutral layer."""

from __future__ import annotations

from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray

from diabolo.data.raw import Raw

__all__ = ["is_frame", "read_frame", "write_frame"]


def is_frame(X: Any) -> bool:
    """Tell whether ``X`` is a frame in memory, of a known library; a lazy one is an error."""
    frame = nw.from_native(X, pass_through=True)
    if isinstance(frame, nw.LazyFrame):
        raise TypeError("expected rows in memory, got a lazy frame: call .collect() first")
    return isinstance(frame, nw.DataFrame)


def read_frame(X: Any) -> Raw:
    """Read a frame of numbers and booleans.

    Raises
    ------
    ValueError
        When a column holds anything else; the message names each such column and its kind.
    """
    frame = nw.from_native(X, eager_only=True)
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
    native = frame.to_native()
    index, labels = (native.index, native.columns) if frame.implementation.is_pandas() else (None, None)
    names = tuple(str(c) for c in frame.columns)
    return Raw(values, "vector", str(frame.implementation.value), names, index, labels)


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
