"""Data files -> rows for a model."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray

from diabolo.checks import did_you_mean
from diabolo.cli.models import autoencoder_of
from diabolo.cli.tables import read_csv
from diabolo.data.raw import fill_masked
from diabolo.launch import launched

__all__ = ["ARROW_ADVICE", "Data", "frame_library", "read_data", "say", "to_array"]
__all__ += ["to_columns"]

ARROW_ADVICE = "Parquet files need pyarrow: pip install 'diabolo[arrow]'"
FrameLibrary = Literal["polars", "pandas", "pyarrow"]
FRAMES: tuple[FrameLibrary, ...] = ("polars", "pandas", "pyarrow")


def say(text: str) -> None:
    """Tell the user something that is no result, on standard error; of several processes that train one model only one does."""
    if launched()[0] == 0:
        print(text, file=sys.stderr)


@dataclass(frozen=True)
class Data:
    """Rows of a file: a table of columns, or an array.

    Attributes
    ----------
    source : str
        Name of the file.
    columns : dict of str to ndarray
        A table; empty for an array.
    named : bool
        Whether the file names the columns.
    array : ndarray or None
        Rows ``(n, features)``, or images ``(n, height, width)`` or ``(n, channels, height, width)``.
    labels : ndarray or None
        One label for each row, where asked for.
    """

    source: str
    columns: dict[str, NDArray[Any]]
    named: bool = False
    array: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.array if self.array is not None else next(iter(self.columns.values()), ()))

    @property
    def table_shape(self) -> tuple[int, int] | None:
        """Rows and columns; ``None`` for images."""
        if self.array is None:
            return len(self), len(self.columns)
        return (len(self.array), self.array.shape[1]) if self.array.ndim == 2 else None

    @property
    def mixed(self) -> bool:
        """Whether some columns are of other kinds than numbers."""
        return any(column.dtype.kind not in "iuf" for column in self.columns.values())

    def known_labels(self) -> NDArray[Any] | None:
        """Return the labels, ``None`` standing for an empty cell of text."""
        if self.labels is None or self.labels.dtype != object:
            return self.labels
        known = self.labels.copy()
        known[known == ""] = None
        return known

    def text_columns(self) -> list[str]:
        """Names of the columns that hold text or dates."""
        return [name for name, values in self.columns.items() if values.dtype.kind in "OM"]

    def without(self, names: Sequence[str]) -> Data:
        """Leave out columns by name."""
        if names and self.array is not None:
            raise ValueError(f"{self.source} has no column names; --exclude works on CSV and Parquet")
        for name in names:
            if name not in self.columns:
                raise ValueError(
                    f"{self.source} has no column {name!r}.{did_you_mean(name, self.columns)} "
                    f"It has: {_listed(self.columns)}."
                )
        kept = {k: v for k, v in self.columns.items() if k not in names}
        if names and not kept:
            raise ValueError(f"--exclude leaves no column of {self.source}")
        return dataclasses.replace(self, columns=kept)

    def for_fit(self, kind: str = "auto") -> Any:
        """Return a frame where there are names and a frame library, else an array; series are always an array."""
        if self.array is not None:
            return self.array
        if kind == "series" or frame_library() is None:
            self._refuse_text(list(self.columns))
        if kind == "series":
            return _stack(self.columns)
        if self.named and "column_1" in self.columns:
            say("note: the first column has no name; if it numbers the rows, leave it out with --exclude column_1")
        return self._table(list(self.columns))

    def for_model(self, model: Any) -> Any:
        """Return the rows in the columns and the order that a fitted model knows."""
        names = [str(name) for name in getattr(model, "feature_names_in_", ())]
        order = [name for name in (getattr(model, "time", None), getattr(model, "series", None)) if name is not None]
        names += [name for name in order if name not in names]
        if self.array is not None:
            plain = not names or self.array.ndim != 2 or self.array.shape[1] != len(names)
            return self.array if plain else _frame(dict(zip(names, self.array.T, strict=True)))
        if not names:
            self._refuse_text(list(self.columns))
            return _stack(self.columns)
        if not self.named and len(names) == len(self.columns):
            renamed = dict(zip(names, self.columns.values(), strict=True))
            return dataclasses.replace(self, columns=renamed, named=True).for_model(model)
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise ValueError(
                f"{self.source} lacks {len(missing)} of the {len(names)} columns that the model was fitted on: "
                f"{_listed(missing)}. It has: {_listed(self.columns)}."
            )
        extra = [name for name in self.columns if name not in names]
        if extra:
            say(f"note: left out columns that the model was not fitted on: {_listed(extra)}")
        if (autoencoder_of(model).codec_.given is None and not order) or frame_library() is None:
            self._refuse_text(names)
        return self._table(names)

    def _table(self, names: list[str]) -> Any:
        columns = {name: self.columns[name] for name in names}
        plain = not self.named and not any(values.dtype.kind in "OM" for values in columns.values())
        return _stack(columns) if plain else _frame(columns)

    def _refuse_text(self, names: list[str]) -> None:
        text = [name for name in self.text_columns() if name in names]
        if text:
            examples = ", ".join(f"{name!r} (such as {_first(self.columns[name])!r})" for name in text[:8])
            more = f" and {len(text) - 8} more" if len(text) > 8 else ""
            library = " (to model them, install a frame library: pip install polars)" if frame_library() is None else ""
            raise ValueError(
                f"{self.source} has {len(text)} column(s) that are not numbers: {examples}{more}. Leave them out with --exclude "
                f"{_quoted(','.join(text))}, or encode them as numbers first{library}."
            )


def _first(values: NDArray[Any]) -> str:
    return next((str(v) for v in values if v), "")[:40]


def _quoted(text: str) -> str:
    return f'"{text}"' if " " in text else text


def _listed(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def frame_library() -> FrameLibrary | None:
    """Return the first frame library that is installed, if any."""
    return next((name for name in FRAMES if importlib.util.find_spec(name) is not None), None)


def _stack(columns: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """Put columns of numbers side by side."""
    return np.column_stack([fill_masked(values) for values in columns.values()])


def _frame(columns: dict[str, NDArray[Any]]) -> Any:
    """Build a frame, so that the model learns the names; without a frame library, a plain array."""
    backend = frame_library()
    if backend is None:
        return _stack(columns)
    types: dict[str, Any] = {}
    for name, values in columns.items():
        if values.dtype == object or isinstance(values, np.ma.MaskedArray):
            types[name] = nw.String if values.dtype == object else nw.Boolean
    cells = {
        name: [None if v in ("", None) else v for v in values.tolist()] if name in types else values
        for name, values in columns.items()
    }
    series = [nw.new_series(name, v, types.get(name), backend=backend) for name, v in cells.items()]
    return nw.DataFrame.from_dict({s.name: s for s in series}).to_native()


def to_columns(rows: Any) -> dict[str, NDArray[Any]]:
    """Return the columns of a frame as arrays, ``None`` for a missing cell of text."""
    frame = nw.from_native(rows, eager_only=True)
    return {str(name): np.asarray(frame.get_column(name).to_numpy()) for name in frame.columns}


def to_array(rows: Any) -> NDArray[Any]:
    """Return what a model handed back as an array."""
    if isinstance(rows, np.ndarray):
        return rows
    return np.asarray(nw.from_native(rows, eager_only=True).to_numpy())


def read_data(path: Path, *, key: str | None = None, exclude: str = "", labels: str | None = None) -> Data:
    """Read a data file by its suffix: CSV (any other suffix, and standard input), Parquet, NPY or NPZ.

    Parameters
    ----------
    path : Path
        The file.
    key : str, optional
        Which array of an NPZ file holds the rows.
    exclude : str
        Columns to leave out, separated by commas.
    labels : str, optional
        Column, or array of an NPZ file, that holds a label for each row; it stays among the columns of a table.

    Raises
    ------
    OSError
        When there is no such file.
    ValueError
        When the file holds no rows of numbers.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected a data file: CSV, Parquet, NPY or NPZ")
    suffix = path.suffix.lower()
    if key is not None and suffix != ".npz":
        raise ValueError(f"--key names an array of an NPZ file; {path} is none")
    names = [name.strip() for name in exclude.split(",") if name.strip()]
    if suffix in (".npy", ".npz"):
        data = _read_numpy(path, key, labels)
    elif suffix in (".parquet", ".pq"):
        data = Data(str(path), _read_parquet(path), named=True)
    else:
        columns, named = read_csv(path)
        data = Data(str(path), columns, named=named)
    if labels is not None and data.labels is None:
        if labels not in data.columns:
            near = did_you_mean(labels, data.columns)
            raise ValueError(
                f"{data.source} has no column {labels!r} for --labels.{near} It has: {_listed(data.columns)}."
            )
        data = dataclasses.replace(data, labels=data.columns[labels])
    return data.without(names)


