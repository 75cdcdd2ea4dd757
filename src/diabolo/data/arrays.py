"""Whatever the user has -> Raw rows -> scaled tensors, and back to the user's kind of data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diabolo.data.images import read_images, stack_images
from diabolo.data.raw import Raw, is_wide, refuse_infinity
from diabolo.data.scaling import Scaling, choose_scale, fit_scaling
from diabolo.data.tables import is_frame, read_frame, write_frame
from diabolo.records import Column, Schema, Table

__all__ = ["ArrayCodec", "read"]


def read(X: Any) -> Raw | None:
    """Read a frame, a tensor, images, or an array of more than two dimensions; ``None`` for what is left to scikit-learn.

    Raises
    ------
    ValueError
        For text columns, infinities, complex numbers, or an array that is no stack of images.
    TypeError
        For a lazy frame.
    """
    stack = stack_images(X)
    X = X if stack is None else stack
    masked = isinstance(X, np.ma.MaskedArray)
    if masked:
        X = np.ma.filled(X.astype(np.promote_types(X.dtype, np.float32)), np.nan)  # a masked cell is a missing cell
    if isinstance(X, torch.Tensor):
        if X.is_complex():
            raise ValueError("Complex data not supported")
        X = X.float() if X.dtype == torch.bfloat16 else X  # numpy has no such type
        values, container = X.detach().cpu().numpy(), "torch"
    elif is_frame(X):
        raw = read_frame(X)
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
    """Scales rows of numbers and images into a :class:`~diabolo.records.Table`, and scaled values back.

    Attributes
    ----------
    schema : Schema
        What was learned of the data.
    scaling : Scaling
        How features are scaled.
    container : str
        The kind of data given to ``fit``; codes and samples come back in this kind.
    drop_channel : bool
        Whether images came as ``(n, height, width)``.
    wide : bool
        Whether the rows of ``fit`` had numbers that need float64.
    """

    def __init__(self, schema: Schema, scaling: Scaling, container: str, drop_channel: bool, wide: bool = False):
        self.schema, self.scaling, self.container, self.drop_channel = schema, scaling, container, drop_channel
        self.wide = wide

    @classmethod
    def fit(cls, raw: Raw, scale: str | None) -> ArrayCodec:
        """Learn schema and scaling.

        Parameters
        ----------
        raw : Raw
            The rows.
        scale : {"auto", "standard", "minmax", "quantile", "unit"} or None
            As the estimators' parameter of this name; ``"unit"`` is ``None`` where all values lie in [0, 1] and
            ``"minmax"`` elsewhere.
        """
        values = raw.values
        if values.shape[0] == 0:
            raise ValueError(f"Found array with 0 sample(s) (shape={values.shape}) while a minimum of 1 is required.")
        if values[0].size == 0:
            raise ValueError(f"Found array with 0 feature(s) (shape={values.shape}) while a minimum of 1 is required.")
        flat = values.reshape(len(values), -1)
        names = raw.columns or tuple(str(j) for j in range(flat.shape[1]))
        is_float = values.dtype.kind == "f"
        if is_float:
            never = np.isnan(values).all(axis=(0, *range(2, values.ndim)))  # of a column, or of a channel
            if never.any():
                empty = np.flatnonzero(never)
                what = "column" if raw.kind == "vector" else "channel"
                listed = ", ".join(repr(names[j]) for j in empty[:8])
                raise ValueError(f"{len(empty)} {what}(s) have no observed value: {listed}. Drop them before fit.")
            low, high = np.fmin.reduce(flat, axis=0), np.fmax.reduce(flat, axis=0)  # NaN for a pixel never seen
            observed = flat[~np.isnan(flat)] if np.isnan(flat).any() else flat
        else:
            low, high, observed = flat.min(axis=0), flat.max(axis=0), flat
        unit = bool(observed.min() >= 0 and observed.max() <= 1)
        binary = unit and bool(((observed == 0) | (observed == 1)).all())
        how = scale if scale is not None else "none"
        if how == "auto":
            how = choose_scale(low, high, binary=binary, image=raw.kind == "image")
        elif how == "unit":
            how = "none" if unit else "minmax"
        if how == "quantile" and raw.kind == "image":
            raise ValueError("scale='quantile' is for tables; use 'auto', 'standard', 'minmax' or None for images")
        try:
            scaling = fit_scaling(values, how, channels=raw.kind == "image")
        except OverflowError as error:
            j = int(error.args[0])
            name = f"column {names[j]!r}" if raw.kind == "vector" else f"channel {j}"
            instead = ", take its logarithm, or use scale='quantile'" if raw.kind == "vector" else " before fit"
            raise ValueError(
                f"{name} has values as large as {np.nanmax(np.abs(values[:, j])):.3g}, too large to scale; "
                f"rescale it{instead}"
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
            len(values),
            support,
            columns,
            shared_unit=how == "shared" or raw.kind == "image",
        )
        return cls(schema, scaling, raw.container, raw.drop_channel, is_wide(values))

    def encode(self, raw: Raw, dtype: torch.dtype = torch.float32) -> Table:
        """Scale rows into tensors; missing cells become 0 with a mask of 0."""
        if raw.values.shape[1:] != self.schema.shape:
            raise ValueError(f"X has rows of shape {raw.values.shape[1:]}, expected {self.schema.shape} as seen in fit")
        refuse_infinity(raw)
        scaled = self.scaling.forward(raw.values, np.float64 if dtype == torch.float64 else np.float32)
        mask = None
        if not np.isfinite(scaled).all():
            self._refuse_overflow(raw, scaled)
            missing = np.isnan(scaled)
            scaled[missing] = 0.0
            mask = torch.from_numpy(~missing).to(dtype)
        return Table(self.schema, torch.from_numpy(scaled), mask)

    def _refuse_overflow(self, raw: Raw, scaled: NDArray[Any]) -> None:
        """Raise where a value is too far from what fit saw to be a number once scaled."""
        if not np.isinf(scaled).any():
            return
        row, *position = (int(i) for i in np.argwhere(np.isinf(scaled))[0])
        feature = self.schema.feature(int(np.ravel_multi_index(tuple(position), self.schema.shape)))
        raise ValueError(
            f"{feature} has {raw.values[(row, *position)]:.3g} in row {row}, too far from the values seen in fit to scale; "
            "clip it, or write NaN for a missing cell"
        )

    def decode(self, scaled: NDArray[Any], like: Raw | None = None) -> Any:
        """Return scaled rows in the user's units and kind of data; ``like`` is the input, ``None`` means as in fit."""
        values = self.scaling.inverse(scaled)
        container = self.container if like is None else like.container
        return self.present(values, container, None if like is None else like.index, like)

    def present(self, values: NDArray[Any], container: str, index: Any = None, like: Raw | None = None) -> Any:
        """Wrap an array ``(n, *shape)`` in the user's kind of data."""
        if self.drop_channel if like is None else like.drop_channel:
            values = values[:, 0]
        if container == "torch":
            return torch.from_numpy(np.ascontiguousarray(values))
        if container != "numpy" and self.schema.kind == "vector":
            labels = None if like is None else like.labels
            return write_frame(values, tuple(c.name for c in self.schema.columns), container, index, labels)
        return values

    def log_volume(self, mask: NDArray[Any] | None, n: int) -> NDArray[np.float64]:
        """Sum over observed features of the log widths, for each row ``(n,)``."""
        width = np.broadcast_to(self.scaling.log_volume(), self.schema.shape)
        if mask is None:
            return np.full(n, width.sum())
        return np.asarray((mask * width).reshape(n, -1).sum(axis=1), dtype=np.float64)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; the numbers of the scaling travel apart, as arrays."""
        return {
            "codec": "array",
            "schema": self.schema.to_json(),
            "scale": self.scaling.name,
            "container": self.container,
            "drop_channel": self.drop_channel,
            "wide": self.wide,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> ArrayCodec:
        """Build a codec from ``to_json`` and the arrays of its scaling."""
        scaling = Scaling.from_arrays(data["scale"], arrays)
        return cls(Schema.from_json(data["schema"]), scaling, data["container"], data["drop_channel"], data["wide"])
