"""An autoencoder whose code is rounded, and costs what an entropy coder would take for it."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from diabolo.checks import Ge
from diabolo.declare import register, spec
from diabolo.estimator import BaseAutoencoder
from diabolo.parts.bottlenecks import Bottleneck
from diabolo.parts.entropy import FactorisedDensity
from diabolo.records import Code, Schema

__all__ = ["CompressiveAutoencoder"]

START = 4.0  # steps in a unit of the encoder's output


class RoundedCode(Bottleneck):
    """Rounds to steps that are learned for each unit; its cost is that of the rounded numbers under a learned density.

    Parameters
    ----------
    latent_dim : int
        Width of the code.
    beta : float
        Weight of the cost.
    """

    spatial = True
    linear = True

    def __init__(self, latent_dim: int, beta: float):
        super().__init__()
        self.in_features = self.out_features = latent_dim
        self.beta = beta
        self.log_steps = nn.Parameter(torch.full((latent_dim,), math.log(START)))
        self.density = FactorisedDensity(latent_dim)

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Return the code, with noise as wide as a step in place of rounding where training needs a gradient."""
        steps = self.log_steps.exp().view(1, -1, *[1] * (h.dim() - 2)).to(h.dtype)
        scaled = h * steps
        symbols = scaled + torch.rand_like(scaled) - 0.5 if self.training else torch.round(scaled)
        nats = self.density.bits(symbols).flatten(1).sum(dim=1) * math.log(2)
        return Code(symbols / steps, {"rate": self.beta * nats}, {"symbols": symbols})


@register
@spec
class CompressiveAutoencoder(BaseAutoencoder):
    r"""A code of whole numbers that costs what an entropy coder takes to write them.

    .. math:: L = \frac1B \sum_b \Big[ -\log p(x_b \mid z_b) - \beta \sum_k \log P_k(q_{bk}) \Big], \qquad
              q = \lfloor s \odot h \rceil,\ z = q / s

    in nats per row, with steps :math:`1 / s_k` and a density :math:`P_k` that are learned for each unit of the code. In training
    noise as wide as a step stands for rounding. With ``beta=1`` it is the length of a message from which the row can be
    restored exactly, coded under the likelihood; larger values buy shorter codes with errors. The history holds ``rate``, the
    weighted second term. For files see :class:`Compressor`.

    {parameters}

    References
    ----------
    Balle, Laparra and Simoncelli, End-to-end optimized image compression, 2017, arXiv:1611.01704.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import CompressiveAutoencoder
    >>> X = load_iris().data
    >>> model = CompressiveAutoencoder(2, max_epochs=5, random_state=0).fit(X)
    >>> model.transform(X).shape, len(model.history_["val_rate"])
    ((150, 2), 5)
    """

    latent_dim: Annotated[
        int | Literal["auto"],
        Ge(1),
        "numbers in the code; on a grid, at each of its places; 'auto' is as for Autoencoder",
    ] = field(default="auto", kw_only=False)
    beta: Annotated[float, Ge(0), "weight of what the code costs"] = 1.0

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return RoundedCode(self._code_width(schema), self.beta)
