"""The user's rows, cut into those to learn from and those to judge by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier
from sklearn.utils.validation import _num_samples

from diabolo.data.tables import is_frame
from diabolo.tasks.labels import read_classes, read_numbers

__all__ = ["Split", "split", "take_rows"]


@dataclass(frozen=True)
class Split:
    """Rows to learn from and rows to judge by, with their labels where there are any."""

    learn: Any
    judge: Any
    learn_y: Any
    judge_y: Any
    seed: int

    def again(self, estimator: Any) -> Any:
        """Fit a copy with another seed."""
        return clone(estimator).set_params(random_state=self.seed + 1).fit(self.learn, self.learn_y)


def split(estimator: Any, X: Any, y: Any, share: float, seed: int, *, predicts: bool) -> Split:
    """Hold out a share of the rows; where labels are predicted, of the rows that have one.

    Raises
    ------
    ValueError
        When there are too few rows.
    """
    n = len(X) if isinstance(X, list | tuple) else _num_samples(X)
    known = np.arange(n)
    if predicts:
        name = type(estimator).__name__
        known = np.flatnonzero(
            read_classes(y, n, name)[1] >= 0 if is_classifier(estimator) else ~np.isnan(read_numbers(y, n, name))
        )
    if len(known) < 8:
        raise ValueError(
            f"tune holds out a quarter of the rows{' with labels' if predicts else ''}, and X has {len(known)}"
        )
    order = np.random.default_rng(seed).permutation(known)
    judge = np.sort(order[: round(share * len(known))])
    learn = np.setdiff1d(np.arange(n), judge)
    labels = None if y is None else np.asarray(y)
    if labels is not None and len(labels) != n:
        raise ValueError(f"X has {n} rows, y has {len(labels)}")
    first, second = (None if labels is None else labels[part] for part in (learn, judge))
    return Split(take_rows(X, learn), take_rows(X, judge), first, second, seed)


def take_rows(X: Any, index: NDArray[np.int64]) -> Any:
    """Return some of the user's rows, in their own kind."""
    if isinstance(X, list | tuple):
        return [X[i] for i in index]
    if hasattr(X, "iloc"):
        return X.iloc[index]
    if is_frame(X):
        return nw.from_native(X, eager_only=True)[index.tolist()].to_native()
    return X[index]
