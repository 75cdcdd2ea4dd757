"""Scaling of features, and back. Statistics are taken in float64 over observed cells."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.data.profile import Profile

__all__ = ["Scaling", "choose_scale", "fit_quantiles", "fit_scaling"]

Array = NDArray[Any]


class Scaling:
    """``scaled = (x - center) / width``, then optionally a quantile transform of each column to a standard normal.

    Of counts, named ``"log1p"``, ``scaled = log(1 + x)``.

    Attributes
    ----------
    name : str
        ``"none"``, ``"standard"``, ``"shared"``, ``"minmax"``, ``"quantile"`` or ``"log1p"``: what was chosen.
    center, width : ndarray
        float64, broadcastable to one row.
    quantiles : ndarray of shape (n_quantiles, n_features) or None
        Knots of the quantile transform.
    """

    def __init__(self, name: str, center: Array, width: Array, quantiles: Array | None = None):
        self.name, self.center, self.width, self.quantiles = name, center, width, quantiles

    def forward(self, values: Array, dtype: Any) -> Array:
        """Scale ``values`` to ``dtype``; NaN stays NaN. What is right already is handed back as it is, not as a copy."""
        if self.name == "none" and values.dtype == dtype and values.flags.c_contiguous and values.flags.writeable:
            return values
        if self.name == "log1p":
            return np.log1p(values, dtype=dtype, casting="unsafe")
        if self.quantiles is not None:
            steady = np.subtract(values, self.center, dtype=np.float64, casting="unsafe") / self.width
            return np.asarray(self._quantile_transformer().transform(steady), dtype=dtype)
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is the caller's to refuse
            if not self._fits(dtype):
                wide = np.subtract(values, self.center, dtype=np.float64, casting="unsafe")
                return np.asarray(wide / self.width, dtype=dtype)
            work = np.dtype(dtype) if values.dtype.itemsize <= 2 or values.dtype == np.float32 else np.dtype(np.float64)
            out = np.empty(values.shape, dtype=dtype)
            np.subtract(values, self.center.astype(work), out=out, dtype=work, casting="unsafe")
            if (self.width != 1).any():
                np.divide(out, self.width.astype(out.dtype), out=out)
        return out

    def inverse(self, scaled: Array) -> Array:
        """Return values in the units of the data, in the dtype of ``scaled``, or float64 where that cannot hold them."""
        dtype = scaled.dtype if self._fits(scaled.dtype) else np.dtype(np.float64)
        if self.quantiles is not None:
            steady = self._quantile_transformer().inverse_transform(scaled.astype(np.float64))
            return np.asarray(steady * self.width + self.center, dtype=dtype)
        if self.name == "none":
            return scaled
        if self.name == "log1p":
            return np.expm1(scaled)
        out: Array = scaled * self.width.astype(dtype)
        out += self.center.astype(dtype)
        return out

    def _fits(self, dtype: Any) -> bool:
        """Tell whether center and width, and values of their size, lie well within the range of ``dtype``."""
        if np.dtype(dtype) == np.float64:
            return True
        return bool((self.width > 1e-30).all() and (self.width < 1e30).all() and (np.abs(self.center) < 1e30).all())

    def log_volume(self) -> Array:
        """Log of the width of each feature: a density of the scaled value less this is one in the data's units.

        A quantile transform has no one width; its scores stay in nats of the transformed value, and this is 0.
        """
        return np.log(self.width) if self.quantiles is None else np.zeros_like(self.width)

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


def choose_scale(low: Array, high: Array, *, binary: bool, image: bool, series: bool = False) -> str:
    """Choose a scaling for ``scale="auto"``.

    Binary data stay as they are. Images, and tables whose columns share one bounded range, as pixels or answers on one scale
    do, are centred and divided by one common width, so that a rarely used column does not weigh as much as the others. All
    other tables have columns of different units: each is standardised, and so is each channel of series.

    Parameters
    ----------
    low, high : ndarray of shape (n_features,)
        Observed range of each feature.
    binary, image, series : bool
        Whether all values are 0 or 1; whether rows are images, or series.
    """
    if binary:
        return "none"
    if image:
        return "shared"
    if series:
        return "standard"
    same_range = (low == np.median(low)) & (high == np.median(high))
    return "shared" if len(low) >= 8 and same_range.mean() >= 0.5 else "standard"


def fit_scaling(profile: Profile, how: str, *, one_range: bool = True) -> Scaling:
    """Learn a scaling from ranges and moments.

    Parameters
    ----------
    profile : Profile
        Of the rows.
    how : str
        ``"none"``, ``"standard"``, ``"shared"``, ``"minmax"`` or ``"log1p"``; for images and series one center and width for
        each channel, whatever the place.
    one_range : bool
        Whether ``"minmax"`` gives all channels one range, as colours have it.

    Raises
    ------
    OverflowError
        When a column is so large that its spread is not a finite number; holds its index, or that of the channel.
    """
    shape = profile.mean.shape
    if how in ("none", "log1p"):
        return Scaling(how, np.zeros(shape), np.ones(shape))
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = profile.ranges()
        if how == "minmax":
            if profile.is_grid and one_range:
                low, high = np.full(shape, low.min()), np.full(shape, high.max())
            center, width = low, high - low
        else:
            center, width = profile.mean, profile.deviation
            center, width = np.where(low == high, low, center), np.where(low == high, 0.0, width)
    if not (np.isfinite(center).all() and np.isfinite(width).all()):
        raise OverflowError(int(np.flatnonzero(~(np.isfinite(center) & np.isfinite(width)).ravel())[0]))
    if how == "shared":
        width = np.full(shape, np.sqrt(np.sum(width**2 / width.size)))
        return Scaling(how, center, np.where(width == 0, 1.0, width))
    # a constant column keeps its unit, and so does one that varies by no more than rounding
    rounding = width <= 10 * np.finfo(np.float64).eps * np.maximum(np.abs(low), np.abs(high))
    return Scaling(how, center, np.where(rounding, np.maximum(width, 1.0), width))


def fit_quantiles(values: Array) -> Scaling:
    """Learn the knots of a quantile transform of rows ``(n, n_features)``, in units of each column's usual gap to its median.

    Scikit-learn takes values within 1e-7 of a column's ends for the ends, whatever the column's unit: this gives it one.
    """
    from sklearn.preprocessing import QuantileTransformer

    with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # a constant column has no distance
        center = np.nanmedian(values, axis=0)
        gap = np.abs(values - center)
        width = np.nanmedian(np.where(gap == 0, np.nan, gap), axis=0)
        width = np.where(width > 0, width, 1.0)
        steady = (values - center) / width
    if np.isinf(steady).any():
        raise OverflowError(int(np.flatnonzero(np.isinf(steady).any(axis=0))[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # fewer rows than knots is fine here
        knots = QuantileTransformer(n_quantiles=1000, subsample=100_000, random_state=0).fit(steady)
    return Scaling("quantile", center, width, np.asarray(knots.quantiles_))
