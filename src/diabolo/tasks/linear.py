"""Linear models on codes, their strength of regularisation chosen by cross-validation."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold

__all__ = ["Choice", "Linear", "choose", "fit_linear", "folds_of", "log_loss"]

Array = NDArray[Any]
FOLDS = 5
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
RIDGES = (0.1, 1.0, 10.0, 100.0, 1000.0)
CHOSEN_BY = 2000  # rows by which the strength is chosen at most
STEPS = 300
NEVER = -20.0  # output of a class of which no row was seen
USUAL = 1e-2  # strength where there are too few rows to choose one by


class Linear(NamedTuple):
    """A linear model of centred numbers."""

    center: NDArray[np.float64]
    spread: NDArray[np.float64]
    weight: NDArray[np.float64]  # (outputs, numbers)
    bias: NDArray[np.float64]  # (outputs,)

    def __call__(self, seen: Array) -> NDArray[np.float64]:
        """Return the outputs ``(n, outputs)``."""
        return np.asarray((seen - self.center) / self.spread @ self.weight.T + self.bias)


class Choice(NamedTuple):
    """How strong the penalty of a linear model is to be, and what held-out rows say of it."""

    strength: float
    loss: float  # of held-out rows, in nats; NaN where there were too few to tell


def choose(seen: Array, targets: Array, n_classes: int, folds: list[tuple[Array, Array]]) -> Choice:
    """Choose the strength by cross-validation.

    Parameters
    ----------
    seen : ndarray of shape (n, numbers)
        What the model sees of rows with a label.
    targets : ndarray of shape (n,)
        Their classes as int64, or their numbers where ``n_classes`` is 1.
    n_classes : int
        How many classes there are.
    folds : list of (train, test)
        None where there are too few rows: the strength is then a usual one.
    """
    strengths = STRENGTHS if n_classes > 1 else RIDGES
    if not folds:
        return Choice(USUAL if n_classes > 1 else RIDGES[1], float("nan"))
    losses = {}
    for strength in strengths:
        found = [_loss(fit_linear(seen[a], targets[a], n_classes, strength)(seen[b]), targets[b]) for a, b in folds]
        losses[strength] = float(np.average(found, weights=[len(b) for _, b in folds]))
    best = min(losses, key=losses.__getitem__)
    return Choice(best, losses[best])


def fit_linear(seen: Array, targets: Array, n_classes: int, strength: float) -> Linear:
    """Fit a multinomial logistic regression with a squared penalty, or for ``n_classes`` of 1 a ridge regression.

    ``strength`` is scikit-learn's ``C`` of the one, and its ``alpha`` of the other. Columns are centred, and those of more than
    unit spread, as codes may be, are brought to it: features of rows are scaled already, and a rare label must not be blown up.
    """
    center = seen.mean(axis=0, dtype=np.float64)
    spread = np.maximum(seen.std(axis=0, dtype=np.float64), 1.0)
    x = (seen - center) / spread
    if n_classes == 1:
        model = Ridge(strength).fit(x, targets)
        return Linear(center, spread, np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_))
    there = np.unique(targets)  # classes that do not occur have no chance to speak of
    weight, bias = np.zeros((n_classes, x.shape[1])), np.full(n_classes, NEVER)
    if len(there) == 1:
        bias[there] = 0.0
        return Linear(center, spread, weight, bias)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=strength, max_iter=STEPS).fit(x, targets)
    if len(there) == 2:  # one output stands for the two
        weight[there] = np.outer([-0.5, 0.5], model.coef_[0])
        bias[there] = np.array([-0.5, 0.5]) * model.intercept_[0]
    else:
        weight[there], bias[there] = model.coef_, model.intercept_
    return Linear(center, spread, weight, bias)


def _loss(out: NDArray[np.float64], targets: Array) -> float:
    if out.shape[1] == 1:
        return float(np.square(out[:, 0] - targets).mean() / 2)
    return log_loss(log_softmax(out, axis=1), targets)


def log_loss(log_chances: NDArray[np.float64], codes: NDArray[np.int64]) -> float:
    """Return the mean of minus the log-chance of the class that is right, in nats."""
    return float(-log_chances[np.arange(len(codes)), codes].mean())


def folds_of(codes: Array, rng: np.random.Generator, *, classes: bool, n: int = FOLDS) -> list[tuple[Array, Array]]:
    """Cut rows with a label into folds ``(train, test)``, every class in each; none where a class has a single row.

    Of many rows some do, drawn at random.
    """
    few = np.arange(len(codes))
    if len(codes) > CHOSEN_BY:
        few = np.sort(rng.choice(len(codes), CHOSEN_BY, replace=False))
        if classes and len(np.unique(codes[few])) < len(np.unique(codes)):
            few = np.arange(len(codes))
    most = int(np.bincount(codes[few]).min()) if classes else len(few) // 2
    if min(n, most) < 2:
        return []
    seed = int(rng.integers(2**31))
    cutter = (StratifiedKFold if classes else KFold)(min(n, most), shuffle=True, random_state=seed)
    return [(few[a], few[b]) for a, b in cutter.split(few, codes[few] if classes else None)]
