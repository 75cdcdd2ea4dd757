"""Whatever the user has -> Raw rows -> scaled tensors, and back to the user's kind of data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diabolo.data.columns import Columns
from diabolo.data.conditions import Conditions
from diabolo.data.images import read_images, stack_images
from diabolo.data.profile import Profile, Sample
from diabolo.data.raw import Raw, all_finite, fill_masked, is_wide, refuse_infinity, refuse_uncountable
from diabolo.data.scaling import Scaling, choose_scale, fit_quantiles, fit_scaling
from diabolo.data.series import is_ragged, read_series, write_series
from diabolo.data.sparse import SparseRows, SparseTable, as_sparse, is_sparse
from diabolo.data.tables import is_frame, read_frame, write_frame
from diabolo.records import Column, Resident, Schema, Table

ENCODED = 2**14  # rows of a mixed table that become features at a time
KNOT_ROWS = 100_000  # rows that the knots of a quantile transform are learned from at most

__all__ = ["ArrayCodec", "read"]


def read(
    X: Any,
    kind: str = "auto",
    table: Columns | None = None,
    kinds: Mapping[str, str] | None = None,
    *,
    learn: bool = False,
) -> Raw | None:
    """Read a frame, a tensor, images, series, or an array of many dimensions; ``None`` for what is left to scikit-learn.

    Parameters
    ----------
    X : array, frame, tensor or list of arrays
        Rows.
    kind : {"auto", "vector", "image", "series"}
        What a row is; ``"auto"`` goes by the number of dimensions, and takes a list of arrays of unequal length for series.
    table, kinds, learn
        Of frames, see :func:`~diabolo.data.tables.read_frame`.

    Raises
    ------
    ValueError
        For text columns where they are not expected, infinities, complex numbers, or rows that are not of this kind.
    TypeError
        For a lazy frame.
    """
    if kind == "series" or (kind == "auto" and is_ragged(X)):
        series = read_series(X)
        refuse_infinity(series)
        return series
    raw = _read_rows(X, table, kinds, learn)
    found = "vector" if raw is None else raw.kind
    if kind == "image" and found != kind:
        raise ValueError(
            "kind='image' expects images (n, height, width) or (n, channels, height, width), got rows of numbers; reshape X"
        )
    if kind == "vector" and found != kind:
        raise ValueError(
            "kind='vector' expects rows of numbers (n, features), got images; make each a row with X.reshape(len(X), -1)"
        )
    return raw


def _read_rows(X: Any, table: Columns | None, kinds: Mapping[str, str] | None, learn: bool) -> Raw | None:
    """Read rows of numbers, or images."""
    if is_sparse(X):
        raw = Raw(SparseRows(X), "vector", "numpy")  # type: ignore[arg-type]  # it looks like an array
        refuse_infinity(raw)
        return raw
    stack = stack_images(X)
    X = X if stack is None else stack
    masked = isinstance(X, np.ma.MaskedArray)
    X = fill_masked(X)
    if isinstance(X, torch.Tensor):
        if X.is_complex():
            raise ValueError("Complex data not supported")
        X = X.float() if X.dtype == torch.bfloat16 else X  # numpy has no such type
        values, container = X.detach().cpu().numpy(), "torch"
    elif is_frame(X):
        raw = read_frame(X, table, kinds, learn=learn)
        refuse_infinity(raw)
        return raw
    elif isinstance(X, np.ndarray) and (X.ndim > 2 or masked):
        values, container = X, "numpy"
    else:
        return None
    if values.dtype.kind == "c":
        raise ValueError("Complex data not supported")
    if values.ndim < 2:
        raise ValueError(f"Expected 2D array, got a tensor of shape {tuple(values.shape)}. Reshape your data.")
    raw = Raw(values, "vector", container) if values.ndim == 2 else read_images(values, container)
    refuse_infinity(raw)
    return raw


class ArrayCodec:
    """Scales rows of numbers, images and series into a :class:`~diabolo.records.Table`, and scaled values back.

    Attributes
    ----------
    schema : Schema
        What was learned of the data.
    scaling : Scaling
        How features are scaled.
    container : str
        The kind of data given to ``fit``; codes and samples come back in this kind.
    drop_channel : bool
        Whether images came as ``(n, height, width)``, or series as ``(n, steps)``.
    wide : bool
        Whether the rows of ``fit`` had numbers that need float64.
    conditions : Conditions or None
        What the model is told beside each row.
    table : Columns or None
        What the columns of a mixed table are.
    given : Columns or None
        The same with those that are a condition, as they stand in the user's frames.
    """

    def __init__(
        self,
        schema: Schema,
        scaling: Scaling,
        container: str,
        drop_channel: bool,
        wide: bool = False,
        conditions: Conditions | None = None,
        table: Columns | None = None,
        given: Columns | None = None,
    ):
        self.schema, self.scaling, self.container, self.drop_channel = schema, scaling, container, drop_channel
        self.wide, self.conditions, self.table = wide, conditions, table
        self.given = table if given is None else given

    @classmethod
    def fit(cls, raw: Raw, scale: str | None) -> ArrayCodec:
        """Learn schema and scaling.

        Parameters
        ----------
        raw : Raw
            The rows.
        scale : {"auto", "standard", "minmax", "quantile", "unit", "amounts"} or None
            As the estimators' parameter of this name; ``"unit"`` is ``None`` where all values lie in [0, 1] and
            ``"minmax"`` elsewhere, ``"amounts"`` is ``None`` for tables of values of at least 0 and ``"auto"`` elsewhere.
        """
        return cls.learn([raw], scale)

    @classmethod
    def learn(cls, raws: Iterable[Raw], scale: str | None) -> ArrayCodec:
        """Learn schema and scaling from rows in parts, of which each is looked at once.

        With ``scale="quantile"`` the knots of several parts are those of 100,000 rows of them, drawn at random.
        """
        parts = iter(raws)
        raw = next(parts)
        values = raw.values
        if raw.table is not None:
            return cls._learn_mixed([raw, *parts], scale)
        if values.shape[0] == 0:
            raise ValueError(f"Found array with 0 sample(s) (shape={values.shape}) while a minimum of 1 is required.")
        if values[0].size == 0:
            raise ValueError(f"Found array with 0 feature(s) (shape={values.shape}) while a minimum of 1 is required.")
        if scale == "quantile" and raw.kind != "vector":
            what = "images" if raw.kind == "image" else "series"
            raise ValueError(f"scale='quantile' is for tables; use 'auto', 'standard', 'minmax' or None for {what}")
        profile = Profile(raw, moments=scale in ("auto", "standard", "amounts"))
        profile.add(values)
        sample, wide = Sample(values, KNOT_ROWS) if scale == "quantile" else None, is_wide(values)
        for part in parts:
            profile.add(part.values)
            wide |= is_wide(part.values)
            if sample is not None:
                sample.add(part.values)
        names = raw.columns or tuple(str(j) for j in range(len(profile.low)))
        what = "column" if raw.kind == "vector" else "channel"
        never = np.flatnonzero(~profile.seen)
        if len(never):
            listed = ", ".join(repr(names[j]) for j in never[:8])
            raise ValueError(f"{len(never)} {what}(s) have no observed value: {listed}. Drop them before fit.")
        low, high, unit, binary = profile.low, profile.high, profile.unit, profile.unit and profile.binary
        how = scale if scale is not None else "none"
        if how == "amounts":
            how = "none" if raw.kind == "vector" and low.min() >= 0 else "auto"
        if how == "auto":
            how = choose_scale(low, high, binary=binary, image=raw.kind == "image", series=raw.kind == "series")
        elif how == "unit":
            how = "none" if unit else "minmax"
        try:
            if sample is not None:
                scaling = fit_quantiles(sample.rows().astype(np.float64, copy=False))
            else:
                scaling = fit_scaling(profile, how, one_range=raw.kind == "image")
        except OverflowError as error:
            j = int(error.args[0])
            name = f"column {names[j]!r}" if raw.kind == "vector" else f"channel {j}"
            instead = ", take its logarithm, or use scale='quantile'" if raw.kind == "vector" else " before fit"
            largest = max(abs(float(t.ravel()[j])) for t in profile.ranges())
            raise ValueError(
                f"{name} has values as large as {largest:.3g}, too large to scale; rescale it{instead}"
            ) from None
        support = "real"
        if how == "minmax" or (how == "none" and unit):
            support = "binary" if binary else "unit"
        columns: tuple[Column, ...] = ()
        if raw.kind == "vector":
            columns = tuple(Column(n, float(a), float(b)) for n, a, b in zip(names, low, high, strict=True))
        schema = Schema(
            raw.kind,
            tuple(values.shape[1:]),
            profile.n,
            support,
            columns,
            0 if raw.conditions is None else raw.conditions.width,
            shared_unit=how == "shared" or raw.kind == "image" or (raw.kind == "series" and values.shape[1] == 1),
        )
        return cls(schema, scaling, raw.container, raw.drop_channel, wide, raw.conditions)

    @classmethod
    def _learn_mixed(cls, raws: list[Raw], scale: str | None) -> ArrayCodec:
        """Learn a mixed table: numbers and dates are scaled, all other columns have a scale of their own."""
        raw = raws[0]
        table = raw.table
        if table is None:
            raise ValueError("expected rows of a mixed table")
        if scale == "log1p":
            raise ValueError(
                "likelihoods of counts are for data of nothing but counts; of this table say which columns hold them, such as "
                "columns={'visits': 'count'}"
            )
        n = sum(len(part.values) for part in raws)
        if n == 0:
            raise ValueError(
                f"Found array with 0 sample(s) (shape={raw.values.shape}) while a minimum of 1 is required."
            )
        scaling = Scaling("none", np.zeros(0), np.ones(0))
        if len(table.scaled):
            names = tuple(table.names[j] for j in table.scaled)
            numbers = [Raw(part.values[:, table.scaled], "vector", "numpy", names) for part in raws]
            how = (
                "standard" if scale in ("auto", "amounts") else scale
            )  # columns of several kinds are never in one unit
            scaling = cls.learn(numbers, how).scaling
        columns = table.columns
        context = 0 if raw.conditions is None else raw.conditions.width
        schema = Schema("vector", (table.width,), n, "real", columns, context)
        return cls(schema, scaling, raw.container, False, True, raw.conditions, table, raw.given_table)

    # between rows in the user's units and rows as the network sees them ---------------------------------------------------------

    def flat(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return rows ``(n, *shape)`` in the user's units: in a mixed table one number for each category, else ``values``."""
        return values if self.table is None else self.table.expand(values)

    def to_scale(self, flat: NDArray[Any], dtype: Any) -> NDArray[Any]:
        """Scale what :meth:`flat` returned."""
        if self.table is None:
            return self.scaling.forward(flat, dtype)
        out = np.array(flat, dtype=np.float64)
        places = self.table.starts[self.table.scaled]
        if len(places):
            out[:, places] = self.scaling.forward(out[:, places], np.float64)
        return out.astype(dtype, copy=False)

    def from_scale(self, scaled: NDArray[Any]) -> NDArray[Any]:
        """Return scaled rows in the user's units."""
        if self.table is None:
            return self.scaling.inverse(scaled)
        out = np.array(scaled, dtype=np.float64)
        places = self.table.starts[self.table.scaled]
        if len(places):
            out[:, places] = self.scaling.inverse(out[:, places])
        return out

    def by_column(self, elements: NDArray[Any]) -> NDArray[Any]:
        """Sum what belongs to the features of one column: ``(n, *shape)`` to the shape of the user's rows."""
        return elements if self.table is None else self.table.by_column(elements)

    def align(self, raw: Raw) -> Raw:
        """Bring series to the length of those seen in fit; rows of other kinds stay as they are.

        Raises
        ------
        ValueError
            When series are longer, have other channels, or came to a model of another kind.
        """
        if "series" not in (raw.kind, self.schema.kind):
            return raw
        if raw.kind != self.schema.kind:
            raise ValueError(f"X holds {raw.kind} rows; this model was fitted on rows of kind {self.schema.kind!r}")
        (channels, steps), (known, longest) = raw.values.shape[1:], self.schema.shape
        if channels != known:
            raise ValueError(f"the series have {channels} channel(s), expected {known} as seen in fit")
        if steps > longest:
            which = f" (series {int(raw.lengths.argmax())})" if raw.given != "array" and raw.lengths is not None else ""
            raise ValueError(
                f"X has series of {steps} steps{which}, longer than the longest seen in fit, {longest}. Cut them into windows "
                f"of at most {longest} steps."
            )
        if steps == longest:
            return raw
        values = np.full((len(raw.values), known, longest), np.nan, dtype=np.result_type(np.float32, raw.values.dtype))
        values[:, :, :steps] = raw.values
        return raw._replace(values=values)

    def table_of(self, raw: Raw) -> Resident:
        """Scale rows for training; sparse ones a batch at a time, when they are taken."""
        rows = as_sparse(raw.values)
        if rows is None:
            return self.encode(raw)
        if self.scaling.name == "log1p":
            refuse_uncountable(raw)
        return SparseTable(self, raw, rows)

    def encode(self, raw: Raw, dtype: torch.dtype = torch.float32, first: int = 0) -> Table:
        """Scale rows into tensors; missing cells become 0 with a mask of 0. Errors number rows from ``first``."""
        expected = self.schema.shape if self.table is None else (len(self.table.columns),)
        if raw.values.shape[1:] != expected:
            raise ValueError(f"X has rows of shape {raw.values.shape[1:]}, expected {expected} as seen in fit")
        kind = np.float64 if dtype == torch.float64 else np.float32
        if self.scaling.name == "log1p":
            refuse_uncountable(raw, first)
        if self.table is None:
            scaled = self.scaling.forward(raw.values, kind)
        else:  # a part at a time: features are many more numbers than cells, and float64 on the way
            scaled = np.empty((len(raw.values), self.table.width), dtype=kind)
            for start in range(0, len(scaled), ENCODED):
                part = slice(start, start + ENCODED)
                scaled[part] = self.to_scale(self.flat(raw.values[part]), kind)
        mask = None
        if self.scaling.quantiles is not None:
            refuse_infinity(raw, first)  # of which a quantile transform makes a number
        if not all_finite(scaled):
            refuse_infinity(raw, first)
            self._refuse_overflow(raw, scaled, first)
            missing = np.isnan(scaled)
            scaled = np.where(missing, scaled.dtype.type(0), scaled)
            mask = torch.from_numpy(~missing).to(dtype)
        return Table(self.schema, torch.from_numpy(scaled), mask, self.context(raw.condition, dtype))

    def context(self, condition: NDArray[np.float64] | None, dtype: torch.dtype) -> torch.Tensor | None:
        """Return the context ``(n, C)`` for codes of a condition, ``None`` for a model without one."""
        return None if self.conditions is None or condition is None else self.conditions.expand(condition, dtype)

    def _refuse_overflow(self, raw: Raw, scaled: NDArray[Any], first: int) -> None:
        """Raise where a value is too far from what fit saw to be a number once scaled."""
        if not np.isinf(scaled).any():
            return
        row, *position = (int(i) for i in np.argwhere(np.isinf(scaled))[0])
        feature = self.schema.feature(int(np.ravel_multi_index(tuple(position), self.schema.shape)))
        value = self.flat(raw.values)[(row, *position)]
        raise ValueError(
            f"{feature} has {value:.3g} in row {first + row}, too far from the values seen in fit to scale; clip it, or write "
            "NaN for a missing cell"
        )

    def decode(
        self,
        scaled: NDArray[Any],
        like: Raw | None = None,
        condition: NDArray[np.float64] | None = None,
        *,
        bound: bool = False,
    ) -> Any:
        """Return scaled rows in the user's units and kind of data.

        Parameters
        ----------
        scaled : ndarray of shape (n, *shape)
            Rows.
        like : Raw or None
            The input they belong to; ``None`` means as in fit.
        condition : ndarray of shape (n, k) or None
            Codes of their condition, whose columns are handed back too.
        bound : bool
            Whether numbers of a mixed table are brought into the range seen in fit.
        """
        told = self.conditions.columns(condition) if self.conditions is not None and condition is not None else None
        if self.table is not None:
            cells = np.empty((len(scaled), len(self.table.columns)))
            for start in range(0, len(scaled), ENCODED):
                part = slice(start, start + ENCODED)
                cells[part] = self.table.collapse(self.from_scale(scaled[part]))
            return self._write(self.table.bound(cells) if bound else cells, like, told)
        values = self.from_scale(scaled)
        if like is None:
            return self.present(values, self.container, columns=told)
        return self.present(values, like.container, like.index, like, told)

    def _write(self, values: NDArray[Any], like: Raw | None, told: NDArray[Any] | None) -> Any:
        """Write the columns of a mixed table as a frame."""
        if self.given is None:
            raise ValueError("expected a mixed table")
        if self.conditions is not None:
            values = self.conditions.insert(values, np.nan if told is None else told)
        container = self.container if like is None else like.container
        index, labels = (None, None) if like is None else (like.index, like.labels)
        return self.given.write(values, container, index, labels)

    def present(
        self,
        values: NDArray[Any],
        container: str,
        index: Any = None,
        like: Raw | None = None,
        columns: NDArray[np.float64] | None = None,
    ) -> Any:
        """Wrap an array ``(n, *shape)`` in the user's kind of data.

        Where columns of ``X`` are the condition, ``columns`` ``(n, k)`` stands in them, and 0 without it.
        """
        if self.conditions is not None:
            values = self.conditions.insert(values, 0.0 if columns is None else columns)
        if self.schema.kind == "series":
            return write_series(values, container, like, self.drop_channel if like is None else like.drop_channel)
        if self.drop_channel if like is None else like.drop_channel:
            values = values[:, 0]
        if container == "torch":
            return torch.from_numpy(np.ascontiguousarray(values))
        if container != "numpy" and self.schema.kind == "vector":
            labels = None if like is None else like.labels
            names = tuple(c.name for c in self.schema.columns)
            names = names if self.conditions is None else self.conditions.insert_names(names)
            return write_frame(values, names, container, index, labels)
        return values

    def log_volume(self, mask: NDArray[Any] | None, n: int) -> NDArray[np.float64]:
        """Sum over observed features of the log widths, for each row ``(n,)``."""
        if self.table is not None and mask is not None:
            mask = mask[:, self.table.scaled]
        width = self.scaling.log_volume()
        if self.table is None:
            width = np.broadcast_to(width, self.schema.shape)
        if mask is None:
            return np.full(n, width.sum())
        return np.asarray((mask * width).reshape(n, -1).sum(axis=1), dtype=np.float64)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; see ``arrays`` for the rest."""
        return {
            "codec": "array",
            "schema": self.schema.to_json(),
            "scale": self.scaling.name,
            "container": self.container,
            "drop_channel": self.drop_channel,
            "wide": self.wide,
            "conditions": None if self.conditions is None else self.conditions.to_json(),
            "table": None if self.table is None else self.table.to_json(),
            "given": None if self.given is self.table or self.given is None else self.given.whole_json(),
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the numbers that travel apart."""
        told = {} if self.conditions is None else {"condition.seen": self.conditions.seen}
        return {f"scaling.{k}": v for k, v in self.scaling.arrays().items()} | told

    @classmethod
    def from_json(cls, data: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> ArrayCodec:
        """Build a codec from ``to_json`` and ``arrays``."""
        own = {k.removeprefix("scaling."): v for k, v in arrays.items() if k.startswith("scaling.")}
        told, types = data.get("conditions"), data.get("table")  # older models have none
        schema = Schema.from_json(data["schema"])
        return cls(
            schema,
            Scaling.from_arrays(data["scale"], own),
            data["container"],
            data["drop_channel"],
            data["wide"],
            None if told is None else Conditions.from_json(told, arrays["condition.seen"]),
            None if types is None else Columns.from_json(schema.columns, types),
            None if data.get("given") is None else Columns.from_whole_json(data["given"]),
        )
