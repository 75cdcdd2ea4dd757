"""Variational autoencoders: codes that are distributions, with a prior to draw from."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import field
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diabolo.checks import Ge, Le
from diabolo.declare import register, spec
from diabolo.estimator import BaseAutoencoder
from diabolo.module import AutoencoderModule
from diabolo.objectives import Objective, iwae
from diabolo.parts.bottlenecks import Bottleneck, Gaussian, gaussian_log_prob
from diabolo.records import Batch, Code, Schema

__all__ = ["IWAE", "VAE", "BetaVAE", "HypersphericalVAE", "MixturePriorVAE", "VampPriorVAE", "VariationalCode"]


@spec
class VariationalCode(BaseAutoencoder, ABC):
    """A code drawn from a posterior, by default a Gaussian under a standard normal prior."""

    kl_warmup: Annotated[
        float, Ge(0), Le(1), "share of training over which the weight of the KL term rises from 0 to its full value"
    ] = 0.1

    _auto_likelihood = "learned_gaussian"

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return Gaussian(self._code_width(schema))

    def _warmup(self) -> float:
        return self.kl_warmup


@spec
class GaussianCode(VariationalCode, ABC):
    """A Gaussian posterior, a standard normal prior, and the ways to keep the code in use."""

    beta: Annotated[float, Ge(0), "weight of the KL term; 1 makes the loss a bound on the likelihood"] = 1.0
    free_bits: Annotated[float, Ge(0), "nats of KL, averaged over a batch, that each unit of the code has free"] = 0.0

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return Gaussian(self._code_width(schema), self.beta, self.free_bits)


@register
@spec
class VAE(GaussianCode):
    r"""The variational autoencoder: a code that is a distribution, and a model that generates.

    .. math:: L = \frac1B \sum_b \Big[ -\log p(x_b \mid z_b) + \beta \,
              \mathrm{KL}\big(q(z \mid x_b) \,\|\, N(0, I)\big) \Big], \qquad z_b \sim q(z \mid x_b)

    Both terms are summed over their elements and averaged over rows, in nats: the KL term weighs the same at every number of
    features. The default likelihood of real values learns its scale, so that no weight needs setting by hand.

    {parameters}

    References
    ----------
    Kingma and Welling, Auto-Encoding Variational Bayes, 2014, arXiv:1312.6114.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import VAE
    >>> X = load_iris().data
    >>> vae = VAE(latent_dim=2, max_epochs=20, random_state=0).fit(X)
    >>> vae.sample(5, random_state=0).shape
    (5, 4)
    """


@register
@spec
class BetaVAE(GaussianCode):
    """A VAE whose KL term weighs more, so that units of the code stand for independent causes.

    The loss is that of :class:`VAE`; a larger ``beta`` trades faithful reconstruction for a simpler code.

    {parameters}

    References
    ----------
    Higgins et al., beta-VAE, ICLR 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import BetaVAE
    >>> X = load_iris().data
    >>> BetaVAE(latent_dim=2, beta=2.0, max_epochs=5, random_state=0).fit(X).transform(X).shape
    (150, 2)
    """

    beta: Annotated[float, Ge(0), "weight of the KL term; 1 makes the loss a bound on the likelihood"] = 4.0


@register
@spec
class IWAE(VariationalCode):
    r"""The importance-weighted autoencoder: a VAE trained on a tighter bound, from several draws of the code.

    .. math:: L = -\frac1B \sum_b \log \frac1k \sum_{i=1}^k
              \frac{p(x_b \mid z_{bi})\, p(z_{bi})}{q(z_{bi} \mid x_b)}, \qquad z_{bi} \sim q(z \mid x_b)

    in nats per row. With :math:`k` the bound grows towards the likelihood of the row, and the true posterior may be less like
    a Gaussian than a VAE wants it. Each step costs about :math:`k` times that of a :class:`VAE`. ``loss`` and ``val_loss`` in
    the history are this bound; ``score_samples`` keeps the meaning it has in every model.

    {parameters}

    References
    ----------
    Burda et al., Importance Weighted Autoencoders, 2016, arXiv:1509.00519.

    Tucker et al., Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives, 2018, arXiv:1810.04152.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import IWAE
    >>> X = load_iris().data
    >>> IWAE(latent_dim=2, max_epochs=5, random_state=0).fit(X).sample(3, random_state=0).shape
    (3, 4)
    """

    n_importance: Annotated[int, Ge(1), "draws of the code for each row; 1 is the bound of a VAE"] = 5
    gradient: Annotated[
        Literal["dreg", "standard"],
        "gradient of the encoder: 'dreg' is the doubly reparameterised one, whose noise stays low with many draws, "
        "'standard' differentiates the bound as it stands; both have the same expectation",
    ] = "dreg"

    def _objective(self) -> Objective:
        return functools.partial(iwae, n=self.n_importance, dreg=self.gradient == "dreg", warmup=self._warmup())


class GaussianMixture(Bottleneck, ABC):
    r"""A diagonal Gaussian posterior, and a prior that is a mixture of diagonal Gaussians.

    .. math:: p(z) = \sum_k \pi_k N(z \mid m_k, s_k^2), \qquad \text{cost} = \log q(z \mid x) - \log p(z), \quad z \sim q

    in nats per row: a draw of the KL divergence, which has no closed form. For the centre of a code the cost is the upper bound
    :math:`-\log \sum_k \pi_k \exp(-\mathrm{KL}(q \,\|\, N(m_k, s_k^2)))` of Hershey and Olsen (2007,
    doi:10.1109/ICASSP.2007.366913), which needs no draw and is exact for a single component.

    Parameters
    ----------
    latent_dim : int
        Width of the code.
    """

    generative = True
    linear = True
    stochastic = True

    def __init__(self, latent_dim: int):
        super().__init__()
        self.in_features, self.out_features = 2 * latent_dim, latent_dim

    @abstractmethod
    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return means ``(K, D)``, log-variances ``(K, D)`` and log-weights ``(K,)``."""

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Split ``h`` into mean and log-variance; draw ``z`` or return the mean."""
        mean, logvar = _split(h)
        # not called mu and logvar, because their divergence from N(0, I) is not what this code costs
        aux = {"posterior_mean": mean, "posterior_logvar": logvar}
        if not sample:
            return Code(mean, {"kl": self.bound(mean, logvar)}, aux)
        code = Code(mean + torch.randn_like(mean) * (0.5 * logvar).exp(), {}, aux)
        return code._replace(costs={"kl": self.log_ratio(code)})

    def log_ratio(self, code: Code) -> Tensor:
        """Return ``log q(z | x) - log p(z)`` ``(B,)``."""
        means, logvars, log_weights = self.components()
        each = gaussian_log_prob(code.z[:, None], means, logvars).sum(2)  # (B, K)
        prior = (each + log_weights).logsumexp(dim=1)
        posterior = gaussian_log_prob(code.z, code.aux["posterior_mean"], code.aux["posterior_logvar"]).sum(1)
        return posterior - prior

    def bound(self, mean: Tensor, logvar: Tensor) -> Tensor:
        """Return an upper bound of the KL divergence of posteriors ``(B, D)``, ``(B,)``."""
        means, logvars, log_weights = self.components()
        mean, logvar = mean[:, None], logvar[:, None]  # (B, 1, D)
        scaled = ((mean - means).square() + logvar.exp()) * (-logvars).exp()
        kl = 0.5 * (scaled - 1.0 + logvars - logvar).sum(2)  # (B, K)
        return -(log_weights - kl).logsumexp(dim=1)

    @torch.no_grad()
    def prior(self, n: int) -> Tensor:
        """Draw a component for each code, and the code from it."""
        means, logvars, log_weights = (t.cpu() for t in self.components())
        which = torch.multinomial(log_weights.exp(), n, replacement=True)  # (n,)
        return means[which] + torch.randn(n, self.out_features, dtype=means.dtype) * (0.5 * logvars[which]).exp()


class LearnedMixture(GaussianMixture):
    """A mixture whose weights, means and variances are learned with the rest.

    Parameters
    ----------
    latent_dim : int
        Width of the code.
    n_components : int
        Components of the mixture.
    """

    def __init__(self, latent_dim: int, n_components: int):
        super().__init__(latent_dim)
        # means and spread share the variance of 1 that codes start with
        self.means = nn.Parameter(math.sqrt(0.5) * torch.randn(n_components, latent_dim))
        self.logvars = nn.Parameter(torch.full((n_components, latent_dim), math.log(0.5)))
        self.logits = nn.Parameter(torch.zeros(n_components))

    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return means, log-variances and log-weights."""
        return self.means, self.logvars.clamp(-20.0, 10.0), self.logits.log_softmax(0)


