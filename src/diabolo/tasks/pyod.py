"""A detector under the conventions of PyOD: higher scores and ones are anomalies."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from diabolo.tasks.anomaly import AnomalyDetector

__all__ = ["PyODDetector"]


class PyODDetector(BaseEstimator):  # type: ignore[misc]
    """Wears the interface that PyOD's detectors have, for code that is written against it.

    Parameters
    ----------
    detector : AnomalyDetector or None
        What does the work; None is ``AnomalyDetector(training="contaminated")``, as PyOD's detectors expect anomalies among
        the rows of fit. Its own ``contamination`` is not used.
    contamination : float
        Share of the rows of fit that are labelled anomalies, in (0, 0.5].

    Attributes
    ----------
    decision_scores_ : ndarray of shape (n,)
        Scores of the rows of fit, higher is more anomalous.
    threshold_ : float
        Scores above it are anomalies.
    labels_ : ndarray of int of shape (n,)
        Of the rows of fit: 1 for an anomaly.
    detector_ : AnomalyDetector
        The fitted detector.

    References
    ----------
    Zhao et al., PyOD: A Python toolbox for scalable outlier detection, JMLR 20, 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo.tasks.pyod import PyODDetector
    >>> X = np.random.default_rng(0).normal(size=(200, 4))
    >>> X[7] += 9
    >>> model = PyODDetector(contamination=0.01).fit(X)
    >>> int(model.decision_scores_.argmax()), int(model.labels_.sum())
    (7, 2)
    """

    def __init__(self, detector: AnomalyDetector | None = None, contamination: float = 0.1):
        self.detector, self.contamination = detector, contamination

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the detector, and score and label the rows of ``X``; ``y`` is ignored."""
        if not 0 < self.contamination <= 0.5:
            raise ValueError(f"contamination={self.contamination!r}: expected a share in (0, 0.5]")
        made = AnomalyDetector(training="contaminated") if self.detector is None else clone(self.detector)
        self.detector_ = made.fit(X)
        self.decision_scores_ = self.decision_function(X)
        self.threshold_ = float(np.quantile(self.decision_scores_, 1 - self.contamination))
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(int)
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Scores of rows, higher is more anomalous."""
        check_is_fitted(self, "detector_")
        return np.negative(self.detector_.score_samples(X))

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return 1 for an anomaly and 0 for a normal row."""
        return (self.decision_function(X) > self.threshold_).astype(int)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return chances ``(n, 2)`` of normal and anomalous: scores on the range that those of fit have, PyOD's linear way."""
        low, high = self.decision_scores_.min(), self.decision_scores_.max()
        odd = np.clip((self.decision_function(X) - low) / max(high - low, 1e-30), 0, 1)
        return np.column_stack([1 - odd, odd])

    def fit_predict(self, X: Any, y: Any = None) -> NDArray[np.int64]:
        """Fit, and return the labels of the rows of fit."""
        return np.asarray(self.fit(X, y).labels_)
