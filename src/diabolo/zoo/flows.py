"""Variational autoencoders with normalising flows: a learned prior of any shape, or a posterior of any shape."""

from __future__ import annotations

from abc import ABC
from typing import Annotated, Literal

import torch
from torch import Tensor

from diabolo.checks import Ge
from diabolo.declare import register, spec
from diabolo.parts.bottlenecks import (
    Bottleneck,
    draw_gaussian,
    gaussian_entropy,
    gaussian_log_prob,
    normal_log_prob,
    split_gaussian,
)
from diabolo.parts.flows import Flow
from diabolo.records import Code, Schema
from diabolo.zoo.variational import VariationalCode

__all__ = ["FlowPosteriorVAE", "FlowPriorVAE", "sign_points"]

DIRECTIONS = 4  # opposite pairs of points that stand for a posterior where nothing may be drawn


def sign_points(mean: Tensor, logvar: Tensor) -> Tensor:
    r"""Return points ``(2 * DIRECTIONS, B, D)`` whose average stands for the mean over a Gaussian, without a draw.

    The points are :math:`\mu \pm \sigma s_k`, the signs :math:`s_k` being rows of a Hadamard matrix: as far from the centre as
    draws are. The average is exact for cubic functions of single units, and for up to four units also for products of two.

    Parameters
    ----------
    mean, logvar : Tensor of shape (B, D)
        Of the Gaussian.
    """
    unit = torch.arange(mean.shape[1], device=mean.device) % DIRECTIONS
    parity = [torch.tensor([(k & j).bit_count() % 2 for j in range(DIRECTIONS)]) for k in range(DIRECTIONS)]
    signs = (1 - 2 * torch.stack(parity).to(mean.device)[:, unit]).to(mean.dtype)  # (DIRECTIONS, D)
    step = (0.5 * logvar).exp() * signs[:, None]  # (DIRECTIONS, B, D)
    return torch.cat([mean + step, mean - step])


