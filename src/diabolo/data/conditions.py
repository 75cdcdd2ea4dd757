"""Conditions: what a model is told of a row beside the row. Classes become one-hot vectors, numbers are standardised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import torch
from numpy.typing import NDArray

from diabolo.checks import did_you_mean
from diabolo.data.raw import Raw
from diabolo.data.tables import is_frame

__all__ = ["Conditions", "Variable", "condition_on_columns", "condition_on_target"]

Array = NDArray[Any]
SEEN = 1000  # conditions of rows of fit that are kept, to draw from
MANY = 1000  # classes, above which whole numbers are hardly classes


@dataclass(frozen=True)
class Variable:
    """One variable of a condition.

    Attributes
    ----------
    name : str
        As the user knows it.
    classes : tuple of str, int, float or bool, or None
        The classes seen in fit, ascending; ``None`` for a number.
    center, width : float
        Mean and standard deviation of a number.
    """

    name: str
    classes: tuple[Any, ...] | None
    center: float = 0.0
    width: float = 1.0

    @property
    def size(self) -> int:
        """Width in the context: one for each class, or the number and a mark that it is known."""
        return 2 if self.classes is None else len(self.classes)

    @classmethod
    def learn(cls, name: str, values: Array, kind: str) -> Variable:
        """Learn classes, or mean and width, from the known values.

        Parameters
        ----------
        name : str
            Of the variable.
        values : ndarray of shape (n,)
            Of any type; ``None`` and NaN are unknown.
        kind : {"auto", "classes", "numbers"}
            ``"auto"`` takes floating point for numbers, all else for classes.
        """
        if values.dtype.kind in "mM":
            raise ValueError(f"the condition {name!r} holds {values.dtype}; expected classes, or numbers")
        known = [v for v in values.tolist() if not _is_unknown(v)]
        if not known:
            raise ValueError(
                f"the condition {name!r} has no known value; give classes or numbers, or fit a VAE without a condition"
            )
        if kind == "auto":
            plain = all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)
            kind = "numbers" if plain and any(isinstance(v, float) for v in known) else "classes"
        if kind == "numbers":
            numbers = cls(name, None).codes(values)
            there = numbers[~np.isnan(numbers)]
            return cls(name, None, float(there.mean()), float(there.std()) or 1.0)
        wrong = next((v for v in known if not isinstance(v, str | int | float)), None)
        if wrong is not None:
            raise ValueError(
                f"the condition {name!r} has {wrong!r} ({type(wrong).__name__}); classes are text, whole numbers or booleans"
            )
        classes = sorted(set(known), key=lambda v: (isinstance(v, str), v))
        if len(classes) > MANY and len(classes) > len(known) / 2:
            raise ValueError(
                f"the condition {name!r} has {len(classes)} classes in {len(known)} rows; to condition on numbers, give floating "
                "point"
            )
        return cls(name, tuple(classes))

    def codes(self, values: Array) -> NDArray[np.float64]:
        """Return the number, or the position of the class, of each value; NaN where it is unknown.

        Raises
        ------
        ValueError
            For a class that was not seen in fit, for an infinite number, or for text in place of a number.
        """
        listed = values.tolist()
        if self.classes is not None:
            place = {c: float(i) for i, c in enumerate(self.classes)}
            return np.array([np.nan if _is_unknown(v) else self._place(v, place) for v in listed], dtype=np.float64)
        wrong = next((v for v in listed if not (_is_unknown(v) or isinstance(v, int | float))), None)
        if wrong is not None:
            raise ValueError(
                f"the condition {self.name!r} has {wrong!r}; expected numbers, and NaN where it is unknown"
            )
        numbers = np.array([np.nan if _is_unknown(v) else v for v in listed], dtype=np.float64)
        if np.isinf(numbers).any():
            raise ValueError(
                f"the condition {self.name!r} contains infinity or a value too large; write NaN where it is unknown"
            )
        return numbers

    def parse(self, text: str) -> Any:
        """Return the class or the number that a text stands for; text that stands for none comes back as it is."""
        if self.classes is not None:
            return next((c for c in self.classes if text in (str(c), f"{c:g}" if isinstance(c, float) else "")), text)
        try:
            return float(text)
        except ValueError:
            return text

    def _place(self, value: Any, place: dict[Any, float]) -> float:
        try:
            return place[value]
        except (KeyError, TypeError):
            known = [repr(c) for c in place]
            shown = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
            raise ValueError(
                f"the condition {self.name!r} has {value!r}, which was not seen in fit. It is one of {shown}."
                f"{did_you_mean(str(value), [str(c) for c in place])} Give None where it is unknown."
            ) from None


class Conditions:
    """Turns conditions into the context that encoder and decoder are given.

    A condition is kept as codes ``(n, k)``: for each of its ``k`` variables the number, or the position of the class, and NaN
    where it is unknown. In the context an unknown variable is all zeros.

    Attributes
    ----------
    variables : tuple of Variable
        What the condition is made of.
    places : tuple of int
        Which columns of ``X`` they are; empty where the condition came as ``y``.
    seen : ndarray of shape (m, k)
        Codes of up to 1000 rows of fit, to draw from.
    coded : bool
        Whether the columns are of a mixed table, whose rows hold codes already.
    """

    def __init__(
        self, variables: Sequence[Variable], places: Sequence[int], seen: NDArray[np.float64], *, coded: bool = False
    ):
        self.variables, self.places, self.seen, self.coded = tuple(variables), tuple(places), seen, coded

    @property
    def width(self) -> int:
        """Width of the context."""
        return sum(v.size for v in self.variables)

    @property
    def names(self) -> list[str]:
        """Names of the variables."""
        return [v.name for v in self.variables]

    @property
    def kinds(self) -> str:
        """What each variable is, in words."""
        each = ("number" if v.classes is None else f"{len(v.classes)} classes" for v in self.variables)
        return ", ".join(f"{name}: {kind}" for name, kind in zip(self.names, each, strict=True))

    def read(self, condition: Any, n: int) -> NDArray[np.float64]:
        """Return the codes ``(n, k)`` of a condition as a user gives it.

        Parameters
        ----------
        condition : None, scalar, sequence, array, mapping or frame
            ``None`` is unknown. For a condition of one variable a value for all rows or one for each; for several a row of
            them, a row for each, or a mapping or frame from names to values.
        n : int
            Rows it is for.
        """
        if condition is None:
            return np.full((n, len(self.variables)), np.nan)
        columns = self._sort(condition)
        codes = [v.codes(c) for v, c in zip(self.variables, columns, strict=True)]
        for variable, code in zip(self.variables, codes, strict=True):
            if len(code) not in (1, n):
                raise ValueError(
                    f"the condition {variable.name!r} has {len(code)} values for {n} rows; give one, or one for each row"
                )
        return np.column_stack([np.broadcast_to(code, n) for code in codes])

    def complete(self, codes: NDArray[np.float64], chance: NDArray[Any]) -> NDArray[np.float64]:
        """Fill what is unknown in codes ``(n, k)`` from rows of fit that agree with what is known.

        They have the same classes, and are the tenth nearest in the numbers; where none has all the classes, those that have
        most of them. A row stays as it is where no row of fit knows what it lacks.

        Parameters
        ----------
        codes : ndarray of shape (n, k)
            Of conditions.
        chance : ndarray of shape (n,)
            Numbers in [0, 1), one for each row, that choose among the rows of fit.
        """
        out = codes.copy()
        unknown = np.isnan(codes)
        patterns, which = np.unique(np.where(unknown, -np.inf, codes), axis=0, return_inverse=True)
        for p in np.flatnonzero(np.isneginf(patterns).any(axis=1)):
            rows = np.flatnonzero(which.ravel() == p)
            known = ~np.isneginf(patterns[p])
            pool = self.seen[~np.isnan(self.seen[:, ~known]).any(axis=1)]
            if not len(pool):
                continue
            named = np.array([v.classes is not None for v in self.variables])
            agree = (pool[:, known & named] == patterns[p, known & named]).sum(axis=1)
            pool = pool[agree == agree.max()]
            numbers = known & ~named
            if numbers.any():
                width = np.array([v.width for v in self.variables])[numbers]
                off = np.square((pool[:, numbers] - patterns[p, numbers]) / width).sum(axis=1)
                pool = pool[np.argsort(np.nan_to_num(off, nan=np.inf), kind="stable")[: max(1, -(-len(pool) // 10))]]
            chosen = pool[(chance[rows] * len(pool)).astype(np.int64)]
            out[rows] = np.where(unknown[rows], chosen, codes[rows])
        return out

    def _sort(self, condition: Any) -> list[Array]:
        """Sort what a user gives into one array for each variable."""
        if isinstance(condition, Mapping) or is_frame(condition):
            named = dict(condition) if isinstance(condition, Mapping) else dict(_columns(condition, "condition"))
            given = {str(k): v for k, v in named.items()}
            for name in given:
                if name not in self.names:
                    raise ValueError(
                        f"there is no condition {name!r}.{did_you_mean(name, self.names)} There are: {', '.join(self.names)}."
                    )
            missing = [name for name in self.names if name not in given]
            if missing:
                raise ValueError(f"the condition lacks {', '.join(map(repr, missing))}; give None where it is unknown")
            return [np.atleast_1d(_array(given[name])) for name in self.names]
        k = len(self.variables)
        array = _array(condition)
        if array.ndim < 2 and k == 1:
            return [np.atleast_1d(array)]
        if array.ndim == 1 and len(array) == k:
            return [_array([v]) for v in condition]
        if array.ndim == 2 and array.shape[1] == k:
            return [_array(column) for column in array.T]
        expected = (
            "a value, or one for each row" if k == 1 else f"{k} values ({', '.join(self.names)}), or {k} for each row"
        )
        raise ValueError(f"the condition has shape {array.shape}; expected {expected}")

    def expand(self, codes: NDArray[np.float64], dtype: torch.dtype) -> torch.Tensor:
        """Return the context ``(n, width)`` of codes ``(n, k)``."""
        context = np.zeros((len(codes), self.width))
        start = 0
        for j, variable in enumerate(self.variables):
            known = np.flatnonzero(~np.isnan(codes[:, j]))
            if variable.classes is None:
                context[known, start] = (codes[known, j] - variable.center) / variable.width
                context[known, start + 1] = 1.0
            else:
                context[known, start + codes[known, j].astype(np.int64)] = 1.0
            start += variable.size
        tensor = torch.from_numpy(context).to(dtype)
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(
                "the condition is too far from the values seen in fit; clip it, or give None where it is unknown"
            )
        return tensor

    def attach(self, raw: Raw, condition: Any) -> Raw:
        """Give rows as read their condition: the one given, else that in the columns of ``X``, which leave the values."""
        if not self.places:
            return raw._replace(condition=self.read(condition, len(raw.values)), conditions=self)
        columns = raw.values[:, self.places] if condition is None else condition
        codes = columns if self.coded and condition is None else self.read(columns, len(raw.values))
        names = raw.columns or tuple(str(j) for j in range(raw.values.shape[1]))
        return raw._replace(
            values=np.delete(raw.values, self.places, axis=1),
            columns=tuple(name for j, name in enumerate(names) if j not in self.places),
            condition=codes,
            conditions=self,
            table=None if raw.table is None else raw.table.without(self.places),
            given_table=raw.table,
        )

    def columns(self, codes: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Return what stands in the columns of ``X`` for codes ``(n, k)``, NaN where it is unknown; ``None`` without columns."""
        if not self.places:
            return None
        out = codes.copy()
        for j, variable in enumerate(self.variables):
            if variable.classes is not None and not self.coded:
                known = ~np.isnan(codes[:, j])
                out[known, j] = np.array(variable.classes, dtype=np.float64)[codes[known, j].astype(np.int64)]
        return out

    def insert(self, values: Array, columns: Array | float) -> Array:
        """Put the columns of the condition back among modelled ``values`` ``(n, d)``."""
        if not self.places:
            return values
        out = np.empty((len(values), values.shape[1] + len(self.places)), dtype=values.dtype)
        out[:, np.setdiff1d(np.arange(out.shape[1]), self.places)] = values
        out[:, self.places] = columns
        return out

    def insert_names(self, names: Sequence[str]) -> tuple[str, ...]:
        """Put the names of the condition's columns back among those of the modelled ones."""
        every = list(names)
        for place, name in sorted(zip(self.places, self.names, strict=False)):
            every.insert(place, name)
        return tuple(every)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; the conditions seen travel apart, as an array."""
        return {"variables": [asdict(v) for v in self.variables], "places": list(self.places), "coded": self.coded}

    @classmethod
    def from_json(cls, data: dict[str, Any], seen: NDArray[np.float64]) -> Conditions:
        """Build conditions from ``to_json`` and the array of those seen."""
        variables = [
            Variable(v["name"], None if v["classes"] is None else tuple(v["classes"]), v["center"], v["width"])
            for v in data["variables"]
        ]
        return cls(variables, data["places"], seen, coded=data.get("coded", False))


def condition_on_target(raw: Raw, y: Any, kind: str) -> Raw:
    """Learn conditions from the ``y`` of fit, and attach them to its rows.

    Raises
    ------
    ValueError
        When ``y`` is not of one or two dimensions, has another length than ``X``, or holds neither classes nor numbers.
    """
    columns = _columns(y, "y")
    for name, values in columns:
        if len(values) != len(raw.values):
            raise ValueError(
                f"{name} has {len(values)} values, X has {len(raw.values)} rows; expected one for each row"
            )
    return _learn(raw, columns, (), kind)


def condition_on_columns(raw: Raw, chosen: Sequence[str | int], kind: str) -> Raw:
    """Learn conditions from columns of ``X``, chosen by name or position, and take them out of the rows.

    Raises
    ------
    ValueError
        When a column is not there or is chosen twice, when none is chosen or none is left, or when rows have no columns.
    """
    if raw.kind != "vector":
        raise ValueError(
            f"condition={tuple(chosen)!r} names columns of a table; X holds rows of kind {raw.kind!r}: give the condition to fit "
            "as y, with condition='y'"
        )
    width = raw.values.shape[1]
    names = raw.columns or tuple(str(j) for j in range(width))
    places = []
    for name in chosen:
        if isinstance(name, str) and name not in names:
            shown = ", ".join(names[:12]) + (f" and {width - 12} more" if width > 12 else "")
            raise ValueError(
                f"condition={tuple(chosen)!r}: X has no column {name!r}.{did_you_mean(name, names)} It has: {shown}."
            )
        place = names.index(name) if isinstance(name, str) else name + width if name < 0 else int(name)
        if not 0 <= place < width:
            raise ValueError(
                f"condition={tuple(chosen)!r}: X has {width} columns, numbered from 0; there is no column {name}"
            )
        if place in places:
            raise ValueError(f"condition={tuple(chosen)!r} has column {names[place]!r} twice")
        places.append(place)
    if not places:
        raise ValueError("condition=() names no column; give columns, or 'y', or use a VAE, which has no condition")
    if len(places) == width:
        raise ValueError(
            f"condition={tuple(chosen)!r} takes all {width} column(s) of X; at least one must be left to model"
        )
    if raw.table is not None:
        return _learn_coded(raw, places)
    return _learn(raw, [(names[j], raw.values[:, j]) for j in places], places, kind)


def _learn_coded(raw: Raw, places: Sequence[int]) -> Raw:
    """Learn conditions from columns of a mixed table, of which it is known what they are."""
    if raw.table is None:
        raise ValueError("expected rows of a mixed table")
    variables = []
    for j in places:
        column = raw.table.columns[j]
        if column.kind in ("number", "count", "date"):
            variables.append(Variable.learn(column.name, raw.values[:, j], "numbers"))
        else:
            variables.append(Variable(column.name, column.categories or (False, True)))
    codes = raw.values[:, list(places)]
    step = max(1, -(-len(codes) // SEEN))
    conditions = Conditions(variables, places, np.ascontiguousarray(codes[::step]), coded=True)
    return conditions.attach(raw, None)


def _learn(raw: Raw, columns: list[tuple[str, Array]], places: Sequence[int], kind: str) -> Raw:
    if places and kind == "auto":
        kind = "numbers"  # the columns of an array have one type, which tells nothing
    variables = [Variable.learn(name, values, kind) for name, values in columns]
    codes = np.column_stack([v.codes(values) for v, (_, values) in zip(variables, columns, strict=True)])
    step = max(1, -(-len(codes) // SEEN))
    conditions = Conditions(variables, places, np.ascontiguousarray(codes[::step]))
    if places:
        return conditions.attach(raw, None)
    return raw._replace(condition=codes, conditions=conditions)


def _columns(y: Any, name: str) -> list[tuple[str, Array]]:
    """Return the variables of what a user gave as names and arrays ``(n,)``."""
    if is_frame(y):
        frame = nw.from_native(y, eager_only=True)
        return [(str(c), _series(frame.get_column(c))) for c in frame.columns]
    array = _array(y)
    if array.ndim == 1:
        return [(name, array)]
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"{name} has shape {array.shape}; expected a condition for each row, (n,) or (n, variables)")
    if array.shape[1] == 1:
        return [(name, array[:, 0])]
    return [(f"{name}{j}", array[:, j]) for j in range(array.shape[1])]


def _array(y: Any) -> Array:
    """Return an array, in which text, numbers and what is unknown stay what they are."""
    if isinstance(y, torch.Tensor):
        return y.detach().cpu().numpy()
    series = nw.from_native(y, series_only=True, pass_through=True)
    if isinstance(series, nw.Series):
        return _series(series)
    array = np.asarray(y)
    if array.dtype.kind in "USO" and not isinstance(y, np.ndarray):
        return np.array(y, dtype=object)  # numpy would write numbers, and what is unknown, as text
    return array


def _series(series: Any) -> Array:
    if series.dtype.is_float():
        return np.asarray(series.to_numpy())
    out = np.empty(len(series), dtype=object)
    out[:] = series.to_list()
    out[series.is_null().to_numpy()] = None
    return out


def _is_unknown(value: Any) -> bool:
    return (
        value is None or (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType")
    )
