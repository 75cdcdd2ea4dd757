"""Bottlenecks: what happens between encoder and decoder. They act on dim 1, over any trailing grid."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from diabolo.records import Code

__all__ = ["Bottleneck", "Gaussian", "Identity", "NormalPrior", "Rectified", "draw_gaussian", "gaussian_entropy"]
__all__ += [
    "gaussian_kl",
    "gaussian_log_prob",
    "mixture_kl_bound",
    "mixture_log_prob",
    "normal_log_prob",
    "split_gaussian",
]


class Bottleneck(nn.Module, ABC):
    """Turns the encoder's output into a code, and says what the code costs.

    Attributes
    ----------
    in_features : int
        Width that the encoder must deliver.
    out_features : int
        Width of the code.
    spatial : bool
        Whether the code keeps the encoder's grid.
    generative : bool
        Whether :meth:`prior` can draw codes.
    linear : bool
        Whether the centre of the code is the first ``out_features`` channels of the input, unchanged.
    margin : float
        Standard deviations above 0 at which units start where the code is linear above 0 only.
    stochastic : bool
        Whether training draws the code from a distribution.
    """

    in_features: int
    out_features: int
    spatial: bool = False
    generative: bool = False
    linear: bool = False
    margin: float = 0.0
    stochastic: bool = False

    @abstractmethod
    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Map ``(B, in_features, *grid)`` to a code; ``sample=False`` gives its deterministic centre."""

    def prior(self, n: int, temperature: float = 1.0) -> Tensor:
        """Draw ``n`` codes ``(n, out_features)`` from the prior, the standard deviation of its noise times ``temperature``."""
        raise TypeError(f"{type(self).__name__} has no prior to draw codes from")

    def log_prior(self, z: Tensor) -> Tensor | None:
        """Return the log-density ``(B,)`` of codes ``(B, D)`` under the prior, in nats; None where it is not known."""
        return None

    def project(self, z: Tensor) -> Tensor:
        """Bring numbers ``(B, D, *grid)`` from elsewhere to where codes may lie."""
        return z

    def log_ratio(self, code: Code) -> Tensor:
        """Return ``log q(z | x) - log p(z)`` of codes that were drawn, ``(B,)``, in nats and unweighted.

        Its mean over draws is the KL divergence. Gradients flow through ``code.z`` and ``code.aux`` alike.
        """
        raise TypeError(f"{type(self).__name__} has no density of codes")

    def moments(self, code: Code) -> tuple[Tensor, ...] | None:
        """Return mean and variance of each unit under the posterior of each row, ``(B, D)``, and where it splits their KL.

        The divergence is in nats and unweighted. None for a code that is no distribution.
        """
        return None


class Identity(Bottleneck):
    """The code is the encoder's output, through an optional activation.

    Parameters
    ----------
    latent_dim : int
        Width of the code.
    activation : nn.Module, optional
        Applied to the code, such as ``nn.ReLU()`` for codes with exact zeros.
    """

    def __init__(self, latent_dim: int, activation: nn.Module | None = None):
        super().__init__()
        self.in_features = self.out_features = latent_dim
        self.linear = activation is None
        self.activation = activation if activation is not None else nn.Identity()

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Return ``activation(h)``."""
        return Code(self.activation(h), {}, {})


class Rectified(Identity):
    """The code is the encoder's output where that is above 0, else 0; nearly all of it is when training starts.

    Parameters
    ----------
    latent_dim : int
        Width of the code.
    """

    margin = 2.5

    def __init__(self, latent_dim: int):
        super().__init__(latent_dim, nn.ReLU())
        self.linear = True

    def project(self, z: Tensor) -> Tensor:
        """Return ``z`` where it is above 0, else 0."""
        return z.relu()


class NormalPrior(Identity):
    """A deterministic code for which a standard normal prior stands, once a penalty has brought the codes there.

    Parameters
    ----------
    latent_dim : int
        Width of the code.
    """

    generative = True

    def prior(self, n: int, temperature: float = 1.0) -> Tensor:
        """Draw from N(0, I)."""
        return temperature * torch.randn(n, self.out_features)

    def log_prior(self, z: Tensor) -> Tensor:
        """Return the log-density of N(0, I)."""
        return normal_log_prob(z)


def split_gaussian(h: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log-variance, the halves of ``h`` along dimension 1."""
    mu, logvar = h.chunk(2, dim=1)
    return mu, logvar.clamp(-20.0, 10.0)  # exp of these is finite in float32, and no sane posterior lies outside


def draw_gaussian(mu: Tensor, logvar: Tensor) -> Tensor:
    """Draw from N(mu, exp(logvar)), with gradients to both."""
    return mu + torch.randn_like(mu) * (0.5 * logvar).exp()


