"""Rows of classes from a masked model, one cell after the other, each given those that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diabolo.seeding import seeded
from diabolo.tasks.bins import Bins
from diabolo.zoo.masked import MaskedAutoencoder

__all__ = ["CellModel"]

AT_ONCE = 4096  # rows that are judged at a time
IN_ORDER = 256  # rows that are drawn at a time, all in one order of columns

Codes = NDArray[np.int64]


class CellModel:
    """What a fitted model says of a cell of a table of classes, given others.

    Parameters
    ----------
    model : MaskedAutoencoder
        Fitted to the classes.
    bins : sequence of Bins
        The classes of each column.
    """

    def __init__(self, model: MaskedAutoencoder, bins: Sequence[Bins]):
        self.module, self.device = model._ready(torch.float32)
        self.sizes = [b.size for b in bins]
        self.starts = [0, *np.cumsum(self.sizes).tolist()]  # the first class of each column, and their number

    def fill(
        self, codes: Codes, weights: Mapping[int, NDArray[np.float32]], temperature: float, rng: np.random.Generator
    ) -> None:
        """Draw what is -1 in rows of classes ``(n, columns)``, in place.

        Parameters
        ----------
        codes : ndarray of shape (n, columns)
            Classes.
        weights : mapping of int to ndarray (K,)
            How much of each class of some columns is allowed; these come first.
        temperature : float
            Divides the logits.
        rng : numpy.random.Generator
            For the orders of columns and the draws.
        """
        with seeded(int(rng.integers(2**31))):
            for start in range(0, len(codes), IN_ORDER):
                part = codes[start : start + IN_ORDER]  # a view
                x, shown = self.hidden(len(part))
                for j, known in enumerate(part.T):
                    rows = np.flatnonzero(known >= 0)
                    self.show(x, shown, rows, j, known[rows])
                for j in [*weights, *(j for j in rng.permutation(len(self.sizes)).tolist() if j not in weights)]:
                    rows = np.flatnonzero(part[:, j] < 0)
                    if not len(rows):
                        continue
                    logits = self.logits(x[rows], shown[rows], j) / temperature
                    if j in weights:
                        logits = logits + torch.from_numpy(weights[j]).log()
                    part[rows, j] = torch.multinomial(logits.softmax(1), 1)[:, 0].numpy()
                    self.show(x, shown, rows, j, part[rows, j])

    def log_prob(self, codes: Codes) -> NDArray[np.float64]:
        """Return the log-probability of rows of classes ``(n, columns)``, column after column, ``(n,)`` in nats."""
        total = np.zeros(len(codes))
        for start in range(0, len(codes), AT_ONCE):
            part = codes[start : start + AT_ONCE]
            (x, shown), rows = self.hidden(len(part)), np.arange(len(part))
            for j, column in enumerate(part.T):
                total[start : start + AT_ONCE] += self.logits(x, shown, j).double().log_softmax(1).numpy()[rows, column]
                self.show(x, shown, rows, j, np.ascontiguousarray(column))
        return total

    def hidden(self, n: int) -> tuple[Tensor, Tensor]:
        """Return ``n`` rows of which nothing is known: classes as the model sees them, and marks of those that it may see."""
        x = torch.zeros(n, self.starts[-1])
        return x, torch.zeros_like(x)

    def show(self, x: Tensor, shown: Tensor, rows: Codes, j: int, codes: Codes) -> None:
        """Let some rows know their classes of column ``j``."""
        start, which = self.starts[j], torch.from_numpy(rows)
        x[which, start + torch.from_numpy(codes)] = 1.0
        shown[which, start : start + self.sizes[j]] = 1.0

    @torch.no_grad()
    def logits(self, x: Tensor, shown: Tensor, j: int) -> Tensor:
        """Return logits ``(n, K)`` of the classes of column ``j``."""
        code = self.module.encode(x.to(self.device), None, shown.to(self.device), sample=False)
        raw: Tensor = self.module.decode(code.z)
        return raw[:, 0, self.starts[j] : self.starts[j + 1]].cpu()
