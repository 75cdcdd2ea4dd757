"""What rows of a synthetic table must keep to: values that are given, bounds, allowed labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray

from diabolo.checks import did_you_mean
from diabolo.data.cells import is_gone, seconds_of
from diabolo.data.columns import Columns
from diabolo.tasks.bins import Bins

__all__ = ["Limits", "place_of", "read_limits"]


@dataclass(frozen=True)
class Limits:
    """Constraints by the position of a column.

    Attributes
    ----------
    given : dict of int to float
        Cells that are known, as numbers.
    empty : tuple of int
        Columns whose cells are to be missing.
    weights : dict of int to ndarray (K,)
        How much of each class is allowed, from 0 to 1.
    bounds : dict of int to (float, float)
        Of numbers.
    """

    given: dict[int, float] = field(default_factory=dict)
    empty: tuple[int, ...] = ()
    weights: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    bounds: dict[int, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def none(cls, bins: Sequence[Bins], *, missing: bool) -> Limits:
        """Return no constraints but, unless ``missing``, that no cell is missing."""
        if missing:
            return cls()
        there = {j: np.ones(b.size, np.float32) for j, b in enumerate(bins) if b.missing}
        for weight in there.values():
            weight[-1] = 0.0
        return cls(weights=there)


def place_of(bins: Sequence[Bins], name: Any) -> int:
    """Return the position of a column."""
    names = [b.name for b in bins]
    if str(name) not in names:
        raise ValueError(
            f"there is no column {name!r}.{did_you_mean(str(name), names)} There are: {', '.join(names[:20])}"
        )
    return names.index(str(name))


def read_limits(
    bins: Sequence[Bins],
    table: Columns | None,
    condition: Mapping[str, Any] | None,
    bounds: Mapping[str, Any] | None,
    allowed: Mapping[str, Sequence[Any]] | None,
) -> Limits:
    """Read what a user asks for; see :meth:`diabolo.tasks.synthesis.TableSynthesizer.sample`.

    Raises
    ------
    ValueError
        For an unknown column or label, bounds that no number seen in ``fit`` lies within, or a column with two constraints.
    """
    limits = Limits()
    empty = []
    for name, value in (condition or {}).items():
        j = place_of(bins, name)
        if is_gone(value):
            if not bins[j].missing:
                raise ValueError(
                    f"condition={{{name!r}: {value!r}}}: the column had no missing cells in fit; leave it out"
                )
            empty.append(j)
        else:
            limits.given[j] = _number(bins[j], table, j, value)
    for name, pair in (bounds or {}).items():
        j = place_of(bins, name)
        if bins[j].labels is not None:
            raise ValueError(f"bounds={{{name!r}: ...}}: the column holds labels; use allowed=")
        try:
            low, high = pair
        except (TypeError, ValueError):
            raise ValueError(
                f"bounds={{{name!r}: {pair!r}}}: expected a pair (low, high), None for an open side"
            ) from None
        within = (
            -np.inf if low is None else _number(bins[j], table, j, low),
            np.inf if high is None else _number(bins[j], table, j, high),
        )
        shares = np.array([bins[j].shares(k, within) for k in range(len(bins[j].knots))])
        weight = np.append(shares[:, 1] - shares[:, 0], [0.0] * bins[j].missing)
        if within[0] > within[1] or not weight.any():
            seen = bins[j].knots
            raise ValueError(
                f"bounds={{{name!r}: ({low!r}, {high!r})}}: no value seen in fit lies there; they go from {seen[0, 0]:g} to "
                f"{seen[-1, -1]:g}"
            )
        limits.weights[j], limits.bounds[j] = weight.astype(np.float32), within
    for name, values in (allowed or {}).items():
        j = place_of(bins, name)
        if bins[j].labels is None:
            raise ValueError(f"allowed={{{name!r}: ...}}: the column holds numbers; use bounds=")
        if isinstance(values, str) or not len(values):
            raise ValueError(f"allowed={{{name!r}: {values!r}}}: expected a list of labels, at least one")
        weight = np.zeros(bins[j].size)
        weight[[int(_number(bins[j], table, j, v)) for v in values]] = 1.0
        limits.weights[j] = weight.astype(np.float32)
    for j in limits.weights:
        if j in limits.given or j in empty:
            raise ValueError(
                f"column {bins[j].name!r} is given by condition=, and has another constraint; leave one out"
            )
    return Limits(limits.given, tuple(empty), limits.weights, limits.bounds)


def _number(bins: Bins, table: Columns | None, j: int, value: Any) -> float:
    """Return a value of a column as the number that stands for it."""
    if bins.labels is not None:
        for k, label in enumerate(bins.labels):
            if label == value or (isinstance(label, bool) and value in (int(label), str(label))):
                return float(k)
        known = [str(label) for label in bins.labels]
        shown = ", ".join(map(repr, bins.labels[:12]))
        raise ValueError(
            f"column {bins.name!r} has no label {value!r}.{did_you_mean(str(value), known)} It has: {shown}"
        )
    if table is not None and table.columns[j].kind == "date" and not isinstance(value, int | float):
        series = nw.new_series("value", [value], backend="pyarrow" if _has_arrow() else "pandas")
        return float(seconds_of(series.cast(nw.Datetime("us")) if series.dtype != nw.Duration else series)[0])
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"column {bins.name!r} holds numbers; got {value!r}") from None


def _has_arrow() -> bool:
    import importlib.util

    return importlib.util.find_spec("pyarrow") is not None
