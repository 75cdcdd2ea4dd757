"""Who chose what: events or a matrix -> a sparse matrix of users by items, and ids back as they were given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from diabolo.checks import did_you_mean
from diabolo.data.sparse import is_sparse
from diabolo.data.tables import is_frame

__all__ = ["Events", "Ids", "Interactions", "as_rows", "read_interactions"]

Array = NDArray[Any]
NAMED = 5  # ids that a message lists


class Ids:
    """Ids and their places, in the order in which they came.

    Parameters
    ----------
    values : sequence
        Whole numbers, text or dates, each once.
    what : str
        What they are ids of, for messages.
    """

    def __init__(self, values: Sequence[Any], what: str):
        self.values, self.what = list(values), what
        self.places = {v: i for i, v in enumerate(self.values)}

    def __len__(self) -> int:
        return len(self.values)

    def known(self, asked: Iterable[Any]) -> tuple[list[int], list[Any]]:
        """Return the places of those that are known, and those that are not."""
        asked = _listed(asked)
        return [self.places[v] for v in asked if v in self.places], [v for v in asked if v not in self.places]

    def locate(self, asked: Iterable[Any]) -> NDArray[np.int64]:
        """Return the places of ids ``(n,)``.

        Raises
        ------
        KeyError
            For ids that are not known; the message names them, and says so where text was given for numbers or the reverse.
        """
        places, unknown = self.known(asked)
        if unknown:
            first = unknown[0]
            hint = did_you_mean(first, (v for v in self.values if isinstance(v, str))) if isinstance(first, str) else ""
            if self.values and isinstance(first, str) != isinstance(self.values[0], str):
                hint = (
                    f" The ids of fit are of type {type(self.values[0]).__name__}, {first!r} is {type(first).__name__}."
                )
            listed = ", ".join(map(repr, unknown[:NAMED]))
            raise KeyError(f"{len(unknown)} {self.what}(s) were not in fit: {listed}.{hint}")
        return np.array(places, dtype=np.int64)

    def to_json(self) -> list[Any]:
        """Return the ids, or of places that count from 0 alone their number.

        Raises
        ------
        TypeError
            For ids that are neither whole numbers nor text, which no file of JSON gives back.
        """
        if all(type(v) is int for v in self.values) and self.values == list(range(len(self.values))):
            return [None, len(self.values)]
        wrong = next((v for v in self.values if not isinstance(v, int | str)), None)
        if wrong is not None:
            raise TypeError(
                f"{self.what}s such as {wrong!r} cannot be saved; make ids whole numbers or text before fit"
            )
        return self.values

    @classmethod
    def from_json(cls, data: list[Any], what: str) -> Ids:
        """Build from what ``to_json`` returned."""
        return cls(range(data[1]) if len(data) == 2 and data[0] is None else data, what)

    def array(self) -> Array:
        """Return the ids as an array: of numbers, or of objects."""
        if all(type(v) is int for v in self.values):
            return np.array(self.values, dtype=np.int64)
        out = np.empty(len(self.values), dtype=object)
        out[:] = self.values
        return out


@dataclass(frozen=True)
class Interactions:
    """Who chose what.

    Attributes
    ----------
    matrix : csr_array of float32, of shape (n_users, n_items)
        What was chosen, and how much; nothing is stored for what was not.
    users, items : Ids
        The ids of rows and columns.
    time : ndarray of float64 or None
        When, for each stored cell of the matrix: of several events the last.
    events : Events or None
        How the frame was laid out; ``None`` for a matrix.
    """

    matrix: Any
    users: Ids
    items: Ids
    time: NDArray[np.float64] | None = None
    events: Events | None = None


@dataclass(frozen=True)
class Events:
    """How a frame of events is laid out.

    Attributes
    ----------
    user, item : str
        Columns of ids.
    rating, time : str or None
        Columns of ratings or counts, and of dates or numbers that rise with time.
    container : str
        The library of the frame.
    """

    user: str
    item: str
    rating: str | None = None
    time: str | None = None
    container: str = "pandas"

    def to_json(self) -> dict[str, str | None]:
        """Return plain JSON types."""
        return asdict(self)

    def frame(self, columns: dict[str, Any]) -> Any:
        """Build a frame of the user's library."""
        series = [nw.new_series(k, v.tolist(), backend=self.container) for k, v in columns.items()]  # type: ignore[arg-type]
        return nw.DataFrame.from_dict({s.name: s for s in series}).to_native()


