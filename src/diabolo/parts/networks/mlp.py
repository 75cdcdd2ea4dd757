"""Fully connected networks of any depth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diabolo.parts.networks.base import ACTIVATIONS
from diabolo.parts.networks.sparse import SparseLinear
from diabolo.records import Schema

__all__ = ["MLP"]

NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


class MLP:
    """Layers of full connections; the decoder mirrors the encoder.

    Parameters
    ----------
    hidden : tuple of int
        Widths of the encoder's hidden layers; ``()`` makes each half a single linear layer.
    activation : str
        A key of ``ACTIVATIONS``.
    dropout : float
        Fraction of hidden units dropped in training.
    norm : {"batch", "layer"} or None
        Normalisation before each activation.
    residual : bool
        Whether a hidden layer adds its input to its output (projected where widths differ).
    shortcut : bool
        Whether each half has a linear map beside its layers, and adds the two.
    mostly_zero : bool
        Whether rows hold mostly zeros, which the encoder's first layer then leaves out.
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (128,),
        activation: str = "silu",
        dropout: float = 0.0,
        norm: str | None = None,
        residual: bool = False,
        shortcut: bool = False,
        mostly_zero: bool = False,
    ):
        self.hidden = tuple(hidden)
        self.shortcut, self.mostly_zero = shortcut, mostly_zero
        self.options: dict[str, Any] = {
            "activation": activation,
            "dropout": dropout,
            "norm": norm,
            "residual": residual,
        }

    def encoder(self, schema: Schema, out: int, *, spatial: bool) -> nn.Module:
        """Return ``(B, *shape) -> (B, out)``."""
        half = self._half(schema.size + schema.context, self.hidden, out)
        if self.mostly_zero and isinstance(half, FullyConnected) and isinstance(half.body[0], nn.Linear):
            half.body[0] = SparseLinear.like(half.body[0])
        return half

    def decoder(self, schema: Schema, inp: int, params: int, *, spatial: bool) -> nn.Module:
        """Return ``(B, inp) -> (B, params * size)``."""
        return self._half(inp + schema.context, self.hidden[::-1], params * schema.size)

    def _half(self, inp: int, hidden: tuple[int, ...], out: int) -> nn.Module:
        if not self.shortcut:
            return FullyConnected(inp, hidden, out, **self.options)
        return Shortcut(FullyConnected(inp, hidden, out, **self.options) if hidden else None, nn.Linear(inp, out))


class FullyConnected(nn.Module):
    """A stack of linear layers over flattened rows, with the context joined to the input."""

    def __init__(
        self,
        inp: int,
        hidden: tuple[int, ...],
        out: int,
        *,
        activation: str,
        dropout: float,
        norm: str | None,
        residual: bool,
    ):
        super().__init__()
        self.widths = tuple(hidden)
        layers: list[nn.Module] = []
        # Together the hidden layers start at a quarter of the width that keeps variance, a single one at half: a smooth start.
        shrink = 0.5 ** min(1.0, 2 / max(1, len(hidden)))
        for width in hidden:
            block = nn.Sequential(_linear(inp, width, activation, shrink))
            if norm is not None:
                block.append(NORMS[norm](width))
            block.append(ACTIVATIONS[activation]())
            if dropout > 0:
                block.append(nn.Dropout(dropout))
            layers += [Residual(block, inp, width)] if residual else list(block)
            inp = width
        self.body = nn.Sequential(*layers, _linear(inp, out, "identity"))

    def layers(self) -> list[nn.Sequential]:
        """Return the layers one by one, each with its normalisation, activation and dropout; the last is linear."""
        found: list[nn.Sequential] = []
        for part in self.body:
            if isinstance(part, nn.Linear | Residual):
                found.append(nn.Sequential())
            found[-1].append(part)
        return found

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map ``(B, *shape)`` and ``(B, C)`` to ``(B, out)``."""
        x = x.flatten(1)
        if context is not None:
            x = torch.cat([x, context], dim=1)
        out: Tensor = self.body(x)
        return out


class Shortcut(nn.Module):
    """``shortcut(x) + body(x)``: a linear map, and layers that start at zero and learn what it cannot do."""

    def __init__(self, body: FullyConnected | None, shortcut: nn.Linear):
        super().__init__()
        self.body, self.shortcut = body, shortcut
        if body is not None:
            nn.init.zeros_(body.body[-1].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map ``(B, *shape)`` and ``(B, C)`` to ``(B, out)``."""
        x = x.flatten(1)
        if context is not None:
            x = torch.cat([x, context], dim=1)
        out: Tensor = self.shortcut(x)
        return out if self.body is None else out + self.body(x)


class Residual(nn.Module):
    """``x + body(x)``, with a linear projection of ``x`` where the widths differ (He et al., 2016)."""

    def __init__(self, body: nn.Module, inp: int, out: int):
        super().__init__()
        self.body = body
        self.skip = nn.Identity() if inp == out else nn.Linear(inp, out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, inp)`` to ``(B, out)``."""
        out: Tensor = self.skip(x) + self.body(x)
        return out


def _linear(inp: int, out: int, activation: str, shrink: float = 1.0) -> nn.Linear:
    """Return a linear layer that keeps the variance of its input through the activation (He et al., 2015), times ``shrink``."""
    layer = nn.Linear(inp, out)
    rectifier = activation in ("relu", "leaky_relu", "gelu", "silu", "elu")
    nn.init.normal_(layer.weight, std=shrink * ((2.0 if rectifier else 1.0) / inp) ** 0.5)
    nn.init.zeros_(layer.bias)
    return layer
