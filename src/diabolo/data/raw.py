"""The common form in which every reader hands over the user's rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from diabolo.data.sparse import as_sparse

if TYPE_CHECKING:
    from diabolo.data.columns import Columns
    from diabolo.data.conditions import Conditions

__all__ = ["Raw", "all_finite", "fill_masked", "is_listed", "is_wide", "refuse_infinity", "refuse_uncountable"]


class Raw(NamedTuple):
    """Rows as numbers, NaN where a cell is missing, with what is needed to hand results back in kind."""

    values: NDArray[Any]  # (n, *shape), any real dtype
    kind: str  # "vector", "image" or "series"
    container: str  # "numpy", "torch", "pandas", "polars" or "pyarrow"
    columns: tuple[str, ...] = ()
    index: Any = None  # row labels of a pandas frame
    labels: Any = None  # its column labels, which need not be text
    drop_channel: bool = False  # images or series came without a channel axis
    lengths: NDArray[np.int64] | None = None  # (n,), steps of each series
    given: str = "array"  # "array", "list" or "object": what the series came in
    condition: NDArray[np.float64] | None = None  # (n, k), codes of what the model is told beside the row
    conditions: Conditions | None = None  # what the codes mean
    table: Columns | None = None  # what the columns of a mixed table are
    given_table: Columns | None = None  # the same with those that are a condition, where some are
    unseen: NDArray[np.bool_] | None = None  # (n, given columns), where a label was not there in fit

    def take(self, rows: Any) -> Raw:
        """Return some rows, by a slice or by positions."""
        return self._replace(
            values=self.values[rows],
            index=None if self.index is None else self.index[rows],
            lengths=None if self.lengths is None else self.lengths[rows],
            condition=None if self.condition is None else self.condition[rows],
            unseen=None if self.unseen is None else self.unseen[rows],
        )


def is_listed(X: Any) -> bool:
    """Tell whether ``X`` is a list, a tuple or an object array: one item for each row."""
    return isinstance(X, list | tuple) or (isinstance(X, np.ndarray) and X.ndim == 1 and X.dtype == object)


def fill_masked(X: Any) -> Any:
    """Return a masked array with NaN in its masked cells, which are missing cells, and anything else as it is."""
    if not isinstance(X, np.ma.MaskedArray):
        return X
    return np.ma.filled(X.astype(np.promote_types(X.dtype, np.float32)), np.nan)


def is_wide(values: NDArray[Any]) -> bool:
    """Tell whether numbers of this type may need float64: all but float32 and the types of up to two bytes."""
    return values.dtype.itemsize >= 4 and values.dtype != np.float32


def all_finite(values: NDArray[Any]) -> bool:
    """Tell whether no cell is missing or infinite: one pass without a copy where that is so."""
    if values.dtype.kind != "f":
        return True
    lean = as_sparse(values)
    if lean is not None:
        values = lean.matrix.data
    plain = values.dtype.itemsize in (4, 8) and values.dtype.isnative
    if plain and values.flags.c_contiguous and values.flags.writeable:
        total = float(torch.from_numpy(values).sum())  # on all cores
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            total = float(values.sum())
    if math.isfinite(total):  # a sum is not finite where a cell is not
        return True
    return bool(np.isfinite(values).all())


def refuse_infinity(raw: Raw, first: int = 0) -> None:
    """Raise when a cell is infinite, rows being numbered from ``first``; a missing cell is written as NaN."""
    if all_finite(raw.values) or not np.isinf(raw.values).any():
        return
    where = tuple(int(i) for i in np.argwhere(np.isinf(raw.values))[0])
    raise ValueError(
        f"Input X contains infinity or a value too large: row {first + where[0]}, {_place(raw, where)}. "
        "Write NaN for a missing cell, or clip the value."
    )


def refuse_uncountable(raw: Raw, first: int = 0) -> None:
    """Raise when an observed cell is no count: negative, or not whole; rows are numbered from ``first``."""
    lean = as_sparse(raw.values)
    cells = raw.values if lean is None else lean.matrix.data
    if cells.dtype.kind in "ub":
        return
    wrong = np.rint(cells) != cells
    wrong |= cells < 0
    wrong &= ~np.isnan(cells)
    if not wrong.any():
        return
    where = tuple(int(i) for i in np.argwhere(wrong)[0])
    value = cells[where]
    where = where if lean is None else lean.position(where[0])
    raise ValueError(
        f"counts are whole numbers of at least 0; {_place(raw, where)} has {value:g} in row {first + where[0]}. Use "
        "likelihood='gaussian' for measurements"
    )


def _place(raw: Raw, where: tuple[int, ...]) -> str:
    if raw.kind == "vector":
        return f"column {raw.columns[where[1]] if raw.columns else str(where[1])!r}"
    if raw.kind == "series":
        return f"channel {where[1]}, step {where[2]}"
    return f"pixel {tuple(int(i) for i in where[1:])}"
