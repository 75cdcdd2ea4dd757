"""Columns of a table as a few classes each, and back: labels as they are, numbers in bins, and a class for missing cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.data.cells import DAY
from diabolo.records import Column

__all__ = ["Bins"]

Array = NDArray[Any]
KNOTS = 17  # quantiles of the numbers in a bin that are kept
PLACES = 6  # digits after the point up to which numbers are known to be rounded


@dataclass(frozen=True)
class Bins:
    """The classes of one column.

    Attributes
    ----------
    name : str
        Of the column.
    labels : tuple or None
        Of a column of labels; None for numbers.
    knots : ndarray of shape (K, 17)
        Quantiles of the numbers in each bin, ascending within bins and over them; of labels their positions.
    places : int
        Digits after the point that numbers have; -1 where they have more than a few.
    missing : bool
        Whether cells may be missing: a class of its own, the last.
    unit : float
        What numbers are counted in: seconds of a day for dates without times.
    """

    name: str
    labels: tuple[Any, ...] | None
    knots: Array
    places: int
    missing: bool
    unit: float = 1.0

    @property
    def size(self) -> int:
        """Number of classes."""
        return len(self.knots) + self.missing

    @classmethod
    def learn(cls, column: Column, cells: Array, n_bins: int) -> Bins:
        """Cut a column into bins of about as many cells, with bins of their own for values that are frequent."""
        gone = np.isnan(cells)
        seen = cells[~gone]
        if column.kind in ("category", "ordinal", "boolean"):
            labels = column.categories or (False, True)
            positions = np.arange(len(labels), dtype=np.float64)
            return cls(column.name, labels, positions[:, None].repeat(KNOTS, 1), 0, bool(gone.any()))
        values, counts = np.unique(seen, return_counts=True)
        if len(values) <= n_bins:
            code = np.searchsorted(values, seen)
        else:
            evenly = np.quantile(seen, np.linspace(0, 1, n_bins + 1)[1:-1], method="lower")
            frequent = values[counts > len(seen) / (2 * n_bins)]
            cuts = np.unique(np.concatenate([evenly, frequent, np.nextafter(frequent, np.inf)]))
            code = np.searchsorted(cuts, seen, side="right")
        order = np.argsort(code, kind="stable")
        parts = np.split(seen[order], np.flatnonzero(np.diff(code[order])) + 1)
        knots = np.stack([np.quantile(part, np.linspace(0, 1, KNOTS)) for part in parts])
        unit = float(DAY) if column.kind == "date" and column.whole else 1.0
        rounded = (p for p in range(PLACES + 1) if np.array_equal(np.round(values / unit, p) * unit, values))
        return cls(column.name, None, knots, next(rounded, -1), bool(gone.any()), unit)

    def encode(self, cells: Array) -> NDArray[np.int64]:
        """Return the class of each cell, -1 where it is missing."""
        code = np.searchsorted(self.knots[:, 0], np.nan_to_num(cells), side="right") - 1
        if self.labels is None:  # a number between two bins belongs to the nearer one
            low, high = self.knots[np.maximum(code, 0), -1], self.knots[np.minimum(code + 1, len(self.knots) - 1), 0]
            code = code + ((cells > low) & (high - cells < cells - low))
        code = np.clip(code, 0, len(self.knots) - 1)
        return np.where(np.isnan(cells), -1, code).astype(np.int64)

    def decode(self, code: NDArray[np.int64], rng: np.random.Generator, within: tuple[float, float] | None) -> Array:
        """Draw a cell of each class, NaN for a missing one; of numbers only such as lie ``within`` bounds."""
        out = np.full(len(code), np.nan)
        there = np.flatnonzero(code < len(self.knots))
        knots = self.knots[code[there]]  # (m, 17)
        start, end = np.zeros(len(there)), np.ones(len(there))
        if within is not None and self.labels is None:
            table = np.array([self.shares(k, within) for k in range(len(self.knots))])
            start, end = table[code[there]].T
        place = (start + rng.random(len(there)) * (end - start)) * (KNOTS - 1)
        low = np.minimum(place.astype(np.int64), KNOTS - 2)
        row = np.arange(len(there))
        drawn = knots[row, low] + (knots[row, low + 1] - knots[row, low]) * (place - low)
        drawn = np.round(drawn / self.unit, self.places) * self.unit if self.places >= 0 else drawn
        out[there] = drawn if within is None or self.labels is not None else np.clip(drawn, *within)
        return out

    def shares(self, k: int, within: tuple[float, float]) -> tuple[float, float]:
        """Return which part of bin ``k``, as shares of its cells, lies within bounds."""
        knots, even = self.knots[k], np.linspace(0, 1, KNOTS)
        low, high = within
        if knots[0] == knots[-1]:
            return (0.0, 1.0) if low <= knots[0] <= high else (0.0, 0.0)
        rising = knots + np.linspace(0, 1e-9, KNOTS) * max(1e-12, knots[-1] - knots[0])
        start, end = np.interp([low, high], rising, even)
        return (float(start), float(end)) if high >= knots[0] and low <= knots[-1] else (0.0, 0.0)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, without the knots."""
        return {
            "name": self.name,
            "labels": self.labels,
            "places": self.places,
            "missing": self.missing,
            "unit": self.unit,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any], knots: Array) -> Bins:
        """Build what ``to_json`` described."""
        labels = None if data["labels"] is None else tuple(data["labels"])
        return cls(data["name"], labels, knots, data["places"], data["missing"], data["unit"])
