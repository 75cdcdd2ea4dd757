"""Models that look at the codes of a whole batch: they match them to the prior, or keep their units independent."""

from __future__ import annotations

from abc import ABC
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from diabolo.checks import Ge, Le
from diabolo.declare import register, spec
from diabolo.estimator import BaseAutoencoder
from diabolo.parts.bottlenecks import Bottleneck, Gaussian, NormalPrior, gaussian_log_prob
from diabolo.parts.penalties import Penalty
from diabolo.records import Schema, Trace
from diabolo.zoo.variational import VariationalCode

__all__ = ["DIPVAE", "WAE", "AdversarialAutoencoder", "BetaTCVAE", "FactorVAE", "InfoVAE"]

PAIR_ROWS = 512  # rows compared with each other at most: memory and time grow with the square
IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


# discrepancy from the prior -----------------------------------------------------------------------------------------------------


def mmd(z: Tensor, prior: Tensor, kernel: str) -> Tensor:
    r"""Estimate the squared maximum mean discrepancy between two sets of codes, without bias.

    .. math:: \frac{1}{n(n-1)} \sum_{i \ne j} k(z_i, z_j) + \frac{1}{n(n-1)} \sum_{i \ne j} k(p_i, p_j)
              - \frac{2}{n^2} \sum_{i,j} k(z_i, p_j)

    Parameters
    ----------
    z, prior : Tensor of shape (n, D)
        Codes, and as many draws of the prior; ``n`` is at least 2.
    kernel : str
        ``"imq"``, :math:`\sum_s 2Ds / (2Ds + \|a-b\|^2)` over seven scales ``s`` from 0.1 to 10, where :math:`2D` is the mean
        squared distance between draws of N(0, I); or ``"rbf"``, :math:`\exp(-\|a-b\|^2 / 2D)`.

    Returns
    -------
    Tensor
        A scalar; it may be slightly below 0.
    """
    n, d = z.shape

    def similarity(a: Tensor, b: Tensor) -> Tensor:
        square = (a[:, None] - b).square().sum(2)  # (n, n)
        if kernel == "rbf":
            return (-square / (2 * d)).exp()
        return torch.stack([2 * d * s / (2 * d * s + square) for s in IMQ_SCALES]).sum(0)

    def within(a: Tensor) -> Tensor:
        k = similarity(a, a)
        return (k.sum() - k.diagonal().sum()) / (n * (n - 1))

    return within(z) + within(prior) - 2 * similarity(z, prior).mean()


class Discrepancy(Penalty):
    r""":math:`\lambda\, \mathrm{MMD}^2` between the codes of a batch and draws of the prior N(0, I).

    Parameters
    ----------
    weight : float
        :math:`\lambda`, nats per row.
    kernel : str
        As in :func:`mmd`.
    """

    name = "mmd"

    def __init__(self, weight: float, kernel: str):
        super().__init__(weight)
        self.kernel = kernel

    def forward(self, module: Any, trace: Trace) -> Tensor:
        """Return a scalar, 0 for a lone row."""
        z = trace.code.z.flatten(1)[:PAIR_ROWS]
        if len(z) < 2:
            return z.new_zeros(())
        return self.weight * mmd(z, torch.randn_like(z), self.kernel)


@register
@spec
class WAE(BaseAutoencoder):
    r"""The Wasserstein autoencoder: a code without noise whose distribution over all rows is brought to the prior.

    .. math:: L = -\frac1B \sum_b \log p(x_b \mid z_b) + \lambda\, \mathrm{MMD}^2\big(\{z_b\}, N(0, I)\big)

    in nats per row. Unlike in a VAE no row's code is pulled to the prior by itself, so reconstructions stay sharp, and new
    rows can be sampled all the same. The discrepancy also counts in the validation loss.

    {parameters}

    References
    ----------
    Tolstikhin et al., Wasserstein Auto-Encoders, 2018, arXiv:1711.01558 (WAE-MMD).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import WAE
    >>> X = load_iris().data
    >>> WAE(latent_dim=2, max_epochs=5, random_state=0).fit(X).sample(3, random_state=0).shape
    (3, 4)
    """

    mmd_weight: Annotated[float, Ge(0), "weight of the squared discrepancy, in nats per row"] = 10.0
    kernel: Annotated[
        Literal["imq", "rbf"], "similarity of two codes: inverse multiquadratics of seven scales, or a Gaussian"
    ] = "imq"

    _judge_penalties = True  # by reconstruction alone, the weights kept could not generate

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return NormalPrior(self._code_width(schema))

    def _penalties(self, schema: Schema) -> tuple[Penalty, ...]:
        return (Discrepancy(self.mmd_weight, self.kernel),)


