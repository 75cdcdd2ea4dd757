"""Likelihoods of what people choose: shares of a total, and ratings of which most are not there."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diabolo.parts.likelihoods.elements import LOG_2PI, Likelihood

__all__ = ["CHOICES", "Multinomial", "Ratings"]


class SharedOut(torch.autograd.Function):
    r""":math:`\sum_b \sum_j x_{bj} \log \text{softmax}(r_b)_j` in half the passes over memory that its parts take one by one."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, x: Tensor) -> Tensor:
        """Map ``(B, D)`` twice to a scalar."""
        top = raw.amax(dim=1, keepdim=True)
        parts = (raw - top).exp_()  # (B, D)
        whole, total = parts.sum(dim=1, keepdim=True), x.sum(dim=1, keepdim=True)  # (B, 1)
        ctx.save_for_backward(parts, total / whole, x)
        return (x * raw).sum() - (total * (whole.log() + top)).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return what was chosen less what was expected, times the gradient."""
        parts, scale, x = ctx.saved_tensors
        return torch.addcmul(x, parts, scale, value=-1.0).mul_(gradients[0]), None


class Multinomial(Likelihood):
    r"""How a row's total is shared out: :math:`\log p = \sum_j x_j \log \pi_j`, with :math:`\pi` the softmax of the output.

    The constant that counts orders is left out. Amounts need not be whole. The encoder is shown rows of length 1, and the output
    is added to the log of each feature's mean.

    Parameters
    ----------
    shape : tuple of int
        Shape of a row.
    known : bool
        Whether expected amounts sum to the total of the row where it is known; else to that of the usual row.

    References
    ----------
    Liang et al., Variational autoencoders for collaborative filtering, WWW 2018, arXiv:1802.05814.
    """

    support = "numbers of at least 0"
    bounds = (0.0, math.inf)
    density = False

    base: Tensor
    centre: Tensor
    log_total: Tensor

    def __init__(self, shape: tuple[int, ...], known: bool = True):
        super().__init__()
        self.known = known
        self.register_buffer("base", torch.zeros(shape))  # log of each feature's mean
        self.register_buffer("centre", torch.zeros(shape))  # mean of what the encoder is shown
        self.register_buffer("log_total", torch.zeros(()))  # of the usual row

    @torch.no_grad()
    def learn(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Take means and the usual total from rows of training."""
        mean, totals = x.mean(0, dtype=torch.float64), x.flatten(1).sum(1, dtype=torch.float64)
        self.base.copy_((mean + 0.5 / len(x)).log())  # half a choice for what was never seen
        self.log_total.copy_(totals[totals > 0].median().log() if bool((totals > 0).any()) else totals.new_zeros(()))
        self.centre.copy_(self.shown(x).mean(0, dtype=torch.float64))

    def shown(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return rows of length 1."""
        length: Tensor = x.flatten(1).norm(dim=1).clamp_min(1e-12)
        return x / length.view(-1, *[1] * (x.dim() - 1))

    def complete(self, raw: Tensor, x: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Return logs of expected amounts; in training less a constant of each row, which shares do not see."""
        raw = raw + self.base
        if self.training:
            return raw
        usual = self.log_total
        if x is not None and self.known:
            totals = x.flatten(1).sum(1)
            usual = torch.where(totals > 0, totals.log(), usual).view(-1, *[1] * (raw.dim() - 1))
        return raw - raw.logsumexp(dim=tuple(range(1, raw.dim())), keepdim=True) + usual

    def log_prob(self, raw: Tensor, x: Tensor) -> Tensor:
        """Return what each feature adds to the log-probability of the row."""
        return x * raw.flatten(1).log_softmax(1).view_as(x)

    def total(self, raw: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the sum of the log-probabilities."""
        if mask is not None:
            return super().total(raw, x, mask)
        found: Tensor = SharedOut.apply(raw.flatten(1), x.flatten(1))  # type: ignore[no-untyped-call]
        return found

    def mean(self, raw: Tensor) -> Tensor:
        """Return expected amounts."""
        return raw[:, 0].exp()

    def preference(self, raw: Tensor) -> Tensor:
        """Return logs of expected amounts."""
        return raw[:, 0]

    def sample(self, raw: Tensor) -> Tensor:
        """Draw whole amounts that sum to the row's total, once rounded."""
        flat = raw.flatten(1)
        totals = flat.logsumexp(1).exp().round().clamp_min(1)  # (B,)
        drawn = torch.multinomial(flat.softmax(1), int(totals.max()), replacement=True)  # (B, most)
        counted = (torch.arange(drawn.shape[1], device=raw.device) < totals[:, None]).to(flat.dtype)
        return torch.zeros_like(flat).scatter_add_(1, drawn, counted).view(len(raw), *raw.shape[2:])

    def output_for(self, x: Tensor) -> Tensor:
        """Return ``x`` less its mean."""
        return x - (self.centre.flatten() if x.dim() <= 2 else self.centre).to(x)


class Ratings(Likelihood):
    r"""Ratings, 0 for none: on those that are there squared error, :math:`-\frac12 (x - \hat x)^2 - \frac12 \log 2\pi`.

    The encoder is shown what a rating differs from the mean of its feature by, and the output is added to that mean.

    Parameters
    ----------
    shape : tuple of int
        Shape of a row.
    """

    support = "ratings, and 0 where there is none"

    base: Tensor

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.register_buffer("base", torch.zeros(shape))

    @torch.no_grad()
    def learn(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Take the mean of each feature, drawn to the mean of all as by five ratings of that size."""
        there, values = (x != 0).double(), x.double()
        overall = values.sum() / there.sum().clamp_min(1)
        self.base.copy_((values.sum(0) + 5 * overall) / (there.sum(0) + 5))

    def shown(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return ratings less the means of their features, 0 where there is none."""
        return torch.where(x != 0, x - self.base, 0.0)

    def complete(self, raw: Tensor, x: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Add the means."""
        return raw + self.base

    def log_prob(self, raw: Tensor, x: Tensor) -> Tensor:
        """Return the log-density of each rating, 0 where there is none."""
        return torch.where(x != 0, -0.5 * (x - raw[:, 0]).square() - 0.5 * LOG_2PI, 0.0)

    def sample(self, raw: Tensor) -> Tensor:
        """Draw ratings."""
        return torch.normal(raw[:, 0], 1.0)

    def output_for(self, x: Tensor) -> Tensor:
        """Return ``x``, which holds differences from the means."""
        return x


CHOICES: dict[str, type[Multinomial] | type[Ratings]] = {"multinomial": Multinomial, "ratings": Ratings}
