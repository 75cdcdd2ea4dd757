"""Rows of classes, one cell after the other in any order, each told from those that are known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from diabolo.seeding import seeded

__all__ = ["CellModel", "CellNetwork"]

AT_ONCE = 4096  # rows that are judged at a time
IN_ORDER = 256  # rows that are drawn at a time, all in one order of columns
WAVES = 8  # cosines over the bins of a column of numbers

Codes = NDArray[np.int64]


class Block(nn.Module):
    """Two layers with a rectifier between them, added to what comes in.

    Parameters
    ----------
    width : int
        Of the layers.
    dropout : float
        Fraction of hidden units dropped in training.
    """

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        """Map ``(..., width)`` to the same."""
        out: Tensor = h + self.second(self.dropout(self.first(self.norm(h)).relu()))
        return out


class CellNetwork(nn.Module):
    r"""Tells a cell of a row from any others, whichever these are.

    .. math:: p(x_j \mid x_S) = \text{softmax}\big(W_j h\big)_{x_j}, \qquad h = f\Big(c_j + \sum_{i \in S} E_i[x_i]\Big)

    with an embedding :math:`E_i[x_i]` of each class of each column, a network :math:`f` that all columns share, and rows of
    :math:`W_j` for the classes. For a column of numbers both are sums of what a class has for itself and of cosines over the
    bins, so that neighbouring bins are alike from the start.

    One step draws an order of the columns, and learns every cell from those before it: a sum over the cells before it is a
    cumulative sum along the order.

    Parameters
    ----------
    sizes : sequence of int
        Classes of each column.
    bins : sequence of int
        How many of them are bins of numbers in order, the first ones; 0 for labels.
    width : int
        Of the layers.
    dropout : float
        Fraction of hidden units dropped in training.
    """

    waves: Tensor

    def __init__(self, sizes: Sequence[int], bins: Sequence[int], width: int, dropout: float = 0.0):
        super().__init__()
        self.starts = [0, *np.cumsum(sizes).tolist()]
        n, d, numbers = self.starts[-1], len(sizes), [j for j, k in enumerate(bins) if k]
        waves = torch.zeros(n, max(1, len(numbers)) * WAVES)  # no parameter is empty
        for i, j in enumerate(numbers):
            place = (torch.arange(bins[j]) + 0.5) / bins[j]
            for k in range(WAVES):
                wave = math.sqrt(2 / (k + 1)) * torch.cos(math.pi * (k + 1) * place)
                waves[self.starts[j] : self.starts[j] + bins[j], i * WAVES + k] = wave
        self.register_buffer("waves", waves, persistent=False)
        self.seen, self.smooth_seen = (
            nn.Parameter(scale / math.sqrt(d) * torch.randn(len(t), width))
            for t, scale in ((waves, 0.15), (waves.T, 0.3))
        )
        self.told, self.smooth_told = (
            nn.Parameter(0.3 / math.sqrt(width) * torch.randn(len(t), width)) for t in (waves, waves.T)
        )
        self.place, self.bias = nn.Parameter(0.3 * torch.randn(d, width)), nn.Parameter(torch.zeros(n))
        self.body = nn.Sequential(Block(width, dropout), Block(width, dropout), nn.LayerNorm(width))

    def tables(self) -> tuple[Tensor, Tensor]:
        """Return the embedding and the logits' weights of each class, ``(classes, width)`` each."""
        return self.seen + self.waves @ self.smooth_seen, self.told + self.waves @ self.smooth_told

    def logits(self, known: Tensor, told: Tensor, j: int) -> Tensor:
        """Return the logits of column ``j``, ``(n, K)``, from sums of embeddings ``(n, width)``."""
        return self.read(self.body(known + self.place[j]), told, j)

    def read(self, h: Tensor, told: Tensor, j: int) -> Tensor:
        """Return the logits of column ``j`` from what the body says."""
        part = slice(self.starts[j], self.starts[j + 1])
        return F.linear(h, told[part], self.bias[part])

    def nats(self, x: Tensor) -> Tensor:
        """Return the cost of rows of classes ``(B, columns)`` in an order that is drawn, ``(B,)`` in nats."""
        drawn = torch.randperm(len(self.place))
        order = drawn.to(x.device)
        seen, told = self.tables()
        each = F.embedding((x + torch.tensor(self.starts[:-1], device=x.device))[:, order], seen)
        before = F.pad(each.cumsum(dim=1)[:, :-1], (0, 0, 1, 0))
        h = self.body(before + self.place[order])  # (B, columns, width)
        total = torch.zeros(len(x), device=x.device)
        for i, j in enumerate(drawn.tolist()):
            total = total + F.cross_entropy(self.read(h[:, i], told, j).float(), x[:, j], reduction="none")
        return total


class CellModel:
    """Draws and judges rows of classes.

    Parameters
    ----------
    network : CellNetwork
        Fitted, on the CPU.
    """

    @torch.no_grad()
    def __init__(self, network: CellNetwork):
        self.network = network.eval()
        self.seen, self.told = network.tables()
        self.sizes = [stop - start for start, stop in pairwise(network.starts)]

    @torch.no_grad()
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
                known = self.seen.new_zeros(len(part), self.seen.shape[1])
                for j, column in enumerate(part.T):
                    self.see(known, np.flatnonzero(column >= 0), j, column)
                for j in [*weights, *(j for j in rng.permutation(len(self.sizes)).tolist() if j not in weights)]:
                    rows = np.flatnonzero(part[:, j] < 0)
                    if not len(rows):
                        continue
                    logits = self.network.logits(known[torch.from_numpy(rows)], self.told, j) / temperature
                    if j in weights:
                        logits = logits + torch.from_numpy(weights[j]).log()
                    part[rows, j] = torch.multinomial(logits.softmax(1), 1)[:, 0].numpy()
                    self.see(known, rows, j, part[:, j])

    @torch.no_grad()
    def log_prob(self, codes: Codes) -> NDArray[np.float64]:
        """Return the log-probability of rows of classes ``(n, columns)``, column after column, ``(n,)`` in nats."""
        total = np.zeros(len(codes))
        for start in range(0, len(codes), AT_ONCE):
            part = codes[start : start + AT_ONCE]
            known, rows = self.seen.new_zeros(len(part), self.seen.shape[1]), np.arange(len(part))
            for j, column in enumerate(part.T):
                logits = self.network.logits(known, self.told, j)
                total[start : start + AT_ONCE] += logits.double().log_softmax(1).numpy()[rows, column]
                self.see(known, rows, j, column)
        return total

    def see(self, known: Tensor, rows: Codes, j: int, column: Codes) -> None:
        """Add the classes of column ``j`` to what is known of some rows."""
        known[torch.from_numpy(rows)] += self.seen[self.network.starts[j] + torch.from_numpy(column[rows])]
