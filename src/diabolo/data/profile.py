"""What a codec is learned from: ranges and moments of the features, from blocks of rows that are looked at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.data.raw import Raw, all_finite

__all__ = ["Profile", "Sample"]

Array = NDArray[np.float64]
BLOCK = 2**19  # numbers looked at at a time: few enough to stay in the cache of a processor


class Profile:
    """Ranges, moments and kinds of values of rows.

    Parameters
    ----------
    raw : Raw
        Any rows: their kind and shape are those of all.
    moments : bool
        Whether means and standard deviations are wanted too.

    Attributes
    ----------
    n : int
        Rows seen.
    low, high : ndarray of shape (n_features,)
        Range of the observed values of each flat feature; NaN where none was observed.
    binary : bool
        Whether all observed values are 0 or 1.
    """

    def __init__(self, raw: Raw, *, moments: bool):
        self.shape, self.is_grid, self.moments = raw.values.shape[1:], raw.kind != "vector", moments
        size = int(np.prod(self.shape))
        self.n, self.binary = 0, True
        self.low, self.high = np.full(size, np.nan), np.full(size, np.nan)
        # of a table's columns, or of the channels of images and series
        self.over = (0, *range(2, raw.values.ndim)) if self.is_grid else (0,)
        kept = (self.shape[0], *(1,) * (len(self.shape) - 1)) if self.is_grid else self.shape
        self._count, self._mean, self._square = np.zeros(kept), np.zeros(kept), np.zeros(kept)
        self.seen = np.zeros(kept, dtype=bool)  # whether any value was observed

    @property
    def unit(self) -> bool:
        """Whether all observed values lie in [0, 1]."""
        return bool(np.nanmin(self.low) >= 0 and np.nanmax(self.high) <= 1)

    @property
    def mean(self) -> Array:
        """Mean of each column or channel, broadcastable to a row."""
        return self._mean

    @property
    def deviation(self) -> Array:
        """Standard deviation of each column or channel."""
        return np.sqrt(np.maximum(self._square / np.maximum(self._count, 1), 0.0))

    def ranges(self) -> tuple[Array, Array]:
        """Return the lowest and highest value of each column or channel, broadcastable to a row."""
        low, high = (t.reshape(self.shape) for t in (self.low, self.high))
        if self.is_grid:
            axes = tuple(range(1, len(self.shape)))
            low, high = np.fmin.reduce(low, axis=axes), np.fmax.reduce(high, axis=axes)
        return low.reshape(self._mean.shape), high.reshape(self._mean.shape)

    def add(self, values: NDArray[np.generic]) -> None:
        """Look at rows ``(n, *shape)``."""
        rows = max(1, BLOCK // max(1, values[0].size))
        for start in range(0, len(values), rows):
            self._add(values[start : start + rows])
        self.n += len(values)

    def _add(self, block: NDArray[np.generic]) -> None:
        flat = block.reshape(len(block), -1)
        whole = all_finite(block)
        least, most = (np.minimum, np.maximum) if whole else (np.fmin, np.fmax)
        self.low, self.high = np.fmin(self.low, least.reduce(flat)), np.fmax(self.high, most.reduce(flat))
        if self.binary:
            self.binary = bool(((flat == 0) | (flat == 1) | (flat != flat)).all())
        observed = True if whole else ~np.isnan(block)
        self.seen |= np.any(np.broadcast_to(observed, block.shape), axis=self.over).reshape(self.seen.shape)
        if self.moments:
            with np.errstate(
                over="ignore", invalid="ignore"
            ):  # what overflows is not finite, and refused with its column
                self._merge(block, observed)

    def _merge(self, block: NDArray[np.generic], observed: NDArray[np.bool_] | bool) -> None:
        """Merge the moments of a block (Chan, Golub and LeVeque, 1983, doi:10.1080/00031305.1983.10483115)."""
        kept = self._mean.shape
        if observed is True:
            n = np.full(kept, float(block.size // self._mean.size))
        else:
            n = np.sum(observed, axis=self.over).reshape(kept).astype(float)
        where = np.True_ if observed is True else observed
        safe = np.maximum(n, 1)
        here = np.sum(block, axis=self.over, dtype=np.float64, where=where).reshape(kept) / safe
        gap = np.subtract(block, here, dtype=np.float64, casting="unsafe")
        shift = np.sum(gap, axis=self.over, where=where).reshape(kept)  # the rounding error of the mean
        spread = np.sum(np.square(gap, out=gap), axis=self.over, where=where).reshape(kept) - shift**2 / safe
        here, both = here + shift / safe, np.maximum(self._count + n, 1)
        self._square += spread + (here - self._mean) ** 2 * self._count * n / both
        self._mean += (here - self._mean) * n / both
        self._count += n


class Sample:
    """Rows drawn at random, each with the same chance, from rows that pass by (Vitter, 1985, doi:10.1145/3147.3165).

    Up to ``size`` rows are kept; where the first part is all there is, it is kept as it is.
    """

    def __init__(self, values: NDArray[Any], size: int):
        self.size, self.passed, self._first = size, len(values), values
        self._kept: NDArray[Any] | None = None
        self._draw = np.random.default_rng(0)

    def add(self, values: NDArray[Any]) -> None:
        """Let more rows pass."""
        if self._kept is None:
            first, self.passed = self._first, 0
            self._kept = np.empty((0, *first.shape[1:]), np.float64)
            self._first = first[:0]
            self.add(first)
        room = self.size - len(self._kept)
        self._kept = np.concatenate([self._kept, values[:room]]) if room > 0 else self._kept
        at = self.passed + np.arange(max(room, 0), len(values))  # the number of each further row
        places = (self._draw.random(len(at)) * (at + 1)).astype(np.int64)
        stay = places < self.size
        self._kept[places[stay]] = values[at[stay] - self.passed]
        self.passed += len(values)

    def rows(self) -> NDArray[Any]:
        """Return the rows that were drawn."""
        return self._first if self._kept is None else self._kept