class FlowCode(Bottleneck, ABC):
    """What the two kinds share: a diagonal Gaussian from the encoder, in at least single precision."""

    generative = True
    linear = True
    stochastic = True

    def split(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean ``(B, D)``, log-variance ``(B, D)`` and the rest of the encoder's output."""
        h = h.to(torch.promote_types(h.dtype, torch.float32))
        d = self.out_features
        return *split_gaussian(h[:, : 2 * d]), h[:, 2 * d :]


class FlowPrior(FlowCode):
    r"""A diagonal Gaussian posterior, and a prior that a flow :math:`f` makes of a standard normal.

    .. math:: \log p(z) = \log N(f(z) \mid 0, I) + \log \left| \det \frac{\partial f}{\partial z} \right|, \qquad
              \text{cost} = \log q(z \mid x) - \log p(z), \quad z \sim q

    in nats per row: a draw of the KL divergence. For the centre of a code the mean over ``q`` is taken by :func:`sign_points`,
    which is exact while the flow is affine in each unit.

    Parameters
    ----------
    latent_dim : int
        Width of the code.
    flow : Flow
        From codes to standard normal vectors.
    """

    def __init__(self, latent_dim: int, flow: Flow):
        super().__init__()
        self.in_features, self.out_features = 2 * latent_dim, latent_dim
        self.flow = flow

    def log_prior(self, z: Tensor) -> Tensor:
        """Return ``log p(z)`` of codes ``(..., D)``, in nats."""
        noise, log_volume = self.flow(z)
        log_prob: Tensor = normal_log_prob(noise) + log_volume
        return log_prob

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Split ``h`` into mean and log-variance; draw ``z`` or return the mean."""
        mean, logvar, _ = self.split(h)
        aux = {"posterior_mean": mean, "posterior_logvar": logvar}
        if sample:
            code = Code(draw_gaussian(mean, logvar), {}, aux)
            return code._replace(costs={"kl": self.log_ratio(code)})
        entropy = gaussian_entropy(logvar).sum(1)
        return Code(mean, {"kl": -entropy - self.log_prior(sign_points(mean, logvar)).mean(0)}, aux)

    def log_ratio(self, code: Code) -> Tensor:
        """Return ``log q(z | x) - log p(z)`` ``(B,)``."""
        posterior = gaussian_log_prob(code.z, code.aux["posterior_mean"], code.aux["posterior_logvar"]).sum(1)
        return posterior - self.log_prior(code.z)

    def moments(self, code: Code) -> tuple[Tensor, ...]:
        """Return mean and variance of each unit; under such a prior their divergence does not split."""
        return code.aux["posterior_mean"], code.aux["posterior_logvar"].exp()

    @torch.no_grad()
    def prior(self, n: int, temperature: float = 1.0) -> Tensor:
        """Draw from a standard normal, and run the flow backwards."""
        like = next(self.flow.parameters())
        noise = temperature * torch.randn(n, self.out_features, dtype=like.dtype)
        return self.flow.inverse(noise.to(like.device)).cpu()


class FlowPosterior(FlowCode):
    r"""A posterior that a flow :math:`f` makes of a diagonal Gaussian, given the row; the prior is standard normal.

    .. math:: z = f(z_0; c(x)), \quad z_0 \sim N(\mu(x), \sigma^2(x)), \qquad
              \log q(z \mid x) = \log N(z_0 \mid \mu, \sigma^2) - \log \left| \det \frac{\partial f}{\partial z_0} \right|

    and the cost is :math:`\log q(z \mid x) - \log p(z)` in nats per row: a draw of the KL divergence. The centre of a code is
    :math:`f(\mu)`; there the mean over ``q`` is taken by :func:`sign_points`.

    Parameters
    ----------
    latent_dim : int
        Width of the code.
    flow : Flow
        From Gaussian vectors to codes, with ``context`` numbers from the encoder.
    context : int
        How many.
    """

    def __init__(self, latent_dim: int, flow: Flow, context: int):
        super().__init__()
        self.in_features, self.out_features = 2 * latent_dim + context, latent_dim
        self.flow = flow

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Split ``h`` into mean, log-variance and context; draw ``z`` or return its centre."""
        mean, logvar, context = self.split(h)
        if sample:
            noise = torch.randn_like(mean)
            z, log_volume = self.flow(mean + noise * (0.5 * logvar).exp(), context)
            posterior = normal_log_prob(noise) - 0.5 * logvar.sum(1) - log_volume
            code = Code(z, {}, {"log_posterior": posterior})
            return code._replace(costs={"kl": self.log_ratio(code)})
        z, _ = self.flow(mean, context)
        points, log_volume = self.flow(sign_points(mean, logvar), context)  # (P, B, D)
        cost = -gaussian_entropy(logvar).sum(1) - (log_volume + normal_log_prob(points)).mean(0)
        aux = {"posterior_mean": points.mean(0), "posterior_variance": points.var(0, correction=0)}
        return Code(z, {"kl": cost}, aux)

    def log_ratio(self, code: Code) -> Tensor:
        """Return ``log q(z | x) - log p(z)`` ``(B,)``; the first is known from the draw."""
        return code.aux["log_posterior"] - normal_log_prob(code.z)

    def moments(self, code: Code) -> tuple[Tensor, ...]:
        """Return mean and variance of each unit."""
        return code.aux["posterior_mean"], code.aux["posterior_variance"]

    def prior(self, n: int, temperature: float = 1.0) -> Tensor:
        """Draw from N(0, I)."""
        return temperature * torch.randn(n, self.out_features)

    def log_prior(self, z: Tensor) -> Tensor:
        """Return the log-density of N(0, I)."""
        return normal_log_prob(z)


@spec
class FlowModel(VariationalCode, ABC):
    """A variational code with a normalising flow."""

    flow: Annotated[
        Literal["spline", "affine"],
        "what the flow does to a unit, given the units before it: a monotonic spline, or a shift and a scale; a spline "
        "takes about three times as long",
    ] = "spline"
    n_transforms: Annotated[int, Ge(1), "maps in the flow, every other one with the units in reverse order"] = 2
    flow_hidden: Annotated[tuple[int, ...], Ge(1), "widths of the hidden layers of the masked network of each map"] = (
        64,
    )

    def _flow(self, schema: Schema, context: int = 0) -> Flow:
        return Flow(self.flow, self._code_width(schema), self.n_transforms, tuple(self.flow_hidden), context)


@register
@spec
class FlowPriorVAE(FlowModel):
    r"""A VAE whose prior is a normalising flow: codes may lie in any shape, and samples come from there.

    .. math:: L = \frac1B \sum_b \Big[ -\log p(x_b \mid z_b) + \log q(z_b \mid x_b) - \log N(f(z_b) \mid 0, I)
              - \log \Big| \det \frac{\partial f}{\partial z}(z_b) \Big| \Big], \qquad z_b \sim q(z \mid x_b)

    in nats per row; the flow :math:`f` is learned with the rest. A standard normal prior asks that codes of all rows together
    look like one round cloud; this one follows them into clusters and bends, so that what is drawn from it is what the decoder
    knows. An autoregressive prior is as strong as an inverse autoregressive posterior (Chen et al., 2017). It needs the extra
    ``flows``, and each step costs several times that of a :class:`VAE`.

    {parameters}

    References
    ----------
    Chen et al., Variational Lossy Autoencoder, 2017, arXiv:1611.02731.

    Durkan et al., Neural Spline Flows, 2019, arXiv:1906.04032.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import FlowPriorVAE
    >>> X = load_iris().data
    >>> FlowPriorVAE(latent_dim=2, max_epochs=2, random_state=0).fit(X).sample(3, random_state=0).shape
    (3, 4)
    """

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return FlowPrior(self._code_width(schema), self._flow(schema))


@register
@spec
class FlowPosteriorVAE(FlowModel):
    r"""A VAE whose posterior is bent by a normalising flow: units of one row's code may depend on each other.

    .. math:: L = \frac1B \sum_b \Big[ -\log p(x_b \mid z_b) + \log N(z_{0b} \mid \mu_b, \sigma_b^2)
              - \log \Big| \det \frac{\partial f}{\partial z_0}(z_{0b}; x_b) \Big| - \log N(z_b \mid 0, I) \Big], \qquad
              z_b = f(z_{0b}; x_b), \quad z_{0b} \sim N(\mu_b, \sigma_b^2)

    in nats per row. The encoder gives mean, variance and a context that the flow depends on. With ``flow="affine"`` it is the
    inverse autoregressive flow of Kingma et al. (2016). A posterior nearer to the true one makes the bound tighter. It needs
    the extra ``flows``, and each step costs several times that of a :class:`VAE`.

    {parameters}

    References
    ----------
    Rezende and Mohamed, Variational Inference with Normalizing Flows, 2015, arXiv:1505.05770.

    Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow, 2016, arXiv:1606.04934.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import FlowPosteriorVAE
    >>> X = load_iris().data
    >>> FlowPosteriorVAE(latent_dim=2, max_epochs=2, random_state=0).fit(X).sample(3, random_state=0).shape
    (3, 4)
    """

    flow: Annotated[
        Literal["spline", "affine"],
        "what the flow does to a unit, given the units before it: a monotonic spline, or a shift and a scale; a spline "
        "takes about three times as long",
    ] = "affine"
    flow_context: Annotated[int, Ge(1), "numbers from the encoder that the flow depends on"] = 16

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return FlowPosterior(self._code_width(schema), self._flow(schema, self.flow_context), self.flow_context)
