"""The numbers of a report, measured from a fitted model and rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from diabolo.data.raw import Raw
from diabolo.estimator import BaseAutoencoder
from diabolo.module import AutoencoderModule
from diabolo.records import Batch
from diabolo.report.draw import compact
from diabolo.tasks.anomaly import AnomalyDetector
from diabolo.zoo.activity import CodeActivity, posterior_moments

__all__ = ["Facts", "Features", "Units", "Yardstick", "gather"]

Array = NDArray[np.float64]

MAX_ROWS = 20_000  # rows that everything but the score is measured on
MAX_CELLS = 5_000_000  # and cells: wide rows are measured on fewer
ALIVE = 1e-3  # a unit of a code that is no distribution is active above this share of the largest unit's variance
TINY = float(np.finfo(np.float32).eps ** 2)


@dataclass(frozen=True)
class Yardstick:
    """Principal components with as many numbers a row as the code, fitted to the very rows that are measured."""

    mse: float | None
    explained: float | None
    note: str = ""  # why there is none


@dataclass(frozen=True)
class Features:
    """Errors by feature, over observed cells; each array has one number a feature."""

    mse: Array  # in the squared unit of the feature
    variance: Array
    constant: NDArray[np.bool_]
    loss_share: Array  # share of the squared error on the scale that training weighs features by
    center: Array
    observed: NDArray[np.int64]

    @property
    def ratio(self) -> Array:
        """MSE divided by the variance: 0 is perfect, 1 is no better than the mean; NaN for a constant feature."""
        out = np.full(len(self.mse), np.nan)
        np.divide(self.mse, self.variance, out=out, where=~self.constant & (self.observed > 0))
        return out


@dataclass(frozen=True)
class Units:
    """How much each number of the code is used."""

    variance: Array
    kl: Array | None  # mean nats a row, for a code that is a distribution and whose KL splits into units
    active: NDArray[np.bool_] | None  # None when there is only one row
    nonzero: float | None  # mean number of units a row that are not exactly 0, where many are
    variational: bool = False  # whether the code is a distribution; then variance is that of its mean

    @property
    def n_active(self) -> int | None:
        """Number of active units."""
        return None if self.active is None else int(self.active.sum())


@dataclass(frozen=True)
class Facts:
    """What was measured. Rows ``(m, d)`` are flat, in the units of the data, and belong to positions ``index`` of X."""

    model: BaseAutoencoder
    detector: AnomalyDetector | None
    raw: Raw
    index: NDArray[np.int64]
    values: Array
    rebuilt: Array
    names: tuple[str, ...]
    missing: float
    holes: float  # the same without the cells after the end of a series
    mse: float
    explained: float | None
    yardstick: Yardstick
    features: Features
    row_error: Array  # (m,), mean squared error of a row on the scale of training
    codes: Array
    units: Units
    scores: Array  # (n,), every row
    typical: Array  # (d,), mean nats of each feature

    @property
    def n(self) -> int:
        """Rows given."""
        return len(self.raw.values)

    @property
    def neighbours(self) -> bool:
        """Whether rows are scored by their neighbours, and not in nats."""
        return self.detector is not None and self.detector.scored_by_ == "neighbours"

    @property
    def sampled(self) -> bool:
        """Whether only some of the rows were measured."""
        return len(self.index) < self.n

    @property
    def n_parameters(self) -> int:
        """Trained numbers."""
        return sum(p.numel() for p in self.model.module_.parameters() if p.requires_grad)

    @property
    def picture_shape(self) -> tuple[int, int, int] | None:
        """``(channels, height, width)`` when a row can be looked at: an image, or a square of cells in one unit."""
        schema = self.model.schema_
        if schema.kind == "series":
            return None
        if schema.kind == "image":
            channels, height, width = schema.shape
            return channels, height, width
        side = math.isqrt(schema.size)
        alike = schema.shared_unit and schema.size >= 16
        return (1, side, side) if alike and side * side == schema.size else None

    @property
    def series_shape(self) -> tuple[int, int] | None:
        """``(channels, steps)`` when rows are series."""
        schema = self.model.schema_
        return (schema.shape[0], schema.shape[1]) if schema.kind == "series" else None

    def row_name(self, position: int) -> str:
        """Name a row of X: by its label in a pandas frame that has labels of its own, else by its position."""
        return str(position if self.raw.index is None else self.raw.index[position])

    def write(self, j: int, value: float) -> str:
        """Write a value of a feature as the user knows it."""
        schema = self.model.schema_
        if not schema.mixed or math.isnan(value):
            return compact(value)
        column, _ = schema.owners()[j]
        if column.kind == "date":
            days = np.datetime64(round(value * 1e6), "us")
            return str(days.astype("datetime64[D]") if column.whole else days.astype("datetime64[s]"))
        if column.kind == "ordinal":
            return str(column.categories[round(value * (len(column.categories) - 1))])
        return compact(math.expm1(value * column.log_range) if column.kind == "count" else value)

    def rebuild(self, rows: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return rows of X and their reconstructions, ``(len(rows), d)`` each."""
        part = self.raw.take(rows)
        return _values(self.model, part), _rebuild(self.model, part)

    def blame(self, rows: NDArray[np.int64]) -> Array:
        """Return how many nats each feature of some rows explains worse than usual, ``(len(rows), d)``."""
        part = self.raw.take(rows)
        if self.detector is None:
            lack = self.typical - _flat(self.model._score_features(part))
            return np.where(np.isnan(_values(self.model, part)), 0.0, lack)
        return _flat(self.detector._lack(part))


