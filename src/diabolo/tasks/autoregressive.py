"""Networks that tell each symbol of a row from those before it."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diabolo.parts.exact import on_grid
from diabolo.records import Batch, Loss

__all__ = ["ColumnNetwork", "PixelNetwork", "nats"]

SHARE = 0.125  # of pixels that a step of learning looks at: neighbours tell it little more
REACH = 6  # pixels that a pixel is told from, either way


class _Body(nn.Module):
    """Two residual layers with a rectifier between them."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., width)`` to the same."""
        h = x.relu()
        return torch.relu(h + self.second(self.first(h).relu()))


class ColumnNetwork(nn.Module):
    r"""Tells each column of a row from all columns before it.

    .. math:: p(x) = \prod_j p(x_j \mid x_{<j}), \qquad h_j = f\Bigl(c_j + \sum_{i<j} E_i[x_i]\Bigr)

    with an embedding :math:`E_i[x_i]` of each value of each column, a network :math:`f` that all columns share, and logits that
    are linear in :math:`h_j`.

    Parameters
    ----------
    sizes : list of int
        Symbols of each column.
    width : int
        Of :math:`h`.

    References
    ----------
    Larochelle and Murray, The neural autoregressive distribution estimator, 2011.
    """

    def __init__(self, sizes: list[int], width: int):
        super().__init__()
        self.starts = [0, *np.cumsum(sizes).tolist()]
        self.seen, self.place = nn.Embedding(self.starts[-1], width), nn.Embedding(len(sizes), width)
        self.body, self.head = _Body(width), nn.Linear(width, self.starts[-1])
        nn.init.normal_(self.seen.weight, std=0.5 / math.sqrt(len(sizes)))

    def nats(self, x: Tensor) -> Tensor:
        """Return the cost of rows of symbols ``(B, columns)``, in nats."""
        told = self.seen(x + torch.tensor(self.starts[:-1], device=x.device)).cumsum(dim=1)
        told = (
            torch.cat([torch.zeros_like(told[:, :1]), told[:, :-1]], dim=1) + self.place.weight
        )  # (B, columns, width)
        h = self.body(told)
        total = torch.zeros(len(x), device=x.device)
        for j, (start, stop) in enumerate(pairwise(self.starts)):
            logits = F.linear(h[:, j], self.head.weight[start:stop], self.head.bias[start:stop])
            total = total + F.cross_entropy(logits.float(), x[:, j], reduction="none")
        return total

    def begin(self, n: int) -> Tensor:
        """Return what is known of ``n`` rows before their first column."""
        return torch.zeros(n, self.place.weight.shape[1], dtype=self.head.weight.dtype)

    def told(self, known: Tensor, j: int) -> Tensor:
        """Return the logits of column ``j``, ``(n, symbols)``."""
        part = slice(self.starts[j], self.starts[j + 1])
        h = self.body(known + self.place.weight[j])
        return on_grid(F.linear(h, self.head.weight[part], self.head.bias[part]))

    def see(self, known: Tensor, j: int, symbols: Tensor) -> None:
        """Add the symbols ``(n,)`` of column ``j`` to what is known."""
        known += self.seen(symbols + self.starts[j])


class PixelNetwork(nn.Module):
    r"""Tells each pixel of a grey image from those above it and to its left, within a window, and from its place.

    Parameters
    ----------
    shape : tuple of int
        Height and width.
    values : int
        That a pixel may have.
    width : int
        Of the layers.

    References
    ----------
    Van den Oord, Kalchbrenner and Kavukcuoglu, Pixel recurrent neural networks, 2016, arXiv:1601.06759.
    """

    mask: Tensor

    def __init__(self, shape: tuple[int, int], values: int, width: int):
        super().__init__()
        self.shape, self.values = shape, values
        depth = 1 if values == 2 else 4
        self.seen, self.place = nn.Embedding(values + 1, depth), nn.Embedding(shape[0] * shape[1], width)
        self.window = nn.Linear(depth * (REACH + 1) * (2 * REACH + 1), width)
        self.body, self.head = _Body(width), nn.Linear(width, values)
        with torch.no_grad():
            self.seen.weight[:, 0] = torch.arange(values + 1) / values  # alike where values are
            self.seen.weight[values] = 0.0
            self.place.weight.mul_(0.1)
        mask = torch.ones(REACH + 1, 2 * REACH + 1, depth)
        mask[REACH, REACH:] = 0.0
        self.register_buffer("mask", mask.flatten(), persistent=False)

    def nats(self, x: Tensor, share: float = SHARE) -> Tensor:
        """Return the cost of images of symbols ``(B, height, width)``, in nats, estimated from a random share of their pixels."""
        height, width = self.shape
        windows = (
            F.pad(x, (REACH, REACH, REACH, 0), value=self.values).unfold(1, REACH + 1, 1).unfold(2, 2 * REACH + 1, 1)
        )
        n = max(1, round(share * height * width))
        j = torch.rand(len(x), height * width, device=x.device).argsort(dim=1)[:, :n]  # (B, n)
        row, above, left = torch.arange(len(x), device=x.device)[:, None], j // width, j % width
        logits = self._logits(windows[row, above, left].flatten(0, 1), j.flatten()).float()
        cost = F.cross_entropy(logits, x[row, above, left].flatten(), reduction="none")
        return cost.view(len(x), n).sum(dim=1) * (height * width / n)

    def _logits(self, around: Tensor, j: Tensor | int) -> Tensor:
        """Return what windows of symbols ``(n, REACH + 1, 2 * REACH + 1)`` tell of pixels ``j``."""
        h = self.window(self.seen(around).flatten(1) * self.mask)
        logits: Tensor = self.head(self.body(h + self.place.weight[j]))
        return logits

    def begin(self, n: int) -> Tensor:
        """Return what is known of ``n`` images before their first pixel."""
        height, width = self.shape
        return torch.full((n, height + REACH, width + 2 * REACH), self.values)

    def told(self, known: Tensor, j: int) -> Tensor:
        """Return the logits of pixel ``j``, ``(n, values)``."""
        y, x = divmod(j, self.shape[1])
        return self._logits(known[:, y : y + REACH + 1, x : x + 2 * REACH + 1], j)

    def see(self, known: Tensor, j: int, symbols: Tensor) -> None:
        """Add the symbols ``(n,)`` of pixel ``j`` to what is known."""
        y, x = divmod(j, self.shape[1])
        known[:, y + REACH, x + REACH] = symbols


def nats(module: Any, batch: Batch, progress: float) -> Loss:
    r"""Return :math:`-\frac1B \sum_b \log p(x_b)`, in nats per row."""
    cost = module.nats(batch.x.long()).mean()
    return Loss(cost, {"bits per row": cost.detach() / math.log(2)})