def _listed(values: Any) -> list[Any]:
    return values.tolist() if hasattr(values, "tolist") else list(values)


def read_interactions(
    X: Any,
    layout: Events,
    *,
    min_rating: float | None = None,
    latest: bool = False,
    items: Ids | None = None,
) -> tuple[Interactions, list[Any]]:
    """Read events or a matrix.

    Parameters
    ----------
    X : frame, sparse matrix or array
        Events, one a row; or users by items, 0 (or nothing stored) where nothing was chosen.
    layout : Events
        Which columns of a frame hold what.
    min_rating : float, optional
        Ratings below are not taken for a choice.
    latest : bool
        Whether of several events of a pair the last one counts, by the time where there is one; otherwise they add up.
    items : Ids, optional
        The items that a fitted model knows: columns are theirs.

    Returns
    -------
    Interactions
        What was read.
    list
        Items that ``items`` does not know, whose events are left out.

    Raises
    ------
    ValueError
        For missing ids, ids of mixed types, ratings that are negative or missing, a matrix of another number of items, or
        nothing at all; the message names the column and the row.
    """
    if not is_sparse(X) and is_frame(X):
        return _read_events(X, layout, min_rating, latest, items)
    matrix = as_rows(X, None if items is None else len(items))
    if min_rating is not None:
        matrix.data[matrix.data < min_rating] = 0
        matrix.eliminate_zeros()
    known = Ids(range(matrix.shape[1]), "item") if items is None else items
    return Interactions(matrix, Ids(range(matrix.shape[0]), "user"), known), []


def as_rows(X: Any, n_items: int | None) -> Any:
    """Return a matrix of users by items as rows of float32 that hold nothing but what was chosen.

    Raises
    ------
    ValueError
        For another number of items than ``n_items``, and for values that are negative, missing or infinite.
    """
    if is_sparse(X):
        if X.dtype.kind not in "fiub":
            raise ValueError("Complex data not supported" if X.dtype.kind == "c" else f"X holds {X.dtype}")
        matrix = sparse.csr_array(X)
    else:
        dense = np.asarray(X)
        if dense.dtype.kind == "c":
            raise ValueError("Complex data not supported")
        dense = dense.astype(np.float64)
        if dense.ndim != 2:
            raise ValueError(
                f"Expected 2D array of users by items, got an array of shape {dense.shape}. Reshape your data; a single user "
                "is X.reshape(1, -1)."
            )
        matrix = sparse.csr_array(dense)
    if matrix.ndim != 2 or 0 in matrix.shape:
        what = "0 sample(s)" if matrix.shape[0] == 0 else "0 feature(s)"
        raise ValueError(f"Found array with {what} (shape={matrix.shape}) while a minimum of 1 is required.")
    if n_items is not None and matrix.shape[1] != n_items:
        raise ValueError(
            f"X has {matrix.shape[1]} features, but Recommender is expecting {n_items} features as input: an item each"
        )
    values = matrix.data
    wrong = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)
    wrong |= values < 0
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        row, value = int(np.searchsorted(matrix.indptr, i, side="right")) - 1, values[i]
        what = "Negative values" if value < 0 else "NaN" if np.isnan(value) else "infinity"
        raise ValueError(
            f"{what} in data passed to a recommender: user {row}, item {int(matrix.indices[i])} has {value:g}; expected 0 where "
            "nothing was chosen, and a rating or count above 0 elsewhere"
        )
    own = (values.astype(np.float32), matrix.indices.copy(), matrix.indptr.copy())  # the caller's stay as they are
    matrix = sparse.csr_array(own, shape=matrix.shape)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _read_events(
    X: Any, layout: Events, min_rating: float | None, latest: bool, items: Ids | None
) -> tuple[Interactions, list[Any]]:
    frame = nw.from_native(X, eager_only=True)
    for role in ("user", "item", "rating", "time"):
        name = getattr(layout, role)
        if name is not None and name not in frame.columns:
            raise ValueError(
                f"the events have no column {name!r}.{did_you_mean(str(name), map(str, frame.columns))} They have: "
                f"{', '.join(map(str, frame.columns[:12]))}. Say which one holds the {role} with {role}=."
            )
    layout = replace(layout, container=str(frame.implementation.value))
    users, user_ids = _factorise(frame.get_column(layout.user), layout.user, Ids([], "user"))
    known = Ids([], "item") if items is None else Ids(items.values, "item")
    columns, item_ids = _factorise(frame.get_column(layout.item), layout.item, known)
    value = np.ones(len(frame), dtype=np.float64)
    if layout.rating is not None:
        value = _numbers(frame.get_column(layout.rating), layout.rating, "a rating or count")
        if (value < 0).any():
            row = int(np.flatnonzero(value < 0)[0])
            raise ValueError(f"column {layout.rating!r} has {value[row]:g} in row {row}; expected 0 or more")
    elif min_rating is not None:
        raise ValueError(f"min_rating={min_rating:g} needs ratings; say which column holds them with rating=")
    when = None if layout.time is None else _times(frame.get_column(layout.time), layout.time)
    unseen = item_ids.values[len(items) :] if items is not None else []
    keep = np.ones(len(value), dtype=bool) if items is None else columns < len(items)
    if min_rating is not None:
        keep &= value >= min_rating
    shape = (len(user_ids), len(item_ids) if items is None else len(items))
    if not len(value):
        raise ValueError("there are no events")
    matrix, stamps = _collect(
        users[keep], columns[keep], value[keep], None if when is None else when[keep], shape, latest
    )
    return Interactions(matrix, user_ids, item_ids if items is None else items, stamps, layout), unseen


