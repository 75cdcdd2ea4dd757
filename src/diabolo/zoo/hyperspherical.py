"""A variational autoencoder whose codes lie on a sphere."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from diabolo.checks import Ge
from diabolo.declare import register, spec
from diabolo.parts.bottlenecks import Bottleneck
from diabolo.records import Code, Schema
from diabolo.zoo.variational import VariationalCode

__all__ = ["HypersphericalVAE"]


class VonMisesFisher(Bottleneck):
    r"""A von Mises-Fisher posterior on the unit sphere, and a uniform prior there.

    .. math:: q(z \mid x) \propto \exp(\kappa\, \mu^\top z), \quad \|z\| = \|\mu\| = 1, \qquad
              \text{cost} = \mathrm{KL}(q \,\|\, \text{uniform}) = -\kappa E[g]
              - \log \int e^{-\kappa (1 - \cos\theta)}\, c \sin^{D-2}\theta \, d\theta

    in nats per row, with :math:`g = 1 - \mu^\top z`. Integrals over the angle :math:`\theta` are taken by Gauss-Legendre
    quadrature, which needs no Bessel functions and can be differentiated.

    Parameters
    ----------
    latent_dim : int
        Width ``D`` of the code, 2 or more: the sphere has one dimension less.
    """

    generative = True
    stochastic = True
    nodes = 256  # of the quadrature: the cost is right to 1e-3 nats up to the largest concentration and 200 units
    proposals = 16  # about two thirds of them are accepted, or more: all fail less than once in 10^7 draws
    concentration = 1e4  # at most: an angle of about 0.01

    gap: Tensor
    log_weight: Tensor
    part: Tensor
    part_weight: Tensor

    def __init__(self, latent_dim: int):
        super().__init__()
        self.in_features, self.out_features = latent_dim + 1, latent_dim
        x, w = np.polynomial.legendre.leggauss(self.nodes)
        angle = 0.5 * np.pi * (x + 1)
        log_weight = np.log(w) + (latent_dim - 2) * np.log(np.sin(angle))
        log_weight -= np.logaddexp.reduce(log_weight)
        gap = torch.from_numpy(2 * np.sin(angle / 2) ** 2).float()  # 1 - cos(angle)
        self.register_buffer("gap", gap, persistent=False)  # (nodes,)
        self.register_buffer("log_weight", torch.from_numpy(log_weight).float(), persistent=False)
        x, w = np.polynomial.legendre.leggauss(64)
        self.register_buffer("part", torch.from_numpy(0.5 * (x + 1)).float(), persistent=False)  # of an interval
        self.register_buffer("part_weight", torch.from_numpy(0.5 * w).float(), persistent=False)

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Split ``h`` into direction and concentration; draw ``z`` or return the direction."""
        h = h.to(torch.promote_types(h.dtype, torch.float32))  # half precision is too coarse for densities
        mu = F.normalize(h[:, :-1], dim=1)  # (B, D)
        kappa = F.softplus(h[:, -1:]).clamp(1e-3, self.concentration)  # (B, 1)
        log_mass = self.log_mass(kappa)
        share = (self.log_weight - kappa * self.gap - log_mass).exp()  # (B, nodes)
        mean_gap = (share * self.gap).sum(1, keepdim=True)  # (B, 1)
        cost = (-kappa * mean_gap - log_mass)[:, 0]
        z = self.draw(mu, kappa, 1 - mean_gap) if sample else mu
        return Code(z, {"kl": cost}, {"direction": mu, "concentration": kappa})

    def moments(self, code: Code) -> tuple[Tensor, ...]:
        """Return mean and variance of each unit; their divergence does not split, because they share a sphere."""
        mu, kappa = code.aux["direction"], code.aux["concentration"]
        share = (self.log_weight - kappa * self.gap - self.log_mass(kappa)).exp()  # (B, nodes)
        cosine = 1 - self.gap
        along = (share * cosine.square()).sum(1, keepdim=True)  # (B, 1), mean square along the direction
        across = (1 - along) / (self.out_features - 1)
        mean = (share * cosine).sum(1, keepdim=True) * mu
        return mean, across + mu.square() * (along - across) - mean.square()

    def log_mass(self, kappa: Tensor) -> Tensor:
        """Return the logarithm of the mean of ``exp(-kappa g)`` under the uniform distribution, ``(B, 1)``."""
        return (self.log_weight - kappa * self.gap).logsumexp(dim=1, keepdim=True)

    def log_ratio(self, code: Code) -> Tensor:
        """Return ``log q(z | x) - log p(z)`` ``(B,)``."""
        mu, kappa = code.aux["direction"], code.aux["concentration"]
        return (kappa * ((mu * code.z).sum(1, keepdim=True) - 1) - self.log_mass(kappa))[:, 0]

    def draw(self, mu: Tensor, kappa: Tensor, mean_cosine: Tensor) -> Tensor:
        """Draw codes, with gradients to direction and concentration."""
        gap = self.draw_gap(kappa.detach())  # (B, 1)
        gap = gap - self.slope(gap, kappa.detach(), mean_cosine.detach()) * (kappa - kappa.detach())
        noise = torch.randn_like(mu)
        across = F.normalize(noise - (noise * mu).sum(1, keepdim=True) * mu, dim=1)
        return (1 - gap) * mu + (gap * (2 - gap)).clamp_min(1e-12).sqrt() * across

    def draw_gap(self, kappa: Tensor) -> Tensor:
        """Draw ``1 - mu z`` by rejection, all proposals at once (Wood, 1994, doi:10.1080/03610919408813161)."""
        n = self.out_features - 1
        root = (4 * kappa.square() + n**2).sqrt()
        b = n / (2 * kappa + root)  # (B, 1)
        a = (n + 2 * kappa + root) / 4
        half = torch.full((len(kappa), self.proposals), 0.5 * n, dtype=kappa.dtype, device=kappa.device)
        e = torch.distributions.Beta(half, half).sample()
        below = 1 - (1 - b) * e
        t = 2 * a * b / below
        log_accept = n * (t / n).log() - t + 4 * a * b / (1 + b)
        accepted = log_accept >= torch.rand_like(e).log()
        first = accepted.to(torch.int8).argmax(dim=1, keepdim=True)
        return (2 * b * e / below).gather(1, first)

    def slope(self, gap: Tensor, kappa: Tensor, mean_cosine: Tensor) -> Tensor:
        r"""Return the derivative of the drawn cosine ``t`` by the concentration, which keeps its quantile.

        .. math:: \frac{dt}{d\kappa} = -\frac{\partial F(t) / \partial\kappa}{p(t)}
                  = \int_t^1 (s - E[t]) \frac{p(s)}{p(t)} ds, \qquad p(s) \propto e^{\kappa s} (1 - s^2)^{(D-3)/2}

        (implicit reparameterisation: Figurnov et al., 2018, arXiv:1805.08498). With :math:`1 - s = (1 - t) v^2` the
        integrand is smooth.
        """
        n, v = self.out_features, self.part
        s = 1 - gap * v.square()  # (B, 64)
        log_ratio = kappa * gap * (1 - v.square()) + (n - 2) * v.log()
        log_ratio = log_ratio + 0.5 * (n - 3) * ((1 + s) / (2 - gap).clamp_min(1e-6)).log()
        return 2 * gap * ((s - mean_cosine) * log_ratio.exp() * self.part_weight).sum(1, keepdim=True)

    def prior(self, n: int, temperature: float = 1.0) -> Tensor:
        """Draw directions, all equally likely."""
        if temperature != 1:
            raise ValueError(f"temperature={temperature:g}: directions are equally likely on a sphere; leave it at 1")
        return F.normalize(torch.randn(n, self.out_features), dim=1)

    def project(self, z: Tensor) -> Tensor:
        """Return the direction of ``z``."""
        return F.normalize(z, dim=1)


