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

__all__ = ["ColourNetwork", "ColumnNetwork", "PixelNetwork", "nats"]

SHARE = 0.125  # of pixels that a step of learning looks at: neighbours tell it little more
REACH = 6  # pixels that a pixel is told from, either way
COLOUR_SHARE, COLOUR_REACH = SHARE / 4, 3  # the same of colour images, of which every pixel has three numbers


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
        self.width, self.starts = width, [0, *np.cumsum(sizes).tolist()]
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
        self.shape, self.values, self.width = shape, values, width
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


class ColourNetwork(nn.Module):
    r"""Tells each number of a colour image from the pixels above it and to its left, and from the channels before it.

    What is told is how far the number is from a plain guess, the gradient of its neighbours held within them, moved as the guess
    of the channel before was off:

    .. math:: g_c = m_c + x_{c-1} - m_{c-1}, \qquad m_c = \mathrm{med}(W_c, N_c, W_c + N_c - NW_c)

    Parameters
    ----------
    shape : tuple of int
        Height, width and channels.
    values : int
        That a number may have.
    width : int
        Of the layers.

    References
    ----------
    Weinberger, Seroussi and Sapiro, The LOCO-I lossless image compression algorithm, 2000, doi:10.1109/83.855427.
    """

    mask: Tensor

    def __init__(self, shape: tuple[int, int, int], values: int, width: int):
        super().__init__()
        self.shape, self.values, self.width = shape, values, width
        tall, wide, channels = COLOUR_REACH + 1, 2 * COLOUR_REACH + 1, shape[2]
        self.windows = nn.ModuleList(nn.Linear(tall * wide * channels + 1, width) for _ in range(channels))
        self.body, self.head = _Body(width), nn.Linear(width, values)
        apart = torch.minimum(torch.arange(values), values - torch.arange(values))
        with torch.no_grad():  # a guess is seldom far off
            self.head.bias.copy_((apart * (-16 / values)).clamp(min=-6))
        mask = torch.ones(channels, tall, wide, channels, dtype=torch.bool)
        mask[:, COLOUR_REACH, COLOUR_REACH:] = False
        for c in range(channels):
            mask[c, COLOUR_REACH, COLOUR_REACH, :c] = True
        self.register_buffer("mask", mask.flatten(1), persistent=False)

    def nats(self, x: Tensor, share: float = COLOUR_SHARE) -> Tensor:
        """Return the cost of images of symbols ``(B, height, width, channels)``, in nats, from a random share of their pixels."""
        height, width, channels = self.shape
        r = COLOUR_REACH
        windows = F.pad(x, (0, 0, r, r, r, 0), value=self.values).unfold(1, r + 1, 1).unfold(2, 2 * r + 1, 1)
        n = max(1, round(share * height * width))
        j = torch.rand(len(x), height * width, device=x.device).argsort(dim=1)[:, :n]  # (B, n)
        chosen = torch.arange(len(x), device=x.device)[:, None], j // width, j % width
        around = windows[chosen].flatten(0, 1).permute(0, 2, 3, 1)  # (B n, r + 1, 2 r + 1, channels)
        true, total = x[chosen].flatten(0, 1), torch.zeros(len(x), device=x.device)
        for c in range(channels):
            logits, guess = self._logits(around, c)
            cost = F.cross_entropy(logits.float(), (true[:, c] - guess) % self.values, reduction="none")
            total = total + cost.view(len(x), n).sum(dim=1)
        return total * (height * width / n)

    def _guess(self, around: Tensor, c: int) -> Tensor:
        """Return a plain guess ``(n,)`` of channel ``c`` from the pixels to the left, above, and above that."""
        left, above, corner = (
            around[:, -1, COLOUR_REACH - 1, c],
            around[:, -2, COLOUR_REACH, c],
            around[:, -2, COLOUR_REACH - 1, c],
        )
        none = self.values
        left, above = torch.where(left == none, above, left), torch.where(above == none, left, above)
        corner = torch.where(corner == none, above, corner)
        low, high = torch.minimum(left, above), torch.maximum(left, above)
        return torch.where(left == none, none // 2, torch.minimum(torch.maximum(left + above - corner, low), high))

    def _logits(self, around: Tensor, c: int) -> tuple[Tensor, Tensor]:
        """Return what windows ``(n, r + 1, 2 r + 1, channels)`` tell of how far channel ``c`` is from a guess, and that."""
        guess = self._guess(around, c)
        if c:
            off = around[:, -1, COLOUR_REACH, c - 1] - self._guess(around, c - 1)
            guess = (guess + off).clamp(0, self.values - 1)
        flat = around.flatten(1)
        apart = torch.where(self.mask[c] & (flat != self.values), flat - guess[:, None], 0)
        told = torch.cat([apart, guess[:, None]], dim=1).to(self.head.weight.dtype) * (8 / self.values)
        logits: Tensor = self.head(self.body(self.windows[c](on_grid(told))))
        return logits, guess

    def begin(self, n: int) -> Tensor:
        """Return what is known of ``n`` images before their first pixel."""
        height, width, channels = self.shape
        return torch.full((n, height + COLOUR_REACH, width + 2 * COLOUR_REACH, channels), self.values)

    def told(self, known: Tensor, j: int) -> Tensor:
        """Return the logits of number ``j``, ``(n, values)``."""
        y, x, c = self._place(j)
        logits, guess = self._logits(known[:, y : y + COLOUR_REACH + 1, x : x + 2 * COLOUR_REACH + 1], c)
        return logits.gather(1, (torch.arange(self.values) - guess[:, None]) % self.values)

    def see(self, known: Tensor, j: int, symbols: Tensor) -> None:
        """Add the symbols ``(n,)`` of number ``j`` to what is known."""
        y, x, c = self._place(j)
        known[:, y + COLOUR_REACH, x + COLOUR_REACH, c] = symbols

    def _place(self, j: int) -> tuple[int, int, int]:
        pixel, c = divmod(j, self.shape[2])
        return *divmod(pixel, self.shape[1]), c


def nats(module: Any, batch: Batch, progress: float) -> Loss:
    r"""Return :math:`-\frac1B \sum_b \log p(x_b)`, in nats per row."""
    cost = module.nats(batch.x.long()).mean()
    return Loss(cost, {"bits per row": cost.detach() / math.log(2)})