@register
@spec
class InfoVAE(VariationalCode):
    r"""A VAE that keeps more of the row in its code: less KL for each row, a match of all codes with the prior instead.

    .. math:: L = \frac1B \sum_b \Big[ -\log p(x_b \mid z_b) + (1 - \alpha)\,
              \mathrm{KL}\big(q(z \mid x_b) \,\|\, N(0, I)\big) \Big]
              + (\alpha + \lambda - 1)\, \mathrm{MMD}^2\big(\{z_b\}, N(0, I)\big), \qquad z_b \sim q(z \mid x_b)

    in nats per row. With ``alpha=1`` it is the MMD-VAE, which has no KL term; with ``alpha=0, mmd_weight=1`` it is a
    :class:`VAE`. The discrepancy also counts in the validation loss.

    {parameters}

    References
    ----------
    Zhao et al., InfoVAE: Information Maximizing Variational Autoencoders, 2017, arXiv:1706.02262.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import InfoVAE
    >>> X = load_iris().data
    >>> InfoVAE(latent_dim=2, max_epochs=5, random_state=0).fit(X).sample(3, random_state=0).shape
    (3, 4)
    """

    alpha: Annotated[float, Ge(0), Le(1), "share of the KL term that is given up; 1 is the MMD-VAE"] = 0.5
    mmd_weight: Annotated[
        float, Ge(1), "lambda of the paper, in nats per row; the squared discrepancy weighs alpha + mmd_weight - 1"
    ] = 100.0
    kernel: Annotated[
        Literal["imq", "rbf"], "similarity of two codes: inverse multiquadratics of seven scales, or a Gaussian"
    ] = "rbf"

    _judge_penalties = True

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return Gaussian(self._code_width(schema), beta=1 - self.alpha)

    def _penalties(self, schema: Schema) -> tuple[Penalty, ...]:
        return (Discrepancy(self.alpha + self.mmd_weight - 1, self.kernel),)


# independence of the units ------------------------------------------------------------------------------------------------------


def decompose_kl(z: Tensor, mu: Tensor, logvar: Tensor, n_rows: int) -> dict[str, Tensor]:
    r"""Split the mean KL divergence from N(0, I) into mutual information, total correlation, and what units cost one by one.

    .. math:: E_x \mathrm{KL}(q(z \mid x) \,\|\, p(z)) = I(x; z)
              + \mathrm{KL}\Big(q(z) \,\Big\|\, \prod_d q(z_d)\Big) + \sum_d \mathrm{KL}(q(z_d) \,\|\, p(z_d))

    The density of all codes is estimated from the batch. The posterior that a code was drawn from counts as one row of
    ``n_rows``, the others of the batch stand in equal shares for all other rows: the stratified sampling of Chen et al. (2018,
    appendix C.2) with equal weights.

    Parameters
    ----------
    z, mu, logvar : Tensor of shape (B, D)
        Draws of the posteriors, their means and log-variances; ``B`` is at least 2.
    n_rows : int
        Rows that the batch was taken from.

    Returns
    -------
    dict of scalars
        ``"mi"``, ``"tc"`` and ``"dimension_kl"`` in nats.
    """
    n = len(z)
    share = torch.full((n, n), max(n_rows - 1, 1) / (max(n_rows, 2) * (n - 1)), dtype=z.dtype, device=z.device)
    log_share = share.fill_diagonal_(1 / max(n_rows, 2)).log()
    each = gaussian_log_prob(z[:, None], mu, logvar)  # (B, B, D): row b's code under the posterior of row c
    own = each.diagonal(dim1=0, dim2=1).sum(0)  # (B,), log q(z | x)
    joint = (each.sum(2) + log_share).logsumexp(dim=1)  # (B,), log q(z)
    product = (each + log_share[:, :, None]).logsumexp(dim=1).sum(1)  # (B,), sum of log q(z_d)
    zero = torch.zeros((), dtype=z.dtype, device=z.device)
    prior = gaussian_log_prob(z, zero, zero).sum(1)  # (B,)
    return {
        "mi": (own - joint).mean(),
        "tc": (joint - product).mean(),
        "dimension_kl": (product - prior).mean(),
    }


