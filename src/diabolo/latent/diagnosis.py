"""How a latent space is used: units in use, how far all codes together are from the prior, holes, dead codes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from diabolo.generation import Generation
from diabolo.latent.densities import Codes, KernelDensity
from diabolo.latent.fitting import moments_of, own_log_prior
from diabolo.seeding import draw_seed, seeded
from diabolo.zoo.activity import CodeActivity

__all__ = ["LatentDiagnosis", "diagnose"]

Array = NDArray[np.float64]
ROWS = 4000  # rows that densities are estimated from, and as many draws of the prior
RARE = 0.01  # share of the codes of rows that counts as rare


@dataclass(frozen=True)
class LatentDiagnosis:
    r"""How some rows use a latent space.

    Attributes
    ----------
    n_units : int
        Width of the code.
    n_active : int
        Units in use: of codes that are distributions as in :class:`~diabolo.zoo.activity.CodeActivity`, of others those that
        vary by more than a thousandth of what the most varied one does.
    variance : ndarray of shape (D,)
        Of each unit over rows.
    kl : ndarray of shape (D,) or None
        Divergence of each unit from the prior in nats, averaged over rows; None where there is none.
    mutual_information : float or None
        :math:`I(x; z)` in nats: the mean divergence less the mismatch (Hoffman and Johnson, ELBO surgery, 2016). None where
        either is not known.
    mismatch : float or None
        :math:`\mathrm{KL}(q(z) \,\|\, p(z))` in nats, of all codes together from the model's own prior; a prior that is learned
        afterwards (``fit_prior``) gains up to so many nats. None where the prior has no density.
    holes : float or None
        Share of the draws of the prior, the fitted one where there is one, that lie where rows have hardly a code: where the
        density of codes is below that of 99 % of them. 0.01 is without holes. None without a prior.
    dead_codes : float or None
        Share of the symbols that no row of fit uses, of codes made of symbols.
    """

    n_units: int
    n_active: int
    variance: Array
    kl: Array | None = None
    mutual_information: float | None = None
    mismatch: float | None = None
    holes: float | None = None
    dead_codes: float | None = None

    def __str__(self) -> str:
        said = [f"{self.n_active} of {self.n_units} units in use"]
        if self.kl is not None:
            said.append(f"KL {self.kl.sum():.2f} nats")
        if self.mutual_information is not None:
            said.append(f"mutual information of row and code {self.mutual_information:.2f} nats")
        if self.mismatch is not None:
            said.append(f"codes {self.mismatch:.2f} nats away from the prior")
        if self.holes is not None:
            said.append(f"{100 * self.holes:.1f} % of the draws of the prior lie where rows have no codes")
        if self.dead_codes is not None:
            said.append(f"{100 * self.dead_codes:.1f} % of the symbols unused")
        return "; ".join(said)


def diagnose(model: Generation, X: Any, *, condition: Any = None, random_state: Any = None) -> LatentDiagnosis:
    """Look at how rows use the latent space of a model.

    Parameters
    ----------
    model : estimator
        Fitted.
    X : array, frame or tensor
        Rows as in ``fit``, best some that the model has not seen; densities are estimated from 4000 of them at most.
    condition : value, sequence, array, mapping or frame, optional
        For a model with a condition.
    random_state : int, RandomState or None
        Seed of the draws.

    Returns
    -------
    LatentDiagnosis
        Printed, it is a sentence.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import VAE
    >>> from diabolo.latent import diagnose
    >>> X = load_iris().data
    >>> diagnose(VAE(2, max_epochs=20, random_state=0).fit(X), X, random_state=0).n_active
    2
    """
    check_is_fitted(model)
    seed = draw_seed(random_state)
    rng = np.random.default_rng(seed)
    raw = model._read(X, reset=False, condition=condition)
    centre, noise, kl = moments_of(model, raw)
    variance = centre.var(axis=0)
    active = variance > 1e-3 * max(float(variance.max()), 1e-12)
    found = LatentDiagnosis(centre.shape[1], int(active.sum()), variance)
    if noise is not None:
        activity = CodeActivity(variance, noise.mean(axis=0), None if kl is None else kl.mean(axis=0))
        found = replace(found, n_active=activity.n_active, kl=activity.kl)
    chosen = rng.permutation(len(centre))[:ROWS]
    centre, noise = centre[chosen], None if noise is None else noise[chosen]
    codes = Codes(centre, noise, max(1, len(centre) // 2) if len(centre) > 1 else 0, rng)
    if len(codes.train) > 1:
        density = KernelDensity.learn(codes, seed, {"n_centres": ROWS})
        found = _distances(model, found, codes, density, seed)
    frequency = getattr(model.module_.bottleneck, "frequency", None)
    return found if frequency is None else replace(found, dead_codes=float((frequency == 0).double().mean()))


def _distances(
    model: Generation,
    found: LatentDiagnosis,
    codes: Codes,
    density: KernelDensity,
    seed: int,
) -> LatentDiagnosis:
    """Add what compares the density of codes with the prior."""
    reference = density.log_prob(codes.held_out)
    own = own_log_prior(model.module_, found.n_units)
    if own is not None:
        mismatch = float((reference - own(codes.held_out)).mean())
        known = None if found.kl is None else float(found.kl.sum()) - mismatch
        found = replace(found, mismatch=mismatch, mutual_information=known)
    prior = getattr(model, "prior_", None)
    if prior is None and not model.module_.bottleneck.generative:
        return found
    if prior is not None:
        drawn = prior.sample(ROWS, random_state=seed)
    else:
        with seeded(seed), torch.no_grad():
            drawn = model.module_.bottleneck.prior(ROWS).flatten(1).double().numpy()
    return replace(found, holes=float((density.log_prob(drawn) < np.quantile(reference, RARE)).mean()))
