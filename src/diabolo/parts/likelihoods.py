"""Likelihoods: the density of a row given the decoder's output, element by element, in nats."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LIKELIHOODS", "Bernoulli", "Gaussian", "Laplace", "LearnedGaussian", "Likelihood", "SigmoidGaussian"]
__all__ += ["StudentT"]

LOG_2PI = math.log(2 * math.pi)
LOGIT_SLOPE = 4.4  # logits of 0.1 and 0.9 for zeros and ones: a start that is neither flat nor certain


class Likelihood(nn.Module, ABC):
    """The distribution of ``x`` given the decoder's output ``raw``.

    Attributes
    ----------
    params : int
        Numbers the decoder delivers for each element of ``x``: ``raw`` has shape ``(B, params, *shape)``.
    support : str
        Where ``x`` may lie, in words.
    density : bool
        Whether ``log_prob`` is a density over real values (and so changes with their unit) or a probability.
    robust : bool
        Whether outliers hardly pull, so that the start of training must not follow them either.
    """

    params: int = 1
    support: str = "any number"
    density: bool = True
    robust: bool = False

    @abstractmethod
    def log_prob(self, raw: Tensor, x: Tensor) -> Tensor:
        """Return the log-density of each element, ``(B, *shape)``, in nats."""

    def mean(self, raw: Tensor) -> Tensor:
        """Return the expected row ``(B, *shape)``."""
        return raw[:, 0]

    def output_for(self, x: Tensor) -> Tensor:
        """Return the decoder's first output, an affine function of ``x``, whose mean is near ``x``."""
        return x

    def start(self, residual: float) -> float:
        """Take up the variance of the residuals that training starts with; return the variance of the noise."""
        return 1.0

    @abstractmethod
    def sample(self, raw: Tensor) -> Tensor:
        """Draw rows ``(B, *shape)``."""

    def supports(self, x: Tensor) -> Tensor | None:
        """Return where ``x`` lies in the support, or ``None`` when it always does."""
        return None

    def observe(self, raw: Tensor, x: Tensor, mask: Tensor | None) -> None:
        """Look at a batch of training; only likelihoods that follow the data do anything here."""
        return


class Gaussian(Likelihood):
    r"""Normal with unit scale: :math:`\log p = -\frac12 (x - \hat x)^2 - \frac12 \log 2\pi`.

    Its loss is half the sum of squared errors of a row: what others call training with MSE, in a unit that other terms share.
    """

    def log_prob(self, raw: Tensor, x: Tensor) -> Tensor:
        """Return the log-density of each element."""
        return -0.5 * (x - self.mean(raw)).square() - 0.5 * LOG_2PI

    def sample(self, raw: Tensor) -> Tensor:
        """Draw rows."""
        return torch.normal(self.mean(raw), 1.0)


class SigmoidGaussian(Gaussian):
    """Normal with unit scale whose mean is a sigmoid: squared error on data in [0, 1]."""

    support = "values in [0, 1]"

    def mean(self, raw: Tensor) -> Tensor:
        """Return the expected row, within [0, 1]."""
        return raw[:, 0].sigmoid()

    def output_for(self, x: Tensor) -> Tensor:
        """Return logits near those of ``x``."""
        return LOGIT_SLOPE * (x - 0.5)

    def supports(self, x: Tensor) -> Tensor:
        """Return where ``x`` lies in [0, 1]."""
        return (x >= 0) & (x <= 1)


