"""Variational autoencoders: codes that are distributions, with a prior to draw from."""

from __future__ import annotations

from abc import ABC
from typing import Annotated

from diabolo.checks import Ge, Le
from diabolo.declare import register, spec
from diabolo.estimator import BaseAutoencoder
from diabolo.parts.bottlenecks import Bottleneck, Gaussian
from diabolo.records import Schema

__all__ = ["VAE", "BetaVAE"]


@spec
class GaussianCode(BaseAutoencoder, ABC):
    """A Gaussian posterior, a standard normal prior, and the ways to keep the code in use."""

    beta: Annotated[float, Ge(0), "weight of the KL term; 1 makes the loss a bound on the likelihood"] = 1.0
    kl_warmup: Annotated[
        float, Ge(0), Le(1), "share of training over which the weight of the KL term rises from 0 to its full value"
    ] = 0.1
    free_bits: Annotated[float, Ge(0), "nats of KL, averaged over a batch, that each unit of the code has free"] = 0.0

    _auto_likelihood = "learned_gaussian"

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return Gaussian(self._code_width(schema), self.beta, self.free_bits)

    def _warmup(self) -> float:
        return self.kl_warmup


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