def _collect(
    rows: Array, columns: Array, value: Array, when: Array | None, shape: tuple[int, int], latest: bool
) -> tuple[Any, NDArray[np.float64] | None]:
    """Make one cell of all events of a pair: their sum, or the last; and when the last was."""
    cell = rows * shape[1] + columns
    order = np.lexsort((np.arange(len(cell)) if when is None else when, cell))
    cell, value = cell[order], value[order]
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    last = np.append(first[1:], len(cell)) - 1
    total = value[last] if latest else np.add.reduceat(value, first) if len(first) else value
    rows, columns = np.divmod(cell[first], shape[1])
    indptr = np.searchsorted(rows, np.arange(shape[0] + 1))
    matrix = sparse.csr_array((total.astype(np.float32), columns, indptr), shape=shape)
    stamps = None if when is None else when[order][last]
    if stamps is not None:
        stamps = stamps[matrix.data > 0]
    matrix.eliminate_zeros()
    return matrix, stamps


def _factorise(series: Any, name: str, known: Ids) -> tuple[NDArray[np.int64], Ids]:
    """Return the place of each id, and the ids: those known first, then others as they come."""
    gone = series.is_null()
    if series.dtype.is_float():
        gone = gone | series.is_nan()
    if gone.any():
        raise ValueError(f"column {name!r} has no id in row {gone.to_list().index(True)}; drop such events first")
    values = series.to_list()
    kinds = {type(v) for v in values}
    if len({issubclass(k, str) for k in kinds}) > 1:
        text = next(v for v in values if isinstance(v, str))
        other = next(v for v in values if not isinstance(v, str))
        raise ValueError(
            f"column {name!r} mixes text and other ids, such as {text!r} and {other!r}; make them one type first, as by "
            f"frame[{name!r}].astype(str)"
        )
    ids = Ids(list(dict.fromkeys([*known.values, *values])), known.what)
    return np.fromiter(map(ids.places.__getitem__, values), dtype=np.int64, count=len(values)), ids


def _numbers(series: Any, name: str, what: str) -> NDArray[np.float64]:
    if not (series.dtype.is_numeric() or series.dtype == nw.Boolean):
        raise ValueError(f"column {name!r} holds {series.dtype}; expected {what}, a number")
    numbers = np.asarray(series.cast(nw.Float64).to_numpy(), dtype=np.float64)
    wrong = ~np.isfinite(numbers)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"column {name!r} has {numbers[row]} in row {row}; expected {what}")
    return numbers


def _times(series: Any, name: str) -> NDArray[np.float64]:
    if series.dtype in (nw.Date, nw.Datetime):
        if series.is_null().any():
            raise ValueError(f"column {name!r} has no time in row {series.is_null().to_list().index(True)}")
        return np.asarray(series.cast(nw.Datetime("us")).to_numpy()).astype("datetime64[us]").astype(np.float64) / 1e6
    return _numbers(series, name, "a date, or a number that rises with time")
