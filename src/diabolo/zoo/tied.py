"""An autoencoder whose decoder has the transposed weights of its encoder."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diabolo.checks import ParameterError
from diabolo.declare import register, spec
from diabolo.estimator import BaseAutoencoder
from diabolo.parts.bottlenecks import Bottleneck, Identity
from diabolo.parts.networks.base import ACTIVATIONS, Network
from diabolo.parts.networks.mlp import MLP, NORMS
from diabolo.records import Schema

__all__ = ["TiedAutoencoder"]


class Transposed(nn.Module):
    """The transpose of a linear layer, on the same storage, with a bias of its own.

    Parameters
    ----------
    linear : nn.Linear
        Owns the weight.
    outputs : int
        How many of its inputs this layer gives back, from the first.
    """

    def __init__(self, linear: nn.Linear, outputs: int):
        super().__init__()
        self._linear = (linear,)  # in a tuple, where torch does not look: the encoder owns the weight and saves it
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, linear.out_features)`` to ``(B, outputs)``."""
        return F.linear(x, self._linear[0].weight[:, : len(self.bias)].T, self.bias)


class TiedDecoder(nn.Module):
    """The mirror image of an encoder of full connections: the same weights, transposed, in reverse order.

    Parameters
    ----------
    encoder : nn.Module
        From :class:`~diabolo.parts.networks.mlp.MLP`, neither residual nor with a shortcut.
    schema : Schema
        What was learned of the data; a context enters by a linear map of its own.
    activation, dropout, norm
        What stands between the layers, as in ``MLP``.
    """

    def __init__(self, encoder: nn.Module, schema: Schema, activation: str, dropout: float, norm: str | None):
        super().__init__()
        first, *others = [m for m in encoder.modules() if isinstance(m, nn.Linear)]
        layers: list[nn.Module] = []
        for linear in reversed(others):
            layers.append(Transposed(linear, linear.in_features))
            if norm is not None:
                layers.append(NORMS[norm](linear.in_features))
            layers.append(ACTIVATIONS[activation]())
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
        self.body = nn.Sequential(*layers, Transposed(first, schema.size))
        self.context = nn.Linear(schema.context, schema.size, bias=False) if schema.context else None

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Map ``(B, D)`` and ``(B, C)`` to ``(B, size)``."""
        out: Tensor = self.body(z)
        return out if self.context is None or context is None else out + self.context(context)


class TiedMLP:
    """Full connections whose decoder has the transposed weights of the encoder.

    There is no linear shortcut that starts at the principal components: tied layers beside it would have to start at zero in
    both halves, where no gradient moves them.

    Parameters
    ----------
    hidden, activation, dropout, norm
        As in :class:`~diabolo.parts.networks.mlp.MLP`.
    """

    def __init__(self, hidden: tuple[int, ...], activation: str, dropout: float, norm: str | None):
        self.activation, self.dropout, self.norm = activation, dropout, norm
        self._mlp = MLP(hidden, activation, dropout, norm)
        self._encoder: nn.Module | None = None

    def encoder(self, schema: Schema, out: int, *, spatial: bool) -> nn.Module:
        """Return ``(B, *shape) -> (B, out)``."""
        self._encoder = self._mlp.encoder(schema, out, spatial=spatial)
        return self._encoder

    def decoder(self, schema: Schema, inp: int, params: int, *, spatial: bool) -> nn.Module:
        """Return ``(B, inp) -> (B, size)``, on the weights of the encoder made last."""
        if self._encoder is None:
            raise ValueError("a tied decoder needs its encoder: call encoder() first")
        if params != 1:
            raise ParameterError(f"a tied decoder returns one number for each feature; this likelihood needs {params}")
        return TiedDecoder(self._encoder, schema, self.activation, self.dropout, self.norm)


@register
@spec
class TiedAutoencoder(BaseAutoencoder):
    r"""An autoencoder with half the weights: each layer of the decoder is the transpose of one of the encoder.

    .. math:: L = -\frac1B \sum_b \log p(x_b \mid z_b), \quad
              h_l = f(W_l h_{l-1} + b_l), \quad \hat h_{l-1} = f(W_l^\top \hat h_l + c_l)

    in nats per row; code and output have no activation. The encoder cannot shrink what the decoder enlarges, so that codes keep
    the scale of the data. With ``hidden=()`` the directions of the code are orthonormal at the optimum and span the principal
    components.

    {parameters}

    References
    ----------
    Vincent et al., Stacked denoising autoencoders, JMLR 11, 2010.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import TiedAutoencoder
    >>> X = load_iris().data
    >>> TiedAutoencoder(2, max_epochs=5, random_state=0).fit(X).transform(X).shape
    (150, 2)
    """

    network: Annotated[
        Literal["mlp"], "kind of network: full connections, those of the decoder on the weights of the encoder"
    ] = "mlp"

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return Identity(self._code_width(schema))

    def _network(self, schema: Schema) -> Network:
        return TiedMLP(self._hidden(schema), self.activation, self.dropout, self.norm)