def gather(estimator: Any, X: Any, condition: Any = None) -> Facts:
    """Measure a fitted model, or the model of a fitted detector, on ``X`` under its condition."""
    detector = estimator if isinstance(estimator, AnomalyDetector) else None
    if detector is None and not isinstance(estimator, BaseAutoencoder):
        raise TypeError(
            f"a report needs a fitted autoencoder or AnomalyDetector; got {type(estimator).__name__}. "
            "Pass the estimator itself, not its module or a pipeline around it."
        )
    check_is_fitted(estimator)
    model: BaseAutoencoder = estimator if detector is None else detector.autoencoder_
    raw = model._read(X, reset=False, condition=condition)
    scores = np.asarray(model._score(raw) if detector is None else detector._judge(raw), dtype=np.float64)
    index = _choose(len(raw.values), model.schema_.size)
    part = raw.take(index)
    values, rebuilt = _values(model, part), _rebuild(model, part)
    seen = ~np.isnan(values)
    missing = 1.0 - float(seen.mean())
    scaled = _scale(model, values)
    wrong = np.where(seen, scaled - _scale(model, rebuilt), 0.0)
    features = _features(values, rebuilt, wrong, seen)
    spread = float(np.square(np.where(seen, scaled - _center(scaled, seen), 0.0)).sum())
    varies = not features.constant.all() and spread > 0
    codes = model._apply(part, lambda module, batch: module.encode(batch.x, batch.context, batch.mask).z.flatten(1))
    codes = codes.astype(np.float64)
    return Facts(
        model=model,
        detector=detector,
        raw=_default_index(raw),
        index=index,
        values=values,
        rebuilt=rebuilt,
        names=_names(model),
        missing=missing,
        holes=1.0 - float(seen.sum()) / max(_cells(part, seen), 1),
        mse=_mean(np.square(wrong if model.schema_.mixed else rebuilt - values), seen),
        explained=1.0 - float(np.square(wrong).sum()) / spread if varies else None,
        yardstick=_pca(model, values, scaled, codes.shape[1], spread if varies else 0.0, missing),
        features=features,
        row_error=np.square(wrong).sum(axis=1) / np.maximum(seen.sum(axis=1), 1),
        codes=codes,
        units=_units(model, part, codes),
        scores=scores,
        typical=_flat(model._score_features(part)).mean(axis=0),
    )


def _choose(n: int, size: int) -> NDArray[np.int64]:
    """Return the positions of the rows to measure, ascending; always the same ones."""
    most = min(MAX_ROWS, max(500, MAX_CELLS // size))
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, size=most, replace=False))


def _cells(raw: Raw, seen: NDArray[np.bool_]) -> int:
    """Count the cells of rows, those of a series up to its last observed step."""
    if raw.kind != "series":
        return raw.values.size
    steps = seen.reshape(raw.values.shape).any(axis=1)  # (m, steps)
    ends = np.where(steps, np.arange(1, steps.shape[1] + 1), 0).max(axis=1)
    return int(ends.sum() * raw.values.shape[1])


def _flat(values: NDArray[Any]) -> Array:
    return values.reshape(len(values), -1).astype(np.float64)


def _scale(model: BaseAutoencoder, values: Array) -> Array:
    """Bring flat rows to the scale that training weighs features by."""
    shaped = values.reshape(-1, *model.schema_.shape)
    return _flat(model.codec_.to_scale(shaped, np.float64))


