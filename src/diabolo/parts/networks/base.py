"""What a network offers: an encoder and a decoder, sized from the schema and from what the other parts declare."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from diabolo.records import Schema

__all__ = ["ACTIVATIONS", "Network"]

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


class Network(Protocol):
    """Builds the two halves of an autoencoder.

    The modules it returns take ``(x)`` or, where the schema has a context, ``(x, context)``.
    """

    def encoder(self, schema: Schema, out: int, *, spatial: bool) -> nn.Module:
        """Return a module from ``(B, *schema.shape)`` to ``(B, out, *grid)``; no grid unless ``spatial``."""
        ...

    def decoder(self, schema: Schema, inp: int, params: int, *, spatial: bool) -> nn.Module:
        """Return a module from ``(B, inp, *grid)`` to ``(B, params, *schema.shape)``."""
        ...
