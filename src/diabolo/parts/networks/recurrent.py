"""Recurrent networks for series: gated recurrent units and long short-term memory."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from diabolo.parts.networks.base import Patches, by_rows, fourier_features, join_context
from diabolo.records import Schema

__all__ = ["Recurrent"]

INFERENCE_NUMBERS = 2**22  # of the hidden states that are held at a time when no gradient is needed
OCTAVES = 4  # of the features that tell the decoder the time


class Recurrent:
    """Layers that read a series in both directions, and layers that write one; the decoder mirrors the encoder.

    Of series of up to 32 steps a cell takes one at a time, of longer ones frames of so many steps that it takes 32 of them at
    most: the time that training needs, and the way that gradients have to go, stay short.

    The code is a linear map of four summaries of the last layer: the state of each direction at its last step, and its mean over
    all steps. Steps are those up to the last observed one, so that what follows the end of a series cannot change its code; the
    encoder also sees which cells are missing. The decoder sees the code at every step, beside features of the time, and writes
    all steps of the longest series.

    Parameters
    ----------
    cell : {"gru", "lstm"}
        Gated recurrent units (Cho et al., 2014, arXiv:1406.1078) or long short-term memory (Hochreiter and Schmidhuber, 1997,
        doi:10.1162/neco.1997.9.8.1735). They have non-linearities of their own.
    hidden : tuple of int
        Widths of the encoder's layers, in each direction; at least one.
    dropout : float
        Fraction of each layer's outputs dropped in training.
    norm : {"layer"} or None
        Normalisation of each layer's outputs at each step.

    References
    ----------
    Srivastava, Mansimov and Salakhutdinov, Unsupervised Learning of Video Representations using LSTMs, 2015, arXiv:1502.04681.
    """

    CELLS: ClassVar[dict[str, type[nn.GRU] | type[nn.LSTM]]] = {"gru": nn.GRU, "lstm": nn.LSTM}

    def __init__(
        self, cell: str = "gru", hidden: tuple[int, ...] = (64,), dropout: float = 0.0, norm: str | None = None
    ):
        if not hidden:
            raise ValueError(f"network={cell!r} needs at least one layer, such as hidden=(64,)")
        if norm == "batch":
            raise ValueError(f"network={cell!r} normalises each step by itself: norm='layer' or None, not 'batch'")
        self.cell, self.hidden, self.dropout, self.norm = self.CELLS[cell], tuple(hidden), dropout, norm

    def encoder(self, schema: Schema, out: int, *, spatial: bool) -> nn.Module:
        """Return ``(B, channels, steps) -> (B, out)``, also for a code that could lie on a grid: one code stands for a series."""
        inp = 2 * schema.shape[0] * Patches(schema.shape).size + schema.context
        forward, backward = (self._layers(inp, self.hidden, both=True) for _ in range(2))
        return RecurrentEncoder(schema, forward, backward, out)

    def decoder(self, schema: Schema, inp: int, params: int, *, spatial: bool) -> nn.Module:
        """Return ``(B, inp) -> (B, params, channels, steps)``."""
        return RecurrentDecoder(schema, self._layers(inp + schema.context + 2 * OCTAVES, self.hidden[::-1]), params)

    def _layers(self, inp: int, hidden: tuple[int, ...], *, both: bool = False) -> nn.ModuleList:
        inputs = (inp, *((2 if both else 1) * width for width in hidden[:-1]))
        return nn.ModuleList(
            Layer(self.cell(a, b, batch_first=True), self.dropout, self.norm)
            for a, b in zip(inputs, hidden, strict=True)
        )


class Layer(nn.Module):
    """A recurrent layer, normalised and dropped out."""

    def __init__(self, cell: nn.GRU | nn.LSTM, dropout: float, norm: str | None):
        super().__init__()
        self.cell = cell
        self.norm = nn.LayerNorm(cell.hidden_size) if norm == "layer" else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, steps, inp)`` to ``(B, steps, width)``."""
        h, _ = self.cell(x)
        out: Tensor = self.dropout(self.norm(h))
        return out


class RecurrentEncoder(nn.Module):
    """Reads a series up to its last observed step, forwards and backwards."""

    takes_mask = True

    def __init__(self, schema: Schema, forward: nn.ModuleList, backward: nn.ModuleList, out: int):
        super().__init__()
        self.shape, self.frames = schema.shape, Patches(schema.shape)
        self.onward, self.backward = forward, backward
        self.width: int = forward[-1].cell.hidden_size  # type: ignore[assignment,union-attr]
        self.head = nn.Linear(4 * self.width, out)

    def forward(self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None) -> Tensor:
        """Map ``(B, channels, steps)``, flat or not, and ``(B, C)`` to ``(B, out)``."""
        rows = max(1, INFERENCE_NUMBERS // (self.frames.grid[0] * 2 * self.width))
        return by_rows(self._encode, rows, x.reshape(-1, *self.shape), context, mask)

    def _encode(self, x: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        cells, seen = self.frames.cut(x), self.frames.cut(torch.ones_like(x) if mask is None else mask)
        step = torch.arange(seen.shape[1], device=x.device)
        last = (seen.amax(dim=2) * step).amax(dim=1, keepdim=True).long()  # (B, 1), the last step with an observed cell
        mirror = torch.where(step <= last, last - step, step)  # (B, steps), each series the other way round
        h = join_context(torch.cat([cells, 1 - seen], dim=2), context)  # (B, steps, inp)
        for onward, backward in zip(self.onward, self.backward, strict=True):
            there = onward(h)
            back = backward(_take(h, mirror))  # its step 0 is the end of the series
            h = torch.cat([there, _take(back, mirror)], dim=2)
        inside = (step <= last).to(h.dtype)[:, :, None]
        mean = (h * inside).sum(dim=1) / inside.sum(dim=1)
        ends = [_take(half, last)[:, 0] for half in (there, back)]
        out: Tensor = self.head(torch.cat([*ends, mean], dim=1))
        return out


class RecurrentDecoder(nn.Module):
    """Writes a series of full length from its code."""

    times: Tensor

    def __init__(self, schema: Schema, layers: nn.ModuleList, params: int):
        super().__init__()
        self.shape, self.frames = (params, *schema.shape), Patches(schema.shape)
        self.layers = layers
        self.width: int = layers[-1].cell.hidden_size  # type: ignore[assignment,union-attr]
        self.head = nn.Linear(self.width, params * schema.shape[0] * self.frames.size)
        self.register_buffer("times", fourier_features(self.frames.grid, OCTAVES), persistent=False)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Map ``(B, inp)`` and ``(B, C)`` to ``(B, params, channels, steps)``."""
        rows = max(1, INFERENCE_NUMBERS // (len(self.times) * self.width))
        return by_rows(self._decode, rows, z, context)

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        code = z.flatten(1)[:, None].expand(-1, len(self.times), -1)
        h = join_context(torch.cat([code, self.times.to(z.dtype).expand(len(z), -1, -1)], dim=2), context)
        for layer in self.layers:
            h = layer(h)  # (B, steps, width)
        return self.frames.join(self.head(h)).reshape(-1, *self.shape)


def _take(h: Tensor, step: Tensor) -> Tensor:
    """Return the steps ``(B, k)`` of ``h`` ``(B, steps, width)``."""
    return h.gather(1, step[:, :, None].expand(-1, -1, h.shape[2]))
