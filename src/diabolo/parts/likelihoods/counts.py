"""Likelihoods of counts, held as ``log(1 + count)``: what a network sees, and what scaling makes of counts."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from diabolo.parts.likelihoods.elements import Likelihood

__all__ = ["COUNTS", "Counts", "NegativeBinomial", "Poisson", "ZeroInflatedNegativeBinomial", "ZeroInflatedPoisson"]

MOST = 30.0  # log of the largest mean: far above any count, and finite once taken to the power
RARELY = -3.0  # log-odds of a zero beside those of the counts, to start from


class Counts(Likelihood):
    r"""Counts :math:`k = 0, 1, 2, \dots` of a row, given their logarithms :math:`x = \log(1 + k)`.

    The decoder's output is the log of the mean less that of the feature's mean over rows. With ``shares`` it says how the total
    :math:`t` of a row (in single cells the library size) is divided, and the total is taken as known:

    .. math:: m_j = t \, \frac{\exp(r_j + b_j)}{\sum_i \exp(r_i + b_i)}

    Where cells are missing, sums are over those that are observed. Of a code alone, of which no row is known, the total is the
    median of the rows that training started with.

    Parameters
    ----------
    shape : tuple of int
        Shape of a row, or all ones for one dispersion for all.
    shares : bool
        Whether means are shares of a row's total.
    """

    support = "counts: whole numbers of at least 0"
    density = False
    inflated = False

    base: Tensor
    centre: Tensor
    log_total: Tensor
    information: Tensor

    def __init__(self, shape: tuple[int, ...], shares: bool = False):
        super().__init__()
        self.shares = shares
        self.register_buffer("base", torch.zeros(shape))  # log of each feature's mean
        self.register_buffer("centre", torch.zeros(shape))  # mean of what the encoder is shown
        self.register_buffer("log_total", torch.zeros(()))
        self.register_buffer("information", torch.ones(()))  # mean over features, about the log of the mean, of one row

    # what a kind of counts says ---------------------------------------------------------------------------------------------

    @abstractmethod
    def _zero(self, log_mean: Tensor) -> Tensor:
        """Return the log-probability ``(B, *shape)`` of no count."""

    @abstractmethod
    def _more(self, k: Tensor, log_mean: Tensor, where: Tensor, shape: torch.Size) -> Tensor:
        """Return what counts ``k`` ``(n,)`` have more, in log-probability, than none; ``where`` ``(n, dims)`` they are."""

    @abstractmethod
    def _draw(self, log_mean: Tensor) -> Tensor:
        """Draw counts."""

    def _spread(self, mean: Tensor, variance: Tensor) -> Tensor:
        """Take up moments of the features ``(*shape)`` before training; return the information of a row about each log mean."""
        return mean

    # the interface ----------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def learn(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Take means, totals and spread from rows of training."""
        counts = torch.expm1(x.double())
        seen = torch.ones_like(counts) if mask is None else mask.double()
        counts, n = counts * seen, seen.sum(0).clamp_min(1)
        if self.shares:
            totals = counts.flatten(1).sum(1)
            typical = totals[totals > 0].median() if bool((totals > 0).any()) else totals.new_ones(())
            self.log_total.copy_(typical.log())
            size = (totals / typical).clamp_min(1e-6).view(-1, *[1] * (counts.dim() - 1))
            mean = counts.sum(0) / (size * seen).sum(0).clamp_min(1e-6)
            counts = counts / size
        else:
            mean = counts.sum(0) / n
        variance = ((counts - mean) * seen).square().sum(0) / n
        self.base.copy_((mean + 0.5 / len(x)).log())  # half a count for what was never seen
        self.centre.copy_((self.shown(x, mask).double() * seen).sum(0) / n)
        self.information.copy_(self._spread(mean.to(self.base), variance.to(self.base)).mean())

    def shown(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return ``log(1 + count)``; where totals are known, of counts as they would be in a row of the usual total."""
        if not self.shares:
            return x
        counts = torch.expm1(x.clamp_min(0.0))
        usual = self.log_total.exp()
        if mask is not None:
            usual = usual * (self.base.flatten().softmax(0) * mask.flatten(1)).sum(1)
        size = counts.flatten(1).sum(1).clamp_min(1.0) / usual
        return torch.log1p(counts / size.view(-1, *[1] * (x.dim() - 1)))

    def complete(self, raw: Tensor, x: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Turn outputs into logs of means, of rows whose totals are those of ``x`` ``(B, *shape)``."""
        log_mean = raw[:, 0] + self.base
        if self.shares:
            dims, total, seen = tuple(range(1, log_mean.dim())), self.log_total, log_mean
            if x is not None:
                counts = torch.expm1(x) if mask is None else torch.expm1(x) * mask
                total = counts.sum(dim=dims, keepdim=True).clamp_min(1e-4).log()
            if x is not None and mask is not None:
                known = (mask > 0).flatten(1).any(1).view(total.shape)
                total = torch.where(known, total, self.log_total)
                seen = log_mean.masked_fill((mask == 0) & known, -torch.inf)
            log_mean = log_mean + (total - seen.logsumexp(dim=dims, keepdim=True))
        parts = [log_mean.clamp(max=MOST)]
        if self.inflated:
            parts.append(raw[:, 1] + RARELY)
        return torch.stack(parts, dim=1)

    def log_prob(self, raw: Tensor, x: Tensor) -> Tensor:
        """Return the log-probability of each count."""
        log_mean, zero = raw[:, 0], self._zero(raw[:, 0])
        where = (x > 0).nonzero()  # most counts are 0, and need no gamma function
        at = where.unbind(1)
        k = torch.expm1(x[at]).round()
        more = self._more(k, log_mean[at], where, x.shape[1:])
        if not self.inflated:
            return zero.index_put(at, more, accumulate=True)
        never, ever = nn.functional.logsigmoid(raw[:, 1]), nn.functional.logsigmoid(-raw[:, 1])
        either = torch.logaddexp(never, ever + zero)
        return either.index_put(at, (ever + zero)[at] + more)

    def mean(self, raw: Tensor) -> Tensor:
        """Return the logarithm of one more than the expected count."""
        mean = raw[:, 0].exp()
        return torch.log1p(mean * (-raw[:, 1]).sigmoid() if self.inflated else mean)

    def sample(self, raw: Tensor) -> Tensor:
        """Draw counts, as logarithms of one more."""
        counts = self._draw(raw[:, 0])
        return torch.log1p(counts * torch.bernoulli((-raw[:, 1]).sigmoid()) if self.inflated else counts)

    def output_for(self, x: Tensor) -> Tensor:
        """Return ``x`` less its mean: where counts are large this is their log less its mean, and where they are small less."""
        return x - self.centre.flatten().to(x) if x.dim() == 2 else x - self.centre.to(x)

    def start(self, residual: float) -> float:
        """Return the variance that one count has, as a measurement of the log of its mean."""
        return 1.0 / max(float(self.information), 1e-6)


class Poisson(Counts):
    r"""Poisson: :math:`\log p = k \log m - m - \log k!`, counts whose variance is their mean."""

    def _zero(self, log_mean: Tensor) -> Tensor:
        return -log_mean.exp()

    def _more(self, k: Tensor, log_mean: Tensor, where: Tensor, shape: torch.Size) -> Tensor:
        return k * log_mean - torch.lgamma(k + 1)

    def _draw(self, log_mean: Tensor) -> Tensor:
        return torch.poisson(log_mean.exp())


class NegativeBinomial(Counts):
    r"""Negative binomial of mean :math:`m`, with a learned dispersion :math:`\theta` for each feature.

    Its variance is :math:`m + m^2 / \theta`.

    .. math:: \log p = \log\frac{\Gamma(k + \theta)}{\Gamma(\theta)\, k!} + \theta \log \frac{\theta}{\theta + m}
              + k \log \frac{m}{\theta + m}
    """

    def __init__(self, shape: tuple[int, ...], shares: bool = False):
        super().__init__(shape, shares)
        self.log_theta = nn.Parameter(torch.zeros(shape))

    def _spread(self, mean: Tensor, variance: Tensor) -> Tensor:
        theta = mean.square() / (variance - mean).clamp_min(1e-12)
        # what the code explains is no dispersion, so that it starts smaller than it looks
        theta = torch.where(mean > 0, 2 * theta, 1.0).clamp(0.1, 100.0)
        self.log_theta.copy_(theta.log())
        return mean * theta / (mean + theta)

    def _zero(self, log_mean: Tensor) -> Tensor:
        return self.log_theta.exp() * -nn.functional.softplus(log_mean - self.log_theta)

    def _more(self, k: Tensor, log_mean: Tensor, where: Tensor, shape: torch.Size) -> Tensor:
        log_theta = self.log_theta.expand(shape)[where[:, 1:].unbind(1)]
        theta = log_theta.exp()
        share = nn.functional.logsigmoid(log_mean - log_theta)  # log of m / (theta + m)
        return k * share + torch.lgamma(k + theta) - torch.lgamma(theta) - torch.lgamma(k + 1)

    def _draw(self, log_mean: Tensor) -> Tensor:
        theta = self.log_theta.exp().expand_as(log_mean)
        return torch.poisson(torch._standard_gamma(theta) * (log_mean - self.log_theta).exp())


class ZeroInflatedPoisson(Poisson):
    r"""Poisson, and beside it a chance :math:`\pi` of nothing: :math:`p = \pi [k = 0] + (1 - \pi) \operatorname{Poisson}(k)`.

    References
    ----------
    Lambert, Zero-inflated Poisson regression, Technometrics 34, 1992, doi:10.2307/1269547.
    """

    params = 2
    inflated = True


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    r"""Negative binomial, and beside it a chance :math:`\pi` of nothing.

    .. math:: p = \pi [k = 0] + (1 - \pi) \operatorname{NB}(k)

    References
    ----------
    Eraslan et al., Single-cell RNA-seq denoising using a deep count autoencoder, 2019, doi:10.1038/s41467-018-07931-2.

    Lopez et al., Deep generative modeling for single-cell transcriptomics, 2018, doi:10.1038/s41592-018-0229-2.
    """

    params = 2
    inflated = True


COUNTS: dict[str, type[Counts]] = {
    "poisson": Poisson,
    "negative_binomial": NegativeBinomial,
    "zero_inflated_poisson": ZeroInflatedPoisson,
    "zero_inflated_negative_binomial": ZeroInflatedNegativeBinomial,
}
