"""Series: rows of one or more numbers at each step of time, of equal or unequal length."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diabolo.data.raw import Raw, fill_masked, is_listed

__all__ = ["is_ragged", "read_series", "write_series"]

EXPECTED = (
    "expected series: an array (n, steps) or (n, steps, channels), or a list of arrays (steps,) or (steps, channels)"
)


def is_ragged(X: Any) -> bool:
    """Tell whether ``X`` is a list or an object array of arrays that can only be series: they differ in length alone."""
    if not is_listed(X) or not all(getattr(item, "ndim", 0) in (1, 2) for item in X):
        return False
    return len({item.shape[0] for item in X}) > 1 and len({tuple(item.shape[1:]) for item in X}) == 1


def read_series(X: Any) -> Raw:
    """Bring series to ``(n, channels, steps)``; NaN follows the end of those shorter than the longest.

    Parameters
    ----------
    X : array, tensor, or list of arrays, of tensors or of lists
        Time comes first, channels second.

    Raises
    ------
    ValueError
        When ``X`` holds no series of numbers, a series without a step, or series that differ in their channels.
    """
    if is_listed(X):
        return _read_list(X)
    is_torch = isinstance(X, torch.Tensor)
    if not is_torch and not isinstance(X, np.ndarray):
        raise ValueError(f"{EXPECTED}; got a {type(X).__name__}. A frame becomes an array by X.to_numpy()")
    values = _numbers(X, "X")
    if values.ndim not in (2, 3):
        hint = ". A single series is a list of one: [X]" if values.ndim == 1 else ""
        raise ValueError(f"{EXPECTED}; got an array of shape {values.shape}{hint}")
    if values.shape[1] == 0:
        raise ValueError(f"the series have no steps; {EXPECTED}")
    plain = values.ndim == 2
    values = values[:, None] if plain else values.transpose(0, 2, 1)
    lengths = np.full(len(values), values.shape[2])
    return Raw(values, "series", "torch" if is_torch else "numpy", drop_channel=plain, lengths=lengths)


def write_series(values: NDArray[Any], container: str, like: Raw | None, drop_channel: bool) -> Any:
    """Return series ``(n, channels, steps)`` as the user gave them; without ``like`` at full length, as one array.

    Parameters
    ----------
    values : ndarray of shape (n, channels, steps)
        The series.
    container : {"numpy", "torch"}
        What to hand back, or what a list is made of.
    like : Raw or None
        The series that came in, by which the results are cut to length and listed.
    drop_channel : bool
        Whether the series came without an axis for channels.
    """
    values = values[:, 0] if drop_channel else values.transpose(0, 2, 1)
    lengths = None if like is None else like.lengths
    if like is None or lengths is None or like.given == "array":
        values = np.ascontiguousarray(values if lengths is None else values[:, : lengths.max(initial=0)])
        return torch.from_numpy(values) if container == "torch" else values
    cut = [np.ascontiguousarray(row[:length]) for row, length in zip(values, lengths, strict=True)]
    rows: list[Any] = [torch.from_numpy(row) for row in cut] if container == "torch" else list(cut)
    if like.given == "list":
        return rows
    boxed = np.empty(len(rows), dtype=object)
    for i, row in enumerate(rows):
        boxed[i] = row
    return boxed


def _read_list(X: Any) -> Raw:
    if len(X) == 0:
        raise ValueError(
            f"Found array with 0 sample(s) while a minimum of 1 is required: {EXPECTED}; the list is empty"
        )
    rows: list[NDArray[Any]] = []
    for i, item in enumerate(X):
        row = _numbers(item, f"series {i}")
        if row.ndim not in (1, 2):
            hint = ". A single series is a list of one: [X]" if row.ndim == 0 else ""
            raise ValueError(f"{EXPECTED}; item {i} of the list has shape {row.shape}{hint}")
        if len(row) == 0:
            raise ValueError(f"series {i} has no steps; expected at least one. Leave it out.")
        if rows and row.shape[1:] != rows[0].shape[1:]:
            first, other = ("no axis for channels" if r.ndim == 1 else f"{r.shape[1]} channels" for r in (rows[0], row))
            raise ValueError(f"expected series of the same channels; series 0 has {first}, series {i} has {other}")
        rows.append(row)
    plain = rows[0].ndim == 1
    channels = 1 if plain else rows[0].shape[1]
    lengths = np.array([len(row) for row in rows])
    dtype = np.result_type(np.float32, *(row.dtype for row in rows))  # an integer cannot say that a cell is missing
    values = np.full((len(rows), channels, lengths.max()), np.nan, dtype=dtype)
    for target, row in zip(values, rows, strict=True):
        target[:, : len(row)] = row if plain else row.T
    container = "torch" if all(isinstance(item, torch.Tensor) for item in X) else "numpy"
    given = "object" if isinstance(X, np.ndarray) else "list"
    return Raw(values, "series", container, drop_channel=plain, lengths=lengths, given=given)


def _numbers(item: Any, name: str) -> NDArray[Any]:
    """Return an array of numbers, or say which series holds none."""
    if isinstance(item, torch.Tensor):
        item = item.detach().cpu()
        values: NDArray[Any] = (item.float() if item.dtype == torch.bfloat16 else item).numpy()
    elif isinstance(item, np.ma.MaskedArray):
        values = fill_masked(item)
    else:
        try:
            values = np.asarray(item)
            values = values.astype(np.float64) if values.dtype == object else values
        except (TypeError, ValueError):
            raise ValueError(f"{name} cannot be read as numbers; {EXPECTED}") from None
    if values.dtype.kind == "c":
        raise ValueError("Complex data not supported")
    if values.dtype.kind not in "buif":
        raise ValueError(f"{name} holds {values.dtype} values; expected numbers")
    return values
