"""Scores of held-out rows, and what they say of new ones: the threshold, p-values and discoveries."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import OutlierMixin
from sklearn.utils.validation import check_is_fitted

from diabolo.saving import Saved

__all__ = ["Calibrated", "far_below"]

AUTO = {"clean": 0.05, "contaminated": 0.1}  # share of the rows that contamination="auto" flags at most


class Calibrated(Saved, OutlierMixin):  # type: ignore[misc]
    """The methods of a detector that follow from its scores and from those of rows held out in ``fit``."""

    # parameters and fitted attributes of the detector
    contamination: Any
    training: Any
    calibration_scores_: NDArray[np.float64]

    @abstractmethod
    def score_samples(self, X: Any) -> Any:
        """Scores of rows, higher is more normal."""

    def _auto(self, scores: NDArray[np.float64]) -> float:
        """Return what ``contamination="auto"`` takes for the threshold, of ascending scores of held-out rows."""
        return min(far_below(scores), float(np.quantile(scores, AUTO[self.training])))

    @property
    def offset_(self) -> float:
        """The threshold: rows that score lower are anomalies."""
        check_is_fitted(self, "autoencoder_")
        scores = self.calibration_scores_
        if self.contamination == "auto":
            return self._auto(scores)
        # the lowest of n + 1 scores is a new row's with a chance of 1 / (n + 1)
        return float(scores[max(0, math.floor(self.contamination * (len(scores) + 1)) - 1)])

    def decision_function(self, X: Any) -> Any:
        """Scores less the threshold: negative for an anomaly."""
        return _each(lambda scores: scores - self.offset_, self.score_samples(X))

    def predict(self, X: Any) -> Any:
        """Return -1 for an anomaly and 1 for a normal row."""
        return _each(lambda decided: np.where(decided >= 0, 1, -1), self.decision_function(X))

    def p_values(self, X: Any) -> Any:
        """Tell how often a normal row would be as odd.

        Parameters
        ----------
        X : array, frame, sparse matrix or tensor
            Rows as in ``fit``.

        Returns
        -------
        ndarray of shape (n,)
            ``(1 + held-out rows that score no higher) / (1 + held-out rows)``. Of new rows like those of fit at most a share
            ``a`` has a p-value of ``a`` or less, whatever the model (split conformal inference); the smallest is one in
            ``1 + held-out rows``.
        """
        held = self.calibration_scores_

        def tell(scores: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray((1 + np.searchsorted(held, scores, side="right")) / (1 + len(held)))

        return _each(tell, self.score_samples(X))


def far_below(scores: NDArray[np.float64]) -> float:
    """Return what lies three robust standard deviations below the median."""
    center = np.median(scores)
    return float(center - 3 * 1.4826 * np.median(np.abs(scores - center)))


def _each(change: Any, scores: Any) -> Any:
    """Apply ``change`` to an array, or to each of a list of arrays."""
    return [change(part) for part in scores] if isinstance(scores, list) else change(scores)
