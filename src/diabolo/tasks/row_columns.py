"""Columns of a table as symbols: each value is one of a few bins, and a place in its bin."""

from __future__ import annotations

import difflib
import json
import math
import operator
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray

from diabolo.data.cells import Type, restored
from diabolo.tasks.symbols import MalformedError, SymbolReader, SymbolWriter

__all__ = ["ColumnCode", "array_keys", "family_of", "keys_of", "reals", "series_of"]

Array = NDArray[Any]
Keys = NDArray[np.int64]
BINS = 48  # of about equal frequency, beside values that are as frequent by themselves
ALONE = 64  # as many different values have a bin each
WIDEST = 2**24  # of a bin in which a value that fit did not see is told by its place
BINARY = np.int64(2**63 - 1)  # the bits of a number without its sign
MOST = 2**30  # multiples of a step, which a float holds with digits to spare
TEXT, LISTING = 5.0, 48.0  # bits of a character in a list, and of an entry beside its characters
LIKE = 256  # new texts of a column, the most frequent, that are compared with those known
NOT_FINITE = {math.inf: 2**60, -math.inf: -(2**60)}
NOT_A_NUMBER = 2**60 + 1


def family_of(kind: Type) -> str:
    """Return what a column is held in: ``"whole"``, ``"real"``, ``"time"`` or ``"text"``; nothing for lists and such."""
    if kind.name in ("Boolean", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"):
        return "whole"
    if kind.name in ("Float32", "Float64"):
        return "real"
    if kind.name in ("Date", "Datetime", "Duration"):
        return "time"
    return "text" if kind.name in ("String", "Categorical", "Enum", "Object") else ""


def keys_of(name: str, series: Any, step: float) -> tuple[Any, NDArray[np.bool_]]:
    """Return the cells of a narwhals column as whole numbers or pieces of JSON, and which are missing.

    Whole numbers of reals keep their order and every bit; with a ``step`` they are multiples of it.
    """
    kind = Type.of(series)
    family = family_of(kind)
    if family == "text":
        cells = series.to_list()
        gone = np.array([v is None for v in cells], dtype=bool)
        if kind.name != "Object":
            gone |= series.is_null().to_numpy().astype(bool)
        try:
            keys = np.array([None if g else json.dumps(v) for v, g in zip(cells, gone, strict=True)], dtype=object)
        except TypeError:
            raise TypeError(f"column {name!r} holds cells that are neither text nor numbers nor booleans") from None
        for v, key in zip(cells, keys, strict=True):
            if key is not None and type(v) not in (str, int, float, bool):
                raise TypeError(f"column {name!r} holds {v!r}, of type {type(v).__name__}; make it text or a number")
        return keys, gone
    gone = series.is_null().to_numpy().astype(bool)
    if family == "real" and series.implementation.is_pandas() and kind.native.startswith("float"):
        gone[:] = False  # there a missing cell is a number's own NaN
    values = _plain(series, gone, family)
    return array_keys(name, values, family, step), gone


def array_keys(name: str, values: Array, family: str, step: float) -> Keys:
    """Return numbers of numpy as whole numbers, as :func:`keys_of` does."""
    if values.dtype == np.uint64 and (values >= 2**63).any():
        raise ValueError(f"column {name!r} holds whole numbers of 2**63 and above; make it text")
    if family != "real":
        return values.astype(np.int64)
    return _multiples(name, values, step) if step else _ordered(values)


def _plain(series: Any, gone: NDArray[np.bool_], family: str) -> Array:
    """Return cells as numbers of numpy, and 0 where they are missing."""
    if family == "time":
        if series.dtype == nw.Date:
            series = series.cast(nw.Datetime("us"))
        elif series.dtype == nw.Datetime and series.dtype.time_zone is not None:
            series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        values = np.array(series.to_numpy()).view(np.int64)
        return np.where(gone, 0, values)
    if gone.any():
        series = series.fill_null(False if series.dtype == nw.Boolean else 0)
    return np.array(series.to_numpy())


def _ordered(values: Array) -> Keys:
    """Return the bits of floats as whole numbers in the order of the floats."""
    bits = np.ascontiguousarray(values, dtype=np.float64).view(np.int64)
    return np.where(bits < 0, bits ^ BINARY, bits)


def _multiples(name: str, values: Array, step: float) -> Keys:
    finite = np.isfinite(values)
    wide = np.where(finite, values, 0.0).astype(np.float64)
    multiples = np.rint(wide / step)
    back = (multiples * step).astype(values.dtype).astype(np.float64)
    if (np.abs(multiples) > MOST).any() or (np.abs(back - wide) > step / 2 * (1 + 2.0**-16)).any():
        raise ValueError(
            f"column {name!r} holds {np.abs(wide).max():g}, near which {values.dtype} is coarser than max_error asks for; "
            "leave max_error out, or raise it"
        )
    keys = multiples.astype(np.int64)
    for value, key in NOT_FINITE.items():
        keys[values == value] = key
    keys[np.isnan(values)] = NOT_A_NUMBER
    return keys


def reals(keys: Keys, step: float) -> NDArray[np.float64]:
    """Return the floats that :func:`keys_of` made whole numbers of."""
    if not step:
        return np.where(keys < 0, keys ^ BINARY, keys).view(np.float64)
    values = keys * step
    for value, key in NOT_FINITE.items():
        values[keys == key] = value
    values[keys == NOT_A_NUMBER] = np.nan
    return np.asarray(values, dtype=np.float64)


def series_of(name: str, keys: Any, gone: NDArray[np.bool_], kind: Type, container: Any, step: float) -> Any:
    """Return a narwhals column of the type that the cells had."""
    family = family_of(kind)
    if family == "text":
        cells = [None if g else json.loads(v) for v, g in zip(keys, gone, strict=True)]
        return restored(name, cells, kind, container)
    values = reals(keys, step) if family == "real" else keys
    return restored(name, values, kind, container, gone)


@dataclass
class ColumnCode:
    """How the values of one column are written.

    Attributes
    ----------
    name : str
        Of the column.
    kind : Type
        In fit.
    step : float
        What reals are multiples of; 0 where every bit counts.
    keys : ndarray or list
        Different values, in order: whole numbers by size, text by frequency.
    counts : ndarray of int64
        How often each came.
    bounds : ndarray of int64
        Where in ``keys`` bins begin, and the last ends.
    """

    name: str
    kind: Type
    step: float
    keys: Any
    counts: Keys
    bounds: Keys

    def __post_init__(self) -> None:
        self.text = family_of(self.kind) == "text"
        if self.text:
            self._places = {key: i for i, key in enumerate(self.keys)}
        self.tables = []
        for start, stop in pairwise(self.bounds.tolist()):
            counts = self.counts[start:stop]
            unseen = max(1, int((counts == 1).sum())) if stop - start > 1 else 1  # Good and Turing
            self.tables.append(np.append(counts, unseen))

    @classmethod
    def learn(cls, name: str, kind: Type, step: float, keys: Any, gone: NDArray[np.bool_]) -> ColumnCode:
        """Learn from the values of a column."""
        found, counts = np.unique(
            keys[~gone].astype(str) if family_of(kind) == "text" else keys[~gone], return_counts=True
        )
        if family_of(kind) == "text":
            order = np.argsort(-counts, kind="stable")
            found, counts = found[order], counts[order]
            bounds = np.minimum(np.arange(min(len(found), ALONE) + 1), len(found))
            if len(found) > ALONE:
                bounds[-1] = len(found)
            return cls(name, kind, step, found.tolist(), counts, bounds)
        starts = list(range(len(found)))
        if len(found) > ALONE:
            full, starts, held = counts.sum() / BINS, [], math.inf
            for i, count in enumerate(counts.tolist()):
                if held + count / 2 > full or count > full:
                    starts.append(i)
                    held = math.inf if count > full else 0.0
                held += count
        return cls(name, kind, step, found, counts, np.array([*starts, len(found)]))

    @property
    def size(self) -> int:
        """Symbols: of a missing cell, and of each bin."""
        return max(2, len(self.bounds))

    def symbols(self, keys: Any, gone: NDArray[np.bool_]) -> tuple[Keys, Keys]:
        """Return for each cell its bin, 0 where it is missing, and its place there, the last if fit did not see it."""
        places: Keys
        if self.text:
            places = np.array([self._places.get(key, -1) for key in keys], dtype=np.int64)
            bins = np.searchsorted(self.bounds[:-1], places, side="right")
            known = places >= 0
            bins[~known] = self.size - 1
            if not known.all() and len(self.keys):
                alike = self._alike(Counter(keys[~(known | gone)].tolist()))
                bins[~known] = [alike.get(key, self.size - 1) for key in keys[~known]]
        else:
            places = np.searchsorted(self.keys, keys, side="right") - 1
            known = (places >= 0) & (self.keys[places] == keys) if len(self.keys) else np.zeros(len(keys), dtype=bool)
            bins = np.maximum(1, np.searchsorted(self.bounds[:-1], places, side="right"))
        bins = np.where(gone, 0, bins)
        lengths = np.array([0, *(len(t) - 1 for t in self.tables)] + [0] * (self.size - 1 - len(self.tables)))
        starts = np.array([0, *self.bounds[:-1], *([0] * (self.size - 1 - len(self.tables)))])
        inside = np.where(known, places - starts[bins], lengths[bins])
        return bins, inside

    def _alike(self, new: Counter[str]) -> dict[str, int]:
        """Return, for texts that fit did not see and that come again, the bin of the text that is spelt most alike."""
        alone = {
            str(json.loads(key)): i + 1
            for i, key in enumerate(self.keys[: len(self.bounds) - 1])
            if self.bounds[i + 1] - self.bounds[i] == 1
        }
        found: dict[str, int] = {}
        for key, count in new.most_common(LIKE):
            near = difflib.get_close_matches(str(json.loads(key)), alone, 1, 0.7) if count > 1 else []
            found |= {key: alone[near[0]]} if near else {}
        return found

    def _bin(self, number: int) -> tuple[int, int, NDArray[np.int64]]:
        """Return where a bin begins among the keys, where it ends, and its counts."""
        if number <= len(self.tables):
            return int(self.bounds[number - 1]), int(self.bounds[number]), self.tables[number - 1]
        return 0, 0, np.ones(1, dtype=np.int64)

    def _range(self, start: int, stop: int) -> tuple[int, int]:
        """Return the least number of a bin, and how many it spans; 0 where unseen values are not told by their place."""
        if self.text or stop >= len(self.keys) or start == stop:
            return 0, 0
        span = int(self.keys[stop]) - int(self.keys[start])
        return int(self.keys[start]), span if span <= WIDEST else 0

    def put(self, writer: SymbolWriter, keys: Any, bins: Keys, inside: Keys) -> tuple[list[Any], list[Any]]:
        """Write the places of values in bins that were written.

        Returns
        -------
        list, list
            The values that have no place; and of bins with many values that fit did not see, the bin, how often such values
            come, and those that come again: ``[bin, n, [[value, count], ...]]``.
        """
        rest, news = [], []
        for number in np.unique(bins[bins > 0]).tolist():
            rows = np.flatnonzero(bins == number)
            start, stop, counts = self._bin(number)
            last = len(counts) - 1
            places = inside[rows]
            new = places == last
            unseen = keys[rows[new]]
            first, span = self._range(start, stop)
            inner = np.array([span > 0 and first <= key < first + span for key in unseen], dtype=bool)
            listed = _listed(places, counts, unseen, inner, span)
            if listed is not None:
                news.append([number, len(unseen), listed])
                _put_flags(writer, new)
                if last > 1 and not new.all():
                    writer.put_all(places[~new], counts[:-1])
                names = {value: i for i, (value, _) in enumerate(listed)}
                which = np.array([names.get(value, len(names)) for value in unseen.tolist()])
                table = _with_others(listed, len(unseen))
                if len(table) > 1:
                    writer.put_all(which, table)
                others = which == len(names)
                unseen, inner = unseen[others], inner[others]
            elif last > 0:
                writer.put_all(places, counts)
            if span > 1 and len(unseen):
                writer.put_all(inner, 2)
                writer.put_all(unseen[inner].astype(np.int64) - first, span)
                unseen = unseen[~inner]
            rest += unseen.tolist()
        return rest, news

    def get(self, reader: SymbolReader, bins: Keys, rest: Iterator[Any], news: dict[int, Any]) -> Any:
        """Read values whose bins are known; ``rest`` and ``news``, by bin, are what :meth:`put` returned."""
        keys: Any = np.full(len(bins), None, dtype=object) if self.text else np.zeros(len(bins), dtype=np.int64)
        known = np.array(self.keys, dtype=object) if self.text else self.keys
        for number in np.unique(bins[bins > 0]).tolist():
            rows = np.flatnonzero(bins == number)
            start, stop, counts = self._bin(number)
            last = len(counts) - 1
            inside = np.zeros(len(rows), dtype=np.int64)
            if number in news:
                n, listed = self._checked(news[number], len(rows))
                new = _get_flags(reader, len(rows), n)
                if last > 1 and not new.all():
                    inside[~new] = reader.get_all(int((~new).sum()), counts[:-1])
                inside[new] = last
                table = _with_others(listed, n)
                which = reader.get_all(n, table) if len(table) > 1 else np.zeros(n, dtype=np.int64)
                unseen, named = rows[new], which < len(listed)
                for row, place in zip(unseen[named].tolist(), which[named].tolist(), strict=True):
                    keys[row] = listed[place][0]
                unseen = unseen[~named]
            else:
                inside = reader.get_all(len(rows), counts) if last > 0 else inside
                unseen = rows[inside == last]
            seen = inside < last
            keys[rows[seen]] = known[start + inside[seen]]
            first, span = self._range(start, stop)
            if span > 1 and len(unseen):
                inner = reader.get_all(len(unseen), 2) == 1
                keys[unseen[inner]] = first + reader.get_all(int(inner.sum()), span)
                unseen = unseen[~inner]
            for row in unseen:
                keys[row] = self._given(next(rest, None))
        return keys

    def _checked(self, found: Any, most: int) -> tuple[int, list[tuple[Any, int]]]:
        """Return how many values are new in a bin, and those that come again with their counts."""
        try:
            n, listed = operator.index(found[0]), [(self._given(v), operator.index(c)) for v, c in found[1]]
        except (TypeError, ValueError, IndexError):
            raise MalformedError(f"new values of column {self.name!r} are no list") from None
        if not 0 < n <= most or any(c < 1 for _, c in listed) or sum(c for _, c in listed) > n:
            raise MalformedError(f"new values of column {self.name!r} are too many or too few")
        return n, listed

    def _given(self, value: Any) -> Any:
        try:
            if self.text:
                json.loads(value)
                return str(value)
            return np.int64(operator.index(value))
        except (TypeError, ValueError, OverflowError):
            raise MalformedError(f"a value of column {self.name!r} is not there, or is none") from None


def _listed(places: Keys, counts: Keys, unseen: Any, inner: NDArray[np.bool_], span: int) -> list[list[Any]] | None:
    """Return the new values of a bin that come again, with their counts, if a list of them is shorter than the way without."""
    n, m, last, total = len(unseen), len(places), len(counts) - 1, int(counts.sum())
    if not n:
        return None
    values = unseen.tolist()
    tails = [math.log2(2 * span) if i else TEXT * len(json.dumps(v)) for v, i in zip(values, inner, strict=True)]
    told, plain = Counter(values), dict(zip(values, tails, strict=True))
    again = sorted(
        (v for v, c in told.items() if c > 1 and c * plain[v] > LISTING + TEXT * len(json.dumps(v))), key=str
    )
    listed = [[v, told[v]] for v in again]
    table = _with_others(listed, n)
    without = sum(tails) + (
        n * math.log2(total / counts[last]) + (m - n) * math.log2(total / max(1, total - counts[last]))
    )
    kept = sum(told[v] for v in again)
    with_it = _entropy([n, m - n]) + _entropy(table) + sum(tails) - sum(told[v] * plain[v] for v in again)
    with_it += LISTING + sum(LISTING + TEXT * len(json.dumps(v)) for v in again)
    return listed if with_it < without and (kept or n > 1) else None


def _entropy(counts: Any) -> float:
    """Return what symbols that come so often cost, in bits."""
    total = sum(counts)
    return float(sum(c * math.log2(total / c) for c in counts if c))


def _with_others(listed: Any, n: int) -> Keys:
    """Return the counts of listed values, and of all others where there are any."""
    counts = [int(c) for _, c in listed]
    return np.array([*counts, n - sum(counts)] if n > sum(counts) else counts, dtype=np.int64)


def _put_flags(writer: SymbolWriter, flags: NDArray[np.bool_]) -> None:
    n = int(flags.sum())
    if n < len(flags):
        writer.put_all(flags, np.array([len(flags) - n, n]))


def _get_flags(reader: SymbolReader, length: int, n: int) -> NDArray[np.bool_]:
    if n == length:
        return np.ones(length, dtype=bool)
    flags: NDArray[np.bool_] = reader.get_all(length, np.array([length - n, n])) == 1
    if int(flags.sum()) != n:
        raise MalformedError("values are new in more or fewer rows than it says")
    return flags
