"""Likelihoods: the density of a row given the decoder's output, element by element, in nats."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["LIKELIHOODS", "Bernoulli", "Gaussian", "Laplace", "LearnedGaussian", "Likelihood", "SigmoidGaussian"]
__all__ += ["StudentT"]

LOG_2PI = math.log(2 * math.pi)
LOGIT_SLOPE = 4.4  # logits of 0.1 and 0.9 for zeros and ones: a start that is neither flat nor certain


class SquaredErrors(torch.autograd.Function):
    """Sums over rows of squared errors ``(*shape)``, of means and rows ``(B, *shape)``: one pass over the batch each way."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, x: Tensor) -> Tensor:
        """Sum the squares."""
        errors = mean - x
        ctx.save_for_backward(errors)
        return errors.square().sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the means; rows have none."""
        (errors,) = ctx.saved_tensors
        return errors * (2 * gradient), None


class CrossEntropy(torch.autograd.Function):
    """Sum of binary cross-entropies, a scalar, of logits and rows ``(B, *shape)``: fewer passes than of elements."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, x: Tensor) -> Tensor:
        """Sum ``log(1 + exp(logit)) - x * logit``."""
        ctx.save_for_backward(logits, x)
        return torch.addcmul(F.softplus(logits), x, logits, value=-1).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the logits; rows have none."""
        logits, x = ctx.saved_tensors
        return logits.sigmoid().sub_(x).mul_(gradient), None


class Likelihood(nn.Module, ABC):
    """The distribution of ``x`` given the decoder's output ``raw``.

    Attributes
    ----------
    params : int
        Numbers the decoder delivers for each element of ``x``: ``raw`` has shape ``(B, params, *shape)``.
    support : str
        Where ``x`` may lie, in words.
    bounds : tuple of float, optional
        The lowest and the highest value that ``x`` may have.
    density : bool
        Whether ``log_prob`` is a density over real values (and so changes with their unit) or a probability.
    robust : bool
        Whether outliers hardly pull, so that the start of training must not follow them either.
    """

    params: int = 1
    support: str = "any number"
    bounds: tuple[float, float] | None = None
    density: bool = True
    robust: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "log_prob" in vars(cls):  # a shorter way to another density is no way
            for name in ("rows", "total"):
                if name not in vars(cls):
                    setattr(cls, name, getattr(Likelihood, name))

    @abstractmethod
    def log_prob(self, raw: Tensor, x: Tensor) -> Tensor:
        """Return the log-density of each element, ``(B, *shape)``, in nats."""

    def shown(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return what the encoder is shown of rows ``(B, *shape)``: the rows, or what matters of them to the code."""
        return x

    def complete(self, raw: Tensor, x: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Add to the decoder's output what is taken as known of the rows ``x`` beside their codes; without rows what is usual."""
        return raw

    def rows(self, raw: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the sum over the elements of each row ``(B,)``, each times its ``mask``."""
        elements = self.log_prob(raw, x)
        return (elements if mask is None else elements * mask).flatten(1).sum(1)

    def total(self, raw: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the sum of the log-densities of all elements, each times its ``mask``: what :meth:`log_prob` sums to, sooner."""
        elements = self.log_prob(raw, x)
        return elements.sum() if mask is None else (elements * mask).sum()

    def mean(self, raw: Tensor) -> Tensor:
        """Return the expected row ``(B, *shape)``."""
        return raw.squeeze(1)

    def preference(self, raw: Tensor) -> Tensor:
        """Return what features of a row are ranked by ``(B, *shape)``: the expected row, or what rises with it."""
        return self.mean(raw)

    def output_for(self, x: Tensor) -> Tensor:
        """Return the decoder's first output, an affine function of ``x``, whose mean is near ``x``."""
        return x

    def learn(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Look at rows ``(B, *shape)`` before training."""
        return

    def start(self, residual: float) -> float:
        """Take up the variance of the residuals that training starts with; return the variance of the noise."""
        return 1.0

    @abstractmethod
    def sample(self, raw: Tensor) -> Tensor:
        """Draw rows ``(B, *shape)``."""

    def supports(self, x: Tensor) -> Tensor | None:
        """Return where ``x`` lies in the support, or ``None`` when all of it does."""
        if self.bounds is None or not x.numel():
            return None
        low, high = self.bounds
        least, most = x.aminmax()
        return None if least >= low and most <= high else (x >= low) & (x <= high)

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

    def rows(self, raw: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the sum over the elements of each row."""
        if mask is not None:
            return super().rows(raw, x, mask)
        return -0.5 * (x - self.mean(raw)).square().flatten(1).sum(1) - 0.5 * LOG_2PI * x[0].numel()

    def total(self, raw: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the sum of the log-densities."""
        if mask is not None:
            return super().total(raw, x, mask)
        return -0.5 * F.mse_loss(self.mean(raw), x, reduction="sum") - 0.5 * LOG_2PI * x.numel()

    def sample(self, raw: Tensor) -> Tensor:
        """Draw rows."""
        return torch.normal(self.mean(raw), 1.0)


class SigmoidGaussian(Gaussian):
    """Normal with unit scale whose mean is a sigmoid: squared error on data in [0, 1]."""

    support = "values in [0, 1]"
    bounds = (0.0, 1.0)

    def mean(self, raw: Tensor) -> Tensor:
        """Return the expected row, within [0, 1]."""
        return raw.squeeze(1).sigmoid()

    def output_for(self, x: Tensor) -> Tensor:
        """Return logits near those of ``x``."""
        return LOGIT_SLOPE * (x - 0.5)


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
        self._seen: tuple[Tensor, Tensor, Tensor | None] | None = None  # output, rows and mask of the last batch
        self._squares: Tensor | None = None  # its mean squared residuals, where the loss has found them already

    def log_prob(self, raw: Tensor, x: Tensor) -> Tensor:
        """Return the log-density of each element."""
        residual = x - raw.squeeze(1)
        return -0.5 * (residual * (-self.log_scale).exp()).square() - self.log_scale - 0.5 * LOG_2PI

    def rows(self, raw: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the sum over the elements of each row."""
        if mask is not None:
            return super().rows(raw, x, mask)
        squares = ((x - raw.squeeze(1)) * (-self.log_scale).exp()).square().flatten(1).sum(1)
        constant = self.log_scale.expand(x.shape[1:]).sum() + 0.5 * LOG_2PI * x[0].numel()
        return -0.5 * squares - constant

    def total(self, raw: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the sum of the log-densities."""
        if mask is not None or self.square.shape not in (x.shape[1:], (1,) * (x.dim() - 1)):
            return super().total(raw, x, mask)
        if self.square.numel() == 1:
            squares = F.mse_loss(raw.squeeze(1), x, reduction="sum").view_as(self.square)
        else:
            squares = SquaredErrors.apply(raw.squeeze(1), x)  # type: ignore[no-untyped-call]
        terms = x.numel() // self.square.numel()  # squares in each of the sums
        self._squares = squares.detach() / terms
        constant = terms * (self.log_scale.sum() + 0.5 * LOG_2PI * self.square.numel())
        total: Tensor = -0.5 * (squares * (-2 * self.log_scale).exp()).sum() - constant
        return total

    def sample(self, raw: Tensor) -> Tensor:
        """Draw rows."""
        return torch.normal(raw.squeeze(1), self.log_scale.exp().expand_as(raw.squeeze(1)))

    def start(self, residual: float) -> float:
        """Start at the scale of the residuals."""
        self.square.fill_(max(residual, self.floor**2))
        self.log_scale.copy_(0.5 * self.square.log())
        return float(self.square.mean())

    def observe(self, raw: Tensor, x: Tensor, mask: Tensor | None) -> None:
        """Follow the residuals of a training batch; takes effect in :meth:`after_step`."""
        self._seen, self._squares = (raw.detach(), x, mask), None

    def squares(self, raw: Tensor, x: Tensor) -> Tensor:
        """Return what the square of the scale is the mean of, ``(B, *shape)``."""
        return (x - raw.squeeze(1)).square()

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the scale towards that of the last batch."""
        if self._seen is None:
            return
        (raw, x, mask), now = self._seen, self._squares
        self._seen = self._squares = None
        over = (0, *(d + 1 for d, n in enumerate(self.square.shape) if n == 1))
        if mask is None:
            if now is None:
                now = self.squares(raw, x).mean(dim=over, keepdim=True)[0]
            if self.ranks is not None:
                now = self.ranks.mean(now, float(len(x)))
        else:
            seen = mask.sum(dim=over, keepdim=True)[0]
            now = (self.squares(raw, x) * mask).sum(dim=over, keepdim=True)[0] / seen.clamp_min(1)
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
        squares = ((x - raw.squeeze(1)) * (-self.log_scale).exp()).square()
        return constant - self.log_scale - 0.5 * (v + 1) * torch.log1p(squares / v)

    def sample(self, raw: Tensor) -> Tensor:
        """Draw rows."""
        dof = torch.full_like(raw.squeeze(1), self.dof)
        return torch.distributions.StudentT(dof, raw.squeeze(1), self.log_scale.exp().expand_as(dof)).sample()

    def squares(self, raw: Tensor, x: Tensor) -> Tensor:
        """Return the weighted squares of the residuals."""
        squares = (x - raw.squeeze(1)).square()
        return squares * (self.dof + 1) / (self.dof + squares * (-2 * self.log_scale).exp())


class Laplace(Likelihood):
    r"""Laplace with unit scale: :math:`\log p = -|x - \hat x| - \log 2`. Its loss is the absolute error: outliers pull less."""

    def log_prob(self, raw: Tensor, x: Tensor) -> Tensor:
        """Return the log-density of each element."""
        return -(x - raw.squeeze(1)).abs() - math.log(2.0)

    def sample(self, raw: Tensor) -> Tensor:
        """Draw rows."""
        u = torch.rand_like(raw.squeeze(1)) - 0.5
        return raw.squeeze(1) - u.sign() * torch.log1p(-2 * u.abs() * (1 - 1e-7))


class Bernoulli(Likelihood):
    r"""A coin for each element: :math:`\log p = x \log \hat x + (1 - x) \log(1 - \hat x)`, binary cross-entropy.

    Values between 0 and 1 are taken as probabilities, as is usual for grey pixels.
    """

    support = "values in [0, 1]"
    bounds = (0.0, 1.0)
    density = False

    def output_for(self, x: Tensor) -> Tensor:
        """Return logits near those of ``x``."""
        return LOGIT_SLOPE * (x - 0.5)

    def start(self, residual: float) -> float:
        """Return the largest variance of a coin."""
        return 0.25

    def log_prob(self, raw: Tensor, x: Tensor) -> Tensor:
        """Return the log-probability of each element."""
        return -F.binary_cross_entropy_with_logits(raw.squeeze(1), x, reduction="none")

    def total(self, raw: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the sum of the log-probabilities."""
        if mask is not None:
            return super().total(raw, x, mask)
        total: Tensor = CrossEntropy.apply(raw.squeeze(1), x).neg()  # type: ignore[no-untyped-call]
        return total

    def mean(self, raw: Tensor) -> Tensor:
        """Return the probabilities of a one."""
        return raw.squeeze(1).sigmoid()

    def sample(self, raw: Tensor) -> Tensor:
        """Draw zeros and ones."""
        return torch.bernoulli(self.mean(raw))


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "gaussian": Gaussian,
    "learned_gaussian": LearnedGaussian,
    "sigmoid_gaussian": SigmoidGaussian,
    "student_t": StudentT,
    "laplace": Laplace,
    "bernoulli": Bernoulli,
}