class DecomposedKL(Penalty):
    """What the parts of the KL term weigh more, or less, than in the bound.

    Parameters
    ----------
    weights : dict of str to float
        For each part of :func:`decompose_kl`, its weight less the 1 that it has in the bound.
    n_rows : int
        Rows of ``fit``.
    """

    name = "reweighted_kl"

    def __init__(self, weights: dict[str, float], n_rows: int):
        super().__init__(1.0)
        self.weights, self.n_rows = weights, n_rows

    def forward(self, module: Any, trace: Trace) -> Tensor:
        """Return a scalar, 0 for a lone row."""
        z, mu, logvar = (
            t.flatten(1)[:PAIR_ROWS] for t in (trace.code.z, trace.code.aux["mu"], trace.code.aux["logvar"])
        )
        if len(z) < 2:
            return z.new_zeros(())
        parts = decompose_kl(z, mu, logvar, self.n_rows)
        return torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()


@register
@spec
class BetaTCVAE(VariationalCode):
    r"""A VAE that presses on the dependence between units of the code, and on nothing else.

    .. math:: L = -\frac1B \sum_b \log p(x_b \mid z_b) + \alpha I(x; z)
              + \beta\, \mathrm{KL}\Big(q(z) \,\Big\|\, \prod_d q(z_d)\Big)
              + \gamma \sum_d \mathrm{KL}\big(q(z_d) \,\|\, N(0, 1)\big), \qquad z_b \sim q(z \mid x_b)

    in nats per row. With all weights 1 the three terms sum to the KL term of a :class:`VAE`, which is taken in its closed form;
    only what the weights add is estimated, from at most 512 rows of the batch. It also counts in the validation loss.

    {parameters}

    References
    ----------
    Chen et al., Isolating Sources of Disentanglement in Variational Autoencoders, 2018, arXiv:1802.04942.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import BetaTCVAE
    >>> X = load_iris().data
    >>> BetaTCVAE(latent_dim=2, max_epochs=5, random_state=0).fit(X).transform(X).shape
    (150, 2)
    """

    tc_weight: Annotated[float, Ge(0), "beta, the weight of the dependence between units; 1 is a VAE"] = 6.0
    mi_weight: Annotated[float, Ge(0), "alpha, the weight of the information about the row; 1 is a VAE"] = 1.0
    dimension_weight: Annotated[float, Ge(0), "gamma, the weight of the KL of the single units; 1 is a VAE"] = 1.0

    _judge_penalties = True

    def _penalties(self, schema: Schema) -> tuple[Penalty, ...]:
        weights = {"mi": self.mi_weight, "tc": self.tc_weight, "dimension_kl": self.dimension_weight}
        return (DecomposedKL({name: weight - 1 for name, weight in weights.items()}, schema.n_rows),)


class CovarianceMatch(Penalty):
    r""":math:`\lambda_{od} \sum_{i \ne j} C_{ij}^2 + \lambda_d \sum_i (C_{ii} - 1)^2` for the covariance of the codes of a batch.

    Parameters
    ----------
    off_diagonal_weight, diagonal_weight : float
        The two weights, in nats per row.
    noise : bool
        Whether ``C`` is the covariance of drawn codes (DIP-VAE-II) or of the posteriors' means alone (DIP-VAE-I).
    """

    name = "covariance"

    def __init__(self, off_diagonal_weight: float, diagonal_weight: float, noise: bool):
        super().__init__(1.0)
        self.off_diagonal_weight, self.diagonal_weight, self.noise = off_diagonal_weight, diagonal_weight, noise

    def forward(self, module: Any, trace: Trace) -> Tensor:
        """Return a scalar, 0 for a lone row."""
        mu, logvar = trace.code.aux["mu"].flatten(1), trace.code.aux["logvar"].flatten(1)
        if len(mu) < 2:
            return mu.new_zeros(())
        centred = mu - mu.mean(dim=0)
        covariance = centred.T @ centred / len(mu)  # (D, D)
        diagonal = covariance.diagonal()
        off = covariance.square().sum() - diagonal.square().sum()
        if self.noise:
            diagonal = diagonal + logvar.exp().mean(dim=0)
        return self.off_diagonal_weight * off + self.diagonal_weight * (diagonal - 1).square().sum()


