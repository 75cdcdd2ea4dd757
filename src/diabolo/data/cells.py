"""Cells of frames as numbers, and numbers as cells of the same type."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray

from diabolo.data.spelling import MISSING
from diabolo.notices import warn
from diabolo.records import Column

__all__ = [
    "DAY",
    "Type",
    "UnseenCategoryWarning",
    "floats",
    "is_gone",
    "read_cells",
    "restored",
    "seconds_of",
    "write_cells",
]

Array = NDArray[Any]
UNITS = {"ns": 10**9, "us": 10**6, "ms": 10**3, "s": 1}
DAY = 86_400  # seconds
PERCENT = re.compile(r"[-+]?\d+(?:\.(\d+))? ?%")


class UnseenCategoryWarning(UserWarning):
    """A column has categories that were not there in fit; their cells are taken for missing ones."""


@dataclass(frozen=True)
class Type:
    """How a column is written in the user's frame.

    Attributes
    ----------
    name : str
        Of the type, as narwhals calls it: ``"Int64"``, ``"String"``, ``"Datetime"`` ...
    unit, zone : str
        Of times.
    levels : tuple
        All categories of a categorical type, also those that no row has.
    native : str
        What pandas or pyarrow call the type.
    places : int
        Of percentages that are written as text: digits after the point; -1 for all else.
    """

    name: str
    unit: str = ""
    zone: str = ""
    levels: tuple[Any, ...] = ()
    native: str = ""
    places: int = -1

    @classmethod
    def of(cls, series: Any) -> Type:
        """Read the type of a column."""
        dtype = series.dtype
        levels: tuple[Any, ...] = ()
        if dtype in (nw.Categorical, nw.Enum):
            levels = tuple(series.cat.get_categories().to_list())
        native = ""
        if series.implementation.is_pandas():
            native = str(series.to_native().dtype)
        elif series.implementation.is_pyarrow():
            native = str(series.to_native().type)
        return cls(
            type(dtype).__name__ if not isinstance(dtype, type) else dtype.__name__,
            str(getattr(dtype, "time_unit", "") or ""),
            str(getattr(dtype, "time_zone", "") or ""),
            levels,
            native,
        )

    @property
    def dtype(self) -> Any:
        """The type as narwhals knows it."""
        if self.name == "Datetime":
            return nw.Datetime(self.unit or "us", self.zone or None)  # type: ignore[arg-type]
        if self.name == "Duration":
            return nw.Duration(self.unit or "us")  # type: ignore[arg-type]
        if self.name == "Enum":
            return nw.Enum(list(self.levels))
        return getattr(nw, self.name)


def is_percentage(value: Any) -> bool:
    """Tell whether a cell is text such as ``12.5 %``."""
    return isinstance(value, str) and PERCENT.fullmatch(value.strip()) is not None


def number_of(value: Any) -> float:
    """Return a number, or the number before a percent sign."""
    return float(value.strip().rstrip("%")) if isinstance(value, str) else float(value)


def is_gone(value: Any) -> bool:
    """Tell whether a cell of any type is missing."""
    if value is None:
        return True
    if isinstance(value, str):
        return value.strip().lower() in MISSING
    return isinstance(value, float) and math.isnan(value)


# cells as numbers ---------------------------------------------------------------------------------------------------------------


def floats(series: Any) -> NDArray[np.float64]:
    """Return a column of numbers or booleans as float64, NaN where a cell is missing."""
    if series.dtype == nw.Boolean or series.dtype in (nw.Decimal, nw.Int128, nw.UInt128) or not series.dtype.is_float():
        series = series.cast(nw.Float64)
    values = np.array(series.to_numpy(), dtype=np.float64)
    values[series.is_null().to_numpy().astype(bool)] = np.nan
    return values


def seconds_of(series: Any) -> NDArray[np.float64]:
    """Return dates as seconds since 1970, durations as seconds."""
    dtype = series.dtype
    gone = series.is_null().to_numpy().astype(bool)
    if dtype == nw.Date:
        series = series.cast(nw.Datetime("us"))
        dtype = series.dtype
    elif dtype == nw.Datetime and dtype.time_zone is not None:
        series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    kind = "m8" if dtype == nw.Duration else "M8"
    values = np.asarray(series.to_numpy()).astype(f"{kind}[us]").astype(np.int64) / 1e6
    values[gone] = np.nan
    return values


def read_cells(column: Column, series: Any) -> NDArray[np.float64]:
    """Return the cells of a narwhals column as the numbers that the column they belong to is held in, -inf for unseen labels.

    Raises
    ------
    ValueError
        When the cells are of another kind than in fit.
    """
    dtype = series.dtype
    if series.is_null().all():
        return np.full(len(series), np.nan)
    if column.kind == "date":
        if dtype not in (nw.Datetime, nw.Date, nw.Duration):
            raise ValueError(f"column {column.name!r} holds {dtype}; it held dates in fit")
        return seconds_of(series)
    if column.kind in ("number", "count") or (column.kind == "boolean" and not column.categories):
        return _numbers(column, series)
    cells = series.to_list()
    place: dict[Any, float] = {label: float(i) for i, label in enumerate(column.categories)}
    rest = float(len(column.categories) - 1) if column.rest else math.nan
    try:
        codes = np.array([place.get(v, math.inf) for v in cells])
    except TypeError:
        raise ValueError(f"column {column.name!r} holds lists or other cells that are no labels") from None
    unknown = np.flatnonzero(np.isinf(codes))
    unseen: dict[str, None] = {}
    for i in unknown:
        gone = is_gone(cells[i])
        codes[i] = math.nan if gone else rest
        if not gone and not column.rest:
            unseen[repr(cells[i])] = None
            codes[i] = -math.inf
    if unseen:
        warn(
            f"column {column.name!r} has {', '.join(list(unseen)[:5])}, not seen in fit; such cells are taken for missing ones",
            UnseenCategoryWarning,
        )
    return codes


def _numbers(column: Column, series: Any) -> NDArray[np.float64]:
    dtype = series.dtype
    if dtype.is_numeric() or dtype == nw.Boolean:
        values = floats(series)
    else:
        cells = series.to_list()
        wrong = next((v for v in cells if not (is_gone(v) or isinstance(v, int | float) or is_percentage(v))), None)
        if wrong is not None:
            raise ValueError(f"column {column.name!r} has {str(wrong)[:40]!r}; it held numbers in fit")
        values = np.array([math.nan if is_gone(v) else number_of(v) for v in cells])
    if column.kind == "boolean":
        odd = ~(np.isnan(values) | (values == 0) | (values == 1))
        if odd.any():
            row = int(np.flatnonzero(odd)[0])
            raise ValueError(f"column {column.name!r} has {values[row]:g} in row {row}; it held 0 and 1 only in fit")
    if column.kind == "count":
        odd = ~np.isnan(values) & ((values < 0) | (values != np.rint(values)))
        if odd.any():
            row = int(np.flatnonzero(odd)[0])
            raise ValueError(
                f"column {column.name!r} has {values[row]:g} in row {row}; expected counts, 0, 1, 2 and so on"
            )
    return values


# numbers as cells ---------------------------------------------------------------------------------------------------------------


def write_cells(column: Column, kind: Type, values: Array, container: Any) -> Any:
    """Write numbers ``(n,)`` as a narwhals column of the type that it had; NaN is a missing cell."""
    gone = np.isnan(values)
    name = column.name
    if column.kind == "date":
        return _write_times(name, np.rint(values / DAY) * DAY if column.whole else values, gone, kind, container)
    if column.kind in ("number", "count"):
        return _write_numbers(name, np.rint(values) if column.whole else values, gone, kind, container)
    if column.kind == "boolean" and not column.categories:
        return _write_numbers(name, (values >= 0.5).astype(float), gone, kind, container)
    codes = np.where(gone, 0, np.clip(np.rint(values), 0, len(column.categories) - 1)).astype(np.intp)
    labels = np.empty(len(column.categories), dtype=object)
    labels[:] = column.categories
    cells = labels[codes]
    cells[gone] = None
    return _write_labels(name, cells, kind, container)


def restored(name: str, cells: Any, kind: Type, container: Any, gone: NDArray[np.bool_] | None = None) -> Any:
    """Write cells as a narwhals column of the very type that they had, with nothing rounded.

    Parameters
    ----------
    name : str
        Of the column.
    cells : list or ndarray
        Labels and None; or numbers, those of times in units of the type, of days in microseconds.
    kind : Type
        Of the column.
    container : str
        The library.
    gone : ndarray of bool, optional
        Which numbers are missing.
    """
    if gone is None:
        labels = np.empty(len(cells), dtype=object)
        labels[:] = cells
        return _write_labels(name, labels, kind, container)
    if kind.name in ("Date", "Datetime", "Duration"):
        unit = "us" if kind.name == "Date" else kind.unit or "us"
        times = np.asarray(cells, dtype=np.int64).astype(f"{'m' if kind.name == 'Duration' else 'M'}8[{unit}]")
        times[gone] = np.timedelta64("NaT") if kind.name == "Duration" else np.datetime64("NaT")
        series = nw.new_series(name, times, None, backend=container)
        if kind.zone:
            series = series.dt.replace_time_zone("UTC").dt.convert_time_zone(kind.zone)
        return _finish(series, kind) if container == "pandas" else series.cast(kind.dtype)
    if not gone.any():
        return _finish(nw.new_series(name, np.asarray(cells), kind.dtype, backend=container), kind)
    plain = [None if g else v for v, g in zip(np.asarray(cells).tolist(), gone, strict=True)]
    if kind.name == "Boolean":
        plain = [None if v is None else bool(v) for v in plain]
    if container == "pandas":  # a column of floats is no way for whole numbers
        import pandas as pd

        return nw.from_native(pd.Series(plain, dtype=kind.native or object, name=name), series_only=True)
    return _finish(nw.new_series(name, plain, kind.dtype, backend=container), kind)


def _finish(series: Any, kind: Type) -> Any:
    """Give a column of pandas or pyarrow the very type that it had, where its cells allow."""
    if series.implementation.is_pyarrow():
        return _finish_arrow(series, kind)
    if not kind.native or not series.implementation.is_pandas():
        return series
    native = series.to_native()
    if str(native.dtype) == kind.native:
        return series
    try:
        return nw.from_native(native.astype(kind.native), series_only=True)
    except (TypeError, ValueError):  # whole numbers with missing cells
        return series


def _finish_arrow(series: Any, kind: Type) -> Any:
    import pyarrow as pa

    native = series.to_native()
    if str(native.type) == kind.native:
        return series
    listed = re.fullmatch(r"dictionary<values=(\w+), indices=(\w+), ordered=([01])>", kind.native)
    if listed is not None:
        values, indices, ordered = listed.groups()
        target = pa.dictionary(pa.type_for_alias(indices), pa.type_for_alias(values), ordered == "1")
        codes = {label: i for i, label in enumerate(kind.levels)}
        places = pa.array([codes.get(v) for v in native.to_pylist()], pa.type_for_alias(indices))
        levels = pa.array(list(kind.levels), pa.type_for_alias(values))
        whole = pa.DictionaryArray.from_arrays(places, levels, ordered=ordered == "1").cast(target)
        return nw.from_native(pa.chunked_array([whole]), series_only=True).alias(series.name)
    try:
        return nw.from_native(native.cast(pa.type_for_alias(kind.native)), series_only=True).alias(series.name)
    except ValueError:  # a type without a short name, which narwhals has set
        return series


def _write_numbers(name: str, values: Array, gone: Array, kind: Type, container: Any) -> Any:
    if kind.places >= 0:
        texts = [None if g else f"{v:.{kind.places}f}%" for v, g in zip(values, gone, strict=True)]
        return _finish(
            nw.new_series(name, texts, None if container == "pandas" else nw.String, backend=container), kind
        )
    if kind.name == "Boolean":
        cells: list[Any] = [None if g else bool(v) for v, g in zip(values, gone, strict=True)]
        return _finish(
            nw.new_series(name, cells, nw.Boolean if container != "pandas" else None, backend=container), kind
        )
    if kind.name == "Object":
        whole = bool((values[~gone] == np.rint(values[~gone])).all())
        cells = [None if g else (int(v) if whole else float(v)) for v, g in zip(values, gone, strict=True)]
        return _finish(nw.new_series(name, cells, None, backend=container), kind)
    dtype = kind.dtype
    if dtype.is_integer():
        low, high = (0 if dtype.is_unsigned_integer() else -(2**63), 2**63)
        bits = int("".join(filter(str.isdigit, kind.name)) or 64)
        high = min(high, 2 ** (bits - (0 if dtype.is_unsigned_integer() else 1)) - 1)
        low = max(low, -(2 ** (bits - 1))) if low else 0
        values = np.clip(values, low, high)
        if gone.any():
            cells = [None if g else int(v) for v, g in zip(values, gone, strict=True)]
            if container == "pandas":
                return _finish(nw.new_series(name, np.where(gone, np.nan, values), nw.Float64, backend=container), kind)
            return nw.new_series(name, cells, dtype, backend=container)
        return _finish(nw.new_series(name, values.astype(np.int64), dtype, backend=container), kind)
    series = nw.new_series(name, np.ascontiguousarray(values, dtype=np.float64), nw.Float64, backend=container)
    if container != "pandas":
        if gone.any():
            series = nw.new_series(
                name,
                [None if g else float(v) for v, g in zip(values, gone, strict=True)],
                nw.Float64,
                backend=container,
            )
        return series.cast(dtype) if dtype != nw.Float64 else series
    return _finish(series, kind)


def _write_times(name: str, values: Array, gone: Array, kind: Type, container: Any) -> Any:
    duration = kind.name == "Duration"
    step = float(DAY) if kind.name == "Date" else 1.0 / min(UNITS.get(kind.unit, 10**6), 10**6)
    ticks = np.rint(np.where(gone, 0.0, values) / step) * step
    cells = np.rint(ticks * 1e6).astype(np.int64).astype("m8[us]" if duration else "M8[us]")
    cells[gone] = np.timedelta64("NaT") if duration else np.datetime64("NaT")
    listed = [None if g else v for v, g in zip(cells.tolist(), gone, strict=True)]
    series = nw.new_series(name, listed, nw.Duration("us") if duration else nw.Datetime("us"), backend=container)
    if kind.zone:
        series = series.dt.replace_time_zone("UTC").dt.convert_time_zone(kind.zone)
    if container == "pandas":
        return _finish(series, kind)
    return series.cast(kind.dtype)


def _write_labels(name: str, cells: Array, kind: Type, container: Any) -> Any:
    listed = cells.tolist()
    if container == "pandas":
        if kind.name in ("Categorical", "Enum"):
            import pandas as pd

            native = pd.Series(
                pd.Categorical(listed, categories=list(kind.levels), ordered=kind.name == "Enum"), name=name
            )
            return nw.from_native(native, series_only=True)
        return _finish(nw.new_series(name, listed, None, backend=container), kind)
    if kind.name in ("Categorical", "Enum"):
        series = nw.new_series(name, listed, nw.String, backend=container)
        return _finish(series, kind) if container == "pyarrow" else series.cast(kind.dtype)
    return _finish(nw.new_series(name, listed, kind.dtype, backend=container), kind)
