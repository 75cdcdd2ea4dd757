"""Variational autoencoders: codes that are distributions, with a prior to draw from."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from diabolo.checks import Ge, Le
from diabolo.declare import register, spec
from diabolo.estimator import BaseAutoencoder
from diabolo.module import AutoencoderModule
from diabolo.notices import warn
from diabolo.objectives import Objective, iwae
from diabolo.parts.bottlenecks import (
    Bottleneck,
    Gaussian,
    draw_gaussian,
    gaussian_kl,
    gaussian_log_prob,
    mixture_kl_bound,
    mixture_log_prob,
    split_gaussian,
)
from diabolo.records import Batch, Code, Schema
from diabolo.training.rows import Rows
from diabolo.zoo.activity import (
    ENOUGH_ROWS,
    MOST_NUMBERS,
    MOST_ROWS,
    CodeActivity,
    PosteriorCollapseWarning,
    collapse_message,
    measure,
    posterior_moments,
)

__all__ = ["IWAE", "VAE", "BetaVAE", "MixturePriorVAE", "VampPriorVAE", "VariationalCode"]


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

    def _findings(self, module: AutoencoderModule, train: Rows, held_out: Rows) -> list[str]:
        """Say so when most of the code is not in use."""
        many = max(ENOUGH_ROWS, min(MOST_ROWS, MOST_NUMBERS // train.schema.size))
        activity = measure(module, (held_out if len(held_out) >= ENOUGH_ROWS else train).head(many))
        message = None if activity is None else collapse_message(activity, self._remedies())
        if message is None:
            return []
        warn(message, PosteriorCollapseWarning)
        return [message]

    def _remedies(self) -> tuple[str, ...]:
        """Return what may bring unused units back, in words."""
        return (f"a longer kl_warmup than {self.kl_warmup:g}",) if self.kl_warmup < 1 else ()

    def activity(self, X: Any, *, condition: Any = None) -> CodeActivity:
        """Tell how much each unit of the code says about rows, and how much of it is noise.

        Parameters
        ----------
        X : array, frame or tensor
            Rows as in ``fit``.
        condition : value, sequence, array, mapping or frame, optional
            As in :meth:`transform`.

        Returns
        -------
        CodeActivity
            ``variance``, ``noise`` and ``kl`` of each unit; which are ``active``, and their number ``n_active``.
        """
        check_is_fitted(self)
        raw = self._read(X, reset=False, condition=condition)
        return CodeActivity.of(self._apply(raw, posterior_moments).astype(np.float64))


@spec
class GaussianCode(VariationalCode, ABC):
    """A Gaussian posterior, a standard normal prior, and the ways to keep the code in use."""

    beta: Annotated[float, Ge(0), "weight of the KL term; 1 makes the loss a bound on the likelihood"] = 1.0
    free_bits: Annotated[float, Ge(0), "nats of KL, averaged over a batch, that each unit of the code has free"] = 0.0

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return Gaussian(self._code_width(schema), self.beta, self.free_bits)

    def _remedies(self) -> tuple[str, ...]:
        more = max(0.1, 2 * self.free_bits)
        return (*super()._remedies(), f"a smaller beta than {self.beta:g}", f"free_bits={more:g}")


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
        mean, logvar = split_gaussian(h)
        # not called mu and logvar, because their divergence from N(0, I) is not what this code costs
        aux = {"posterior_mean": mean, "posterior_logvar": logvar}
        if not sample:
            return Code(mean, {"kl": self.bound(mean, logvar)}, aux)
        code = Code(draw_gaussian(mean, logvar), {}, aux)
        return code._replace(costs={"kl": self.log_ratio(code)})

    def moments(self, code: Code) -> tuple[Tensor, ...]:
        """Return mean, variance, and a bound of the KL divergence from the mixture of each unit alone."""
        mean, logvar = code.aux["posterior_mean"], code.aux["posterior_logvar"]
        _, _, log_weights = self.components()
        return mean, logvar.exp(), -(log_weights[:, None] - self.divergences(mean, logvar)).logsumexp(dim=1)

    def log_ratio(self, code: Code) -> Tensor:
        """Return ``log q(z | x) - log p(z)`` ``(B,)``."""
        posterior = gaussian_log_prob(code.z, code.aux["posterior_mean"], code.aux["posterior_logvar"]).sum(1)
        return posterior - self.log_prior(code.z)

    def log_prior(self, z: Tensor) -> Tensor:
        """Return the log-density of the mixture."""
        return mixture_log_prob(z, *self.components())

    def bound(self, mean: Tensor, logvar: Tensor) -> Tensor:
        """Return an upper bound of the KL divergence of posteriors ``(B, D)``, ``(B,)``."""
        _, _, log_weights = self.components()
        return mixture_kl_bound(self.divergences(mean, logvar).sum(2), log_weights)

    def divergences(self, mean: Tensor, logvar: Tensor) -> Tensor:
        """Return the KL divergence of posteriors ``(B, D)`` from each component, unit by unit, ``(B, K, D)``."""
        means, logvars, _ = self.components()
        return gaussian_kl(mean[:, None], logvar[:, None], means, logvars)

    @torch.no_grad()
    def prior(self, n: int, temperature: float = 1.0) -> Tensor:
        """Draw a component for each code, and the code from it."""
        means, logvars, log_weights = (t.cpu() for t in self.components())
        which = torch.multinomial(log_weights.exp(), n, replacement=True)  # (n,)
        noise = temperature * torch.randn(n, self.out_features, dtype=means.dtype)
        return means[which] + noise * (0.5 * logvars[which]).exp()


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
        means, logvars = split_gaussian(encoder(self.inputs))
        n = len(self.inputs)
        return means, logvars, means.new_full((n,), -math.log(n))


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