class LearnedGaussian(Likelihood):
    r"""Normal with a learned scale: :math:`\log p = -\frac{(x-\hat x)^2}{2\sigma^2} - \log\sigma - \frac12\log 2\pi`.

    The scale is the one that maximises the likelihood: the root of the mean squared residual, followed in training by an
    exponential average, so that it needs no learning rate of its own and no hand-set weight between the terms of a VAE's loss
    (Rybkin et al., 2021, arXiv:2006.13202).

    Parameters
    ----------
    shape : tuple of int
        Shape of the scale, broadcastable to a row: a row's shape for one scale a feature, all ones for a shared one.
    floor : float
        Smallest scale, in units of the scaled data.
    """

    log_scale: Tensor
    square: Tensor
    ranks: Any = None  # where several processes train: what takes means over the rows of all

    def __init__(self, shape: tuple[int, ...], floor: float = 0.01):
        super().__init__()
        self.floor = floor
        self.register_buffer("square", torch.ones(shape))  # running mean of squared residuals
        self.register_buffer("log_scale", torch.zeros(shape))
        self._pending: tuple[Tensor, Tensor | None] | None = None

    def log_prob(self, raw: Tensor, x: Tensor) -> Tensor:
        """Return the log-density of each element."""
        residual = x - raw[:, 0]
        return -0.5 * (residual * (-self.log_scale).exp()).square() - self.log_scale - 0.5 * LOG_2PI

    def sample(self, raw: Tensor) -> Tensor:
        """Draw rows."""
        return torch.normal(raw[:, 0], self.log_scale.exp().expand_as(raw[:, 0]))

    def start(self, residual: float) -> float:
        """Start at the scale of the residuals."""
        self.square.fill_(max(residual, self.floor**2))
        self.log_scale.copy_(0.5 * self.square.log())
        return float(self.square.mean())

    def observe(self, raw: Tensor, x: Tensor, mask: Tensor | None) -> None:
        """Follow the residuals of a training batch; takes effect in :meth:`after_step`."""
        self._pending = ((x - raw[:, 0]).detach().square(), mask)

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the scale towards that of the last batch."""
        if self._pending is None:
            return
        square, mask = self._pending
        self._pending = None
        over = (0, *(d + 1 for d, n in enumerate(self.square.shape) if n == 1))
        if mask is None:
            now = square.mean(dim=over, keepdim=True)[0]
            if self.ranks is not None:
                now = self.ranks.mean(now, float(len(square)))
        else:
            seen = mask.sum(dim=over, keepdim=True)[0]
            now = (square * mask).sum(dim=over, keepdim=True)[0] / seen.clamp_min(1)
            if self.ranks is not None:
                now, seen = self.ranks.mean(now, seen), self.ranks.total(seen)
            now = torch.where(seen > 0, now, self.square)
        self.square.lerp_(now.to(self.square.dtype), 0.02)
        self.log_scale.copy_(0.5 * self.square.clamp_min(self.floor**2).log())


class StudentT(LearnedGaussian):
    r"""Student's t with a learned scale and fixed degrees of freedom: far values are expected, so that outliers hardly pull.

    .. math:: \log p = \log\Gamma\tfrac{\nu+1}{2} - \log\Gamma\tfrac{\nu}{2} - \tfrac12 \log \nu\pi - \log\sigma
              - \tfrac{\nu+1}{2} \log\Big(1 + \frac{(x-\hat x)^2}{\nu\sigma^2}\Big)

    The scale follows its maximum-likelihood value: the square moves to the mean of :math:`w r^2` over the residuals :math:`r`
    of a batch, with the weights :math:`w = (\nu + 1) / (\nu + r^2 / \sigma^2)` that make little of outliers (Lange, Little and
    Taylor, 1989, doi:10.1080/01621459.1989.10478852).

    Parameters
    ----------
    shape : tuple of int
        Shape of the scale, as in :class:`LearnedGaussian`.
    floor : float
        Smallest scale, in units of the scaled data.
    dof : float
        Degrees of freedom :math:`\nu`; a large number comes near the Gaussian.
    """

    robust = True

    def __init__(self, shape: tuple[int, ...], floor: float = 0.01, dof: float = 5.0):
        super().__init__(shape, floor)
        self.dof = dof

    def log_prob(self, raw: Tensor, x: Tensor) -> Tensor:
        """Return the log-density of each element."""
        v = self.dof
        constant = math.lgamma((v + 1) / 2) - math.lgamma(v / 2) - 0.5 * math.log(v * math.pi)
        squares = ((x - raw[:, 0]) * (-self.log_scale).exp()).square()
        return constant - self.log_scale - 0.5 * (v + 1) * torch.log1p(squares / v)

    def sample(self, raw: Tensor) -> Tensor:
        """Draw rows."""
        dof = torch.full_like(raw[:, 0], self.dof)
        return torch.distributions.StudentT(dof, raw[:, 0], self.log_scale.exp().expand_as(dof)).sample()

    def observe(self, raw: Tensor, x: Tensor, mask: Tensor | None) -> None:
        """Follow the weighted residuals of a training batch; takes effect in :meth:`after_step`."""
        squares = (x - raw[:, 0]).detach().square()
        weights = (self.dof + 1) / (self.dof + squares * (-2 * self.log_scale).exp())
        self._pending = (weights * squares, mask)


class Laplace(Likelihood):
    r"""Laplace with unit scale: :math:`\log p = -|x - \hat x| - \log 2`. Its loss is the absolute error: outliers pull less."""

    def log_prob(self, raw: Tensor, x: Tensor) -> Tensor:
        """Return the log-density of each element."""
        return -(x - raw[:, 0]).abs() - math.log(2.0)

    def sample(self, raw: Tensor) -> Tensor:
        """Draw rows."""
        u = torch.rand_like(raw[:, 0]) - 0.5
        return raw[:, 0] - u.sign() * torch.log1p(-2 * u.abs() * (1 - 1e-7))


class Bernoulli(Likelihood):
    r"""A coin for each element: :math:`\log p = x \log \hat x + (1 - x) \log(1 - \hat x)`, binary cross-entropy.

    Values between 0 and 1 are taken as probabilities, as is usual for grey pixels.
    """

    support = "values in [0, 1]"
    density = False

    def output_for(self, x: Tensor) -> Tensor:
        """Return logits near those of ``x``."""
        return LOGIT_SLOPE * (x - 0.5)

    def start(self, residual: float) -> float:
        """Return the largest variance of a coin."""
        return 0.25

    def log_prob(self, raw: Tensor, x: Tensor) -> Tensor:
        """Return the log-probability of each element."""
        return -F.binary_cross_entropy_with_logits(raw[:, 0], x, reduction="none")

    def mean(self, raw: Tensor) -> Tensor:
        """Return the probabilities of a one."""
        return raw[:, 0].sigmoid()

    def sample(self, raw: Tensor) -> Tensor:
        """Draw zeros and ones."""
        return torch.bernoulli(self.mean(raw))

    def supports(self, x: Tensor) -> Tensor:
        """Return where ``x`` lies in [0, 1]."""
        return (x >= 0) & (x <= 1)


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "gaussian": Gaussian,
    "learned_gaussian": LearnedGaussian,
    "sigmoid_gaussian": SigmoidGaussian,
    "student_t": StudentT,
    "laplace": Laplace,
    "bernoulli": Bernoulli,
}
