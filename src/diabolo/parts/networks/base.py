"""What a network offers: an encoder and a decoder, sized from the schema and from what the other parts declare."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from diabolo.records import Schema

__all__ = ["ACTIVATIONS", "Network", "Patches", "by_rows", "fourier_features"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "identity": nn.Identity,
}


PATCHES = {1: 32, 2: 8, 3: 4}  # along each axis at most, by the number of axes


class Network(Protocol):
    """Builds the two halves of an autoencoder.

    The modules it returns take ``(x)`` or, where the schema has a context, ``(x, context)``. An encoder that must know which
    cells are observed has ``takes_mask = True`` and takes ``(x, context, mask=mask)``; any of the two may be ``None``.
    """

    def encoder(self, schema: Schema, out: int, *, spatial: bool) -> nn.Module:
        """Return a module from ``(B, *schema.shape)`` to ``(B, out, *grid)``; no grid unless ``spatial``."""
        ...

    def decoder(self, schema: Schema, inp: int, params: int, *, spatial: bool) -> nn.Module:
        """Return a module from ``(B, inp, *grid)`` to ``(B, params, *schema.shape)``."""
        ...


def run_encoder(
    encoder: nn.Module,
    x: Tensor,
    context: Tensor | None,
    mask: Tensor | None,
    weights: dict[str, Tensor] | None = None,
) -> Tensor:
    """Call an encoder with what it takes of row, context and mask; with other ``weights`` than its own where they are given."""
    takes_mask = getattr(encoder, "takes_mask", False)
    told = (x, context) if takes_mask or context is not None else (x,)
    options = {"mask": mask} if takes_mask else {}
    h: Tensor = encoder(*told, **options) if weights is None else functional_call(encoder, weights, told, options)
    return h


def join_context(tokens: Tensor, context: Tensor | None) -> Tensor:
    """Append the context to each of ``(B, tokens, numbers)``."""
    return tokens if context is None else torch.cat([tokens, context[:, None].expand(-1, tokens.shape[1], -1)], dim=2)


class Patches:
    """How rows ``(channels, *lengths)`` are cut into tokens.

    Parameters
    ----------
    shape : tuple of int
        Shape of a row.

    Attributes
    ----------
    side : int
        Cells of a patch along each axis.
    grid : tuple of int
        Patches along each axis.
    """

    def __init__(self, shape: tuple[int, ...]):
        self.lengths = shape[1:]
        self.side = math.ceil(max(self.lengths) / PATCHES[len(self.lengths)])
        self.grid = tuple(math.ceil(n / self.side) for n in self.lengths)
        self.size = self.side ** len(self.lengths)  # cells of a patch in one channel

    def cut(self, x: Tensor) -> Tensor:
        """Map ``(B, channels, *lengths)`` to tokens ``(B, tokens, channels * size)``."""
        channels = x.shape[1]
        short = [n * self.side - length for n, length in zip(self.grid, self.lengths, strict=True)]
        x = F.pad(x, [p for s in reversed(short) for p in (0, s)])
        x = x.reshape(len(x), channels, *(n for g in self.grid for n in (g, self.side)))
        axes = len(self.grid)
        x = x.permute(0, *(2 + 2 * a for a in range(axes)), 1, *(3 + 2 * a for a in range(axes)))
        return x.reshape(len(x), math.prod(self.grid), channels * self.size)

    def join(self, tokens: Tensor) -> Tensor:
        """Map tokens ``(B, tokens, channels * size)`` back to ``(B, channels, *lengths)``."""
        axes, channels = len(self.grid), tokens.shape[2] // self.size
        x = tokens.reshape(len(tokens), *self.grid, channels, *[self.side] * axes)
        x = x.permute(0, axes + 1, *(n for a in range(axes) for n in (1 + a, 2 + axes + a)))
        x = x.reshape(len(tokens), channels, *(n * self.side for n in self.grid))
        for axis, length in enumerate(self.lengths):
            x = x.narrow(2 + axis, 0, length)
        return x


def fourier_features(lengths: tuple[int, ...], octaves: int) -> Tensor:
    r"""Return :math:`\sin` and :math:`\cos` of :math:`2^k \pi t / T` for each place of a grid, by which places can be told apart.

    Parameters
    ----------
    lengths : tuple of int
        Of the axes of the grid; :math:`t / T` runs from 0 to below 1 along each.
    octaves : int
        Frequencies :math:`k = 0, 1, ...` of each axis.

    Returns
    -------
    Tensor of shape (math.prod(lengths), 2 * octaves * len(lengths))
    """
    axes = torch.meshgrid(*(torch.arange(n) / n for n in lengths), indexing="ij")
    angles = torch.stack([a.flatten() for a in axes], dim=1)[:, :, None] * (math.pi * 2.0 ** torch.arange(octaves))
    return torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1)


def by_rows(run: Callable[..., Tensor], rows: int, *inputs: Tensor | None) -> Tensor:
    """Call ``run(*inputs)``; without gradients ``rows`` rows at a time, which saves memory, as rows do not see each other."""
    n = next(len(t) for t in inputs if t is not None)
    if torch.is_grad_enabled() or n <= rows:
        return run(*inputs)
    parts = [[None if t is None else t[i : i + rows] for t in inputs] for i in range(0, n, rows)]
    return torch.cat([run(*part) for part in parts])
