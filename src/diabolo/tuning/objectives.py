"""What models are judged by on rows that they have not learned; never the training loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.base import is_classifier, is_regressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags

from diabolo.checks import did_you_mean
from diabolo.estimator import BaseAutoencoder
from diabolo.parts.bottlenecks import Bottleneck
from diabolo.tasks.imputation import Imputer
from diabolo.tasks.spread import variance_of
from diabolo.tuning.splits import Split, take_rows
from diabolo.zoo.variational import VariationalCode

__all__ = ["OBJECTIVES", "Objective", "find_objective", "has_cost"]

Objective = Callable[[Any, "Split"], float]
"""``(fitted estimator, rows)`` -> a number, higher is better."""

DRAWS = 100  # of the code of each row, for the bound
JUDGED = 2000  # rows that a bound is taken on at most


def bound(model: Any, split: Split) -> float:
    """Held-out bound in nats per row: of a variational model by importance sampling, which no weight of a term can better."""
    if type(model.module_.bottleneck).log_ratio is not Bottleneck.log_ratio:
        n = len(split.judge) if isinstance(split.judge, list) else split.judge.shape[0]
        rows = take_rows(split.judge, np.arange(min(JUDGED, n)))
        return float(model.log_likelihood(rows, n_samples=DRAWS, random_state=split.seed).mean())
    return float(model.score(split.judge))


def masked(model: Any, split: Split) -> float:
    """1 less the error in filling cells of held-out rows that were hidden: squares in units of the variance, 1 for a label."""
    imputer = Imputer.around(model)
    imputer.variance_ = variance_of(imputer._read(split.judge).values, model.schema_.kind != "vector")
    return imputer.score(split.judge)


def downstream(model: Any, split: Split) -> float:
    """Accuracy, or R2, of a linear model of the codes of held-out rows, by cross-validation; takes labels."""
    y = np.asarray(split.judge_y)
    numbers = y.dtype.kind == "f" and len(np.unique(y)) > 20
    head = make_pipeline(StandardScaler(), Ridge() if numbers else LogisticRegression(max_iter=500))
    return float(cross_val_score(head, model.transform(split.judge), y, cv=3).mean())


def stability(model: Any, split: Split) -> float:
    """Likeness of the codes of held-out rows under two seeds, 0 to 1: linear CKA (Kornblith et al., 2019, arXiv:1905.00414)."""
    first, second = (_centred(m.transform(split.judge)) for m in (model, split.again(model)))
    cross, one, two = (np.linalg.norm(a.T @ b) for a, b in ((first, second), (first, first), (second, second)))
    return float(cross**2 / max(float(one * two), 1e-300))


def anomaly(model: Any, split: Split) -> float:
    """Agreement of two seeds on which held-out rows are odd: Spearman's correlation of scores."""
    ranks = [rankdata(m.score_samples(split.judge)) for m in (model, split.again(model))]
    return float(np.corrcoef(*ranks)[0, 1])


def prediction(model: Any, split: Split) -> float:
    """Mean log-probability of held-out labels, in nats per row, or R2 of held-out numbers."""
    y = np.asarray(split.judge_y)
    if not is_classifier(model):
        return float(model.score(split.judge, y))
    places = np.searchsorted(model.classes_, y)
    return float(np.log(np.maximum(model.predict_proba(split.judge)[np.arange(len(y)), places], 1e-12)).mean())


OBJECTIVES: dict[str, Objective] = {
    "bound": bound,
    "masked": masked,
    "downstream": downstream,
    "stability": stability,
    "anomaly": anomaly,
    "prediction": prediction,
}
LABELLED = ("downstream", "prediction")


def find_objective(objective: Any, estimator: Any, y: Any) -> tuple[str, Objective]:
    """Return the name of an objective and what computes it.

    Without a choice, what predicts is judged by its predictions; a model by a linear model of its codes where there are
    labels, else by its bound where its code has a cost, and by hidden cells where it has none: there a wider code is always
    better by the bound.
    """
    predicts = is_classifier(estimator) or is_regressor(estimator)
    model = isinstance(estimator, BaseAutoencoder)
    if callable(objective):
        return getattr(objective, "__name__", "objective"), lambda fitted, split: float(objective(fitted, split.judge))
    if objective == "auto":
        told = get_tags(estimator).target_tags.required
        objective = (
            "prediction" if predicts else "anomaly" if not model else "downstream" if y is not None and not told else ""
        )
        objective = objective or ("bound" if has_cost(estimator) else "masked")
    if objective not in OBJECTIVES:
        raise ValueError(
            f"objective={objective!r}: expected 'auto', one of {', '.join(OBJECTIVES)}, or a function of a fitted estimator and "
            f"held-out rows.{did_you_mean(str(objective), OBJECTIVES)}"
        )
    if objective in LABELLED and y is None:
        raise ValueError(f"objective={objective!r} needs labels: tune(estimator, X, y)")
    if (objective == "prediction") != predicts or (not model and not predicts and objective != "anomaly"):
        fits = "prediction" if predicts else "anomaly" if not model else "bound, masked, downstream, stability, anomaly"
        raise ValueError(f"objective={objective!r} does not fit {type(estimator).__name__}; expected one of {fits}")
    return objective, OBJECTIVES[objective]


def has_cost(estimator: Any) -> bool:
    """Tell whether a model pays for what its code says, so that a wider code is not always better."""
    return isinstance(estimator, VariationalCode)


def _centred(Z: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(Z - Z.mean(axis=0), dtype=np.float64)
