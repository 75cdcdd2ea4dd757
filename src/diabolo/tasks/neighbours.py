"""How far a row lies from the nearest rows seen in fit, in the space of the row and of its reconstruction error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diabolo.data.raw import Raw
from diabolo.estimator import BaseAutoencoder
from diabolo.module import AutoencoderModule
from diabolo.records import Batch

__all__ = ["Neighbours"]

MOST_ROWS, FEWEST_ROWS = 20_000, 5000  # rows that neighbours are looked for among at most, of few and of many columns
MOST_NUMBERS, FAST_NUMBERS = 2**26, 600_000  # numbers in them: at most, and beyond the fewest rows
WEIGHT = 0.7  # of errors beside cells
FLOOR = 1e-3  # smallest scale of errors, in units of a feature's spread: below, they are rounding
STILL_FLOOR = 0.1  # of the chances of labels, and of what did not vary at all
SAME = 1e-6  # distance, beside the length of a row, within which two rows are one
ASKED = 4096  # rows whose neighbours are looked for at a time
Array = NDArray[Any]


def row_and_error(module: AutoencoderModule, batch: Batch) -> Tensor:
    """Return rows and what their reconstructions are off by, side by side ``(B, 2 * size)``; missing cells are as expected."""
    mean = module.likelihood.mean(module.trace(batch, sample=False).raw)
    x = batch.x if batch.mask is None else torch.where(batch.mask > 0, batch.x, mean)
    return torch.cat([x.flatten(1), (x - mean).flatten(1)], dim=1)


class Neighbours:
    r"""Mean distance of rows to their nearest neighbours among rows of reference.

    A row stands for itself and for the error of its reconstruction :math:`e = x - \hat x`, each feature in units of its spread
    over the rows that the model has learned, each error in units of its root mean square there, times 0.7; in images, and in
    series of one channel, all are in units of the root mean square of the spreads. A denoising autoencoder's error is in
    proportion to the slope of the log-density (Alain and Bengio, 2014, arXiv:1211.4246): neighbours are alike in where they lie
    and in how the density changes there.

    Parameters
    ----------
    rows : ndarray of shape (n, 2 * size)
        What the rows of reference look like, scaled.
    center, width : ndarray of shape (2 * size,)
        How they were scaled.
    k : int
        How many neighbours.
    """

    def __init__(self, rows: Array, center: Array, width: Array, k: int):
        from sklearn.neighbors import NearestNeighbors

        self.rows, self.center, self.width, self.k = rows, center, width, k
        self._index = NearestNeighbors(n_neighbors=min(k + 1, len(rows))).fit(rows)

    @classmethod
    def learn(
        cls, model: BaseAutoencoder, raw: Raw, learned: NDArray[np.bool_], k: int, rng: np.random.Generator
    ) -> Self:
        """Take rows as reference, at most 20,000 of them (of many columns 5,000, which take as long), drawn at random.

        Spreads are those of the rows that the model has ``learned`` ``(n,)``: the others must have no more part in how they
        are judged than new rows have.
        """
        size = model.schema_.size
        fast = min(MOST_ROWS, max(FEWEST_ROWS, FAST_NUMBERS // (2 * size)))
        most = max(k + 1, min(fast, MOST_NUMBERS // (2 * size)))
        if len(raw.values) > most:
            drawn = np.sort(rng.choice(len(raw.values), most, replace=False))
            raw, learned = raw.take(drawn), learned[drawn]
        rows = model._apply(raw, row_and_error).astype(np.float32)
        number = np.ones(size, dtype=bool)
        table = model.codec_.table
        if table is not None:  # labels are 0 and 1, and have no spread of their own
            number[:] = np.isin(table.owner, [j for j, c in enumerate(table.columns) if c.kind != "category"])
        known = rows[learned] if learned.any() else rows
        spread = known[:, :size].std(axis=0, dtype=np.float64)
        varies = (spread > 0) & number
        spread = np.where(varies, spread, 1.0)
        off = np.sqrt(np.square(known[:, size:], dtype=np.float64).mean(axis=0))
        if model.schema_.shared_unit and model.schema_.kind != "vector":  # cells of one unit keep their proportions
            spread[:] = off[:] = math.sqrt(np.square(spread).mean())
        off = np.maximum(off, np.where(varies, FLOOR * spread, STILL_FLOOR))
        center = np.concatenate([known[:, :size].mean(axis=0, dtype=np.float64), np.zeros(size)])
        width = np.concatenate([spread, off / WEIGHT])
        return cls(((rows - center) / width).astype(np.float32), center, width, k)

    def distances(self, model: BaseAutoencoder, raw: Raw) -> NDArray[np.float64]:
        """Return the mean distance ``(n,)`` of rows to their neighbours; a row of reference is none of its own."""
        return np.concatenate([far.mean(axis=1) for _, far, _ in self._nearest(model, raw)])

    def apart(self, model: BaseAutoencoder, raw: Raw) -> Array:
        """Return what each feature and its error add to the squared distance ``(n, size)``, averaged over neighbours."""
        size = len(self.center) // 2
        squares = []
        for rows, _, which in self._nearest(model, raw):
            total = np.zeros_like(rows)
            for i in range(which.shape[1]):
                total += np.square(rows - self.rows[which[:, i]])
            squares.append((total[:, :size] + total[:, size:]) / which.shape[1])
        return np.concatenate(squares).astype(np.float64)

    def without(self, model: BaseAutoencoder, raw: Raw, asked: Array, owner: Array) -> Array:
        """Say what a part of a row would be, by rows whose other cells are near; errors depend on all cells, and are left out.

        Parameters
        ----------
        model : BaseAutoencoder
            The model.
        raw : Raw
            Rows.
        asked : ndarray of int of shape (n, m)
            The parts, by number.
        owner : ndarray of int of shape (size,)
            The part that each feature belongs to.

        Returns
        -------
        ndarray of shape (n, m, size)
            The rows, each with the features of one part as those neighbours have them on the mean, scaled as the network sees
            them.
        """
        size = len(self.center) // 2
        scaled = self._scaled(model, raw)
        found = np.repeat(scaled[:, None, :size], asked.shape[1], axis=1)
        for i, row in enumerate(scaled):
            squares = np.square(self.rows[:, :size] - row[:size])
            total = squares.sum(axis=1)
            itself = int(total.argmin())
            total[itself] = np.inf if total[itself] <= SAME * (1 + np.square(row[:size]).sum()) else total[itself]
            for j, part in enumerate(asked[i]):
                own = np.flatnonzero(owner == part)
                rest = total - squares[:, own].sum(axis=1)
                near = np.argpartition(rest, min(self.k, len(rest)) - 1)[: self.k]
                found[i, j, own] = self.rows[near][:, own].mean(axis=0)
        return np.asarray(found * self.width[:size] + self.center[:size])

    def _nearest(self, model: BaseAutoencoder, raw: Raw) -> Iterator[tuple[Array, Array, Array]]:
        """Yield scaled rows, the distances of their neighbours and which those are, some rows at a time."""
        for start in range(0, len(raw.values), ASKED):
            rows = self._scaled(model, raw.take(slice(start, start + ASKED)))
            far, which = self._index.kneighbors(rows)
            if far.shape[1] > 1:
                itself = far[:, :1] <= SAME * (1 + np.linalg.norm(rows, axis=1, keepdims=True))
                far, which = (np.where(itself, t[:, 1:], t[:, :-1]) for t in (far, which))
            yield rows, far, which

    def _scaled(self, model: BaseAutoencoder, raw: Raw) -> Array:
        """Return rows and errors as those of reference are scaled, in float32."""
        return ((model._apply(raw, row_and_error) - self.center) / self.width).astype(np.float32)

    def state(self) -> dict[str, Array]:
        """Return the numbers that make it again."""
        return {"rows": self.rows, "center": self.center, "width": self.width, "k": np.array([self.k])}

    @classmethod
    def from_state(cls, state: dict[str, Array]) -> Self:
        """Build what ``state`` returned."""
        return cls(state["rows"], state["center"], state["width"], int(state["k"][0]))
