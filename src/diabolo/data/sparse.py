"""Sparse rows: they stay sparse, and become dense a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from diabolo.records import Batch, Resident, Table

if TYPE_CHECKING:
    from torch import Tensor

    from diabolo.data.arrays import ArrayCodec
    from diabolo.data.raw import Raw

__all__ = ["SparseRows", "SparseTable", "as_sparse", "is_sparse", "refuse_sparse"]

EXACT = 2**24  # whole numbers up to this are exact in float32
BLOCK = 2**22  # numbers that are made dense at a time, where all rows are passed over


def is_sparse(X: Any) -> bool:
    """Tell whether ``X`` is a sparse matrix or array of scipy."""
    return bool(sparse.issparse(X))


def refuse_sparse(X: Any) -> None:
    """Raise for sparse rows, where missing cells are to be filled.

    Raises
    ------
    TypeError
        With what to do instead.
    """
    if is_sparse(X):
        raise TypeError(
            "sparse rows have no missing cells: one that is not stored is 0. Pass X.toarray() with NaN where a cell is missing"
        )


class SparseRows:
    """Rows ``(n, n_features)`` that look like an array whose parts are dense.

    Parameters
    ----------
    X : scipy sparse matrix or array
        A cell that is not stored is 0. Whole numbers that float32 holds exactly are held so.

    Raises
    ------
    ValueError
        For complex numbers, or an array that has not two dimensions.
    """

    ndim = 2

    def __init__(self, X: Any):
        if X.dtype.kind not in "fiub":
            raise ValueError("Complex data not supported" if X.dtype.kind == "c" else f"X holds {X.dtype}")
        if X.ndim != 2:
            raise ValueError(f"Expected 2D array, got a sparse array of shape {X.shape}. Reshape your data.")
        rows = sparse.csr_array(X)
        data = rows.data
        small = (
            data.dtype.kind == "b"
            or not data.size
            or (data.dtype.kind in "iu" and -EXACT <= data.min() <= data.max() <= EXACT)
        )
        dtype = np.float32 if small or data.dtype == np.float16 else data.dtype
        self.matrix = sparse.csr_array((data.astype(dtype, copy=False), rows.indices, rows.indptr), shape=rows.shape)
        if not self.matrix.has_canonical_format:
            self.matrix = self.matrix.copy()  # the caller's stays as it is
            self.matrix.sum_duplicates()
        self.shape: tuple[int, int] = self.matrix.shape
        self.dtype = self.matrix.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        if np.isscalar(rows):
            return np.asarray(self.matrix[[rows]].toarray()[0])
        return np.asarray(self.matrix[rows].toarray())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.matrix.toarray(), dtype=dtype)

    def position(self, i: int) -> tuple[int, int]:
        """Return row and column of the stored cell ``i``."""
        return int(np.searchsorted(self.matrix.indptr, i, side="right")) - 1, int(self.matrix.indices[i])


def as_sparse(values: Any) -> SparseRows | None:
    """Return rows that are sparse, ``None`` for an array."""
    return values if isinstance(values, SparseRows) else None


class SparseTable(Resident):
    """Sparse rows that become dense tensors when they are taken.

    Parameters
    ----------
    codec : ArrayCodec
        Scales the rows.
    raw : Raw
        Of which ``values`` are sparse.
    rows : SparseRows
        The same.
    device : Any
        Where batches go; the rows stay where they are.
    """

    def __init__(self, codec: ArrayCodec, raw: Raw, rows: SparseRows, device: Any = "cpu"):
        self.schema, self.codec, self.raw, self.rows, self.device = codec.schema, codec, raw, rows, device

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: Tensor) -> Batch:
        """Make the rows at ``index`` ``(B,)`` dense."""
        table = self._dense(index.cpu().numpy())
        return table.slice(0, len(table))

    def to(self, device: Any) -> SparseTable:
        """Hand out batches on a device."""
        return SparseTable(self.codec, self.raw, self.rows, device)

    def contents(self) -> Iterator[NDArray[Any]]:
        """Return the arrays that hold the rows."""
        matrix = self.rows.matrix
        yield from (matrix.data, matrix.indices, matrix.indptr)
        if self.raw.condition is not None:
            yield self.raw.condition

    def parts(self, *, everything: bool) -> Iterator[Table]:
        """Make rows dense, some at a time; none unless ``everything``."""
        rows = max(1, BLOCK // max(1, self.schema.size))
        for start in range(0, len(self) if everything else 0, rows):
            yield self._dense(slice(start, start + rows))

    def _dense(self, rows: Any) -> Table:
        return self.codec.encode(self.raw.take(rows)).to(self.device)