def _values(model: BaseAutoencoder, raw: Raw) -> Array:
    """Return flat rows in the user's units; of a mixed table with one number for each category."""
    return _flat(model.codec_.flat(raw.values))


def _rebuild(model: BaseAutoencoder, raw: Raw) -> Array:
    def mean(module: AutoencoderModule, batch: Batch) -> Tensor:
        return module.likelihood.mean(module.trace(batch, sample=False).raw)

    return _flat(model.codec_.from_scale(model._apply(raw, mean)))


def _center(values: Array, seen: NDArray[np.bool_]) -> Array:
    return np.asarray(np.where(seen, values, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1))


def _mean(values: Array, seen: NDArray[np.bool_]) -> float:
    return float(values[seen].mean()) if seen.any() else math.nan


def _features(values: Array, rebuilt: Array, wrong: Array, seen: NDArray[np.bool_]) -> Features:
    observed = seen.sum(axis=0)
    count = np.maximum(observed, 1)
    center = _center(values, seen)
    low, high = np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)
    by_feature = np.square(wrong).sum(axis=0)
    return Features(
        mse=np.where(seen, np.square(rebuilt - values), 0.0).sum(axis=0) / count,
        variance=np.where(seen, np.square(values - center), 0.0).sum(axis=0) / count,
        constant=~(high > low),
        loss_share=by_feature / max(float(by_feature.sum()), np.finfo(np.float64).tiny),
        center=center,
        observed=observed,
    )


def _pca(model: BaseAutoencoder, values: Array, scaled: Array, k: int, spread: float, missing: float) -> Yardstick:
    """Fit and apply principal components on the scale of training, so that both are judged by what they minimise."""
    if spread == 0:
        return Yardstick(None, None, "all rows are the same")
    if missing:
        series = model.schema_.kind == "series"
        which = "series of unequal length or with missing cells" if series else "missing cells"
        return Yardstick(None, None, f"it cannot be fitted with {which}")
    limit = min(len(scaled) - 1, scaled.shape[1])
    if k >= limit:
        return Yardstick(None, None, f"{k} components rebuild {limit}-dimensional data exactly")
    pca = PCA(k, random_state=0)
    rebuilt = pca.inverse_transform(pca.fit_transform(scaled))
    shaped = rebuilt.reshape(-1, *model.schema_.shape)
    off = rebuilt - scaled if model.schema_.mixed else _flat(model.codec_.from_scale(shaped)) - values
    mse = float(np.square(off).mean())
    return Yardstick(mse, 1.0 - float(np.square(rebuilt - scaled).sum()) / spread)


def _units(model: BaseAutoencoder, raw: Raw, codes: Array) -> Units:
    moments = model._apply(raw, posterior_moments).astype(np.float64)
    variational = moments.shape[1] > 0
    variance = codes.var(axis=0)
    kl: Array | None = None
    active = None
    if variational:
        activity = CodeActivity.of(moments)
        variance, kl = activity.variance, activity.kl
    if len(codes) > 1:
        active = activity.active if variational else variance > max(ALIVE * variance.max(), TINY)
    zeros = float((codes == 0).mean())
    nonzero = codes.shape[1] * (1 - zeros) if zeros > 0.05 else None
    return Units(variance, kl, active, nonzero, variational)


def _names(model: BaseAutoencoder) -> tuple[str, ...]:
    """Name features as the user knows them: by column, by column number, or by row and column of a pixel."""
    schema = model.schema_
    if schema.kind == "vector":
        named = model.codec_.container in ("pandas", "polars", "pyarrow")
        plain = tuple(c.name if named else f"column {c.name}" for c in schema.columns)
        if not schema.mixed:
            return plain
        return tuple(f"{c.name} = {c.categories[i]}" if c.width > 1 else c.name for c, i in schema.owners())
    if schema.kind == "series":
        channels, steps = schema.shape
        several = [f"channel {c}, " for c in range(channels)] if channels > 1 else [""]
        return tuple(f"{channel}step {t}" for channel in several for t in range(steps))
    places = [p if schema.shape[0] > 1 else p[1:] for p in np.ndindex(*schema.shape)]
    return tuple(f"pixel ({', '.join(str(i) for i in p)})" for p in places)


def _default_index(raw: Raw) -> Raw:
    """Drop row labels that only count the rows."""
    if raw.index is not None and np.array_equal(np.asarray(raw.index), np.arange(len(raw.values))):
        return raw._replace(index=None)
    return raw