def gaussian_entropy(logvar: Tensor) -> Tensor:
    """Entropy of N(mu, exp(logvar)), element by element, in nats."""
    return 0.5 * (logvar + math.log(2 * math.pi) + 1)


def normal_log_prob(z: Tensor) -> Tensor:
    """Log-density of N(0, I), summed over the last dimension, in nats."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)


def gaussian_log_prob(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """Log-density of N(mu, exp(logvar)) at ``z``, element by element, in nats."""
    return -0.5 * ((z - mu).square() * (-logvar).exp() + logvar + math.log(2 * math.pi))


def gaussian_kl(
    mu: Tensor, logvar: Tensor, prior_mu: Tensor | float = 0.0, prior_logvar: Tensor | None = None
) -> Tensor:
    """KL divergence of N(mu, exp(logvar)) from N(0, 1) or another Gaussian, element by element, in nats."""
    if prior_logvar is None:
        return 0.5 * ((mu - prior_mu).square() + logvar.exp() - 1.0 - logvar)
    scaled = ((mu - prior_mu).square() + logvar.exp()) * (-prior_logvar).exp()
    return 0.5 * (scaled - 1.0 + prior_logvar - logvar)


def mixture_log_prob(z: Tensor, means: Tensor, logvars: Tensor, log_weights: Tensor) -> Tensor:
    """Return the log-density of codes ``(B, D)`` under diagonal Gaussians with log-weights ``(K,)``: ``(B,)`` in nats.

    They are the same for all codes, ``(K, D)``, or each has its own, ``(B, K, D)``.
    """
    return (gaussian_log_prob(z[:, None], means, logvars).sum(2) + log_weights).logsumexp(dim=1)


def mixture_kl_bound(divergences: Tensor, log_weights: Tensor) -> Tensor:
    """Return an upper bound ``(B,)`` of the KL divergence from a mixture, from those of its components ``(B, K)``.

    It is exact for one component (Hershey and Olsen, 2007, doi:10.1109/ICASSP.2007.366913).
    """
    return -(log_weights - divergences).logsumexp(dim=1)


class Gaussian(Bottleneck):
    r"""A diagonal Gaussian posterior with a standard normal prior.

    .. math:: z \sim N(\mu(x), \sigma^2(x)), \qquad
              \text{cost} = \beta \sum_d \mathrm{KL}\left(N(\mu_d, \sigma_d^2) \,\|\, N(0, 1)\right)

    summed over the code, in nats per row.

    Parameters
    ----------
    latent_dim : int
        Width of the code.
    beta : float
        Weight of the KL term (Higgins et al., 2017); 1 makes the loss a bound on the likelihood.
    free_bits : float
        In training, a unit whose KL, averaged over the batch, is below this many nats is not pushed lower
        (Kingma et al., 2016, arXiv:1606.04934).

    References
    ----------
    Kingma and Welling, Auto-Encoding Variational Bayes, 2014, arXiv:1312.6114.
    """

    generative = True
    linear = True
    stochastic = True

    def __init__(self, latent_dim: int, beta: float = 1.0, free_bits: float = 0.0):
        super().__init__()
        self.in_features, self.out_features = 2 * latent_dim, latent_dim
        self.beta, self.free_bits = beta, free_bits

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Split ``h`` into mean and log-variance; draw ``z`` or return the mean."""
        mu, logvar = split_gaussian(h)
        z = draw_gaussian(mu, logvar) if sample else mu
        kl = gaussian_kl(mu, logvar)  # (B, D, *grid)
        if self.free_bits > 0 and self.training:
            kl = torch.where(kl.mean(dim=0, keepdim=True) < self.free_bits, self.free_bits, kl)
        return Code(z, {"kl": self.beta * kl.flatten(1).sum(1)}, {"mu": mu, "logvar": logvar})

    def prior(self, n: int, temperature: float = 1.0) -> Tensor:
        """Draw from N(0, I)."""
        return temperature * torch.randn(n, self.out_features)

    def log_prior(self, z: Tensor) -> Tensor:
        """Return the log-density of N(0, I)."""
        return normal_log_prob(z)

    def moments(self, code: Code) -> tuple[Tensor, ...]:
        """Return mean, variance and KL divergence of each unit."""
        mu, logvar = code.aux["mu"], code.aux["logvar"]
        return mu, logvar.exp(), gaussian_kl(mu, logvar)

    def log_ratio(self, code: Code) -> Tensor:
        """Return ``log q(z | x) - log p(z)`` ``(B,)``; ``beta`` has no part in it."""
        zero = torch.zeros((), dtype=code.z.dtype, device=code.z.device)
        posterior = gaussian_log_prob(code.z, code.aux["mu"], code.aux["logvar"])
        return (posterior - gaussian_log_prob(code.z, zero, zero)).flatten(1).sum(1)
