"""The prior of a fitted model: its codes, and how good its own prior is for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from torch import Tensor

from diabolo.data.raw import Raw
from diabolo.generation import Generation
from diabolo.latent.priors import CodePrior
from diabolo.module import AutoencoderModule
from diabolo.records import Batch
from diabolo.seeding import draw_seed
from diabolo.zoo.activity import posterior_moments

__all__ = ["fit_prior", "moments_of", "own_log_prior"]

Array = NDArray[np.float64]


def fit_prior(
    model: Generation, X: Any, prior: Any, condition: Any, labels: Any, random_state: Any
) -> tuple[CodePrior | None, dict[str, float]]:
    """Learn a prior from the codes of rows; see :meth:`diabolo.generation.Generation.fit_prior`.

    Returns
    -------
    prior : CodePrior or None
        Fitted; ``None`` where the model's own is better and ``prior`` leaves the choice.
    scores : dict of str to float
        Mean nats over held-out codes.
    """
    found = clone(prior) if isinstance(prior, CodePrior) else CodePrior(prior)
    if random_state is not None or not isinstance(prior, CodePrior):
        found.set_params(random_state=draw_seed(random_state))
    raw = model._read(X, reset=False, condition=condition)
    if len(raw.values) < 2:
        raise ValueError(
            f"X has {len(raw.values)} row(s); a distribution of codes needs at least 2, and better hundreds"
        )
    centre, noise, _ = moments_of(model, raw)
    found.fit(centre, noise=noise, labels=labels, own=own_log_prior(model.module_, centre.shape[1]))
    best = max(found.scores_, key=lambda name: found.scores_[name])
    return (None if best == "own" and found.method == "auto" and labels is None else found), dict(found.scores_)


def moments_of(model: Generation, raw: Raw) -> tuple[Array, Array | None, Array | None]:
    """Return the centre of each code ``(n, D)``, and of codes that are distributions variance and divergence where known."""
    moments = model._apply(raw, posterior_moments).astype(np.float64)
    if not moments.shape[1]:
        return model._apply(raw, _centre).astype(np.float64), None, None
    return moments[:, 0], moments[:, 1], moments[:, 2] if moments.shape[1] > 2 else None


def _centre(module: AutoencoderModule, batch: Batch) -> Tensor:
    return module.encode(batch.x, batch.context, batch.mask).z.flatten(1)


def own_log_prior(module: AutoencoderModule, width: int) -> Callable[[Array], Array] | None:
    """Return the log-density of the model's own prior, where there is one."""
    like = next(module.parameters())

    @torch.no_grad()
    def log_prob(Z: Array) -> Array:
        value = module.bottleneck.log_prior(torch.from_numpy(Z).to(like))
        return np.zeros(len(Z)) if value is None else np.asarray(value.cpu().double().numpy())

    return None if module.bottleneck.log_prior(like.new_zeros(1, width)) is None else log_prob
