"""What a rounded code costs: densities learned for each channel, normal distributions told by a network, and their tables."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SCALES", "FactorisedDensity", "at_least", "full_precision", "normal_bits", "normal_tables", "rounded"]

SCALES = 64  # standard deviations that a normal distribution may have, equally spaced in their logarithm
NARROWEST, WIDEST_SCALE = 0.11, 96.0
TOTAL = 2**16  # of the counts of a table
LEAST = 1e-9  # probability of a symbol that a loss counts with


def full_precision(device: torch.device) -> torch.autocast:
    """Return the context in which products keep the precision of what goes into them."""
    return torch.autocast(device.type if device.type in ("cpu", "cuda", "mps") else "cpu", enabled=False)


def rounded(x: Tensor) -> Tensor:
    """Round to whole numbers; the gradient passes as if nothing were done."""
    return x + (torch.round(x) - x).detach()


class _AtLeast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        (g,) = gradients
        return g * ((x >= ctx.bound) | (g < 0)), None


def at_least(x: Tensor, bound: float) -> Tensor:
    """Return ``max(x, bound)``; below the bound only gradients that lead back to it pass."""
    return cast("Tensor", _AtLeast.apply(x, bound))  # type: ignore[no-untyped-call]


def normal_bits(x: Tensor, mean: Tensor, index: Tensor) -> Tensor:
    r"""Return :math:`-\log_2 P(x)` of each element, in bits, for a normal distribution in bins of width 1.

    Parameters
    ----------
    x, mean : Tensor
        Numbers, and the means of their distributions.
    index : Tensor
        Which of the standard deviations, from 0 to ``SCALES - 1``; between two whole numbers one between theirs.
    """
    ratio = math.log(WIDEST_SCALE / NARROWEST) / (SCALES - 1)
    scale = NARROWEST * torch.exp(at_least(index.float(), 0.0).clamp(max=SCALES - 1) * ratio)
    off = (x.float() - mean.float()).abs()
    upper, lower = (
        (0.5 - off) / scale,
        (-0.5 - off) / scale,
    )  # both on the lower tail, where differences keep their digits
    mass = torch.special.ndtr(upper) - torch.special.ndtr(lower)
    return -torch.log2(at_least(mass, LEAST))


def normal_tables() -> list[NDArray[np.int64]]:
    """Return for each standard deviation the counts of the numbers ``-k ... k``, and of all others, which sum to ``TOTAL``."""
    tables = []
    for scale in np.geomspace(NARROWEST, WIDEST_SCALE, SCALES):
        k = max(1, math.ceil(4.5 * scale))
        numbers = np.arange(-k, k + 1)
        mass = special.ndtr((numbers + 0.5) / scale) - special.ndtr((numbers - 0.5) / scale)
        tables.append(counted(np.append(mass, max(0.0, 1 - mass.sum()))))
    return tables


def counted(mass: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return whole numbers of at least 1 that sum to ``TOTAL``, in proportion to ``mass``."""
    spare = TOTAL - len(mass)
    exact = mass / mass.sum() * spare
    counts: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    short = spare - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:short]] += 1
    counts += 1
    return counts


class FactorisedDensity(nn.Module):
    r"""A density of its own for each channel, by a monotone network for its distribution function.

    .. math:: P(\hat z) = F(\hat z + \tfrac12) - F(\hat z - \tfrac12), \qquad F = \sigma \circ f_4 \circ \dots \circ f_1

    with layers :math:`f(x) = g(Hx + b)` of 3 units whose weights are positive, :math:`g(x) = x + a \tanh x`, :math:`|a| < 1`.

    Parameters
    ----------
    channels : int
        Of a code.

    References
    ----------
    Balle et al., Variational image compression with a scale hyperprior, 2018, arXiv:1802.01436, appendix 6.1.
    """

    WIDTHS = (1, 3, 3, 3, 1)

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        scale = 10.0 ** (1 / (len(self.WIDTHS) - 1))
        self.matrices, self.biases, self.bends = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for inp, out in zip(self.WIDTHS[:-1], self.WIDTHS[1:], strict=True):
            start = math.log(math.expm1(1 / scale / out))
            self.matrices.append(nn.Parameter(torch.full((channels, out, inp), start)))
            self.biases.append(nn.Parameter(torch.rand(channels, out, 1) - 0.5))
        for out in self.WIDTHS[1:-1]:
            self.bends.append(nn.Parameter(torch.zeros(channels, out, 1)))

    def logits(self, x: Tensor) -> Tensor:
        """Return the logit of the distribution function of each channel at ``x`` ``(channels, 1, n)``."""
        for i, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            x = F.softplus(matrix) @ x + bias
            if i < len(self.bends):
                x = x + torch.tanh(self.bends[i]) * torch.tanh(x)
        return x

    def bits(self, z: Tensor) -> Tensor:
        r"""Return :math:`-\\log_2 P(z)` of each element of codes ``(B, channels, *grid)``, in bits."""
        with full_precision(z.device):  # differences of distribution functions need all digits
            x = z.to(self.matrices[0].dtype).transpose(0, 1).reshape(self.channels, 1, -1)
            lower, upper = self.logits(x - 0.5), self.logits(x + 0.5)
            sign = -torch.sign(lower + upper).detach()  # to the tail where sigmoids are far from 1
            mass = (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()
            bits = -torch.log2(at_least(mass, LEAST))
        return bits.reshape(self.channels, len(z), *z.shape[2:]).transpose(0, 1)

    @torch.no_grad()
    def tables(self, widest: int = 128) -> list[tuple[int, NDArray[np.int64]]]:
        """Return for each channel the first of its usual numbers, and the counts of these, and of all others."""
        numbers = torch.arange(-widest, widest + 1, dtype=torch.float32).expand(self.channels, 1, -1)
        mass = (torch.sigmoid(self.logits(numbers + 0.5)) - torch.sigmoid(self.logits(numbers - 0.5)))[:, 0]
        found = []
        for row in mass.double().numpy():
            usual = np.flatnonzero(row > 1 / TOTAL)
            first, last = (int(usual[0]), int(usual[-1])) if len(usual) else (widest, widest)
            kept = row[first : last + 1]
            found.append((first - widest, counted(np.append(kept, max(0.0, 1 - kept.sum())))))
        return found
