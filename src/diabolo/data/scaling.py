"""Scaling of features, and back. Statistics are taken in float64 over observed cells."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scaling", "choose_scale", "fit_scaling"]

Array = NDArray[Any]


class Scaling:
    """``scaled = (x - center) / width``, after an optional quantile transform of each column to a standard normal.

    Attributes
    ----------
    name : str
        ``"none"``, ``"standard"``, ``"shared"``, ``"minmax"`` or ``"quantile"``: what was chosen.
    center, width : ndarray
        float64, broadcastable to one row.
    quantiles : ndarray of shape (n_quantiles, n_features) or None
        Knots of the quantile transform.
    """

    def __init__(self, name: str, center: Array, width: Array, quantiles: Array | None = None):
        self.name, self.center, self.width, self.quantiles = name, center, width, quantiles

    def forward(self, values: Array, dtype: Any) -> Array:
        """Scale ``values`` into a new array of ``dtype``; NaN stays NaN."""
        if self.quantiles is not None:
            return np.asarray(self._quantile_transformer().transform(values), dtype=dtype)
        work = np.dtype(dtype) if values.dtype.itemsize <= 2 or values.dtype == np.float32 else np.dtype(np.float64)
        out = np.empty(values.shape, dtype=dtype)
        np.subtract(values, self.center.astype(work), out=out, dtype=work, casting="unsafe")
        if (self.width != 1).any():
            np.divide(out, self.width.astype(out.dtype), out=out)
        return out

    def inverse(self, scaled: Array) -> Array:
        """Return values in the units of the data, in the dtype of ``scaled``."""
        if self.quantiles is not None:
            return np.asarray(self._quantile_transformer().inverse_transform(scaled), dtype=scaled.dtype)
        out: Array = scaled * self.width.astype(scaled.dtype)
        out += self.center.astype(scaled.dtype)
        return out

    def log_volume(self) -> Array:
        """Log of the width of each feature: a density of the scaled value less this is one in the data's units.

        A quantile transform has no one width; its scores stay in nats of the transformed value, and this is 0.
        """
        return np.log(self.width)

    def _quantile_transformer(self) -> Any:
        from sklearn.preprocessing import QuantileTransformer

        knots = self.quantiles
        if knots is None:
            raise ValueError("this scaling has no quantiles")
        transformer = QuantileTransformer(output_distribution="normal")
        transformer.quantiles_, transformer.n_features_in_ = knots, knots.shape[1]
        transformer.n_quantiles_ = len(knots)
        transformer.references_ = np.linspace(0, 1, len(knots), endpoint=True)
        return transformer

    def arrays(self) -> dict[str, Array]:
        """Return the fitted numbers by name."""
        out = {"center": self.center, "width": self.width}
        return out if self.quantiles is None else {**out, "quantiles": self.quantiles}

    @classmethod
    def from_arrays(cls, name: str, arrays: dict[str, Array]) -> Scaling:
        """Build a scaling from its name and what ``arrays`` returned."""
        return cls(name, arrays["center"], arrays["width"], arrays.get("quantiles"))


def choose_scale(low: Array, high: Array, *, binary: bool, image: bool) -> str:
    """Choose a scaling for ``scale="auto"``.

    Binary data stay as they are. Images, and tables whose columns share one bounded range, as pixels or answers on one scale
    do, are centred and divided by one common width, so that a rarely used column does not weigh as much as the others. All
    other tables have columns of different units: each is standardised.

    Parameters
    ----------
    low, high : ndarray of shape (n_features,)
        Observed range of each feature.
    binary, image : bool
        Whether all values are 0 or 1; whether rows are images.
    """
    if binary:
        return "none"
    if image:
        return "shared"
    same_range = (low == np.median(low)) & (high == np.median(high))
    return "shared" if len(low) >= 8 and same_range.mean() >= 0.5 else "standard"


def fit_scaling(values: Array, how: str, *, channels: bool) -> Scaling:
    """Learn a scaling from observed cells.

    Parameters
    ----------
    values : ndarray of shape (n, *shape)
        NaN where missing.
    how : str
        ``"none"``, ``"standard"``, ``"shared"``, ``"minmax"`` or ``"quantile"``.
    channels : bool
        For images: one center for each channel, and one width for all.

    Raises
    ------
    ValueError
        When a column is so large that its spread is not a finite number; gives the flat index of the feature.
    """
    over = (0, *range(2, values.ndim)) if channels else (0,)
    shape = (values.shape[1], *(1,) * (values.ndim - 2)) if channels else values.shape[1:]
    if how == "none":
        return Scaling(how, np.zeros(shape), np.ones(shape))
    if how == "quantile":
        from sklearn.preprocessing import QuantileTransformer

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # fewer rows than knots is fine here
            knots = QuantileTransformer(n_quantiles=1000, subsample=100_000, random_state=0)
            knots.fit(values.astype(np.float64, copy=False))
        return Scaling(how, np.zeros(shape), np.ones(shape), np.asarray(knots.quantiles_))
    with np.errstate(over="ignore", invalid="ignore"):
        center = np.nanmean(values, axis=over, dtype=np.float64).reshape(shape)
        if how == "minmax":
            low = np.nanmin(values, axis=over).astype(np.float64).reshape(shape)
            high = np.nanmax(values, axis=over).astype(np.float64).reshape(shape)
            if channels:
                low, high = np.full(shape, low.min()), np.full(shape, high.max())
            center, width = low, high - low
        else:
            width = np.nanstd(values, axis=over, dtype=np.float64).reshape(shape)
            if how == "shared":
                width = np.full(shape, np.sqrt(np.mean(width**2)))
    if not (np.isfinite(center).all() and np.isfinite(width).all()):
        bad = int(np.flatnonzero(~(np.isfinite(center) & np.isfinite(width)).ravel())[0])
        raise OverflowError(bad)
    tiny = width <= 10 * np.finfo(np.float64).eps * np.maximum(np.abs(center), np.finfo(np.float64).tiny)
    return Scaling(how, center, np.where(tiny, 1.0, width))  # a constant column keeps its unit
