"""How far predictions are from cells that were hidden: what the error of a filled cell is drawn from."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Spread", "variance_of"]

Array = NDArray[Any]
BINS = 5  # groups of rows by how much of them is missing, of which each has a spread of its own
ENOUGH = 50  # hidden cells of a group, and of a feature, that count as much as all others together
MOST = 2000  # errors that are kept to draw from


@dataclass
class Spread:
    """The size of errors, by feature and by how much of a row is missing, and their shape.

    Attributes
    ----------
    size : ndarray of row_shape
        Root of the mean squared error of each feature, in the units of the data.
    growth : ndarray of shape (groups,)
        What it is times in rows of each group.
    edges : ndarray of shape (groups - 1,)
        Shares of missing cells between the groups.
    shape : ndarray of shape (m,)
        Errors divided by their size, ascending: one distribution for all features.
    """

    size: Array
    growth: Array
    edges: Array
    shape: Array

    @classmethod
    def learn(cls, wrong: Array, width: Array, share: Array, numbers: Array, *, pooled: bool) -> Self:
        """Learn from errors ``(n, *row_shape)``, NaN where no cell was hidden.

        Parameters
        ----------
        wrong : ndarray of shape (n, *row_shape)
            Errors.
        width : ndarray of row_shape
            Standard deviations of the features, on whose scale they are alike.
        share : ndarray of shape (n,)
            How much of each row is missing.
        numbers : ndarray of int
            The flat features whose errors tell the shape.
        pooled : bool
            Whether all features have one error on the scale of ``width``.
        """
        each, width = wrong.reshape(len(wrong), -1), width.ravel()
        square, count = np.nansum(np.square(each), axis=0), (~np.isnan(each)).sum(axis=0)
        overall = np.nansum(np.square(each / width)) / max(1, count.sum())
        own = (square + ENOUGH * overall * width**2) / (count + ENOUGH)
        size = np.sqrt(overall * width**2 if pooled else own)
        size = np.where(size > 0, size, np.finfo(np.float64).tiny)
        edges = np.unique(np.quantile(share, np.linspace(0, 1, BINS + 1)[1:-1]))
        group = np.searchsorted(edges, share, side="right")
        relative, growth = each / size, np.ones(len(edges) + 1)
        for g in range(len(growth)):
            mine = relative[group == g]
            mine = mine[~np.isnan(mine)]
            growth[g] = np.sqrt((np.square(mine).sum() + ENOUGH) / (len(mine) + ENOUGH))
        relative /= growth[group][:, None]
        seen = relative[:, numbers]
        seen = seen[~np.isnan(seen)]
        rng = np.random.default_rng(0)
        if len(seen) < ENOUGH:
            seen = rng.normal(size=MOST)
        shape = np.sort(seen if len(seen) <= MOST else rng.choice(seen, MOST, replace=False))
        return cls(size.reshape(wrong.shape[1:]), growth, edges, shape)

    @property
    def median(self) -> float:
        """Median of the shape."""
        return float(np.median(self.shape))

    def of(self, share: Array) -> Array:
        """Return the size of the error of each feature ``(n, *row_shape)`` in rows of which these shares are missing."""
        growth = self.growth[np.searchsorted(self.edges, share, side="right")]
        return np.asarray(growth.reshape(-1, *[1] * self.size.ndim) * self.size)


def variance_of(values: Array, grid: bool) -> Array:
    """Return the variance of observed values of each feature, 1 where they are all the same; of grids one for all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # pixels that no row has
        found = np.nanvar(values.astype(np.float64), axis=0)
    if grid:
        found = np.full_like(found, np.nanvar(values.astype(np.float64)))
    return np.where(found > 0, found, 1.0)