@register
@spec
class DIPVAE(VariationalCode):
    r"""A VAE that brings the covariance of its codes to the identity, so that units are uncorrelated.

    .. math:: L = L_\mathrm{VAE} + \lambda_{od} \sum_{i \ne j} C_{ij}^2 + \lambda_d \sum_i (C_{ii} - 1)^2

    in nats per row, :math:`C` being the covariance over the batch of the posteriors' means (``variant="i"``) or of drawn codes
    (``variant="ii"``, which adds the mean variance of the posteriors). It also counts in the validation loss.

    {parameters}

    References
    ----------
    Kumar et al., Variational Inference of Disentangled Latent Concepts from Unlabeled Observations, 2018, arXiv:1711.00848.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import DIPVAE
    >>> X = load_iris().data
    >>> DIPVAE(latent_dim=2, max_epochs=5, random_state=0).fit(X).transform(X).shape
    (150, 2)
    """

    variant: Annotated[Literal["i", "ii"], "covariance of the posteriors' means, or of drawn codes"] = "ii"
    off_diagonal_weight: Annotated[float, Ge(0), "weight of the squared covariances, in nats per row"] = 10.0
    diagonal_weight: Annotated[
        float | Literal["auto"],
        Ge(0),
        "weight of the squared distances of variances from 1, in nats per row; 'auto' is ten times off_diagonal_weight for "
        "variant='i', and the same for variant='ii'",
    ] = "auto"

    _judge_penalties = True

    def _penalties(self, schema: Schema) -> tuple[Penalty, ...]:
        diagonal = self.off_diagonal_weight * (10 if self.variant == "i" else 1)
        if self.diagonal_weight != "auto":
            diagonal = self.diagonal_weight
        return (CovarianceMatch(self.off_diagonal_weight, diagonal, noise=self.variant == "ii"),)


# a second network that judges codes ---------------------------------------------------------------------------------------------


class Adversary(Penalty, ABC):
    """A penalty by a network that learns, from the same loss, to tell codes from other points.

    No second optimiser is needed: the codes' gradient runs through frozen weights, and the weights' gradient through detached
    codes, in a term whose value is taken off again so that the loss reads as the penalty alone.

    Parameters
    ----------
    weight : float
        Weight of the penalty, nats per row.
    latent_dim : int
        Width of a code.
    hidden : tuple of int
        Widths of the network's hidden layers.
    """

    def __init__(self, weight: float, latent_dim: int, hidden: tuple[int, ...]):
        super().__init__(weight)
        widths = (latent_dim, *hidden)
        layers: list[nn.Module] = []
        for a, b in zip(widths, hidden, strict=False):
            layers += [nn.Linear(a, b), nn.LeakyReLU(0.2)]
        self.network = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def judge(self, z: Tensor) -> Tensor:
        """Return logits ``(B,)`` with frozen weights: high where the network takes a code for one of the model's."""
        frozen = {k: v.detach() for k, v in self.network.named_parameters()}
        logits: Tensor = functional_call(self.network, frozen, (z,))
        return logits[:, 0]

    def lesson(self, codes: Tensor, others: Tensor) -> Tensor:
        """Return the network's own loss (mean cross-entropy of both sides, nats), with the value 0."""
        loss = F.softplus(-self.network(codes.detach())).mean() + F.softplus(self.network(others.detach())).mean()
        return 0.5 * (loss - loss.detach())


