"""Anomaly detection in tables, images and whole series: a score for each row, and what makes it odd."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from diabolo.checks import Ge, Gt, Le, Lt, check_parameters
from diabolo.data.raw import Raw
from diabolo.data.stream import Stream
from diabolo.declare import register, spec
from diabolo.estimator import BaseAutoencoder
from diabolo.notices import warn
from diabolo.seeding import draw_seed
from diabolo.tasks.neighbours import Neighbours
from diabolo.tasks.reasons import Reason, find_reasons
from diabolo.tasks.threshold import AUTO, Calibrated, far_below
from diabolo.zoo.vanilla import Autoencoder, DenoisingAutoencoder

__all__ = ["AnomalyDetector"]

STEPS = 1000  # of the optimiser, for the model of a table that nobody named
TRIMMED = 0.3  # share of the rows that training="contaminated" leaves out
CLOSEST = 5  # neighbours where all rows of reference are normal
SHARE, MOST = 0.1, 500  # share of the rows of reference that are neighbours where some are not, and how many at most
NEAREST = 1e-9  # a distance below it is none


@register
@spec
class AnomalyDetector(Calibrated, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """Finds rows that are unlike the others, says how sure that is, and why.

    An autoencoder learns from one part of the rows; the threshold is set by rows that it never saw, since the scores of its own
    training rows flatter it. scikit-learn's sign holds: a higher score is more normal, and ``predict`` returns -1 for an anomaly.

    The score of a row is minus the logarithm of its mean distance to its nearest neighbours among the rows of fit, which
    are compared by their cells and by the errors of their reconstruction: a row is odd where hardly another lies, or where
    others that lie there are rebuilt otherwise. With ``method="likelihood"`` it is the model's ``score_samples``, in nats.

    {parameters}

    Attributes
    ----------
    autoencoder_ : BaseAutoencoder
        The fitted model, the first of ``n_models``; ``others_`` has the rest.
    scored_by_ : str
        What ``method="auto"`` became.
    calibration_scores_ : ndarray of shape (n_calibration,)
        Scores of the held-out rows, ascending.
    offset_ : float
        The threshold. It follows ``contamination``: change that with ``set_params``, without fitting again.

    References
    ----------
    Ramaswamy et al., Efficient algorithms for mining outliers from large data sets, 2000, doi:10.1145/342009.335437 (neighbours).

    Bates et al., Testing for outliers with conformal p-values, 2023, arXiv:2104.08279.

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo import AnomalyDetector
    >>> X = np.random.default_rng(0).normal(size=(300, 2)) @ np.array([[1, 2, 3, 0], [0, 1, -1, 2]])
    >>> detector = AnomalyDetector(contamination=0.01, random_state=0).fit(X)
    >>> detector.predict([[9.0, -9.0, 9.0, -9.0]])
    array([-1])
    """

    autoencoder: Annotated[
        BaseAutoencoder | None,
        "the model to fit; None is a DenoisingAutoencoder trained for 1000 steps for tables, and Autoencoder() for images and "
        "series",
    ] = field(default=None, kw_only=False)
    contamination: Annotated[
        float | Literal["auto"],
        Ge(0),
        Le(0.5),
        "share of rows like those of fit that are to be flagged, of clean rows the rate of false alarms; 'auto' flags scores "
        "more than three robust standard deviations below the median of the held-out ones (of likelihoods, of the cube roots of "
        "their lack of fit): hardly any row where scores are normal, more where tails are heavy, but at most one in twenty, and "
        "one in ten of contaminated rows",
    ] = "auto"
    training: Annotated[
        Literal["clean", "contaminated"],
        "what the rows of fit are: 'clean' ones are normal but for a few; of 'contaminated' ones many may be anomalies: the "
        "three tenths with the lowest scores of a first fit are left out of a second one, and a tenth of the rest (not five) "
        "are a row's neighbours",
    ] = "clean"
    method: Annotated[
        Literal["auto", "neighbours", "likelihood"],
        "what rows are judged by: the distance to their neighbours, or the model's score_samples; 'auto' is 'neighbours' where "
        "no model is given, and the score of the model else",
    ] = "auto"
    n_models: Annotated[int, Ge(1), "models, each of its own seed, whose scores are averaged"] = 1
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
        X : array, frame, sparse matrix or tensor
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
        check_parameters(model)
        if get_tags(model).target_tags.required:
            raise ValueError(
                f"AnomalyDetector judges rows by X alone, and {type(model).__name__} is conditioned on y. Put the condition "
                "into columns of X, and name them in condition=."
            )
        raw = model._read(X, reset=True)
        rng = np.random.default_rng(seed)
        n = len(raw.values)
        order = rng.permutation(n)
        held = min(n - 1, max(1, round(n * self.calibration_fraction)))
        learn, judge = np.sort(order[held:]), np.sort(order[:held]) if held else order  # a single row is all there is
        self.scored_by_ = self.method
        if self.method == "auto":
            self.scored_by_ = "neighbours" if self.autoencoder is None else "likelihood"
        if self.autoencoder is None and self.scored_by_ == "neighbours" and raw.kind == "vector":
            model = _usual(len(learn))
        reference, k = np.arange(n), CLOSEST
        if self.training == "contaminated" and len(learn) > 2:
            self._fit_members(model, X, raw, learn, reference, _many(n), seed, rng, 1)
            scores = self._judge(raw)
            reference = np.flatnonzero(scores >= np.quantile(scores, TRIMMED))
            learn = np.intersect1d(learn, reference)
            k = _many(len(reference))
        self._fit_members(model, X, raw, learn, reference, k, seed, rng, self.n_models)
        fitted = self.autoencoder_
        module, width = fitted.module_, fitted.schema_.size
        if math.prod(module.code_shape) >= width and not (module.bottleneck.stochastic or module.corruption):
            warn(
                f"the code ({math.prod(module.code_shape)} numbers) is as wide as a row ({width}): the model can copy any "
                "row, and scores tell little. Use a smaller latent_dim, a VAE or a DenoisingAutoencoder."
            )
        calibration = raw.take(judge)
        self.calibration_scores_ = np.sort(self._judge(calibration))
        self.typical_ = self._explained(calibration).mean(axis=0)
        return self

    def _fit_members(
        self,
        model: BaseAutoencoder,
        X: Any,
        raw: Raw,
        learn: NDArray[np.int64],
        reference: NDArray[np.int64],
        k: int,
        seed: int,
        rng: np.random.Generator,
        n_models: int,
    ) -> None:
        """Fit models to the rows ``learn``, and keep the rows of ``reference`` that others are compared with."""
        members, near = [], []
        for i in range(n_models):
            member = clone(model)
            if self.random_state is not None or i:
                member.set_params(random_state=seed if i == 0 else int(rng.integers(2**31)))
            member._read(X, reset=True)
            members.append(member._fit(raw.take(learn)))
            if self.scored_by_ == "neighbours":
                near.append(Neighbours.learn(member, raw.take(reference), np.isin(reference, learn), k, rng))
        self.autoencoder_, self.others_, self._near = members[0], members[1:], near

    def _auto(self, scores: NDArray[np.float64]) -> float:
        if self.scored_by_ == "neighbours":
            return super()._auto(scores)
        most = float(np.quantile(scores, AUTO[self.training]))
        # The lack of fit of a normal row is near a sum of squares; its cube root is near normal (Wilson and Hilferty, 1931).
        return min(float(scores[-1] + far_below(-np.cbrt(scores[-1] - scores)) ** 3), most)

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Scores of rows, higher is more normal: minus the log of distances, or the model's ``score_samples`` in nats."""
        check_is_fitted(self, "autoencoder_")
        if isinstance(X, Stream):
            return np.concatenate([self.score_samples(block) for block in X])
        return self._judge(self.autoencoder_._read(X, reset=False))

    def discoveries(self, X: Any, rate: float = 0.1) -> NDArray[np.bool_]:
        """Choose anomalies among rows such that few of those chosen are false alarms.

        Parameters
        ----------
        X : array, frame, sparse matrix or tensor
            Rows as in ``fit``, judged together.
        rate : float
            Expected share of normal rows among those chosen, at most (Benjamini and Hochberg, 1995, on conformal p-values).

        Returns
        -------
        ndarray of bool of shape (n,)
            True for an anomaly. None is chosen where held-out rows are too few to tell: it takes about ``n / rate`` of them to
            find a single one among ``n`` rows.
        """
        if not 0 < rate < 1:
            raise ValueError(f"rate={rate!r}: expected a share between 0 and 1")
        p = self.p_values(X)
        bar = rate * np.arange(1, len(p) + 1) / len(p)
        below = np.flatnonzero(np.sort(p) <= bar)
        return p <= bar[below[-1]] if len(below) else np.zeros(len(p), dtype=bool)

    def explain(self, X: Any) -> Any:
        """Say which features make a row unusual.

        Parameters
        ----------
        X : array, frame, sparse matrix or tensor
            Rows as in ``fit``.

        Returns
        -------
        array, frame or tensor
            In the kind and shape of ``X``, how much each feature adds beyond what it does in a typical held-out row: to the
            squared distance from the row's neighbours, in units of the features' spread; or where the model's likelihood is the
            score, to the nats that are lacking. 0 where a cell is missing, and in columns that are the condition of the model.
        """
        check_is_fitted(self, "autoencoder_")
        model = self.autoencoder_
        raw = model._read(X, reset=False)
        return model.codec_.present(model.codec_.by_column(self._lack(raw)), raw.container, raw.index, raw)

    def reasons(self, X: Any, n: int = 3) -> list[list[Reason]]:
        """Say in words why rows are unusual: which features, in which direction, and what was expected.

        Parameters
        ----------
        X : array, frame, sparse matrix or tensor
            Rows as in ``fit``.
        n : int
            Features of each row at most; those that add nothing are left out.

        Returns
        -------
        list of list of Reason
            For each row, the weightiest first. What was expected is what rows have on the mean that are alike in all other
            columns, or the reconstruction.
        """
        check_is_fitted(self, "autoencoder_")
        return self.reasons_among(self.autoencoder_._read(X, reset=False), n)

    def reasons_among(self, raw: Raw, n: int) -> list[list[Reason]]:
        """Return what :meth:`reasons` does, of rows that have been read."""
        model, codec = self.autoencoder_, self.autoencoder_.codec_
        blame = codec.by_column(self._lack(raw)).reshape(len(raw.values), -1)
        asked = np.argsort(-blame, axis=1, kind="stable")[:, :n]
        owner = np.arange(codec.schema.size) if codec.table is None else codec.table.owner
        if self.scored_by_ == "neighbours":
            usual = self._near[0].without(model, raw, asked, owner)
        else:
            mean = model._apply(raw, lambda m, batch: m.likelihood.mean(m.trace(batch, sample=False).raw).flatten(1))
            usual = np.repeat(mean[:, None], asked.shape[1], axis=1)
        expected = codec.from_scale(usual.reshape(-1, *codec.schema.shape))
        if codec.table is not None:
            expected = codec.table.collapse(expected)
        expected = expected.reshape(*asked.shape, -1)
        return find_reasons(codec, np.asarray(raw.values, dtype=np.float64), expected, asked, blame, self._unseen(raw))

    # what rows are judged by ------------------------------------------------------------------------------------------------

    def _judge(self, raw: Raw) -> NDArray[np.float64]:
        members = [self.autoencoder_, *self.others_]
        unseen = self._unseen(raw)
        extra = 0.0 if unseen is None else self._price() * unseen.sum(axis=1)
        if self.scored_by_ == "neighbours":
            far = [near.distances(member, raw) for near, member in zip(self._near, members, strict=True)]
            return np.asarray(np.mean([-np.log(np.maximum(np.sqrt(f**2 + extra), NEAREST)) for f in far], axis=0))
        return np.asarray(np.mean([member._score(raw) for member in members], axis=0) - extra, dtype=np.float64)

    def _unseen(self, raw: Raw) -> NDArray[np.bool_] | None:
        """Tell which cells ``(n, n_columns)`` of a mixed table hold a label that was not there in fit."""
        codec = self.autoencoder_.codec_
        if raw.unseen is None or codec.table is None or codec.given is None:
            return None
        return raw.unseen[:, [codec.given.names.index(name) for name in codec.table.names]]

    def _price(self) -> float:
        """Return what a label that was not there in fit adds.

        To the squared distance it is that between any two labels; in nats, it has the chance of one in one more than the rows of
        fit (the rule of succession).
        """
        return 2.0 if self.scored_by_ == "neighbours" else math.log(self.autoencoder_.schema_.n_rows + 1)

    def _explained(self, raw: Raw) -> NDArray[np.float64]:
        """Return what each feature says for rows being normal, ``(n, *shape)``: minus a squared distance, or nats."""
        model = self.autoencoder_
        if self.scored_by_ == "neighbours":
            return np.negative(self._near[0].apart(model, raw)).reshape(-1, *model.schema_.shape)
        return np.asarray(model._score_features(raw), dtype=np.float64)

    def _lack(self, raw: Raw) -> NDArray[Any]:
        lack: NDArray[Any] = self.typical_ - self._explained(raw)
        if raw.values.dtype.kind != "f":
            return lack
        codec, unseen = self.autoencoder_.codec_, self._unseen(raw)
        lack = np.where(np.isnan(codec.flat(np.asarray(raw.values))), 0.0, lack)
        if unseen is not None and codec.table is not None:
            lack[:, codec.table.starts] += self._price() * unseen
        return lack

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

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        arrays = {"scores": self.calibration_scores_, "typical": self.typical_}
        for i, near in enumerate(self._near):
            arrays |= {f"near{i}:{k}": v for k, v in near.state().items()}
        return {"scored_by": self.scored_by_}, {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}

    def _set_state(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.calibration_scores_, self.typical_ = tensors["scores"].numpy(), tensors["typical"].numpy()
        self.scored_by_ = meta.get("scored_by", "likelihood")  # all that older folders have
        self.others_ = getattr(self, "others_", [])
        self._near = []
        while f"near{len(self._near)}:rows" in tensors:
            start = f"near{len(self._near)}:"
            state = {k.removeprefix(start): v.numpy() for k, v in tensors.items() if k.startswith(start)}
            self._near.append(Neighbours.from_state(state))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.sparse = True
        return tags


def _usual(n: int) -> DenoisingAutoencoder:
    """Return the model of a table of ``n`` rows when none is named."""
    model = DenoisingAutoencoder(64, level=0.3)
    return model.set_params(max_epochs=model._epochs(STEPS, n))


def _many(n: int) -> int:
    """Return how many of ``n`` rows of reference are neighbours where some of them are anomalies."""
    return max(CLOSEST, min(MOST, round(SHARE * n)))
