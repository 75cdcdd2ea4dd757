"""A start at the best linear model: training then only has to improve on principal components."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diabolo.parts.bottlenecks import Bottleneck
from diabolo.parts.likelihoods import Likelihood

__all__ = ["start_at_principal_components"]

EXACT = 512  # up to this many features the covariance is decomposed exactly, above by random projection


def principal_components(x: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return mean ``(d,)``, variances ``(k,)``, directions ``(d, k)`` and the mean variance of what is left, in float64."""
    d = x.shape[1]
    exact = min(d, len(x)) <= EXACT
    x = x.double() if exact else x
    mean = x.mean(dim=0)
    x = x - mean
    total = float(x.square().sum() / len(x))
    if exact:
        _, s, v = torch.linalg.svd(x, full_matrices=False) if len(x) < d else _from_covariance(x)
    else:
        _, s, v = (t.double() for t in torch.svd_lowrank(x, q=min(k + 16, d, len(x)), niter=3))
        mean, v = mean.double(), v.T
    k = min(k, len(s))
    variances = s[:k].square() / len(x)
    rest = max(total - float(variances.sum()), 0.0) / max(d - k, 1)
    return mean, variances, v[:k].T, rest


def spherical_components(x: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return what :func:`principal_components` does, hardly moved by outliers (Locantore et al., 1999, doi:10.1007/BF02595862).

    Directions are those of the rows on the unit sphere around the median, where no row weighs more than another; variances are
    taken from median absolute values.
    """
    x = x.double()
    centre = x.median(dim=0).values
    x = x - centre
    _, _, directions, _ = principal_components(x / x.norm(dim=1, keepdim=True).clamp_min(1e-30), k)
    coordinates = x @ directions
    variances, order = _robust_variance(coordinates).sort(descending=True)
    left = _robust_variance(x - coordinates @ directions.T)
    return centre, variances, directions[:, order], float(left.mean())


def _robust_variance(x: Tensor) -> Tensor:
    return (x.abs().median(dim=0).values / 0.6745).square()  # 0.6745 is the median absolute value of a standard normal


def _from_covariance(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(x.T @ x)
    return values, values.flip(0).clamp_min(0).sqrt(), vectors.flip(1).T


def regression(x: Tensor, context: Tensor) -> Tensor:
    """Return least-squares slopes ``(C, d)``, in float64, of rows less their mean by the context."""
    x, context = x.double() - x.double().mean(dim=0), context.double()
    moments = context.T @ context
    # classes, and marks of what is known, may depend on each other
    ridge = 1e-6 * moments.diagonal().mean().clamp_min(1e-30)
    slopes: Tensor = torch.linalg.solve(moments + ridge * torch.eye(len(moments), dtype=moments.dtype), context.T @ x)
    return slopes


@torch.no_grad()
def start_at_principal_components(
    encoder: nn.Linear,
    decoder: nn.Linear,
    bottleneck: Bottleneck,
    likelihood: Likelihood,
    x: Tensor,
    context: Tensor | None = None,
) -> None:
    r"""Set two linear maps to the maximum-likelihood linear model of ``x``.

    With variances :math:`\lambda_k`, directions :math:`v_k`, mean :math:`m` and noise variance :math:`\sigma^2`, a Gaussian
    code starts at probabilistic PCA (Tipping and Bishop, 1999), where the bound of the linear model is tight:

    .. math:: \mu_k(x) = \frac{\sqrt{\lambda_k - \sigma^2}}{\lambda_k} v_k^\top (x - m), \quad
              \sigma_k^2 = \frac{\sigma^2}{\lambda_k}, \quad
              \hat x = m + \sum_k \sqrt{\lambda_k - \sigma^2}\, z_k v_k

    and a deterministic code at the principal components divided by one common width, so that distances between codes are
    distances between rows.

    Where units are cut off at 0 they start ``bottleneck.margin`` standard deviations above it, and the decoder allows for that.

    With a context :math:`c`, components are those of what is left of :math:`x` after its regression on the context, :math:`Bc`
    (for classes: what a class mean differs from the mean by), and :math:`m + Bc` takes the place of :math:`m`.

    Parameters
    ----------
    encoder, decoder : nn.Linear
        From the flat row (and context) to ``bottleneck.in_features``, and from the code (and context) to the likelihood's
        parameters. Units beyond the rank of ``x`` keep small random weights.
    bottleneck : Bottleneck
        Of a kind whose code is the first ``out_features`` of its input.
    likelihood : Likelihood
        Says which output stands for a value of ``x``, and whether outliers are to count little.
    x : Tensor of shape (n, ...)
        Scaled rows.
    context : Tensor of shape (n, C) or None
        What each row's network is told beside it.
    """
    flat = x.flatten(1)
    target = likelihood.output_for(flat)
    k, d = bottleneck.out_features, flat.shape[1]
    components = spherical_components if likelihood.robust else principal_components
    apart = flat
    if context is not None:
        slopes = regression(flat, context)  # (C, d)
        apart = flat - context @ slopes.to(flat)
    mean, variances, directions, rest = components(apart, k)
    keep = variances > 1e-10 * max(float(variances.max()), 1e-30)
    variances, directions = variances[keep], directions[:, keep]
    k = len(variances)
    if bottleneck.stochastic:
        noise = likelihood.start(rest)
        gain = (variances - noise).clamp_min(1e-4 * variances).sqrt()  # (k,)
        encode = (gain / variances)[:, None] * directions.T  # (k, d)
    else:
        shared = (
            variances if bottleneck.generative else variances.mean().expand(k)
        )  # a prior expects units of equal variance
        gain = shared.sqrt().clamp_min(1e-30)
        encode = directions.T / gain[:, None]
    encoder.weight *= 0.01
    encoder.bias.zero_()
    encoder.weight[:k, :d] = encode.to(encoder.weight)
    encoder.bias[:k] = (-encode @ mean).to(encoder.bias)
    if context is not None:
        encoder.weight[:k, d:] = (-encode @ slopes.T).to(encoder.weight)
    if bottleneck.stochastic:
        first = bottleneck.out_features  # the log-variances follow the means
        encoder.weight[first:] = 0.0
        ratio = (noise / variances).clamp(1e-6, 1.0) if noise > 0 else torch.full_like(variances, 1e-6)
        encoder.bias[first : first + k] = ratio.log().to(encoder.bias)
    moved = (flat - flat.mean(0)).square().sum(0)
    slope = (
        (target - target.mean(0)).square().sum(0) / moved.clamp_min(1e-30)
    ).sqrt()  # (d,): affine, feature by feature
    slope = torch.where(moved > 0, slope, 0.0).double()
    decoder.weight[:d] *= 0.01
    decoder.weight[:d, :k] = (slope[:, None] * directions * gain).to(decoder.weight)
    centre = likelihood.output_for(mean) if likelihood.robust else target.double().mean(dim=0)
    if context is not None:
        slopes = regression(target, context)
        if not likelihood.robust:  # a robust centre is that of the rest already
            centre = centre - context.double().mean(dim=0) @ slopes
        decoder.weight[:d, bottleneck.out_features :] = slopes.T.to(decoder.weight)
    if bottleneck.margin:
        above = bottleneck.margin * variances.sqrt() / gain  # (k,)
        encoder.bias[:k] += above.to(encoder.bias)
        centre = centre - slope * ((directions * gain) @ above)
    decoder.bias[:d] = centre.to(decoder.bias)