def _read_numpy(path: Path, key: str | None, labels: str | None) -> Data:
    known: list[str] = []
    try:
        with path.open("rb") as file:  # numpy leaves the file open when it is damaged
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                arrays = {"": loaded}
            else:
                known = loaded.files
                arrays = {name: loaded[name] for name in known if key is None or name in (key, labels)}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as numbers: {error}") from None
    if "" in arrays:
        if labels is not None:
            raise ValueError(f"--labels needs a file with more than rows: CSV, Parquet or NPZ; {path} is one array")
        return Data(str(path), {}, array=_numeric(arrays[""], path))
    for name in (key, labels):
        if name is not None and name not in known:
            raise ValueError(f"{path} has no array {name!r}.{did_you_mean(name, known)} It has: {_listed(known)}.")
    rows = [name for name in arrays if name != labels] if key is None else [key]
    if len(rows) != 1:
        raise ValueError(f"{path} holds {len(rows)} arrays ({_listed(rows)}); choose one with --key")
    found = _numeric(arrays[rows[0]], path)
    marks = None if labels is None else arrays[labels]
    if marks is not None and marks.shape != (len(found),):
        raise ValueError(f"the labels {labels!r} have shape {marks.shape}; expected one for each of {len(found)} rows")
    return Data(str(path), {}, array=found, labels=marks)


def _numeric(array: NDArray[Any], path: Path) -> NDArray[Any]:
    if array.dtype.kind not in "buif":
        raise ValueError(f"{path} holds {array.dtype} values; expected numbers")
    if array.ndim < 2:
        raise ValueError(f"{path} holds an array of shape {array.shape}; expected rows (n, features) or images")
    return array


def _read_parquet(path: Path) -> dict[str, NDArray[Any]]:
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError(ARROW_ADVICE)
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from None
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            if column.null_count:
                column = column.cast(pa.float64())
            columns[name] = column.to_numpy()
        elif pa.types.is_decimal(kind):
            columns[name] = column.cast(pa.float64()).to_numpy()
        elif pa.types.is_date(kind) or pa.types.is_timestamp(kind):
            columns[name] = column.cast(pa.timestamp("us")).to_numpy()
        else:
            columns[name] = np.array([str(v) if v is not None else "" for v in column.to_pylist()], dtype=object)
    if not columns or not table.num_rows:
        raise ValueError(f"{path} has no rows of numbers")
    return columns