class VampMixture(GaussianMixture):
    """A mixture of the posteriors of learned inputs, in equal shares.

    Parameters
    ----------
    latent_dim : int
        Width of the code.
    n_inputs : int
        How many pseudo-inputs.
    shape : tuple of int
        Shape of a row.
    """

    def __init__(self, latent_dim: int, n_inputs: int, shape: tuple[int, ...]):
        super().__init__(latent_dim)
        self.inputs = nn.Parameter(torch.zeros(n_inputs, *shape))
        self._encoder: tuple[nn.Module, ...] = ()  # in a tuple, so that its weights stay the module's alone

    def share_encoder(self, encoder: nn.Module) -> None:
        """Take the encoder whose posteriors are the components."""
        self._encoder = (encoder,)

    @torch.no_grad()
    def on_start(self, batch: Batch) -> None:
        """Start the pseudo-inputs at rows of the data, each taken again where there are too few."""
        which = torch.arange(len(self.inputs), device=batch.x.device) % len(batch.x)
        self.inputs.copy_(batch.x[which])

    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        """Encode the pseudo-inputs."""
        (encoder,) = self._encoder
        means, logvars = _split(encoder(self.inputs))
        n = len(self.inputs)
        return means, logvars, means.new_full((n,), -math.log(n))


def _split(h: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log-variance ``(B, D)``, the latter within what a float32 can hold."""
    mean, logvar = h.chunk(2, dim=1)
    return mean, logvar.clamp(-20.0, 10.0)


@register
@spec
class MixturePriorVAE(VariationalCode):
    r"""A VAE whose prior is a learned mixture of Gaussians: codes may form clusters, and samples come from them.

    .. math:: L = \frac1B \sum_b \Big[ -\log p(x_b \mid z_b) + \log q(z_b \mid x_b)
              - \log \sum_k \pi_k N(z_b \mid m_k, s_k^2) \Big], \qquad z_b \sim q(z \mid x_b)

    in nats per row; weights :math:`\pi`, means :math:`m` and standard deviations :math:`s` are learned with the rest.

    {parameters}

    References
    ----------
    Tomczak and Welling, VAE with a VampPrior, 2018, arXiv:1705.07120, who compare it with theirs.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import MixturePriorVAE
    >>> X = load_iris().data
    >>> MixturePriorVAE(latent_dim=2, n_components=3, max_epochs=5, random_state=0).fit(X).sample(3, random_state=0).shape
    (3, 4)
    """

    n_components: Annotated[int, Ge(1), "Gaussians in the prior"] = 10

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return LearnedMixture(self._code_width(schema), self.n_components)


@register
@spec
class VampPriorVAE(VariationalCode):
    r"""A VAE whose prior is the mixture of the posteriors of learned rows, the pseudo-inputs.

    .. math:: L = \frac1B \sum_b \Big[ -\log p(x_b \mid z_b) + \log q(z_b \mid x_b)
              - \log \frac1K \sum_k q(z_b \mid u_k) \Big], \qquad z_b \sim q(z \mid x_b)

    in nats per row. The pseudo-inputs :math:`u_k` start at rows of the data and are learned with the rest, so that the prior
    goes where the codes are and units of the code are less often left unused.

    {parameters}

    References
    ----------
    Tomczak and Welling, VAE with a VampPrior, 2018, arXiv:1705.07120.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import VampPriorVAE
    >>> X = load_iris().data
    >>> VampPriorVAE(latent_dim=2, max_epochs=5, random_state=0).fit(X).sample(3, random_state=0).shape
    (3, 4)
    """

    n_pseudo_inputs: Annotated[int, Ge(2), "learned rows, each with a component in the prior"] = 50

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return VampMixture(self._code_width(schema), self.n_pseudo_inputs, schema.shape)

    def _build(self, schema: Schema) -> AutoencoderModule:
        module = super()._build(schema)
        if isinstance(module.bottleneck, VampMixture):
            module.bottleneck.share_encoder(module.encoder)
        return module


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

    def prior(self, n: int) -> Tensor:
        """Draw directions, all equally likely."""
        return F.normalize(torch.randn(n, self.out_features), dim=1)


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