class DensityRatio(Adversary):
    r""":math:`\gamma\, \mathrm{KL}(q(z) \,\|\, \prod_d q(z_d))`, by telling codes from codes whose units were exchanged."""

    name = "tc"

    def forward(self, module: Any, trace: Trace) -> Tensor:
        """Return a scalar."""
        z = trace.code.z.flatten(1)
        penalty = self.weight * self.judge(z).mean()  # the logit of a trained judge is the log-ratio of the densities
        if not self.training:
            return penalty
        exchanged = z.gather(0, torch.rand_like(z).argsort(dim=0))  # each unit from another row
        return penalty + self.lesson(z, exchanged)


class PriorAdversary(Adversary):
    r""":math:`-\lambda \log D(z)`, with a network :math:`D` that tells draws of N(0, I) from codes.

    Outside training mode it is :math:`\lambda\, \mathrm{MMD}^2`: a yardstick that, unlike the network, stays the same.
    """

    name = "adversary"

    def forward(self, module: Any, trace: Trace) -> Tensor:
        """Return a scalar."""
        if not self.training:
            return Discrepancy(self.weight, "imq")(module, trace)  # type: ignore[no-any-return]
        z = trace.code.z.flatten(1)
        return self.weight * F.softplus(self.judge(z)).mean() + self.lesson(z, torch.randn_like(z))


@register
@spec
class FactorVAE(VariationalCode):
    r"""A VAE that presses on the dependence between units of the code, as a second network sees it.

    .. math:: L = L_\mathrm{VAE} + \gamma\, \mathrm{KL}\Big(q(z) \,\Big\|\, \prod_d q(z_d)\Big)

    in nats per row. The network learns to tell codes from codes whose units were exchanged between rows; its logit then is the
    logarithm of the ratio of the two densities. It learns from the same loss in the same step. Validation judges by the bound
    alone, because the network's opinion changes as it learns.

    {parameters}

    References
    ----------
    Kim and Mnih, Disentangling by Factorising, 2018, arXiv:1802.05983. Weights: Locatello et al., 2019, arXiv:1811.12359.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import FactorVAE
    >>> X = load_iris().data
    >>> FactorVAE(latent_dim=2, max_epochs=5, random_state=0).fit(X).transform(X).shape
    (150, 2)
    """

    tc_weight: Annotated[float, Ge(0), "gamma, weight of the dependence between units; images take 10 to 100"] = 10.0
    critic_hidden: Annotated[tuple[int, ...], Ge(1), "widths of the hidden layers of the second network"] = (128, 128)

    def _penalties(self, schema: Schema) -> tuple[Penalty, ...]:
        return (DensityRatio(self.tc_weight, self._code_width(schema), tuple(self.critic_hidden)),)


@register
@spec
class AdversarialAutoencoder(BaseAutoencoder):
    r"""An autoencoder whose codes a second network cannot tell from draws of a normal distribution.

    .. math:: L = -\frac1B \sum_b \log p(x_b \mid z_b) - \lambda \frac1B \sum_b \log D(z_b)

    in nats per row, where :math:`D(z)` is the network's probability that :math:`z` was drawn from N(0, I). The network learns
    in the same step to tell the two apart. Because its opinion changes as it learns, the validation loss has in its place
    :math:`\lambda` times the squared maximum mean discrepancy of :class:`WAE`.

    {parameters}

    References
    ----------
    Makhzani et al., Adversarial Autoencoders, 2015, arXiv:1511.05644.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import AdversarialAutoencoder
    >>> X = load_iris().data
    >>> AdversarialAutoencoder(latent_dim=2, max_epochs=5, random_state=0).fit(X).sample(3, random_state=0).shape
    (3, 4)
    """

    adversary_weight: Annotated[float, Ge(0), "weight of the second network's opinion, in nats per row"] = 1.0
    critic_hidden: Annotated[tuple[int, ...], Ge(1), "widths of the hidden layers of the second network"] = (128, 128)

    _judge_penalties = True  # as for WAE

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return NormalPrior(self._code_width(schema))

    def _penalties(self, schema: Schema) -> tuple[Penalty, ...]:
        return (PriorAdversary(self.adversary_weight, self._code_width(schema), tuple(self.critic_hidden)),)
