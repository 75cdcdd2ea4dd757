"""One model of items or several together, whatever they are: how they are fitted, and how they score rows of users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from torch import Tensor

from diabolo.checks import check_parameters
from diabolo.estimator import BaseAutoencoder
from diabolo.module import AutoencoderModule
from diabolo.records import Batch
from diabolo.tasks.linear_items import EASE, ClosedForm, GraphFilter
from diabolo.tasks.ranking import fold, measure_ranking
from diabolo.zoo.choices import MultDAE

__all__ = ["blended", "fit_blend", "fit_scorer", "score_rows", "usual_models"]

Array = NDArray[np.float32]
JUDGES = 1000  # users by whom models are weighed at most
JUDGED_SCORES = 2**25  # and their scores
MANY_ITEMS = 12_000  # beyond which weights of all pairs take too long
FEW_USERS = 200  # below which a network has too little to learn from
NETWORK_STEPS, MOST_EPOCHS = 2500, 90  # what a network beside others learns at most
STEPS = 10  # parts in which a weight is measured


def fit_scorer(model: BaseEstimator, rows: Any, seed: int, verbose: int = 0) -> Any:
    """Fit a copy of a model to rows of users ``(n_users, n_items)``; its seed is ``seed`` unless it has one.

    Raises
    ------
    TypeError
        For what is neither an autoencoder nor a model in closed form.
    """
    if not isinstance(model, BaseAutoencoder | ClosedForm):
        raise TypeError(
            f"model={type(model).__name__}: expected an autoencoder, such as MultVAE(), or a model in closed form, such as EASE()"
        )
    check_parameters(model)
    made = clone(model)
    if "random_state" in made.get_params(deep=False) and made.get_params()["random_state"] is None:
        made.set_params(random_state=seed)
    if isinstance(made, BaseAutoencoder):
        made.set_params(verbose=max(verbose, made.verbose))
    return made.fit(rows)


def score_rows(model: Any, rows: Any) -> Array:
    """Score all items for rows of users ``(n, n_items)``."""
    if isinstance(model, ClosedForm):
        return np.asarray(model._scores(rows), dtype=np.float32)
    raw = model._read(rows, reset=False)
    return np.asarray(model._apply(raw, _expected), dtype=np.float32)


def _expected(module: AutoencoderModule, batch: Batch) -> Tensor:
    return module.likelihood.preference(module.trace(batch, sample=False).raw)


def blended(models: Sequence[Any], weights: Sequence[float], rows: Any) -> Array:
    """Return scores of one model as they are, of several their weighted mean once each is standardised over items."""
    if len(models) == 1:
        return score_rows(models[0], rows)
    parts = [w * _standard(score_rows(m, rows)) for m, w in zip(models, weights, strict=True) if w > 0]
    return np.asarray(sum(parts[1:], parts[0]))


def _standard(scores: Array) -> Array:
    t = torch.from_numpy(scores)
    spread = t.std(dim=1, keepdim=True, correction=0)
    return np.asarray(((t - t.mean(dim=1, keepdim=True)) / torch.where(spread > 0, spread, 1.0)).numpy())


def fit_blend(
    models: Sequence[BaseEstimator], rows: Any, seed: int, verbose: int = 0
) -> tuple[list[Any], list[float], dict[str, float]]:
    """Fit several models, and weigh them by what serves users who are held out.

    Models are taken up in the order of their own NDCG@100, each with the share that helps most. In the end those that have a
    share learn again, from all users.

    Returns
    -------
    models, weights
        Fitted models and their shares, which sum to 1.
    dict of str to float
        NDCG@100 of each model on the held-out users, and of the ``"blend"``.
    """
    rng = np.random.default_rng(seed)
    able = rng.permutation(np.flatnonzero(np.diff(rows.indptr) > 1))
    most = min(JUDGES, JUDGED_SCORES // rows.shape[1], len(able) // 5)
    held = np.sort(able[: max(1, most)])
    kept = np.setdiff1d(np.arange(rows.shape[0]), held)
    if not len(able) or not len(kept):
        raise ValueError(
            "several models are weighed by users who are held out; expected two users with two items or more"
        )
    fitted = [fit_scorer(m, rows[kept], seed, verbose) for m in models]
    shown, hidden = fold(rows[held], 0.2, rng)
    popularity = np.bincount(rows.indices, minlength=rows.shape[1]).astype(np.float64)
    k = min(100, rows.shape[1])
    scores = [_standard(score_rows(model, shown)) for model in fitted]  # (held, n_items) each

    def quality(weights: NDArray[np.float64]) -> float:
        parts = [(w, each) for w, each in zip(weights.tolist(), scores, strict=True) if w > 0]
        found = measure_ranking(
            lambda _, users: sum(w * each[users] for w, each in parts), shown, hidden, popularity, (k,)
        )
        return found[f"ndcg@{k}"]

    alone = np.array([quality(row) for row in np.eye(len(fitted))])
    order = np.argsort(-alone, kind="stable")
    weights, best = np.eye(len(fitted))[order[0]], float(alone[order[0]])
    for i in order[1:]:
        tried = [(1 - s / STEPS) * weights + s / STEPS * np.eye(len(fitted))[i] for s in range(1, STEPS)]
        qualities = [quality(w) for w in tried]
        if max(qualities) > best:
            best, weights = max(qualities), tried[int(np.argmax(qualities))]
    names = [type(m).__name__ for m in models]
    found = {name if names.count(name) == 1 else f"{name} {i + 1}": float(alone[i]) for i, name in enumerate(names)}
    final = [
        fit_scorer(m, rows, seed, verbose) if w > 0 else done
        for m, done, w in zip(models, fitted, weights, strict=True)
    ]
    return final, weights.tolist(), found | {"blend": best}


def usual_models(rows: Any) -> tuple[BaseEstimator, ...]:
    """Return the models that recommend when none is named."""
    if rows.shape[1] > MANY_ITEMS:
        return (GraphFilter(),)
    ease = EASE(user_power=0.5, item_power=0.25)
    if rows.shape[0] < FEW_USERS:
        return (ease,)
    epochs = min(MOST_EPOCHS, MultDAE()._epochs(NETWORK_STEPS, rows.shape[0]))
    return (ease, MultDAE(max_epochs=epochs, learning_rate=2e-3))