@register
@spec
class HypersphericalVAE(VariationalCode):
    r"""A VAE whose codes lie on a sphere, where no place is nearer to the centre of the prior than any other.

    .. math:: L = \frac1B \sum_b \Big[ -\log p(x_b \mid z_b) + \mathrm{KL}\big(\mathrm{vMF}(\mu(x_b), \kappa(x_b))
              \,\|\, \text{uniform}\big) \Big], \qquad z_b \sim \mathrm{vMF}(\mu(x_b), \kappa(x_b))

    in nats per row; every code has the norm 1. It suits directions, angles and cycles, and codes of few dimensions.

    {parameters}

    References
    ----------
    Davidson et al., Hyperspherical Variational Auto-Encoders, 2018, arXiv:1804.00891.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import HypersphericalVAE
    >>> X = load_iris().data
    >>> HypersphericalVAE(latent_dim=3, max_epochs=5, random_state=0).fit(X).sample(3, random_state=0).shape
    (3, 4)
    """

    latent_dim: Annotated[
        int | Literal["auto"],
        Ge(2),
        "size of the code; the sphere has one dimension less; 'auto' is as in other models, and at least 2",
    ] = field(default="auto", kw_only=False)

    def _code_width(self, schema: Schema) -> int:
        return max(2, super()._code_width(schema))

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return VonMisesFisher(self._code_width(schema))
