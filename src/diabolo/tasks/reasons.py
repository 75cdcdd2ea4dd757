"""Why a row is unusual, feature by feature, in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from diabolo.data.arrays import ArrayCodec

__all__ = ["Reason", "find_reasons", "short"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Reason:
    """One feature that makes a row unusual.

    Attributes
    ----------
    feature : str
        A column, a pixel, or a channel and a step.
    kind : str
        ``"too high"`` or ``"too low"``: outside of what fit saw. ``"higher than expected"`` or ``"lower than expected"``: a value
        that occurs, but not beside the rest of the row. ``"unexpected"``: another label than rows like this one have.
        ``"never seen"``: a label that was not there in fit; the value is ``"?"``.
    value, expected : object
        What is there, and what rows like this one have: numbers in the user's units, labels, or dates as text.
    weight : float
        How much the feature adds, in the unit of ``explain``.
    """

    feature: str
    kind: str
    value: Any
    expected: Any
    weight: float

    def __str__(self) -> str:
        return f"{self.feature}: {short(self.value)}, expected {short(self.expected)} ({self.kind})"


def short(value: Any) -> str:
    """Write a value in a few characters."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def find_reasons(
    codec: ArrayCodec,
    cells: Array,
    expected: Array,
    asked: Array,
    blame: Array,
    unseen: NDArray[np.bool_] | None = None,
) -> list[list[Reason]]:
    """Put into words what is odd about rows.

    Parameters
    ----------
    codec : ArrayCodec
        Of the model.
    cells : ndarray of shape (n, *row_shape)
        Cells as numbers: of a mixed table one for each column.
    expected : ndarray of shape (n, m, size)
        For each of the features that are ``asked`` for, the row in which it is as expected.
    asked : ndarray of int of shape (n, m)
        Features, the weightiest first.
    blame : ndarray of shape (n, size)
        How much each adds; only what is above 0 is a reason.
    unseen : ndarray of bool of shape (n, size) or None
        Cells with labels that were not there in fit.
    """
    flat = cells.reshape(len(cells), -1)
    new = np.zeros(flat.shape, dtype=bool) if unseen is None else unseen
    found = []
    for i, features in enumerate(asked):
        told = [
            (m, int(j)) for m, j in enumerate(features) if blame[i, j] > 0 and (new[i, j] or not np.isnan(flat[i, j]))
        ]
        found.append(
            [
                _reason(
                    codec, j, math.nan if new[i, j] else float(flat[i, j]), float(expected[i, m, j]), float(blame[i, j])
                )
                for m, j in told
            ]
        )
    return found


def _reason(codec: ArrayCodec, j: int, value: float, expected: float, weight: float) -> Reason:
    schema = codec.schema
    higher = value > expected
    kind = "higher than expected" if higher else "lower than expected"
    if not schema.columns:
        return Reason(schema.feature(j), kind, value, expected, weight)
    column = schema.columns[j]
    if column.kind in ("boolean", "category", "ordinal"):
        labels = column.categories or (False, True)
        if math.isnan(value):
            usual = labels[int(np.clip(np.rint(expected), 0, len(labels) - 1))]
            return Reason(column.name, "never seen", "?", usual, weight)
        there, usual = (labels[int(np.clip(np.rint(v), 0, len(labels) - 1))] for v in (value, expected))
        return Reason(column.name, "unexpected" if column.kind != "ordinal" else kind, there, usual, weight)
    if value > column.high or value < column.low:
        kind = "too high" if value > column.high else "too low"
    if column.kind == "date":
        return Reason(column.name, kind, _moment(value, column.whole), _moment(expected, column.whole), weight)
    return Reason(column.name, kind, value, expected, weight)


def _moment(seconds: float, whole: bool) -> str:
    return str(np.datetime64(round(seconds), "s"))[: 10 if whole else None]
