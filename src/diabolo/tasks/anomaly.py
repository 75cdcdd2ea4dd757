"""Anomaly detection: the one place that knows a threshold."""

from __future__ import annotations

import math
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, OutlierMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from diabolo.checks import Ge, Gt, Le, Lt, check_parameters
from diabolo.data.raw import Raw
from diabolo.declare import register, spec
from diabolo.estimator import BaseAutoencoder
from diabolo.notices import warn
from diabolo.seeding import draw_seed
from diabolo.zoo.vanilla import Autoencoder

__all__ = ["AnomalyDetector"]


@register
@spec
class AnomalyDetector(OutlierMixin, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """Finds rows that an autoencoder trained on the others cannot explain.

    The network learns from one part of the rows; the threshold is a quantile of the scores of rows that it never saw, since
    the scores of its own training rows flatter it. scikit-learn's sign holds: a higher score is more normal, and
    ``predict`` returns -1 for an anomaly.

    {parameters}

    Attributes
    ----------
    autoencoder_ : BaseAutoencoder
        The fitted model.
    calibration_scores_ : ndarray of shape (n_calibration,)
        Scores of the held-out rows, ascending, in nats.
    offset_ : float
        The threshold. It follows ``contamination``: change that with ``set_params``, without fitting again.

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo import AnomalyDetector, Autoencoder
    >>> X = np.random.default_rng(0).normal(size=(300, 2)) @ np.array([[1, 2, 3, 0], [0, 1, -1, 2]])
    >>> detector = AnomalyDetector(Autoencoder(2, max_epochs=30), contamination=0.01, random_state=0).fit(X)
    >>> detector.predict([[9.0, -9.0, 9.0, -9.0]])
    array([-1])
    """

    autoencoder: Annotated[
        BaseAutoencoder | None,
        "the model to fit; None is Autoencoder()",
    ] = field(default=None, kw_only=False)
    contamination: Annotated[
        float | Literal["auto"],
        Ge(0),
        Le(0.5),
        "share of rows like those of fit that are to be flagged; 'auto' flags scores more than three robust standard "
        "deviations below the median of the held-out ones (of the cube roots of their lack of fit): hardly any row where errors "
        "are normal, one to five in a hundred in clean tables with heavy tails",
    ] = "auto"
    calibration_fraction: Annotated[
        float, Gt(0), Lt(1), "share of the rows held out from the model to set the threshold by"
    ] = 0.2
    random_state: Annotated[
        int | np.random.RandomState | None, "seed of the split and of the model; None leaves the model its own"
    ] = None

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the model to one part of the rows, and calibrate on the rest.

        Parameters
        ----------
        X : array, frame or tensor
            Rows, mostly normal, as for the model.
        y : None
            Ignored.

        Returns
        -------
        self
            Fitted.
        """
        check_parameters(self)
        model = Autoencoder() if self.autoencoder is None else clone(self.autoencoder)
        seed = draw_seed(self.random_state)
        if self.random_state is not None:
            model.set_params(random_state=seed)
        check_parameters(model)
        if get_tags(model).target_tags.required:
            raise ValueError(
                f"AnomalyDetector judges rows by X alone, and {type(model).__name__} is conditioned on y. Put the condition "
                "into columns of X, and name them in condition=."
            )
        raw = model._read(X, reset=True)
        n = len(raw.values)
        order = np.random.default_rng(seed).permutation(n)
        held = min(n - 1, max(1, round(n * self.calibration_fraction)))
        fitted = model._fit(raw.take(np.sort(order[held:])))
        calibration = raw.take(np.sort(order[:held])) if held else raw  # a single row is all there is
        module, width = fitted.module_, fitted.schema_.size
        if math.prod(module.code_shape) >= width and not (module.bottleneck.stochastic or module.corruption):
            warn(
                f"the code ({math.prod(module.code_shape)} numbers) is as wide as a row ({width}): the model can copy any "
                "row, and scores tell little. Use a smaller latent_dim, a VAE or a DenoisingAutoencoder."
            )
        self.autoencoder_ = fitted
        self.calibration_scores_ = np.sort(fitted._score(calibration).astype(np.float64))
        self.typical_ = fitted._score_features(calibration).astype(np.float64).mean(axis=0)
        return self

    @property
    def offset_(self) -> float:
        """The threshold in nats: rows that score lower are anomalies."""
        check_is_fitted(self, "autoencoder_")
        scores = self.calibration_scores_
        if self.contamination != "auto":
            return float(np.quantile(scores, self.contamination))
        # The lack of fit of a normal row is near a sum of squares; its cube root is near normal (Wilson and Hilferty, 1931).
        roots = np.cbrt(scores[-1] - scores)
        center = np.median(roots)
        spread = 1.4826 * np.median(np.abs(roots - center))
        return float(scores[-1] - (center + 3 * spread) ** 3)

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Scores of rows in nats, higher is more normal; see the model's ``score_samples``."""
        check_is_fitted(self, "autoencoder_")
        return np.asarray(self.autoencoder_.score_samples(X), dtype=np.float64)

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Scores less the threshold: negative for an anomaly."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return -1 for an anomaly and 1 for a normal row."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def explain(self, X: Any) -> Any:
        """Say which features make a row unusual.

        Parameters
        ----------
        X : array, frame or tensor
            Rows as in ``fit``.

        Returns
        -------
        array, frame or tensor
            In the kind and shape of ``X``: how many nats each feature explains worse than in a typical held-out row. The sum
            over the features of a complete row is what its reconstruction lacks against the typical one; 0 where a cell is
            missing, and in columns that are the condition of the model.
        """
        check_is_fitted(self, "autoencoder_")
        model = self.autoencoder_
        raw = model._read(X, reset=False)
        return model.codec_.present(model.codec_.by_column(self._lack(raw)), raw.container, raw.index, raw)

    def _lack(self, raw: Raw) -> NDArray[Any]:
        lack: NDArray[Any] = self.typical_ - self.autoencoder_._score_features(raw)
        if raw.values.dtype.kind != "f":
            return lack
        return np.where(np.isnan(self.autoencoder_.codec_.flat(raw.values)), 0.0, lack)

    @property
    def n_features_in_(self) -> int:
        """Features of a row."""
        check_is_fitted(self, "autoencoder_")
        return int(self.autoencoder_.n_features_in_)

    @property
    def feature_names_in_(self) -> NDArray[Any]:
        """Column names, where ``fit`` saw a frame."""
        names: NDArray[Any] = self.autoencoder_.feature_names_in_
        return names

    def save(self, path: str | Path) -> None:
        """Write the detector to a folder; see :func:`diabolo.load`."""
        from diabolo.persistence import save

        save(self, path)

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        tensors = {"scores": torch.from_numpy(self.calibration_scores_), "typical": torch.from_numpy(self.typical_)}
        return {}, tensors

    def _set_state(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.calibration_scores_, self.typical_ = tensors["scores"].numpy(), tensors["typical"].numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.sparse = True
        return tags
